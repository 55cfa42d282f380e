//! A trail in many files over several days: what can be done to it from outside, and what `verify` and `open` say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use common::{DAY, NOW, SOON, numbers, options_at, record, verify};
use outgate_audit::{
    AuditError, AuditKey, AuditLog, AuditOptions, DAY_HEADS_FOLDER, Follow, HEAD_FILE, Problem,
    Proof, ProofError, RECORDS_FILE, Rotation, VerifierKey, VerifyError, VerifyOptions, prove,
};
use outgate_clock::FakeClock;
use outgate_journey::{record::AuditSink, session::UnixSeconds};
use proptest::prelude::*;

const SMALL: Rotation = Rotation {
    size: Some(4000),
    age: None,
};

/// Three days of records, in files of a few records each; the third day is open.
struct Trail {
    dir: tempfile::TempDir,
    key: VerifierKey,
    records: u64,
}

impl Trail {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(NOW));
        let log = AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap();
        for number in 0..36 {
            if number % 12 == 0 && number > 0 {
                clock.advance(DAY);
            }
            log.record(record(number));
            log.flush(SOON).unwrap();
        }
        let key = log.verifier_key().clone();
        log.close(SOON).unwrap();
        Self {
            dir,
            key,
            records: 36,
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn closed(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap();
        let mut closed: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with("audit-0")
            })
            .collect();
        closed.sort();
        closed
    }

    fn head(&self, day: &str) -> PathBuf {
        self.path()
            .join(DAY_HEADS_FOLDER)
            .join(format!("{day}.checkpoint"))
    }

    fn code(&self) -> &'static str {
        match verify(self.path()) {
            Ok(_) => "verifies",
            Err(error) => error.code(),
        }
    }

    fn verify_against(&self, key: &VerifierKey) -> Result<(), &'static str> {
        let options = VerifyOptions {
            keys: vec![key.clone()],
            ..VerifyOptions::default()
        };
        let verified = outgate_audit::verify(self.path(), &options, |_| {});
        verified.map(drop).map_err(|error| error.code())
    }
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_trail_of_many_files_verifies_and_shows_as_one() {
    let trail = Trail::new();
    assert!(trail.closed().len() >= 5, "{:?}", trail.closed());
    assert_eq!(
        numbers(trail.path()),
        (0..trail.records).collect::<Vec<_>>()
    );
    let report = verify(trail.path()).unwrap();
    assert_eq!(report.files, trail.closed().len() as u64 + 1);
    assert_eq!(
        (report.heads, report.last_day.as_deref()),
        (2, Some("2026-09-22"))
    );
    assert_eq!(report.keys, [trail.key.to_string()]);
    assert_eq!((report.first_seq, report.records), (0, report.last_seq + 1));
    trail.verify_against(&trail.key).unwrap();
    // Every closed file begins with what it continues.
    for file in &trail.closed()[1..] {
        let first: serde_json::Value = serde_json::from_str(&lines(file)[0]).unwrap();
        let unmapped = &first["record"]["unmapped"];
        assert_eq!(first["record"]["activity_name"], "Audit log continued");
        assert_eq!(
            (&unmapped["first_seq"], &unmapped["previous_hash"]),
            (&first["seq"], &first["prev"])
        );
        assert_eq!(unmapped["log_id"], report.log_id.as_str());
        // And verifies on its own.
        assert_eq!(
            verify(file).unwrap().first_seq,
            first["seq"].as_u64().unwrap()
        );
    }
}

#[test]
fn the_documented_verifier_agrees() {
    let trail = Trail::new();
    let docs = include_str!("../../../docs/audit.md");
    let start = docs.find("```python\n").unwrap() + "```python\n".len();
    let script = &docs[start..start + docs[start..].find("```").unwrap()];
    let run = || {
        let python = Command::new("python3")
            .arg("-c")
            .arg(script)
            .arg(trail.path())
            .output();
        python.unwrap()
    };
    let good = run();
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        good.status.success(),
        "{}",
        String::from_utf8_lossy(&good.stderr)
    );
    let report = verify(trail.path()).unwrap();
    assert!(
        said.contains(&format!("{} records", report.records)),
        "{said}"
    );
    assert!(
        said.contains("2 heads") && said.contains(&report.last_hash),
        "{said}"
    );
    let head = trail.head("2026-09-21");
    let text = fs::read_to_string(&head).unwrap();
    fs::write(&head, text.replacen("\n1", "\n2", 1)).unwrap();
    assert!(!run().status.success());
}

