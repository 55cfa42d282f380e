//! Everything that can be done to a trail from outside, and what `verify` and `open` say to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use common::{numbers, open, options, verify, write};
use outgate_audit::{
    AuditError, AuditLog, HEAD_FILE, Problem, RECORDS_FILE, VerifyError, VerifyOptions, show,
};

fn trail(records: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 0..records);
    let file = dir.path().join(RECORDS_FILE);
    (dir, file)
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn put(file: &Path, lines: &[String]) {
    fs::write(
        file,
        lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )
    .unwrap();
}

fn finding(dir: &Path) -> (Option<u64>, Problem) {
    match verify(dir) {
        Err(VerifyError::Broken { line, problem, .. }) => (line, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_untouched_trail_verifies_and_the_report_says_how_far_it_goes() {
    let (dir, file) = trail(7);
    let mut told = 0;
    let options = VerifyOptions::default();
    let report = outgate_audit::verify(dir.path(), &options, |bytes| told = bytes).unwrap();
    assert_eq!(
        (report.records, report.last_seq, report.head_seq),
        (8, 7, Some(7))
    );
    assert_eq!(
        (report.last, report.torn_bytes),
        (Some(1_790_000_000_006), 0)
    );
    assert!(report.first.is_some() && report.last_hash.len() == 64 && report.log_id.len() == 32);
    assert_eq!(told, fs::metadata(&file).unwrap().len());
    assert_eq!(verify(&file).unwrap(), report);
    assert_eq!(numbers(dir.path()), (0..7).collect::<Vec<_>>());
}

#[test]
fn directory_and_files_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let audit = dir.path().join("audit");
    write(&audit, 0..1);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&audit), 0o700);
    assert_eq!(mode(&audit.join(RECORDS_FILE)), 0o600);
    assert_eq!(mode(&audit.join(HEAD_FILE)), 0o600);
}

#[test]
fn a_change_of_any_single_byte_is_found_on_its_line() {
    let (dir, file) = trail(2);
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        for flip in [0x01, 0x20] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            fs::write(&file, &bytes).unwrap();
            let expected = 1 + whole[..at].iter().filter(|b| **b == b'\n').count() as u64;
            let (line, problem) = finding(dir.path());
            if at == whole.len() - 1 {
                assert_eq!((line, problem), (None, Problem::Truncated { head: 2 }));
            } else {
                assert_eq!(line, Some(expected), "byte {at}: {problem:?}");
            }
        }
    }
}

#[test]
fn a_byte_added_or_taken_anywhere_is_found() {
    let (dir, file) = trail(2);
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes.remove(at);
        fs::write(&file, &bytes).unwrap();
        finding(dir.path());
        let mut bytes = whole.clone();
        bytes.insert(at, b' ');
        fs::write(&file, &bytes).unwrap();
        finding(dir.path());
    }
}

#[test]
fn a_missing_line_is_a_gap_wherever_it_stood() {
    for missing in 0..6_usize {
        let (dir, file) = trail(6);
        let mut all = lines(&file);
        all.remove(missing);
        put(&file, &all);
        let at = missing as u64;
        assert_eq!(
            finding(dir.path()),
            (
                Some(at + 1),
                Problem::Gap {
                    expected: at,
                    found: at + 1
                }
            )
        );
    }
}

#[test]
fn swapped_and_repeated_lines_are_named_as_such() {
    let (dir, file) = trail(6);
    let original = lines(&file);
    let mut all = original.clone();
    all.swap(2, 3);
    put(&file, &all);
    assert_eq!(
        finding(dir.path()),
        (
            Some(3),
            Problem::Reordered {
                expected: 2,
                found: 3
            }
        )
    );
    let mut all = original.clone();
    all.insert(4, original[3].clone());
    put(&file, &all);
    assert_eq!(
        finding(dir.path()),
        (
            Some(5),
            Problem::Repeated {
                expected: 4,
                found: 3
            }
        )
    );
    let mut all = original;
    all.push(all[2].clone());
    put(&file, &all);
    assert_eq!(
        finding(dir.path()),
        (
            Some(8),
            Problem::Repeated {
                expected: 7,
                found: 2
            }
        )
    );
}

