//! How fast a long trail is verified: writes so many records to a folder, which must not exist, and reads them again.
//!
//!     cargo run --release -p outgate-audit --example verify_speed -- 10000000 /var/tmp/trail
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement fails loudly and says what it measured"
)]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation, VerifyOptions, verify};
use outgate_clock::GuardedClock;
use outgate_journey::{
    inject::AuditGate,
    record::{AuditEvent, AuditSink, DecisionRecord, Entry, Verdict},
    session::{SessionId, UnixSeconds},
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let records: u64 = arguments
        .next()
        .and_then(|records| records.parse().ok())
        .expect("how many records");
    let dir = PathBuf::from(arguments.next().expect("a folder"));
    let started = Instant::now();
    write(&dir, records);
    let took = started.elapsed().as_secs_f64();
    println!("wrote {records} records in {took:.1} s");
    let mut bytes = 0;
    let started = Instant::now();
    let report = verify(&dir, &VerifyOptions::default(), |read| bytes = read).expect("verifies");
    let took = started.elapsed().as_secs_f64();
    println!(
        "verified {} records, {} files, {bytes} bytes in {took:.2} s: {:.0} records/s, {:.0} MB/s",
        report.records,
        report.files,
        report.records as f64 / took,
        bytes as f64 / took / 1e6,
    );
}

fn write(dir: &std::path::Path, records: u64) {
    let options = AuditOptions {
        clock: Arc::new(GuardedClock::new(UnixSeconds(0))),
        key: AuditKey::in_memory().expect("a key"),
        rotation: Rotation::default(),
    };
    let log = AuditLog::open(dir, options).expect("opens");
    for number in 0..records {
        log.record(record(number));
        while number % 1024 == 0 && log.pending() > 32_768 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(log.is_writable());
    log.close(Duration::from_secs(600)).expect("closes");
}

fn record(number: u64) -> AuditEvent {
    let client = ([127, 0, 0, 1], 40_000).into();
    let id = format!("req-{number:012}");
    let mut record = DecisionRecord::begin(id, 1_790_000_000_000 + number, Entry::Bumped, client);
    record.verdict = Verdict::Allowed;
    record.session = SessionId::parse("s-1f4c9a");
    record.token_id = Some("t-77aa".into());
    record.host = Some("api.example.org".to_owned());
    record.port = Some(443);
    record.method = Some("POST".to_owned());
    record.path = Some("/v1/messages".to_owned());
    record.status = Some(200);
    record.rule = Some("destinations[0] api.example.org".to_owned());
    AuditEvent::Decision(Arc::new(record))
}
