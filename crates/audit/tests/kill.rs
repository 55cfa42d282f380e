//! A writer that is killed at any moment: whatever `flush` said is on disk is there, in order, and the trail goes on.
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
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use common::{SOON, numbers, record};
use outgate_audit::{AuditLog, verify};
use outgate_journey::record::AuditSink;

const DIR: &str = "OUTGATE_TEST_AUDIT_DIR";
const FIRST: &str = "OUTGATE_TEST_FIRST";

#[test]
#[ignore = "the child of what_was_acknowledged_survives_a_kill"]
fn child_that_writes_until_killed() {
    let log = AuditLog::open(&PathBuf::from(env::var(DIR).unwrap())).unwrap();
    let first: u64 = env::var(FIRST).unwrap().parse().unwrap();
    let flusher = log.clone();
    let (send, flushed) = std::sync::mpsc::sync_channel::<u64>(1);
    // Acknowledges beside the load, so that a kill finds a batch under way.
    thread::spawn(move || {
        for number in flushed {
            flusher.flush(SOON).unwrap();
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
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<u64> = Vec::new();
    for round in 0..8_u64 {
        let first = round * 1_000_000;
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
        verify(dir.path(), |_| {}).unwrap();
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
    drop(AuditLog::open(dir.path()).unwrap());
    assert_eq!(verify(dir.path(), |_| {}).unwrap().torn_bytes, 0);
}
