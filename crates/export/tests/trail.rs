//! The real trail: across its files, while it is written, and with files gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use common::{Got, OK, Place, Receiver, acknowledged, failed, range, until};
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_clock::{Clock, GuardedClock};
use outgate_export::{AuditTrail, ExportConfig, Exporter};
use outgate_journey::{
    denial::DenyCode,
    record::{
        AuditEvent, AuditSink, DecisionRecord, Ending, Entry, Operator, SessionChange,
        SessionRecord, Verdict,
    },
    session::{SessionId, UnixSeconds},
};
use outgate_testkit::CertificateKind;
use serde_json::Value;

fn clock() -> Arc<dyn Clock> {
    Arc::new(GuardedClock::new(UnixSeconds(0)))
}

fn open(folder: &Path) -> AuditLog {
    let options = AuditOptions {
        clock: clock(),
        key: AuditKey::in_memory().unwrap(),
        rotation: Rotation {
            size: Some(8 * 1024),
            age: None,
        },
    };
    AuditLog::open(folder, options).unwrap()
}

fn start(place: &Place, config: &ExportConfig) -> Exporter {
    let trail = AuditTrail::new(&place.path("audit"));
    Exporter::start(config.clone(), &place.exports(), trail, clock()).unwrap()
}

fn decision(number: u64) -> AuditEvent {
    let client = ([127, 0, 0, 1], 40_000).into();
    let mut record = DecisionRecord::begin(
        format!("req-{number}"),
        1_790_000_000_000 + number,
        Entry::Bumped,
        client,
    );
    record.session = SessionId::parse("s-1f4c9a");
    record.host = Some("api.example.org".to_owned());
    record.method = Some("GET".to_owned());
    record.path = Some(format!("/é/\u{1b}[31m\"{}", "x".repeat(300)));
    record.ending = Ending::Completed;
    record.verdict = Verdict::Denied(DenyCode::PathNotAllowed);
    AuditEvent::Decision(Arc::new(record))
}

/// Writes so many records, in files of about twelve.
fn write(log: &AuditLog, count: u64) {
    for number in 0..count {
        log.record(decision(number));
        if number % 4 == 0 {
            log.flush(Duration::from_secs(10)).unwrap();
        }
    }
    log.flush(Duration::from_secs(10)).unwrap();
}

fn closed_files(place: &Place) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(place.path("audit"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("audit-") && name.ends_with(".jsonl")
        })
        .collect();
    files.sort();
    files
}

/// The newest record on disk for good, once that is settled.
async fn last(place: &Place) -> u64 {
    tokio::time::sleep(Duration::from_millis(400)).await;
    outgate_audit::last_seq(&place.path("audit"))
        .unwrap()
        .unwrap()
}

fn records(got: &[Got]) -> Vec<Value> {
    let records = |got: &Got| {
        let logs = got.json()["resourceLogs"][0]["scopeLogs"][0]["logRecords"].clone();
        logs.as_array().unwrap().clone()
    };
    got.iter().flat_map(records).collect()
}

fn attribute<'a>(record: &'a Value, key: &str) -> &'a str {
    let attributes = record["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|pair| pair["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("no {key} in {record}"))["value"];
    value["stringValue"]
        .as_str()
        .or(value["intValue"].as_str())
        .unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

