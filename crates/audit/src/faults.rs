//! The writer over a store that fails on demand.

use std::{
    io,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use outgate_clock::FakeClock;
use outgate_journey::{
    inject::AuditGate,
    record::{AuditEvent, AuditSink, DecisionRecord, Entry},
    session::UnixSeconds,
};

use crate::{
    AuditError, AuditKey, AuditLog, AuditOptions, BACKLOG_LIMIT, Rotation, SLOW_AFTER,
    chain::{ChainEnd, Line, LogId},
    day::Day,
    head::Head,
    open::Opened,
    progress::Progress,
    spine::Spine,
    store::{Store, StoreFault},
};

const SOON: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Disk {
    lines: Vec<u8>,
    head: Option<Head>,
    day_heads: Vec<(String, String)>,
    /// Where the file that is written to begins.
    first_seq: u64,
    file_begins: usize,
    rotations: u32,
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
    DayHeadFails,
    RotationFails,
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
            .filter_map(|line| {
                let line = Line::parse(line).unwrap();
                assert_eq!((line.seq, line.prev), (end.next_seq, end.prev));
                end = line.end();
                let event: serde_json::Value = serde_json::from_slice(line.record).unwrap();
                Some(event["metadata"]["uid"].as_str()?.to_owned())
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
            _ => {
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
        // A day that the head file has seen has its head.
        assert_eq!(disk.sealed().len(), disk.day_heads.len());
        disk.head = Some(head.clone());
        Ok(())
    }

    fn write_day_head(&mut self, day: Day, note: &str) -> Result<(), StoreFault> {
        let mut disk = self.0.0.lock().unwrap();
        if disk.mood == Mood::DayHeadFails {
            return Err(StoreFault::Missing("x".into()));
        }
        disk.day_heads.push((day.to_string(), note.to_owned()));
        Ok(())
    }

    fn rotate(&mut self, first_line: &[u8], seq: u64) -> Result<(), StoreFault> {
        let mut disk = self.0.0.lock().unwrap();
        if disk.mood == Mood::RotationFails {
            disk.rotations += 1;
            let source = io::Error::from(io::ErrorKind::PermissionDenied);
            return Err(StoreFault::Rotate {
                path: "x".into(),
                source,
            });
        }
        let head = disk.head.as_ref().map(|head| head.seq);
        assert_eq!(head, seq.checked_sub(1), "what is closed was seen whole");
        disk.rotations += 1;
        disk.first_seq = seq;
        disk.file_begins = disk.lines.len();
        disk.lines.extend_from_slice(first_line);
        Ok(())
    }

    fn size(&self) -> u64 {
        let disk = self.0.0.lock().unwrap();
        (disk.lines.len() - disk.file_begins) as u64
    }

    fn first_seq(&self) -> u64 {
        self.0.0.lock().unwrap().first_seq
    }
}

impl Disk {
    fn sealed(&self) -> Vec<String> {
        let text = String::from_utf8(self.lines.clone()).unwrap();
        let seals = text
            .lines()
            .filter(|line| line.contains("\"Audit day sealed\""));
        seals
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                line["record"]["unmapped"]["day"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    }
}

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn log_over(disk: &Faulty) -> AuditLog {
    log_with(disk, &Arc::new(FakeClock::at(NOW)), Rotation::NEVER)
}

fn log_with(disk: &Faulty, clock: &Arc<FakeClock>, rotation: Rotation) -> AuditLog {
    let opened = Opened {
        store: disk.clone(),
        spine: Spine::genesis(LogId([0; 16]), Day::of_unix_ms(NOW.0 * 1000)),
        file_began_ms: NOW.0 * 1000,
        unsigned: Vec::new(),
    };
    let options = AuditOptions {
        clock: clock.clone(),
        key: AuditKey::in_memory().unwrap(),
        rotation,
    };
    AuditLog::start(opened, "x".into(), options).unwrap()
}

fn record(number: u64) -> AuditEvent {
    AuditEvent::Decision(Arc::new(DecisionRecord::begin(
        number.to_string(),
        number,
        Entry::Bumped,
        "192.0.2.1:1".parse().unwrap(),
    )))
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
    assert_eq!(disk.head.as_ref().unwrap().seq, 0);
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
            .as_ref()
            .is_some_and(|head| head.seq == 1)
    });
    log.record(record(2));
    drop(log);
    assert_eq!(disk.0.0.lock().unwrap().head.as_ref().unwrap().seq, 2);
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
    assert!(progress.is_open(BACKLOG_LIMIT, SLOW_AFTER));
    progress.accept();
    assert!(!progress.is_open(BACKLOG_LIMIT, SLOW_AFTER));
    progress.wrote(1);
    assert!(progress.is_open(BACKLOG_LIMIT, SLOW_AFTER));
}

#[test]
fn a_disk_that_does_not_answer_closes_the_gate_until_it_does() {
    let slow_after = Duration::from_millis(20);
    let progress = Progress::default();
    progress.set_busy(true);
    assert!(progress.is_open(BACKLOG_LIMIT, slow_after));
    eventually("closed", || !progress.is_open(BACKLOG_LIMIT, slow_after));
    progress.set_busy(false);
    assert!(progress.is_open(BACKLOG_LIMIT, slow_after));
}

#[test]
fn the_disk_is_watched_while_it_writes() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    disk.set(Mood::Hangs);
    log.record(record(0));
    eventually("busy", || {
        !log.is_open_unless_slower_than(Duration::from_millis(10))
    });
    disk.set(Mood::Well);
    log.flush(SOON).unwrap();
    eventually("open", || {
        log.is_open_unless_slower_than(Duration::from_millis(10))
    });
}

#[test]
fn a_day_that_is_over_is_sealed_once_and_a_clock_set_back_seals_nothing() {
    let disk = Faulty::default();
    let clock = Arc::new(FakeClock::at(NOW));
    let log = log_with(&disk, &clock, Rotation::NEVER);
    log.record(record(0));
    log.flush(SOON).unwrap();
    clock.advance(DAY);
    log.record(record(1));
    log.flush(SOON).unwrap();
    clock.set_wall(UnixSeconds(NOW.0 - 10 * 86_400));
    log.record(record(2));
    log.flush(SOON).unwrap();
    clock.set_wall(UnixSeconds(NOW.0 + 4 * 86_400));
    log.record(record(3));
    log.close(SOON).unwrap();
    let disk = disk.0.0.lock().unwrap();
    assert_eq!(disk.sealed(), ["2026-09-21", "2026-09-22"]);
    let days: Vec<&str> = disk.day_heads.iter().map(|(day, _)| day.as_str()).collect();
    assert_eq!(days, ["2026-09-21", "2026-09-22"]);
    // The seal is the first record of the day that begins.
    assert!(disk.day_heads[0].1.contains("\n1\n") && disk.day_heads[1].1.contains("\n4\n"));
}

#[test]
fn a_day_ends_without_a_record_too() {
    let disk = Faulty::default();
    let clock = Arc::new(FakeClock::at(NOW));
    let log = log_with(&disk, &clock, Rotation::NEVER);
    log.record(record(0));
    log.flush(SOON).unwrap();
    clock.advance(DAY);
    eventually("sealed", || disk.0.0.lock().unwrap().day_heads.len() == 1);
    drop(log);
}

#[test]
fn a_head_that_cannot_be_written_closes_the_gate_and_is_kept() {
    let disk = Faulty::default();
    let clock = Arc::new(FakeClock::at(NOW));
    let log = log_with(&disk, &clock, Rotation::NEVER);
    log.record(record(0));
    log.flush(SOON).unwrap();
    disk.set(Mood::DayHeadFails);
    clock.advance(DAY);
    log.record(record(1));
    log.flush(SOON).unwrap();
    eventually("closed", || !log.is_writable());
    disk.set(Mood::Well);
    eventually("open again", || log.is_writable());
    assert_eq!(disk.0.0.lock().unwrap().day_heads.len(), 1);
    assert_eq!(disk.ids(), ids(0..2));
}

#[test]
fn a_full_file_is_closed_and_the_chain_goes_on() {
    let disk = Faulty::default();
    let clock = Arc::new(FakeClock::at(NOW));
    let rotation = Rotation {
        size: Some(2000),
        age: None,
    };
    let log = log_with(&disk, &clock, rotation);
    for number in 0..40 {
        log.record(record(number));
        log.flush(SOON).unwrap();
    }
    log.close(SOON).unwrap();
    assert_eq!(disk.ids(), ids(0..40));
    assert!(disk.0.0.lock().unwrap().rotations > 5);
}

#[test]
fn an_old_file_is_closed_unless_nothing_was_written_to_it() {
    let disk = Faulty::default();
    let clock = Arc::new(FakeClock::at(NOW));
    let hour = Duration::from_secs(3600);
    let rotation = Rotation {
        size: None,
        age: Some(hour),
    };
    let log = log_with(&disk, &clock, rotation);
    log.record(record(0));
    log.record(record(1));
    log.flush(SOON).unwrap();
    clock.advance(hour);
    eventually("closed", || disk.0.0.lock().unwrap().rotations == 1);
    clock.advance(hour * 2);
    std::thread::sleep(Duration::from_millis(900));
    log.flush(SOON).unwrap();
    log.close(SOON).unwrap();
    assert_eq!(disk.0.0.lock().unwrap().rotations, 1);
}

#[test]
fn a_rotation_that_fails_is_put_off_and_nothing_else_is() {
    let disk = Faulty::default();
    let clock = Arc::new(FakeClock::at(NOW));
    let rotation = Rotation {
        size: Some(500),
        age: None,
    };
    let log = log_with(&disk, &clock, rotation);
    disk.set(Mood::RotationFails);
    for number in 0..20 {
        log.record(record(number));
        log.flush(SOON).unwrap();
        assert!(log.is_writable());
    }
    assert_eq!(disk.0.0.lock().unwrap().rotations, 1);
    log.close(SOON).unwrap();
    assert_eq!(disk.ids(), ids(0..20));
}

#[tokio::test]
async fn who_waits_without_a_thread_is_told() {
    let disk = Faulty::default();
    let log = log_over(&disk);
    log.commit(record(0), SOON).await.unwrap();
    assert_eq!(disk.ids(), ids(0..1));
    disk.set(Mood::Full);
    let refused = log.commit(record(1), Duration::from_millis(30)).await;
    assert!(
        matches!(
            refused,
            Err(AuditError::Pending {
                pending: 1,
                fault: Some(_),
                ..
            })
        ),
        "{refused:?}"
    );
    let waiting = tokio::spawn(log.durable(SOON));
    tokio::task::yield_now().await;
    disk.set(Mood::Well);
    waiting.await.unwrap().unwrap();
    assert_eq!(disk.ids(), ids(0..2));
    // What is dropped was recorded all the same.
    drop(log.commit(record(2), SOON));
    log.durable(SOON).await.unwrap();
    assert_eq!(disk.ids(), ids(0..3));
    disk.set(Mood::Panics);
    assert!(matches!(
        log.commit(record(3), SOON).await,
        Err(AuditError::WriterGone)
    ));
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