#[test]
fn a_cut_end_is_found_with_and_without_a_torn_line() {
    let (dir, file) = trail(6);
    let whole = lines(&file);
    put(&file, &whole[..5]);
    assert_eq!(finding(dir.path()), (None, Problem::Truncated { head: 6 }));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 10]).unwrap();
    assert_eq!(finding(dir.path()), (None, Problem::Truncated { head: 6 }));
    fs::write(&file, b"").unwrap();
    assert_eq!(finding(dir.path()), (None, Problem::Truncated { head: 6 }));
}

#[test]
fn a_forged_line_at_the_end_is_found() {
    let (dir, file) = trail(3);
    let original = lines(&file);
    // A copied line with the next number: the hash is not its own.
    let mut all = original.clone();
    all.push(original[3].replacen("\"seq\":3", "\"seq\":4", 1));
    put(&file, &all);
    assert_eq!(finding(dir.path()), (Some(5), Problem::Edited));
    // A whole line of another log: right number, right hash, wrong predecessor.
    let (_other_dir, other) = trail(5);
    let mut all = original;
    all.push(lines(&other)[4].clone());
    put(&file, &all);
    assert_eq!(finding(dir.path()), (Some(5), Problem::Unlinked));
    let mut all = lines(&file);
    all[4] = "not json".to_owned();
    put(&file, &all);
    assert_eq!(finding(dir.path()), (Some(5), Problem::BadJson));
    all[4] = "{\"seq\":4}".to_owned();
    put(&file, &all);
    assert_eq!(finding(dir.path()), (Some(5), Problem::Envelope));
    all[4] = "x".repeat(100_000);
    put(&file, &all);
    assert_eq!(finding(dir.path()), (Some(5), Problem::TooLong));
}

#[test]
fn another_log_in_the_place_of_this_one_is_found_by_the_head_file() {
    let (dir, file) = trail(4);
    let (_other_dir, other) = trail(9);
    fs::copy(&other, &file).unwrap();
    assert_eq!(finding(dir.path()), (Some(5), Problem::HeadMismatch));
}

#[test]
fn the_head_file_can_be_missing_for_a_lone_file_only() {
    let (dir, file) = trail(4);
    fs::remove_file(dir.path().join(HEAD_FILE)).unwrap();
    assert_eq!(finding(dir.path()), (None, Problem::HeadMissing));
    assert_eq!(verify(&file).unwrap().head_seq, None);
    fs::write(dir.path().join(HEAD_FILE), "{}").unwrap();
    assert_eq!(finding(dir.path()), (None, Problem::HeadMalformed));
}

#[test]
fn errors_name_file_line_and_sequence() {
    let (dir, file) = trail(3);
    let mut all = lines(&file);
    all[3] = all[3].replace("/v1/items/2", "/v1/items/9");
    put(&file, &all);
    let error = verify(dir.path()).unwrap_err();
    assert_eq!(error.code(), "edited");
    assert_eq!(
        error.to_string(),
        format!(
            "{} line 4 (sequence 3): the line was edited: its hash is not that of its bytes",
            file.display()
        )
    );
}

#[test]
fn opening_again_continues_the_chain() {
    let (dir, _) = trail(3);
    write(dir.path(), 3..3);
    write(dir.path(), 3..8);
    assert_eq!(numbers(dir.path()), (0..8).collect::<Vec<_>>());
    assert_eq!(verify(dir.path()).unwrap().records, 9);
}

#[test]
fn opening_a_long_file_reads_its_end_only_and_continues() {
    let (dir, file) = trail(1500);
    assert!(fs::metadata(&file).unwrap().len() > 512 * 1024);
    write(dir.path(), 1500..1503);
    assert_eq!(numbers(dir.path()), (0..1503).collect::<Vec<_>>());
    verify(dir.path()).unwrap();
}

#[test]
fn a_log_is_written_by_one_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert!(matches!(
        AuditLog::open(dir.path(), options()),
        Err(AuditError::InUse(_))
    ));
    drop(log);
    open(dir.path());
}

