//! A disk that fills up, and files that are taken away under a running log.
//!
//! The children run this same binary, with a limit or a mount that only they have.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{SOON, numbers, open, options, record, verify};
use outgate_audit::{AuditError, AuditLog};
use outgate_journey::{inject::AuditGate, record::AuditSink};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const DIR: &str = "OUTGATE_TEST_AUDIT_DIR";

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn child(script: &str, test: &str, dir: &Path) -> Command {
    let mut command = Command::new("sh");
    let binary = env::current_exe().unwrap();
    command
        .args([
            "-c",
            &format!("{script} exec \"$0\" --exact {test} --ignored --nocapture"),
        ])
        .arg(binary)
        .env(DIR, dir);
    command
}

fn fills_up_and_recovers(dir: &Path, make_room: impl FnOnce()) {
    let log = open(dir);
    assert!(log.is_writable());
    let mut written = 0;
    let started = Instant::now();
    while log.is_writable() {
        log.record(record(written));
        written += 1;
        assert!(started.elapsed() < SOON, "the store never filled up");
        thread::sleep(Duration::from_micros(200));
        // No more may pile up than there will be room for, however slow the machine is.
        while log.pending() > 50 && log.is_writable() {
            thread::sleep(Duration::from_micros(200));
        }
    }
    for _ in 0..100 {
        log.record(record(written));
        written += 1;
    }
    match log.flush(Duration::from_millis(300)) {
        Err(AuditError::Pending {
            pending,
            fault: Some(_),
            ..
        }) => assert!(pending >= 100, "{pending}"),
        other => panic!("{other:?}"),
    }
    assert!(!log.is_writable());
    make_room();
    eventually("the gate opens again", || log.is_writable());
    assert_eq!(log.pending(), 0);
    log.record(record(written));
    log.close(SOON).unwrap();
    assert_eq!(numbers(dir), (0..=written).collect::<Vec<_>>());
    verify(dir).unwrap();
}

#[test]
#[ignore = "the child of a_file_that_may_not_grow_closes_the_gate_and_loses_nothing"]
fn child_with_a_file_size_limit() {
    fills_up_and_recovers(&PathBuf::from(env::var(DIR).unwrap()), || {
        let limit = getrlimit(Resource::Fsize);
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )
        .unwrap();
    });
}

#[test]
fn a_file_that_may_not_grow_closes_the_gate_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    // The signal is ignored, so that a write past the limit is an error like that of a full disk.
    let script = "trap '' XFSZ; ulimit -S -f 64;";
    let status = child(script, "child_with_a_file_size_limit", dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert!(!numbers(dir.path()).is_empty(), "the child wrote nothing");
}

#[test]
#[ignore = "the child of a_full_disk_closes_the_gate_and_loses_nothing"]
fn child_on_a_small_disk() {
    let mount = PathBuf::from(env::var(DIR).unwrap());
    let ballast = mount.join("ballast");
    fs::write(&ballast, vec![0; 192 * 1024]).unwrap();
    fills_up_and_recovers(&mount.join("audit"), || fs::remove_file(&ballast).unwrap());
    fs::write(env::var("OUTGATE_TEST_DONE").unwrap(), "done").unwrap();
}

#[test]
#[ignore = "the child of a_folder_that_becomes_read_only_closes_the_gate_and_loses_nothing"]
fn child_in_a_folder_that_becomes_read_only() {
    let dir = PathBuf::from(env::var(DIR).unwrap()).join("audit");
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(&dir)
            .status();
        assert!(status.unwrap().success(), "{arguments:?}");
    };
    let log = open(&dir);
    log.record(record(0));
    log.flush(SOON).unwrap();
    mount(&["mount", "--bind", dir.to_str().unwrap()]);
    mount(&["mount", "-o", "remount,bind,ro"]);
    log.record(record(1));
    eventually("closed", || !log.is_writable());
    log.record(record(2));
    mount(&["umount"]);
    eventually("open again", || log.is_writable());
    log.close(SOON).unwrap();
    assert_eq!(numbers(&dir), [0, 1, 2]);
    verify(&dir).unwrap();
    // And where it is so from the beginning, nothing starts.
    mount(&["mount", "--bind", dir.to_str().unwrap()]);
    mount(&["mount", "-o", "remount,bind,ro"]);
    let refused = AuditLog::open(&dir, options());
    assert!(
        matches!(refused, Err(AuditError::Io { .. } | AuditError::State(_))),
        "{refused:?}"
    );
    fs::write(env::var("OUTGATE_TEST_DONE").unwrap(), "done").unwrap();
}

