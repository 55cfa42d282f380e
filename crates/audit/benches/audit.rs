//! Records per second through the writer, and MB/s through `verify`.
#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark fails loudly; its macros document nothing"
)]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outgate_audit::{AuditLog, to_ocsf, verify};
use outgate_journey::{
    record::{AuditSink, DecisionRecord, Entry, Verdict},
    session::SessionId,
};

fn record(number: u64) -> DecisionRecord {
    let client = ([127, 0, 0, 1], 40_000).into();
    let mut record = DecisionRecord::begin(
        format!("req-{number:012}"),
        1_790_000_000_000 + number,
        Entry::Bumped,
        client,
    );
    record.verdict = Verdict::Allowed;
    record.session = SessionId::parse("s-1f4c9a");
    record.token_id = Some("t-77aa".into());
    record.host = Some("api.example.org".to_owned());
    record.port = Some(443);
    record.method = Some("POST".to_owned());
    record.path = Some("/v1/messages".to_owned());
    record.status = Some(200);
    record.rule = Some("destinations[0] api.example.org".to_owned());
    record
}

fn serialise(c: &mut Criterion) {
    let record = record(1);
    let mut out = Vec::with_capacity(4096);
    c.bench_function("serialise one record", |b| {
        b.iter(|| {
            out.clear();
            serde_json::to_writer(&mut out, &to_ocsf(black_box(&record))).expect("serialises");
            black_box(out.len())
        });
    });
}

fn write(c: &mut Criterion) {
    const RECORDS: u64 = 20_000;
    let mut group = c.benchmark_group("writer");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(RECORDS));
    group.bench_function("accepted to on disk", |b| {
        b.iter_batched(
            || {
                let dir = tempfile::tempdir().expect("a directory");
                let log = AuditLog::open(dir.path()).expect("opens");
                (dir, log, (0..RECORDS).map(record).collect::<Vec<_>>())
            },
            |(dir, log, records)| {
                for record in records {
                    log.record(record);
                }
                log.flush(Duration::from_secs(60)).expect("flushes");
                (dir, log)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn verification(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = AuditLog::open(dir.path()).expect("opens");
    for number in 0..50_000 {
        log.record(record(number));
    }
    log.flush(Duration::from_secs(60)).expect("flushes");
    let bytes = std::fs::metadata(log.path()).expect("the file").len();
    let mut group = c.benchmark_group("verify");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    group.bench_function("a trail", |b| {
        b.iter(|| verify(dir.path(), |_| {}).expect("verifies"))
    });
    group.finish();
}

criterion_group!(benches, serialise, write, verification);
criterion_main!(benches);