#[test]
fn a_file_that_was_removed_swapped_cut_or_copied_is_found() {
    type Damage = fn(&[PathBuf]);
    let cases: [(&str, &str, Damage); 9] = [
        ("a middle file is gone", "gap", |files| {
            fs::remove_file(&files[2]).unwrap()
        }),
        ("the first file is gone", "gap", |files| {
            fs::remove_file(&files[0]).unwrap()
        }),
        ("two files have each other's name", "reordered", |files| {
            let aside = files[1].with_extension("aside");
            fs::rename(&files[1], &aside).unwrap();
            fs::rename(&files[2], &files[1]).unwrap();
            fs::rename(&aside, &files[2]).unwrap();
        }),
        ("a file stands there twice", "repeated", |files| {
            fs::copy(&files[1], &files[2]).unwrap();
        }),
        ("a closed file lost its last line", "gap", |files| {
            let all = lines(&files[2]);
            fs::write(&files[2], all[..all.len() - 1].join("\n") + "\n").unwrap();
        }),
        ("a closed file lost its first line", "gap", |files| {
            fs::write(&files[2], lines(&files[2])[1..].join("\n") + "\n").unwrap();
        }),
        ("a closed file was emptied", "gap", |files| {
            fs::write(&files[2], "").unwrap()
        }),
        (
            "a closed file has bytes behind its end",
            "bad_envelope",
            |files| {
                let text = fs::read_to_string(&files[2]).unwrap();
                fs::write(&files[2], text + "{}").unwrap();
            },
        ),
        ("an edit", "edited", |files| {
            let text = fs::read_to_string(&files[3]).unwrap();
            fs::write(
                &files[3],
                text.replacen("api.example.org", "api.example.com", 1),
            )
            .unwrap();
        }),
    ];
    for (what, code, damage) in cases {
        let trail = Trail::new();
        damage(&trail.closed());
        assert_eq!(trail.code(), code, "{what}");
    }
}

#[test]
fn a_file_under_another_name_is_found() {
    let trail = Trail::new();
    let files = trail.closed();
    fs::rename(
        &files[2],
        files[2].with_file_name(
            files[2]
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .replace(".jsonl", "1.jsonl"),
        ),
    )
    .unwrap();
    // Not one of the trail's names: the file is missing.
    assert_eq!(trail.code(), "gap");
    let trail = Trail::new();
    let files = trail.closed();
    let number: u64 = files[2].file_stem().unwrap().to_str().unwrap()["audit-".len()..]
        .parse()
        .unwrap();
    fs::rename(
        &files[2],
        files[2].with_file_name(format!("audit-{:012}.jsonl", number + 1)),
    )
    .unwrap();
    assert_eq!(trail.code(), "misnamed");
}

#[test]
fn files_of_another_log_do_not_fit() {
    let (trail, other) = (Trail::new(), Trail::new());
    fs::copy(&other.closed()[2], &trail.closed()[2]).unwrap();
    assert_eq!(trail.code(), "unlinked");
}