#[test]
fn a_torn_last_line_is_set_aside_and_recorded() {
    let (dir, file) = trail(4);
    for (n, torn) in [&b"{\"seq\":5,\"prev\":\"00"[..], b"\0\0\0\0"]
        .into_iter()
        .enumerate()
    {
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend_from_slice(torn);
        fs::write(&file, &bytes).unwrap();
        assert_eq!(verify(dir.path()).unwrap().torn_bytes, torn.len() as u64);
        write(dir.path(), 0..0);
        assert_eq!(
            fs::read(dir.path().join(format!("audit.torn-{}", n + 1))).unwrap(),
            torn
        );
        assert_eq!(verify(dir.path()).unwrap().torn_bytes, 0);
        assert!(
            lines(&file)
                .last()
                .unwrap()
                .contains("\"Audit log repaired\"")
        );
    }
    assert_eq!(numbers(dir.path()), (0..4).collect::<Vec<_>>());
}

#[test]
fn a_founding_line_that_was_torn_is_founded_again() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(RECORDS_FILE), "{\"seq\":0,\"pr").unwrap();
    write(dir.path(), 0..2);
    assert_eq!(numbers(dir.path()), [0, 1]);
    assert!(dir.path().join("audit.torn-1").exists());
}

#[test]
fn what_does_not_verify_is_not_continued_and_not_touched() {
    type Tamper = fn(&Path, &mut Vec<String>);
    let cases: [(&str, &str, Tamper); 6] = [
        ("a cut end", "truncated", |_, all| all.truncate(3)),
        ("an emptied file", "truncated", |_, all| all.clear()),
        ("an edit", "edited", |_, all| {
            all[4] = all[4].replace("api.example.org", "api.example.com")
        }),
        ("a gap", "gap", |_, all| {
            all.remove(3);
        }),
        ("no head", "head_missing", |dir, _| {
            fs::remove_file(dir.join(HEAD_FILE)).unwrap()
        }),
        ("a foreign line", "bad_json", |_, all| {
            all.push("hello".to_owned())
        }),
    ];
    for (what, code, tamper) in cases {
        let (dir, file) = trail(5);
        let mut all = lines(&file);
        tamper(dir.path(), &mut all);
        put(&file, &all);
        let before = fs::read(&file).unwrap();
        match AuditLog::open(dir.path(), options()) {
            Err(AuditError::Damaged(found)) => assert_eq!(found.code(), code, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(fs::read(&file).unwrap(), before, "{what}");
    }
}

#[test]
fn a_removed_file_of_records_is_not_founded_again_beside_its_head() {
    let (dir, file) = trail(5);
    fs::remove_file(&file).unwrap();
    assert!(matches!(
        AuditLog::open(dir.path(), options()),
        Err(AuditError::Damaged(_))
    ));
    assert!(matches!(
        verify(dir.path()),
        Err(VerifyError::Broken { .. })
    ));
}

#[test]
fn a_link_or_a_directory_in_the_place_of_the_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/null", dir.path().join(RECORDS_FILE)).unwrap();
    assert!(AuditLog::open(dir.path(), options()).is_err());
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(RECORDS_FILE)).unwrap();
    assert!(AuditLog::open(dir.path(), options()).is_err());
}

#[test]
fn the_one_line_form_has_its_columns() {
    let (dir, _) = trail(3);
    let shown: Vec<String> = show(dir.path())
        .unwrap()
        .map(|shown| shown.unwrap().to_string())
        .collect();
    assert!(
        shown[0].ends_with(" log     - - audit-log-created - - -"),
        "{}",
        shown[0]
    );
    assert_eq!(
        shown[1..],
        [
            "2026-09-21T14:13:20.000Z denied  path_not_allowed s-1f4c9a GET api.example.org:443 /v1/items/0 - out=0 in=0",
            "2026-09-21T14:13:20.001Z allowed - s-1f4c9a connect api.example.org:443 - - out=0 in=0",
            "2026-09-21T14:13:20.002Z allowed - s-1f4c9a GET api.example.org:443 /v1/items/2 - out=0 in=0",
        ]
    );
}