/// The hash of a record, from what a collector holds, as docs/audit.md defines it.
fn hash_of(record: &Value) -> Vec<u8> {
    let seq: u64 = attribute(record, "outgate.audit.seq").parse().unwrap();
    let parts = [
        b"outgate-audit-record-v1\0",
        &seq.to_be_bytes()[..],
        &bytes(attribute(record, "outgate.audit.prev")),
        record["body"]["stringValue"].as_str().unwrap().as_bytes(),
    ];
    digest(&SHA256, &parts.concat()).as_ref().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_arrives_across_files_and_outages_and_the_chain_can_be_checked_from_what_arrived()
 {
    let place = Place::new("files");
    let mut receiver = Receiver::start(|_| OK).await;
    let log = open(&place.path("audit"));
    let exporter = start(&place, &place.otlp(&receiver));
    write(&log, 40);
    let seq = last(&place).await;
    acknowledged(&exporter, seq).await;
    receiver.close().await;
    write(&log, 60);
    failed(&exporter, "export_unreachable").await;
    exporter.stopped().await;
    write(&log, 20);
    receiver.open(CertificateKind::Good).await;
    let exporter = start(&place, &place.otlp(&receiver));
    log.record(AuditEvent::Session(Box::new(SessionRecord {
        time_unix_ms: 1_790_000_000_000,
        session: SessionId::parse("s-2").unwrap(),
        change: SessionChange::Began,
        token_id: None,
        expires: None,
        issuer: None,
        subject: None,
        policy: None,
        by: Operator::itself(),
    })));
    write(&log, 20);
    let seq = last(&place).await;
    acknowledged(&exporter, seq).await;
    assert!(closed_files(&place).len() > 5, "{:?}", closed_files(&place));
    assert_eq!(
        receiver.seqs(),
        range(0, seq + 1),
        "none missing, none twice"
    );

    let records = records(&receiver.got());
    let mut uids = BTreeSet::new();
    for (index, record) in records.iter().enumerate() {
        let hash = attribute(record, "outgate.audit.hash");
        assert_eq!(hash_of(record), bytes(hash), "record {index}");
        if let Some(next) = records.get(index + 1) {
            assert_eq!(attribute(next, "outgate.audit.prev"), hash);
        }
        assert_eq!(attribute(record, "outgate.audit.log_id"), log.log_id());
        uids.insert(attribute(record, "log.record.uid"));
    }
    assert_eq!(uids.len(), records.len());
    let of_class = |class: &str| {
        let mut found = records
            .iter()
            .filter(|record| attribute(record, "ocsf.class_uid") == class);
        found.next().unwrap()
    };
    let decision = of_class("4002");
    assert_eq!(attribute(decision, "session.id"), "s-1f4c9a");
    assert_eq!(attribute(decision, "ocsf.status_code"), "path_not_allowed");
    assert_eq!(attribute(decision, "ocsf.metadata.uid"), "req-0");
    assert_eq!(
        (&decision["severityNumber"], &decision["timeUnixNano"]),
        (&13.into(), &"1790000000000000000".into())
    );
    assert_eq!(attribute(of_class("3002"), "session.id"), "s-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_moved_away_too_early_are_missed_aloud() {
    for (name, moved) in [("first", 0..2), ("middle", 2..4)] {
        let place = Place::new(&format!("moved-{name}"));
        let receiver = Receiver::start(|_| OK).await;
        let log = open(&place.path("audit"));
        write(&log, 100);
        let seq = last(&place).await;
        let files = closed_files(&place);
        let begins = |path: &PathBuf| -> u64 {
            let name = path.file_name().unwrap().to_str().unwrap();
            name["audit-".len()..name.len() - ".jsonl".len()]
                .parse()
                .unwrap()
        };
        let (from, to) = (begins(&files[moved.start]), begins(&files[moved.end]));
        for file in &files[moved] {
            std::fs::remove_file(file).unwrap();
        }
        let exporter = start(&place, &place.otlp(&receiver));
        let status = acknowledged(&exporter, seq).await;
        assert_eq!(status.missing, to - from, "{name}");
        assert_eq!(
            receiver.seqs(),
            [range(0, from), range(to, seq + 1)].concat(),
            "{name}"
        );
        let log = place.log();
        let line = log
            .lines()
            .find(|line| line.contains("export_records_missing"))
            .unwrap();
        for part in [format!("\"first\":{from}"), format!("\"next\":{to}")] {
            assert!(line.contains(&part), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exporter_waits_for_a_trail_that_is_not_there_yet() {
    let place = Place::new("early");
    let receiver = Receiver::start(|_| OK).await;
    let exporter = start(&place, &place.otlp(&receiver));
    failed(&exporter, "export_trail").await;
    let log = open(&place.path("audit"));
    write(&log, 3);
    until(&exporter, "they arrive", |status| {
        status.acknowledged_seq >= Some(3)
    })
    .await;
    assert_eq!(receiver.seqs()[..4], range(0, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_in_the_old_ones_place_is_sent_from_its_beginning() {
    let place = Place::new("new-log");
    let receiver = Receiver::start(|_| OK).await;
    let config = place.otlp(&receiver);
    for (round, count) in [(0, 30), (1, 5)] {
        let log = open(&place.path("audit"));
        write(&log, count);
        let seq = last(&place).await;
        let before = receiver.got().len();
        let exporter = start(&place, &config);
        acknowledged(&exporter, seq).await;
        let arrived: Vec<u64> = receiver.got()[before..]
            .iter()
            .flat_map(Got::seqs)
            .collect();
        assert_eq!(arrived, range(0, seq + 1), "{round}");
        exporter.stopped().await;
        log.close(Duration::from_secs(10)).unwrap();
        std::fs::rename(place.path("audit"), place.path(&format!("moved-{round}"))).unwrap();
    }
    assert!(place.log().contains("export_cursor_other_log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_just_before_a_stop_is_sent() {
    let place = Place::new("just-before");
    let receiver = Receiver::start(|_| OK).await;
    let log = open(&place.path("audit"));
    write(&log, 3);
    let seq = last(&place).await;
    let exporter = start(&place, &place.otlp(&receiver));
    acknowledged(&exporter, seq).await;
    log.record(decision(99));
    log.close(Duration::from_secs(10)).unwrap();
    exporter.stopped().await;
    assert_eq!(receiver.seqs(), range(0, seq + 2));
}