#[test]
fn a_full_disk_closes_the_gate_and_loses_nothing() {
    on_a_disk_of_its_own("child_on_a_small_disk");
}

#[test]
fn a_folder_that_becomes_read_only_closes_the_gate_and_loses_nothing() {
    on_a_disk_of_its_own("child_in_a_folder_that_becomes_read_only");
}

fn on_a_disk_of_its_own(test: &str) {
    let possible = Command::new("unshare")
        .args(["-Urm", "true"])
        .output()
        .is_ok_and(|out| out.status.success());
    assert!(
        possible,
        "this test mounts a small disk in a user namespace, and `unshare -Urm` does not work here; allow user \
         namespaces (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    );
    let dir = tempfile::tempdir().unwrap();
    let done = tempfile::tempdir().unwrap();
    let done_file = done.path().join("done");
    let script = format!("mount -t tmpfs -o size=512k,mode=0700 none \"${DIR}\" &&");
    let inner = child(&script, test, dir.path());
    let status = Command::new("unshare")
        .arg("-Urm")
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(DIR, dir.path())
        .env("OUTGATE_TEST_DONE", &done_file)
        .status()
        .unwrap();
    assert!(status.success());
    assert!(done_file.exists(), "the child did not run to its end");
}

#[test]
fn a_file_that_is_taken_away_closes_the_gate_until_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.record(record(0));
    log.flush(SOON).unwrap();
    let (file, away) = (log.path().to_owned(), dir.path().join("away"));
    fs::rename(&file, &away).unwrap();
    log.record(record(1));
    eventually("gone", || !log.is_writable());
    fs::write(&file, "").unwrap();
    fault_says(&log, "replaced");
    fs::rename(&away, &file).unwrap();
    eventually("back", || log.is_writable());
    log.close(SOON).unwrap();
    assert_eq!(numbers(dir.path()), [0, 1]);
}

#[test]
fn a_file_that_is_cut_or_added_to_closes_the_gate() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 2] = [
        ("was cut from", |file| {
            fs::OpenOptions::new()
                .write(true)
                .open(file)
                .unwrap()
                .set_len(10)
                .unwrap();
        }),
        ("somebody added to", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes.extend_from_slice(b"x\n");
            fs::write(file, bytes).unwrap();
        }),
    ];
    for (says, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        log.record(record(0));
        log.flush(SOON).unwrap();
        let whole = fs::read(log.path()).unwrap();
        damage(log.path());
        log.record(record(1));
        eventually(says, || !log.is_writable());
        fault_says(&log, says);
        // Mended in place, so that the log ends at once.
        fs::write(log.path(), whole).unwrap();
        eventually("mended", || log.is_writable());
        assert_eq!(numbers(dir.path()), [0, 1]);
    }
}

fn fault_says(log: &AuditLog, says: &str) {
    eventually(says, || match log.flush(Duration::from_millis(50)) {
        Err(AuditError::Pending {
            fault: Some(fault), ..
        }) => fault.contains(says),
        _ => false,
    });
}

#[test]
fn a_closed_log_keeps_its_gate_closed_and_still_writes() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let other = log.clone();
    log.close(SOON).unwrap();
    assert!(!other.is_writable());
    other.record(record(5));
    drop(other);
    assert_eq!(numbers(dir.path()), [5]);
}
