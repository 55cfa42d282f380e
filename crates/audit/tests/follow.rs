//! Following a trail while it is written, rotated, moved away and repaired.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{NOW, SOON, options_at, record};
use outgate_audit::{AuditLog, Follow, FollowError, HEAD_FILE, RECORDS_FILE, Rotation, last_seq};
use outgate_clock::FakeClock;
use outgate_journey::record::AuditSink;

const SMALL: Rotation = Rotation {
    size: Some(4000),
    age: None,
};

fn log(dir: &Path) -> AuditLog {
    AuditLog::open(dir, options_at(&Arc::new(FakeClock::at(NOW)), SMALL)).unwrap()
}

fn write(log: &AuditLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.record(record(number));
        log.flush(SOON).unwrap();
    }
}

fn rest(follow: &mut Follow) -> Vec<u64> {
    std::iter::from_fn(|| follow.next().unwrap())
        .map(|followed| followed.seq)
        .collect()
}

fn wait_for_head(dir: &Path, seq: u64) {
    let started = Instant::now();
    while last_seq(dir).unwrap() != Some(seq) {
        assert!(started.elapsed() < SOON);
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn from_anywhere_to_the_end_and_on() {
    let dir = tempfile::tempdir().unwrap();
    let first = log(dir.path());
    let log_id = first.log_id().to_owned();
    write(&first, 0..40);
    // Once it is gone, no file is begun any more.
    drop(first);
    let mut whole = Follow::from(dir.path(), None).unwrap();
    let all = rest(&mut whole);
    let end = *all.last().unwrap();
    assert_eq!(all, (0..=end).collect::<Vec<_>>());
    assert!(end > 45, "the files begin with records of their own: {end}");
    assert_eq!((whole.oldest_seq(), whole.log_id()), (0, log_id));
    for after in 0..=end {
        let mut follow = Follow::from(dir.path(), Some(after)).unwrap();
        assert_eq!(rest(&mut follow), (after + 1..=end).collect::<Vec<_>>());
    }
    for records in [0, 1, 7, end + 1, 1000] {
        let mut follow = Follow::last(dir.path(), records).unwrap();
        assert_eq!(rest(&mut follow).len() as u64, records.min(end + 1));
    }
    let again = log(dir.path());
    write(&again, 40..60);
    drop(again);
    let more = rest(&mut whole);
    assert_eq!(more[0], end + 1);
    assert!(more.len() >= 20);
    match Follow::from(dir.path(), Some(9999)) {
        Err(FollowError::Ahead { after: 9999, last }) => assert_eq!(Some(&last), more.last()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_is_given_as_it_stands_and_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    write(&log, 0..2);
    let mut follow = Follow::from(dir.path(), Some(0)).unwrap();
    let followed = follow.next().unwrap().unwrap();
    let text = fs::read_to_string(log.path()).unwrap();
    assert_eq!(followed.line, text.lines().nth(1).unwrap().as_bytes());
    let record: serde_json::Value = serde_json::from_slice(followed.record()).unwrap();
    assert_eq!(record["metadata"]["uid"], "req-0");
    assert_eq!(
        followed.shown().unwrap().path.as_deref(),
        Some("/v1/items/0")
    );
}

#[test]
fn a_long_file_is_entered_in_its_middle() {
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), 0..3000);
    assert!(fs::metadata(dir.path().join(RECORDS_FILE)).unwrap().len() > 1024 * 1024);
    for after in [0, 1, 999, 1500, 2998, 2999] {
        let mut follow = Follow::from(dir.path(), Some(after)).unwrap();
        assert_eq!(rest(&mut follow), (after + 1..=3000).collect::<Vec<_>>());
    }
    assert_eq!(
        rest(&mut Follow::last(dir.path(), 3).unwrap()),
        [2998, 2999, 3000]
    );
}

#[test]
fn nothing_is_missed_or_doubled_while_it_is_written_and_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    let done = Arc::new(AtomicBool::new(false));
    let followers: Vec<_> = [true, false]
        .map(|durable| {
            let (dir, done) = (dir.path().to_owned(), Arc::clone(&done));
            thread::spawn(move || {
                let mut follow = match durable {
                    true => Follow::durable(&dir, None).unwrap(),
                    false => Follow::from(&dir, None).unwrap(),
                };
                let mut seen = Vec::new();
                loop {
                    let over = done.load(Ordering::Acquire);
                    let more = rest(&mut follow);
                    if over && more.is_empty() {
                        return seen;
                    }
                    seen.extend(more);
                }
            })
        })
        .into();
    for number in 0..600 {
        log.record(record(number));
        if number % 5 == 0 {
            log.flush(SOON).unwrap();
        }
    }
    log.close(SOON).unwrap();
    let end = rest(&mut Follow::from(dir.path(), None).unwrap()).len() as u64;
    wait_for_head(dir.path(), end - 1);
    done.store(true, Ordering::Release);
    for follower in followers {
        assert_eq!(follower.join().unwrap(), (0..end).collect::<Vec<_>>());
    }
}

#[test]
fn only_what_the_head_file_covers_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), 0..10);
    let path = dir.path().join(HEAD_FILE);
    let whole = fs::read_to_string(&path).unwrap();
    let mut head: serde_json::Value = serde_json::from_str(&whole).unwrap();
    for field in ["day", "peaks"] {
        head.as_object_mut().unwrap().remove(field);
    }
    head["seq"] = 4.into();
    fs::write(&path, head.to_string()).unwrap();
    let mut follow = Follow::durable(dir.path(), Some(1)).unwrap();
    assert_eq!(rest(&mut follow), [2, 3, 4]);
    // A cursor may be ahead of what is durable, and then waits.
    assert_eq!(
        rest(&mut Follow::durable(dir.path(), Some(7)).unwrap()),
        [0_u64; 0]
    );
    fs::write(&path, whole).unwrap();
    assert_eq!(rest(&mut follow), (5..=10).collect::<Vec<_>>());
    fs::remove_file(&path).unwrap();
    assert_eq!(
        rest(&mut Follow::durable(dir.path(), None).unwrap()),
        [0_u64; 0]
    );
}

