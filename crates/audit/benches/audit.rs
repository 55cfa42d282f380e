//! Records per second through the writer, and MB/s through `verify`.
#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark fails loudly; its macros document nothing"
)]

use std::{hint::black_box, num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation, VerifyOptions, to_ocsf, verify};
use outgate_clock::GuardedClock;
use outgate_journey::{
    record::{AuditEvent, AuditSink, DecisionRecord, Entry, Verdict},
    session::{SessionId, UnixSeconds},
};

fn record(number: u64) -> AuditEvent {
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
    AuditEvent::Decision(Arc::new(record))
}

fn open(dir: &Path, size: Option<u64>) -> AuditLog {
    let options = AuditOptions {
        clock: Arc::new(GuardedClock::new(UnixSeconds(0))),
        key: AuditKey::in_memory().expect("a key"),
        rotation: Rotation { size, age: None },
    };
    AuditLog::open(dir, options).expect("opens")
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
                let log = open(dir.path(), None);
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
    const RECORDS: u64 = 200_000;
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), Some(32 * 1024 * 1024));
    for number in 0..RECORDS {
        log.record(record(number));
    }
    log.close(Duration::from_secs(60)).expect("closes");
    let all = VerifyOptions::default();
    let mut bytes = 0;
    verify(dir.path(), &all, |read| bytes = read).expect("verifies");
    let one = VerifyOptions {
        threads: NonZeroUsize::new(1),
        ..VerifyOptions::default()
    };
    let mut group = c.benchmark_group("verify");
    group
        .sample_size(10)
        .throughput(Throughput::ElementsAndBytes {
            elements: RECORDS,
            bytes,
        });
    for (name, options) in [("on one thread", one), ("on all cores", all)] {
        group.bench_function(name, |b| {
            b.iter(|| verify(dir.path(), &options, |_| {}).expect("verifies"));
        });
    }
    group.finish();
}

criterion_group!(benches, serialise, write, verification);
criterion_main!(benches);