#[test]
fn files_that_were_moved_away_leave_a_trail_that_says_so() {
    let trail = Trail::new();
    for file in &trail.closed()[..4] {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(trail.code(), "gap");
    let options = VerifyOptions {
        archived: true,
        ..VerifyOptions::default()
    };
    let report = outgate_audit::verify(trail.path(), &options, |_| {}).unwrap();
    assert!(report.first_seq > 0);
    // A gap behind what was moved away stays one.
    fs::remove_file(&trail.closed()[1]).unwrap();
    let gap = outgate_audit::verify(trail.path(), &options, |_| {}).unwrap_err();
    assert_eq!(gap.code(), "gap");
}

#[test]
fn a_head_that_is_missing_wrong_or_too_many_is_found() {
    let first = "2026-09-21";
    type Damage = fn(&Trail, &Path);
    let cases: [(&str, &str, Damage); 8] = [
        ("gone", "day_head_missing", |_, head| {
            fs::remove_file(head).unwrap()
        }),
        ("emptied", "day_head_wrong", |_, head| {
            fs::write(head, "").unwrap()
        }),
        ("another size", "day_head_wrong", |_, head| {
            let text = fs::read_to_string(head).unwrap();
            let size = text.lines().nth(1).unwrap().to_owned();
            fs::write(head, text.replacen(&format!("\n{size}\n"), "\n3\n", 1)).unwrap();
        }),
        ("another day's", "day_head_wrong", |trail, head| {
            fs::copy(trail.head("2026-09-22"), head).unwrap();
        }),
        ("another log's", "day_head_wrong", |_, head| {
            fs::copy(Trail::new().head("2026-09-21"), head).unwrap();
        }),
        ("a signature of nobody", "day_head_unsigned", |_, head| {
            let text = fs::read_to_string(head).unwrap();
            let (note, signature) = text.rsplit_once(' ').unwrap();
            let swapped: String = signature
                .chars()
                .rev()
                .filter(|c| !"=\n".contains(*c))
                .collect();
            fs::write(head, format!("{note} {swapped}\n")).unwrap();
        }),
        ("no signature", "day_head_wrong", |_, head| {
            let text = fs::read_to_string(head).unwrap();
            fs::write(head, text.split("\n\n").next().unwrap()).unwrap();
        }),
        ("one too many", "day_head_stray", |trail, head| {
            fs::copy(head, trail.head("2026-09-25")).unwrap();
        }),
    ];
    for (what, code, damage) in cases {
        let trail = Trail::new();
        damage(&trail, &trail.head(first));
        assert_eq!(trail.code(), code, "{what}");
    }
}

#[test]
fn an_end_that_was_cut_with_its_head_file_put_back_is_found_by_the_signed_heads() {
    let trail = Trail::new();
    let files = trail.closed();
    // Back to the first day: the trail of that time verifies, but for the head of a day that it does not know.
    let kept = &files[0];
    let last: serde_json::Value = serde_json::from_str(lines(kept).last().unwrap()).unwrap();
    for file in &files[1..] {
        fs::remove_file(file).unwrap();
    }
    fs::rename(kept, trail.path().join(RECORDS_FILE)).unwrap();
    let founding: serde_json::Value =
        serde_json::from_str(&lines(&trail.path().join(RECORDS_FILE))[0]).unwrap();
    let log_id = &founding["record"]["unmapped"]["log_id"];
    let head = serde_json::json!({"log_id": log_id, "seq": last["seq"], "hash": last["hash"]});
    fs::write(trail.path().join(HEAD_FILE), head.to_string()).unwrap();
    assert_eq!(trail.code(), "day_head_stray");
}

#[test]
fn a_trail_that_was_made_anew_verifies_only_without_the_operators_key() {
    let (trail, forged) = (Trail::new(), Trail::new());
    trail.verify_against(&trail.key).unwrap();
    assert_eq!(forged.code(), "verifies");
    assert_eq!(forged.verify_against(&trail.key), Err("day_head_unsigned"));
}

#[test]
fn a_seal_of_another_tree_is_found() {
    // A gateway whose head file was given another frontier signs what is not there; the chain itself is whole.
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let log = AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap();
    log.record(record(0));
    log.close(SOON).unwrap();
    let path = dir.path().join(HEAD_FILE);
    let mut head: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    head["peaks"][0] = "11".repeat(32).into();
    fs::write(&path, head.to_string()).unwrap();
    clock.advance(DAY);
    let log = AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap();
    log.record(record(1));
    log.close(SOON).unwrap();
    assert_eq!(verify(dir.path()).unwrap_err().code(), "seal_wrong");
}

#[test]
fn a_day_that_ended_while_the_gateway_was_down_is_signed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    drop(AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap());
    assert_eq!(verify(dir.path()).unwrap().heads, 0);
    clock.advance(DAY * 5);
    drop(AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap());
    let report = verify(dir.path()).unwrap();
    assert_eq!(
        (report.heads, report.last_day.as_deref()),
        (1, Some("2026-09-21"))
    );
}

