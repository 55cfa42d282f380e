//! Records to write and ways to look at what was written.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

use std::{path::Path, time::Duration};

use outgate_audit::{AuditLog, show};
use outgate_journey::{
    denial::DenyCode,
    record::{AuditSink, DecisionRecord, Ending, Entry, Verdict},
    session::SessionId,
};

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A record like those of real traffic: every third is a refusal.
pub(crate) fn record(number: u64) -> DecisionRecord {
    let client = ([127, 0, 0, 1], 40_000).into();
    let entry =
        [Entry::Bumped, Entry::Connect, Entry::AbsoluteForm][usize::try_from(number % 3).unwrap()];
    let mut record = DecisionRecord::begin(
        format!("req-{number}"),
        1_790_000_000_000 + number,
        entry,
        client,
    );
    record.session = SessionId::parse("s-1f4c9a");
    record.host = Some("api.example.org".to_owned());
    record.port = Some(443);
    record.method = Some("GET".to_owned());
    record.path = Some(format!("/v1/items/{number}"));
    record.ending = Ending::Completed;
    record.verdict = match number % 3 {
        0 => Verdict::Denied(DenyCode::PathNotAllowed),
        _ => Verdict::Allowed,
    };
    record
}

/// Opens, writes so many records and closes.
pub(crate) fn write(dir: &Path, numbers: std::ops::Range<u64>) {
    let log = AuditLog::open(dir).unwrap();
    for number in numbers {
        log.record(record(number));
    }
    log.close(SOON).unwrap();
}

/// The numbers of the decision records of a trail, in file order.
pub(crate) fn numbers(dir: &Path) -> Vec<u64> {
    show(dir)
        .unwrap()
        .filter_map(|shown| {
            let value: serde_json::Value = serde_json::from_str(&shown.unwrap().raw).unwrap();
            value["record"]["metadata"]["uid"]
                .as_str()?
                .strip_prefix("req-")?
                .parse()
                .ok()
        })
        .collect()
}
