//! Records to write and ways to look at what was written.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

use std::{path::Path, sync::Arc, time::Duration};

use outgate_audit::{
    AuditKey, AuditLog, AuditOptions, Report, Rotation, VerifyError, VerifyOptions, show,
};
use outgate_clock::FakeClock;
use outgate_journey::{
    denial::DenyCode,
    record::{AuditEvent, AuditSink, DecisionRecord, Ending, Entry, Verdict},
    session::{SessionId, UnixSeconds},
};

pub(crate) const SOON: Duration = Duration::from_secs(60);
/// 2026-09-21T14:13:20Z, the time of the first record.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A log of one file, on a clock that stands still.
pub(crate) fn options() -> AuditOptions {
    options_at(&Arc::new(FakeClock::at(NOW)), Rotation::NEVER)
}

pub(crate) fn options_at(clock: &Arc<FakeClock>, rotation: Rotation) -> AuditOptions {
    AuditOptions {
        clock: clock.clone(),
        key: AuditKey::in_memory().unwrap(),
        rotation,
    }
}

pub(crate) fn open(dir: &Path) -> AuditLog {
    AuditLog::open(dir, options()).unwrap()
}

pub(crate) fn verify(path: &Path) -> Result<Report, VerifyError> {
    outgate_audit::verify(path, &VerifyOptions::default(), |_| {})
}

pub(crate) fn record(number: u64) -> AuditEvent {
    AuditEvent::Decision(Arc::new(decision(number)))
}

/// A record like those of real traffic: every third is a refusal.
pub(crate) fn decision(number: u64) -> DecisionRecord {
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
    let log = open(dir);
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
