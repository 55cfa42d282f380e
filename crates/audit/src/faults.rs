//! The writer over a store that fails on demand.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use outgate_journey::{
    inject::AuditGate,
    record::{AuditSink, DecisionRecord, Entry},
};

use crate::{
    AuditError, AuditLog, BACKLOG_LIMIT,
    chain::{ChainEnd, Line, LogId},
    head::Head,
    open::Opened,
    store::{Store, StoreFault},
    writer::Progress,
};

const SOON: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Disk {
    lines: Vec<u8>,
    head: Option<Head>,
    appends: u32,
    mood: Mood,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Mood {
    #[default]
    Well,
    Full,
    /// The bytes arrive, the flush does not.
    SyncFails,
    HeadFails,
    Hangs,
    Panics,
}

#[derive(Clone, Default)]
struct Faulty(Arc<(Mutex<Disk>, Condvar)>);

impl Faulty {
    fn set(&self, mood: Mood) {
        self.0.0.lock().unwrap().mood = mood;
        self.0.1.notify_all();
    }

    fn ids(&self) -> Vec<String> {
        let disk = self.0.0.lock().unwrap();
        let mut end = ChainEnd::genesis(LogId([0; 16]));
        let lines = disk
            .lines
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let line = Line::parse(line).unwrap();
                assert_eq!((line.seq, line.prev), (end.next_seq, end.prev));
                end = line.end();
                let event: serde_json::Value = serde_json::from_slice(line.record).unwrap();
                event["metadata"]["uid"].as_str().unwrap().to_owned()
            })
            .collect()
    }
}

impl Store for Faulty {
    fn append(&mut self, lines: &[u8]) -> Result<(), StoreFault> {
        let mut disk = self.0.0.lock().unwrap();
        disk.appends += 1;
        while disk.mood == Mood::Hangs {
            disk = self.0.1.wait(disk).unwrap();
        }
        let (path, source) = ("x".into(), io::Error::from(io::ErrorKind::StorageFull));
        match disk.mood {
            Mood::Full => Err(StoreFault::Write { path, source }),
            Mood::SyncFails => Err(StoreFault::Sync { path, source }),
            Mood::Panics => panic!("as told"),
            Mood::Well | Mood::HeadFails | Mood::Hangs => {
                disk.lines.extend_from_slice(lines);
                Ok(())
            }
        }
    }

    fn write_head(&mut self, head: &Head) -> Result<(), StoreFault> {
        let mut disk = self.0.0.lock().unwrap();
        if matches!(disk.mood, Mood::HeadFails | Mood::Full) {
            let source = io::Error::from(io::ErrorKind::StorageFull);
            return Err(StoreFault::Head(outgate_state::StateError::Io {
                doing: "write",
                path: "x".into(),
                source,
            }));
        }
        disk.head = Some(*head);
        Ok(())
    }
}

fn log_over(disk: &Faulty) -> AuditLog {
    let log = LogId([0; 16]);
    let opened = Opened {
        store: disk.clone(),
        end: ChainEnd::genesis(log),
        log,
        path: "x".into(),
    };
    AuditLog::start(opened, "x".into()).unwrap()
}

fn record(number: u64) -> DecisionRecord {
    DecisionRecord::begin(
        number.to_string(),
        number,
        Entry::Bumped,
        "192.0.2.1:1".parse().unwrap(),
    )
}

fn ids(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn while_the_store_fails_records_are_kept_in_order_and_the_gate_is_closed() {
    for mood in [Mood::Full, Mood::SyncFails] {
        let disk = Faulty::default();
        let log = log_over(&disk);
        log.record(record(0));
        log.flush(SOON).unwrap();
        assert!(log.is_writable());
        disk.set(mood);
        for number in 1..500 {
            log.record(record(number));
        }
        eventually("closed", || !log.is_writable());
        let refused = log.flush(Duration::from_millis(20));
        assert!(
            matches!(
                refused,
                Err(AuditError::Pending {
                    pending: 499,
                    fault: Some(_),
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(disk.ids(), ids(0..1));
        disk.set(Mood::Well);
        eventually("open again", || log.is_writable());
        assert_eq!(disk.ids(), ids(0..500));
        log.close(SOON).unwrap();
    }
}

#[test]
fn a_failing_store_is_probed_a_few_times_a_second_not_in_a_loop() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    disk.set(Mood::Full);
    let started = Instant::now();
    log.record(record(0));
    eventually("tried again", || disk.0.0.lock().unwrap().appends >= 3);
    assert!(
        started.elapsed() >= Duration::from_millis(350),
        "{:?}",
        started.elapsed()
    );
    disk.set(Mood::Well);
    log.close(SOON).unwrap();
}

#[test]
fn a_head_file_that_cannot_be_written_closes_the_gate_too() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    disk.set(Mood::HeadFails);
    log.record(record(0));
    log.flush(SOON).unwrap();
    eventually("closed", || !log.is_writable());
    disk.set(Mood::Well);
    eventually("open again", || log.is_writable());
    let disk = disk.0.0.lock().unwrap();
    assert_eq!(disk.head.unwrap().seq, 0);
}

#[test]
fn the_head_file_follows_an_idle_log_and_a_closed_one() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    log.record(record(0));
    log.record(record(1));
    eventually("the head follows", || {
        disk.0
            .0
            .lock()
            .unwrap()
            .head
            .is_some_and(|head| head.seq == 1)
    });
    log.record(record(2));
    drop(log);
    assert_eq!(disk.0.0.lock().unwrap().head.unwrap().seq, 2);
    assert_eq!(disk.ids(), ids(0..3));
}

#[test]
fn a_store_that_hangs_does_not_block_record() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    disk.set(Mood::Hangs);
    for number in 0..3000 {
        log.record(record(number));
    }
    assert_eq!(log.pending(), 3000);
    assert!(log.is_writable());
    disk.set(Mood::Well);
    log.flush(SOON).unwrap();
    assert_eq!(log.pending(), 0);
    assert_eq!(disk.ids(), ids(0..3000));
}

#[test]
fn a_backlog_past_its_limit_closes_the_gate_until_it_shrinks() {
    let progress = Progress::default();
    for _ in 0..BACKLOG_LIMIT {
        progress.accept();
    }
    assert!(progress.is_open(BACKLOG_LIMIT));
    progress.accept();
    assert!(!progress.is_open(BACKLOG_LIMIT));
    progress.wrote(1);
    assert!(progress.is_open(BACKLOG_LIMIT));
}

#[test]
fn a_writer_that_panics_closes_the_gate_and_wakes_who_waits() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    disk.set(Mood::Panics);
    log.record(record(0));
    assert!(matches!(log.flush(SOON), Err(AuditError::WriterGone)));
    assert!(!log.is_writable());
    log.record(record(1));
    assert!(!log.is_writable());
}

#[test]
fn records_of_many_threads_are_all_written_and_each_threads_own_stay_in_order() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let log = log.clone();
            scope.spawn(move || {
                for number in 0..500 {
                    log.record(record(thread * 1000 + number));
                }
                log.flush(SOON).unwrap();
            });
        }
    });
    let all: Vec<u64> = disk.ids().iter().map(|id| id.parse().unwrap()).collect();
    assert_eq!(all.len(), 4000);
    for thread in 0..8 {
        let own: Vec<u64> = all
            .iter()
            .copied()
            .filter(|id| id / 1000 == thread)
            .collect();
        assert_eq!(
            own,
            (thread * 1000..thread * 1000 + 500).collect::<Vec<_>>()
        );
    }
}