#[test]
fn a_head_that_was_not_written_before_a_crash_is_signed_at_the_next_start() {
    for same_key in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let keys = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(NOW));
        let options = |key| AuditOptions {
            key,
            ..options_at(&clock, Rotation::NEVER)
        };
        let key = || AuditKey::load_or_create(&keys.path().join("k")).unwrap();
        let log = AuditLog::open(dir.path(), options(key())).unwrap();
        log.record(record(0));
        log.flush(SOON).unwrap();
        log.close(SOON).unwrap();
        let head_file = dir.path().join(HEAD_FILE);
        let before = fs::read(&head_file).unwrap();
        clock.advance(DAY);
        drop(AuditLog::open(dir.path(), options(key())).unwrap());
        // As a kill between the seal and its head leaves it.
        let head = dir
            .path()
            .join(DAY_HEADS_FOLDER)
            .join("2026-09-21.checkpoint");
        let signed = fs::read(&head).unwrap();
        fs::remove_file(&head).unwrap();
        fs::write(&head_file, before).unwrap();
        verify(dir.path()).unwrap();
        let later = if same_key {
            key()
        } else {
            AuditKey::in_memory().unwrap()
        };
        let log = AuditLog::open(dir.path(), options(later)).unwrap();
        log.record(record(1));
        log.close(SOON).unwrap();
        assert_eq!(fs::read(&head).unwrap() == signed, same_key);
        assert_eq!(verify(dir.path()).unwrap().heads, 1);
        clock.advance(DAY);
        drop(AuditLog::open(dir.path(), options(key())).unwrap());
        assert_eq!(verify(dir.path()).unwrap().heads, 2);
    }
}

#[test]
fn a_log_of_a_version_without_days_goes_on_and_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), 0..700);
    // What its head file did not say.
    let path = dir.path().join(HEAD_FILE);
    let mut head: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let head = head.as_object_mut().unwrap();
    head.remove("day");
    head.remove("peaks");
    fs::write(&path, serde_json::to_string(head).unwrap()).unwrap();
    verify(dir.path()).unwrap();
    let clock = Arc::new(FakeClock::at(UnixSeconds(NOW.0 + 86_400)));
    drop(AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap());
    let report = verify(dir.path()).unwrap();
    assert_eq!(
        (report.heads, report.last_day.as_deref()),
        (1, Some("2026-09-21"))
    );
    prove(dir.path(), 350).unwrap();
}

