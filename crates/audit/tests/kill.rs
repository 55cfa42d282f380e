//! A writer that is killed at any moment, between files and between days too: whatever `flush`, `durable` or `commit`
//! said is on disk is there, in order, and the trail goes on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use common::{DAY, NOW, SOON, numbers, options_at, record, verify};
use outgate_audit::{AuditLog, Rotation};
use outgate_clock::FakeClock;
use outgate_journey::record::AuditSink;

const DIR: &str = "OUTGATE_TEST_AUDIT_DIR";
const FIRST: &str = "OUTGATE_TEST_FIRST";
const ROUND: u64 = 1_000_000;

fn open(dir: &Path, clock: &Arc<FakeClock>) -> AuditLog {
    let rotation = Rotation {
        size: Some(20_000),
        age: None,
    };
    AuditLog::open(dir, options_at(clock, rotation)).unwrap()
}

#[test]
#[ignore = "the child of what_was_acknowledged_survives_a_kill"]
fn child_that_writes_until_killed() {
    let clock = Arc::new(FakeClock::at(NOW));
    let first: u64 = env::var(FIRST).unwrap().parse().unwrap();
    let round = first / ROUND;
    clock.advance(DAY * u32::try_from(round * 100).unwrap());
    let log = open(Path::new(&env::var(DIR).unwrap()), &clock);
    let waiter = log.clone();
    let (send, waiting) = std::sync::mpsc::sync_channel::<u64>(1);
    // Acknowledges beside the load, so that a kill finds a batch under way.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        for number in waiting {
            match round % 2 {
                0 => waiter.flush(SOON).unwrap(),
                _ => runtime.block_on(waiter.durable(SOON)).unwrap(),
            }
            let mut out = std::io::stdout().lock();
            writeln!(out, "acknowledged {number}").unwrap();
            out.flush().unwrap();
        }
    });
    for number in first.. {
        log.record(record(number));
        let _ = send.try_send(number);
        if number % 64 == 0 {
            thread::sleep(Duration::from_micros(300));
        }
        if number % 200 == 0 {
            clock.advance(DAY);
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<u64> = Vec::new();
    for round in 0..10_u64 {
        let first = round * ROUND;
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "child_that_writes_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR, dir.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = |line: String| {
            line.strip_prefix("acknowledged ")
                .and_then(|n| n.parse::<u64>().ok())
        };
        let mut last = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(acknowledged)
            .unwrap();
        // Any moment will do; a different one each round.
        thread::sleep(Duration::from_micros(1_500 * round * round + 131 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if let Some(later) = lines.map_while(Result::ok).filter_map(acknowledged).last() {
            last = later;
        }
        verify(dir.path()).unwrap();
        let found = numbers(dir.path());
        let (before, this_round) = found.split_at(expected.len());
        assert_eq!(before, expected, "round {round}");
        assert!(
            this_round
                .iter()
                .copied()
                .eq((first..).take(this_round.len())),
            "round {round}: order"
        );
        assert!(
            this_round.last().is_some_and(|number| *number >= last),
            "round {round}: {last} is missing"
        );
        expected = found;
    }
    let clock = Arc::new(FakeClock::at(NOW));
    drop(open(dir.path(), &clock));
    let report = verify(dir.path()).unwrap();
    assert_eq!(report.torn_bytes, 0);
    assert!(report.files > 3 && report.heads > 3, "{report:?}");
}