#[test]
fn a_line_that_is_not_whole_is_given_once_it_is() {
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), 0..3);
    let path = dir.path().join(RECORDS_FILE);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let mut follow = Follow::from(dir.path(), None).unwrap();
    assert_eq!(rest(&mut follow), [0, 1, 2]);
    fs::write(&path, &whole).unwrap();
    assert_eq!(rest(&mut follow), [3]);
}

#[test]
fn a_file_that_is_gone_is_said_with_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = log(dir.path());
    write(&log, 0..60);
    let mut early = Follow::from(dir.path(), None).unwrap();
    early.next().unwrap();
    let mut closed: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("audit-0"))
        .collect();
    closed.sort();
    let first = |path: &Path| {
        path.file_stem().unwrap().to_str().unwrap()["audit-".len()..]
            .parse::<u64>()
            .unwrap()
    };
    fs::remove_file(&closed[1]).unwrap();
    // A reader in the first file comes to the gap; one that begins in it is told at once.
    let (expected, oldest) = (first(&closed[1]), first(&closed[2]));
    let missing = loop {
        match early.next() {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    for missing in [
        missing.map(drop),
        Follow::from(dir.path(), Some(expected)).map(drop),
    ] {
        match missing {
            Err(FollowError::Missing {
                expected: e,
                oldest: o,
            }) => {
                assert!(e >= expected && o == oldest, "{e} {o}");
            }
            other => panic!("{other:?}"),
        }
    }
    fs::remove_file(&closed[0]).unwrap();
    match Follow::from(dir.path(), Some(0)) {
        Err(FollowError::Missing {
            expected: 1,
            oldest: o,
        }) => assert_eq!(o, oldest),
        other => panic!("{other:?}"),
    }
    let mut on = Follow::from(dir.path(), Some(oldest - 1)).unwrap();
    assert_eq!(on.oldest_seq(), oldest);
    assert_eq!(on.next().unwrap().unwrap().seq, oldest);
}

#[test]
fn what_is_no_trail_is_said_to_be_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        Follow::from(dir.path(), None),
        Err(FollowError::Io { .. })
    ));
    fs::write(dir.path().join(RECORDS_FILE), "hello\n").unwrap();
    assert!(matches!(
        Follow::from(dir.path(), None),
        Err(FollowError::NotALog(_))
    ));
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), 0..5);
    let path = dir.path().join(RECORDS_FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("{\"seq\":3", "{\"seq\":7", 1)).unwrap();
    let mut follow = Follow::from(dir.path(), None).unwrap();
    for seq in 0..3 {
        assert_eq!(follow.next().unwrap().unwrap().seq, seq);
    }
    for _ in 0..2 {
        assert!(matches!(
            follow.next(),
            Err(FollowError::Damaged { seq: 3, .. })
        ));
    }
}