#[test]
fn a_rotation_that_was_killed_is_undone_or_finished() {
    for (link, next) in [(true, true), (false, true), (true, false)] {
        let trail = Trail::new();
        let live = trail.path().join(RECORDS_FILE);
        let first: serde_json::Value = serde_json::from_str(&lines(&live)[0]).unwrap();
        let closed = trail.path().join(format!(
            "audit-{:012}.jsonl",
            first["seq"].as_u64().unwrap()
        ));
        if link {
            fs::hard_link(&live, &closed).unwrap();
        }
        if next {
            fs::write(trail.path().join("audit.next"), "{\"seq\"").unwrap();
        }
        assert_eq!(trail.code(), "verifies");
        let clock = Arc::new(FakeClock::at(UnixSeconds(NOW.0 + 2 * 86_400)));
        let log = AuditLog::open(trail.path(), options_at(&clock, SMALL)).unwrap();
        assert!(!trail.path().join("audit.next").exists() && !closed.exists());
        for number in 36..50 {
            log.record(record(number));
            log.flush(SOON).unwrap();
        }
        log.close(SOON).unwrap();
        assert_eq!(trail.code(), "verifies");
        assert_eq!(numbers(trail.path()), (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn opening_goes_on_across_files_and_refuses_what_does_not_verify() {
    let trail = Trail::new();
    let clock = Arc::new(FakeClock::at(UnixSeconds(NOW.0 + 2 * 86_400)));
    let open = || AuditLog::open(trail.path(), options_at(&clock, SMALL));
    let log = open().unwrap();
    assert!(matches!(open(), Err(AuditError::InUse(_))));
    log.record(record(36));
    log.flush(SOON).unwrap();
    // The lock goes along with a rotation.
    for number in 37..60 {
        log.record(record(number));
        log.flush(SOON).unwrap();
        assert!(matches!(open(), Err(AuditError::InUse(_))));
    }
    log.close(SOON).unwrap();
    assert_eq!(numbers(trail.path()), (0..60).collect::<Vec<_>>());
    let live = trail.path().join(RECORDS_FILE);
    let whole = fs::read(&live).unwrap();
    fs::remove_file(&live).unwrap();
    assert!(matches!(open(), Err(AuditError::Damaged(_))));
    fs::write(&live, whole).unwrap();
    open().unwrap();
    fs::remove_file(trail.path().join(HEAD_FILE)).unwrap();
    assert!(matches!(open(), Err(AuditError::Damaged(_))));
    fs::remove_file(&live).unwrap();
    assert!(matches!(open(), Err(AuditError::Damaged(_))));
}

#[test]
fn every_sealed_record_has_a_proof_and_the_open_day_has_none() {
    let trail = Trail::new();
    let mut follow = Follow::from(trail.path(), None).unwrap();
    let other = Trail::new();
    let mut proved = 0;
    while let Some(followed) = follow.next().unwrap() {
        match prove(trail.path(), followed.seq) {
            Ok(proof) => {
                let proof = Proof::parse(&proof.to_string()).unwrap();
                assert_eq!(
                    proof.check(&followed.line, &trail.key).unwrap(),
                    followed.seq
                );
                assert!(matches!(
                    proof.check(&followed.line, &other.key),
                    Err(ProofError::Unsigned)
                ));
                let mut edited = followed.line.clone();
                let at = edited.len() - 5;
                edited[at] ^= 1;
                assert!(matches!(
                    proof.check(&edited, &trail.key),
                    Err(ProofError::OtherRecord)
                ));
                proved += 1;
            }
            Err(ProofError::NotSealed { seq }) => assert!(seq >= proved, "{seq}"),
            Err(error) => panic!("{}: {error}", followed.seq),
        }
    }
    assert!(proved > 24 && proved < follow.oldest_seq() + verify(trail.path()).unwrap().records);
    // A line of the same number of another log.
    let line = Follow::from(other.path(), Some(4))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .line;
    let proof = prove(trail.path(), 5).unwrap();
    assert!(matches!(
        proof.check(&line, &trail.key),
        Err(ProofError::WrongTree)
    ));
    assert_eq!(proof.seq(), 5);
    for text in [
        "",
        "c2sp.org/tlog-proof@v1\nindex 1\n\n",
        "c2sp.org/tlog-proof@v1\nextra AA\nindex 1\n\n",
    ] {
        assert_eq!(Proof::parse(text), None);
    }
    // After the files of the first day were moved away, those of the second still have proofs.
    let second = lines(&trail.head("2026-09-21"))[1].parse::<u64>().unwrap() + 1;
    for file in trail.closed() {
        let first: u64 = file.file_stem().unwrap().to_str().unwrap()["audit-".len()..]
            .parse()
            .unwrap();
        let next = trail.closed().iter().filter(|other| **other > file).count();
        if first < second && next > 3 {
            fs::remove_file(&file).unwrap();
        }
    }
    if Follow::from(trail.path(), None).unwrap().oldest_seq() < second {
        prove(trail.path(), second).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_to_one_byte_of_any_file_is_found(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        thread_local! { static TRAIL: Trail = Trail::new(); }
        TRAIL.with(|trail| {
            let mut files = trail.closed();
            files.push(trail.path().join(RECORDS_FILE));
            files.push(trail.head("2026-09-21"));
            files.push(trail.head("2026-09-22"));
            let file = &files[file.index(files.len())];
            let whole = fs::read(file).unwrap();
            let mut bytes = whole.clone();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            fs::write(file, &bytes).unwrap();
            let code = trail.code();
            fs::write(file, &whole).unwrap();
            assert_ne!(code, "verifies", "{} byte {at}", file.display());
            assert_eq!(trail.code(), "verifies");
        });
    }

    #[test]
    fn however_it_is_cut_into_files_and_days_it_is_one_trail(
        steps in prop::collection::vec((1_u64..9, any::<bool>(), any::<bool>()), 1..8),
        size in 1_u64..8000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(FakeClock::at(NOW));
        let rotation = Rotation { size: Some(size), age: None };
        let mut written = 0;
        let mut days = 0;
        for (records, next_day, reopen) in &steps {
            let log = AuditLog::open(dir.path(), options_at(&clock, rotation)).unwrap();
            for number in written..written + records {
                log.record(record(number));
                if number % 3 == 0 {
                    log.flush(SOON).unwrap();
                }
            }
            written += records;
            log.flush(SOON).unwrap();
            if *next_day {
                clock.advance(DAY);
                days += 1;
            }
            if *reopen {
                log.close(SOON).unwrap();
            }
        }
        drop(AuditLog::open(dir.path(), options_at(&clock, rotation)).unwrap());
        let report = verify(dir.path()).unwrap();
        prop_assert_eq!(report.heads, days);
        prop_assert_eq!(numbers(dir.path()), (0..written).collect::<Vec<_>>());
        let one = VerifyOptions { threads: std::num::NonZeroUsize::new(1), ..VerifyOptions::default() };
        prop_assert_eq!(outgate_audit::verify(dir.path(), &one, |_| {}).unwrap(), report);
    }
}

#[test]
fn a_line_that_lies_across_two_pieces_is_checked_once() {
    // More than one piece of 4 MiB, so that lines lie across their border.
    let dir = tempfile::tempdir().unwrap();
    common::write(dir.path(), 0..15_000);
    let file = dir.path().join(RECORDS_FILE);
    let whole = fs::read(&file).unwrap();
    assert!(whole.len() > 9 * 1024 * 1024, "{}", whole.len());
    assert_eq!(verify(dir.path()).unwrap().records, 15_001);
    for border in [4_usize << 20, 8 << 20] {
        for at in [border - 1, border, border + 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&file, &bytes).unwrap();
            let expected = 1 + whole[..at].iter().filter(|b| **b == b'\n').count() as u64;
            match verify(dir.path()) {
                Err(VerifyError::Broken { line, problem, .. }) => {
                    assert_eq!(line, Some(expected), "byte {at}: {problem:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // A gap and a swap far apart are told apart.
    let mut all = lines_of(&whole);
    all.swap(3, 14_000);
    fs::write(&file, all.join("\n") + "\n").unwrap();
    match verify(dir.path()) {
        Err(VerifyError::Broken {
            line: Some(4),
            problem:
                Problem::Reordered {
                    expected: 3,
                    found: 14_000,
                },
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

fn lines_of(bytes: &[u8]) -> Vec<String> {
    std::str::from_utf8(bytes)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_trail_verifies_at_every_moment_while_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let log = AuditLog::open(dir.path(), options_at(&clock, SMALL)).unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0..800 {
            log.record(record(number));
            if number % 4 == 0 {
                log.flush(SOON).unwrap();
            }
            if number % 50 == 0 {
                clock.advance(DAY);
            }
        }
        log.close(SOON).unwrap();
    });
    let mut times = 0;
    while !writer.is_finished() {
        verify(dir.path()).unwrap();
        times += 1;
    }
    writer.join().unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(
        times > 3 && report.files > 50 && report.heads > 10,
        "{times} {report:?}"
    );
}
