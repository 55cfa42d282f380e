//! Whatever a guest puts into a record, a line stays one bounded line of JSON that verifies and that is safe to look at.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::sync::Arc;

use common::{SOON, open, verify};
use outgate_audit::{RECORDS_FILE, show};
use outgate_journey::{
    denial::DenyCode,
    policy::CredentialName,
    record::{AuditEvent, AuditSink, DecisionRecord, Ending, Entry, Verdict},
    session::SessionId,
};
use proptest::prelude::*;

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[\\x00-\\x1f\"\\\\{}\n\r]{0,300}",
        "[\u{80}-\u{9f}\u{202a}-\u{202e}\u{2066}-\u{2069}\u{feff}\u{10ffff}]{0,2000}",
        Just("\u{1}".repeat(5000)),
        Just("\",\"seq\":1}\n{\"seq\":0".to_owned()),
        Just("</script>\u{1b}]0;x\u{7}".to_owned()),
    ]
}

prop_compose! {
    fn decision()(
        texts in prop::array::uniform8(hostile()),
        some in prop::array::uniform8(any::<bool>()),
        entry in prop::sample::select(vec![Entry::Connect, Entry::AbsoluteForm, Entry::Bumped, Entry::TunnelledPlain, Entry::Transparent, Entry::TransparentPlain, Entry::Dns, Entry::Namespace, Entry::Inbound, Entry::InboundPlain, Entry::Listener]),
        verdict in prop_oneof![Just(Verdict::Allowed), prop::sample::select(DenyCode::ALL).prop_map(Verdict::Denied)],
        ending in prop_oneof![Just(Ending::Completed), Just(Ending::Aborted), prop::sample::select(DenyCode::ALL).prop_map(Ending::Cut)],
        numbers in prop::array::uniform4(any::<u64>()),
        address in any::<std::net::IpAddr>(),
    ) -> DecisionRecord {
        let [id, host, method, path, rule, detail, token, credential] = texts;
        let mut record = DecisionRecord::begin(id, numbers[0] % 4_000_000_000_000, entry, (address, 1).into());
        record.host = some[0].then_some(host);
        record.method = some[1].then_some(method);
        record.path = some[2].then_some(path);
        record.rule = some[3].then_some(rule);
        record.token_id = some[4].then(|| token.into());
        record.injected = some[5].then(|| CredentialName::new(credential));
        record.session = some[6].then(|| SessionId::parse("s-1").unwrap());
        record.upstream = some[7].then(|| (address, 443).into());
        record.detail = detail;
        (record.verdict, record.ending) = (verdict, ending);
        (record.bytes_in, record.bytes_out, record.scrubbed) = (numbers[1], numbers[2], numbers[3]);
        record
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_record_is_one_bounded_line_that_verifies(records in prop::collection::vec(decision(), 1..12)) {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        for record in &records {
            log.record(AuditEvent::Decision(Arc::new(record.clone())));
        }
        log.close(SOON).unwrap();
        prop_assert_eq!(verify(dir.path()).unwrap().records, records.len() as u64 + 1);
        let text = std::fs::read_to_string(dir.path().join(RECORDS_FILE)).unwrap();
        let unsafe_to_show = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        prop_assert!(!text.chars().any(unsafe_to_show));
        for (line, record) in text.lines().skip(1).zip(&records) {
            prop_assert!(line.len() < 64 * 1024, "{}", line.len());
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let event = &value["record"];
            prop_assert_eq!(event["traffic"]["bytes_in"].as_u64(), Some(record.bytes_in));
            let host = record.host.as_deref().filter(|host| !host.is_empty());
            match event["dst_endpoint"]["hostname"].as_str() {
                Some(written) if written.ends_with('…') => prop_assert!(written.len() <= 258),
                written => prop_assert_eq!(written, host),
            }
        }
        for shown in show(dir.path()).unwrap() {
            let shown = shown.unwrap();
            let (line, columns) = (shown.to_string(), if shown.bytes.is_some() { 10 } else { 8 });
            prop_assert!(!line.chars().any(|c| c.is_control() || unsafe_to_show(c)));
            prop_assert_eq!(line.split_whitespace().count(), columns, "{}", line);
        }
    }
}
