//! The mapping to OCSF, field by field, for the classes that are used.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use common::decision;
use outgate_audit::to_ocsf;
use outgate_journey::{
    denial::DenyCode,
    policy::CredentialName,
    record::{AuditEvent, DecisionRecord, Ending, Entry, Verdict},
    session::SessionId,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn event(record: &DecisionRecord) -> Value {
    let event = AuditEvent::Decision(Arc::new(record.clone()));
    serde_json::to_value(to_ocsf(&event)).unwrap()
}

#[test]
fn a_full_request_reads_as_http_activity() {
    let client = "[::ffff:10.1.2.3]:5000".parse().unwrap();
    let mut record =
        DecisionRecord::begin("req-1".to_owned(), 1_790_000_000_000, Entry::Bumped, client);
    record.verdict = Verdict::Allowed;
    record.session = SessionId::parse("s-1");
    record.token_id = Some("t-1".into());
    record.host = Some("api.example.org".to_owned());
    record.port = Some(443);
    record.posture = Some("bump");
    record.method = Some("POST".to_owned());
    record.path = Some("/v1/messages".to_owned());
    record.http_version = Some("HTTP/2");
    record.rule = Some("destinations[0] api.example.org".to_owned());
    record.injected = Some(CredentialName::new("anthropic"));
    record.scrubbed = 2;
    record.upstream = Some("192.0.2.7:443".parse().unwrap());
    record.status = Some(200);
    record.bytes_out = 1200;
    record.bytes_in = 5300;
    record.decided_after = Duration::from_micros(85);
    record.answered_after = Some(Duration::from_micros(120_500));
    record.ended_after = Duration::from_micros(340_900);
    let expected = json!({
        "activity_id": 6, "category_uid": 4, "class_uid": 4002, "type_uid": 400_206,
        "time": 1_790_000_000_000_u64, "duration": 340, "severity_id": 1, "status_id": 1,
        "action_id": 1, "disposition_id": 1,
        "metadata": {
            "version": "1.7.0", "uid": "req-1", "profiles": ["host", "security_control"],
            "product": {"name": "Outgate", "vendor_name": "Outgate", "version": env!("CARGO_PKG_VERSION")},
        },
        "actor": {"session": {"uid": "s-1"}},
        "src_endpoint": {"ip": "10.1.2.3", "port": 5000},
        "dst_endpoint": {"hostname": "api.example.org", "ip": "192.0.2.7", "port": 443},
        "firewall_rule": {"uid": "destinations[0] api.example.org"},
        "http_request": {
            "uid": "req-1", "http_method": "POST", "version": "HTTP/2",
            "url": {"scheme": "https", "hostname": "api.example.org", "port": 443, "path": "/v1/messages"},
        },
        "http_response": {"code": 200},
        "traffic": {"bytes_in": 5300, "bytes_out": 1200},
        "unmapped": {
            "entry": "bumped", "posture": "bump", "token_id": "t-1", "injected": "anthropic", "scrubbed": 2,
            "decided_us": 85, "answered_us": 120_500, "ending": "completed",
        },
    });
    assert_eq!(event(&record), expected);
}

#[test]
fn verdict_and_ending_decide_action_disposition_and_status() {
    use DenyCode as C;
    use Ending::{Aborted, Completed, Cut};
    use Verdict::{Allowed, Denied};
    // verdict, ending → action, disposition, status, severity, status_code
    let cases = [
        (Allowed, Completed, 1, 1, 1, 1, None),
        (Allowed, Aborted, 1, 1, 2, 1, None),
        (
            Allowed,
            Cut(C::SessionRevoked),
            1,
            24,
            2,
            2,
            Some("session_revoked"),
        ),
        (
            Denied(C::PathNotAllowed),
            Completed,
            2,
            2,
            2,
            2,
            Some("path_not_allowed"),
        ),
        (
            Denied(C::UpstreamTimeout),
            Completed,
            2,
            2,
            2,
            2,
            Some("upstream_timeout"),
        ),
        (
            Denied(C::InternalFault),
            Aborted,
            2,
            2,
            2,
            3,
            Some("internal_fault"),
        ),
    ];
    for (verdict, ending, action, disposition, status, severity, code) in cases {
        let mut record = decision(0);
        (record.verdict, record.ending) = (verdict, ending);
        let event = event(&record);
        let case = format!("{verdict:?} {ending:?}");
        assert_eq!(event["action_id"], action, "{case}");
        assert_eq!(event["disposition_id"], disposition, "{case}");
        assert_eq!(event["status_id"], status, "{case}");
        assert_eq!(event["severity_id"], severity, "{case}");
        assert_eq!(event["status_code"].as_str(), code, "{case}");
    }
}

#[test]
fn entry_method_and_verdict_decide_class_and_activity() {
    use DenyCode as C;
    use Verdict::{Allowed, Denied};
    let cases = [
        (Entry::Bumped, Some("GET"), Allowed, 4002, 3),
        (Entry::AbsoluteForm, Some("PATCH"), Allowed, 4002, 9),
        (Entry::TunnelledPlain, Some("PROPFIND"), Allowed, 4002, 99),
        (
            Entry::AbsoluteForm,
            None,
            Denied(C::MalformedRequest),
            4002,
            0,
        ),
        (Entry::Connect, Some("CONNECT"), Allowed, 4001, 6),
        (
            Entry::Connect,
            Some("CONNECT"),
            Denied(C::DestinationNotAllowed),
            4001,
            5,
        ),
        (
            Entry::Connect,
            Some("CONNECT"),
            Denied(C::UpstreamUnreachable),
            4001,
            4,
        ),
        (Entry::Listener, None, Denied(C::MalformedRequest), 4001, 5),
        (
            Entry::Listener,
            None,
            Denied(C::TooManyConnections),
            4001,
            4,
        ),
    ];
    for (entry, method, verdict, class, activity) in cases {
        let mut record = decision(0);
        (record.entry, record.verdict, record.method) = (entry, verdict, method.map(str::to_owned));
        let event = event(&record);
        let case = format!("{entry:?} {method:?} {verdict:?}");
        assert_eq!(event["class_uid"], class, "{case}");
        assert_eq!(event["activity_id"], activity, "{case}");
        assert_eq!(event["type_uid"], class * 100 + activity, "{case}");
        assert_eq!(event.get("http_request").is_some(), class == 4002, "{case}");
        assert_eq!(
            event["activity_name"].as_str(),
            (activity == 99).then_some("PROPFIND"),
            "{case}"
        );
        let listed = method.filter(|_| class == 4002 && activity != 99);
        assert_eq!(
            event["http_request"]["http_method"].as_str(),
            listed,
            "{case}"
        );
    }
}

/// OCSF 1.7.0: what the base event, its objects and its constraints require.
#[test]
fn whatever_is_unknown_every_required_attribute_is_there() {
    for entry in [
        Entry::Connect,
        Entry::Listener,
        Entry::Bumped,
        Entry::AbsoluteForm,
        Entry::TunnelledPlain,
        Entry::Transparent,
        Entry::TransparentPlain,
        Entry::Dns,
        Entry::Namespace,
        Entry::Inbound,
        Entry::InboundPlain,
    ] {
        let bare = DecisionRecord::begin(String::new(), 0, entry, "192.0.2.1:1".parse().unwrap());
        let event = event(&bare);
        for field in [
            "activity_id",
            "category_uid",
            "class_uid",
            "type_uid",
            "time",
            "severity_id",
        ] {
            assert!(event[field].is_u64(), "{entry:?} {field}");
        }
        assert!(
            event["metadata"]["version"].is_string()
                && event["metadata"]["product"]["name"].is_string()
        );
        assert_eq!(event["dst_endpoint"]["name"], "unknown");
        assert!(event["src_endpoint"]["ip"].is_string());
        assert!(event.get("actor").is_none() && event.get("firewall_rule").is_none());
        // Whoever forgets to decide has refused.
        assert_eq!(event["status_code"], "internal_fault");
    }
}
