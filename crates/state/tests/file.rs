//! Private files: whole, private, once.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    thread,
};

use outgate_state::{
    Created, StateError, create_private_dir, create_private_exclusive, create_public_exclusive,
    is_open_to_others, lock_dir, read_mounted_public, read_mounted_secret, read_private,
    write_group_atomic, write_private_atomic, write_public_atomic,
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn directories_are_created_private_all_the_way_down() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("a/b/c");
    create_private_dir(&deep).unwrap();
    create_private_dir(&deep).unwrap();
    for dir in ["a", "a/b", "a/b/c"] {
        assert_eq!(mode(&root.path().join(dir)), 0o700);
    }
}

#[test]
fn a_directory_that_others_could_write_to_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for (present, allowed) in [
        (0o700, true),
        (0o755, true),
        (0o775, false),
        (0o702, false),
        (0o1777, false),
    ] {
        set_mode(root.path(), present);
        assert_eq!(
            create_private_dir(root.path()).is_ok(),
            allowed,
            "{present:o}"
        );
    }
    set_mode(root.path(), 0o700);
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(create_private_dir(&file).is_err());
}

#[test]
fn modes_are_exact_and_nothing_else_stays_behind() {
    let root = tempfile::tempdir().unwrap();
    let (private, public) = (root.path().join("private"), root.path().join("public"));
    write_private_atomic(&private, b"one").unwrap();
    write_public_atomic(&public, b"one").unwrap();
    assert_eq!((mode(&private), mode(&public)), (0o600, 0o644));
    set_mode(&private, 0o666);
    write_private_atomic(&private, b"two").unwrap();
    assert_eq!(
        (mode(&private), fs::read(&private).unwrap()),
        (0o600, b"two".to_vec())
    );
    assert_eq!(
        create_private_exclusive(&root.path().join("3"), b"").unwrap(),
        Created::Created
    );
    assert_eq!(
        create_public_exclusive(&root.path().join("4"), b"").unwrap(),
        Created::Created
    );
    assert_eq!(
        (mode(&root.path().join("3")), mode(&root.path().join("4"))),
        (0o600, 0o644)
    );
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 4);
}

#[test]
fn what_is_present_is_not_overwritten_by_an_exclusive_creation() {
    let root = tempfile::tempdir().unwrap();
    let (file, link, target) = (
        root.path().join("file"),
        root.path().join("link"),
        root.path().join("target"),
    );
    fs::write(&file, "mine").unwrap();
    symlink(&target, &link).unwrap();
    for path in [&file, &link] {
        assert_eq!(
            create_private_exclusive(path, b"other").unwrap(),
            Created::Existed
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(!target.exists());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn of_many_who_create_at_once_one_does_and_all_read_its_content() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    let results: Vec<_> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8u8)
            .map(|i| {
                let file = &file;
                scope.spawn(move || {
                    (
                        create_private_exclusive(file, &[i; 4096]).unwrap(),
                        read_private(file).unwrap(),
                    )
                })
            })
            .collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert_eq!(
        results
            .iter()
            .filter(|(created, _)| *created == Created::Created)
            .count(),
        1
    );
    assert!(
        results
            .iter()
            .all(|(_, content)| content.len() == 4096 && *content == results[0].1)
    );
}

#[test]
fn a_file_that_others_have_any_right_to_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("key");
    write_private_atomic(&file, b"key").unwrap();
    for (present, allowed) in [
        (0o600, true),
        (0o400, true),
        (0o700, true),
        (0o640, false),
        (0o604, false),
        (0o620, false),
        (0o601, false),
    ] {
        set_mode(&file, present);
        assert_eq!(read_private(&file).is_ok(), allowed, "{present:o}");
    }
    let message = read_private(&file).unwrap_err().to_string();
    assert!(
        message.contains("mode 0601") && message.contains(&format!("chmod 600 {}", file.display())),
        "{message}"
    );
}

#[test]
fn links_are_followed_and_their_target_is_judged() {
    let root = tempfile::tempdir().unwrap();
    let (file, link) = (root.path().join("key"), root.path().join("link"));
    write_private_atomic(&file, b"key").unwrap();
    symlink(&file, &link).unwrap();
    assert_eq!(*read_private(&link).unwrap(), b"key");
    set_mode(&file, 0o644);
    assert!(matches!(
        read_private(&link),
        Err(StateError::Exposed { .. })
    ));
}

#[test]
fn what_is_no_plain_file_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(
        read_private(root.path()),
        Err(StateError::WrongKind { .. })
    ));
    assert!(matches!(
        read_private(&root.path().join("absent")),
        Err(StateError::Io { .. })
    ));
    let fifo = root.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(
        matches!(read_private(&fifo), Err(StateError::WrongKind { .. })),
        "and does not wait for a writer"
    );
    let large = root.path().join("large");
    write_private_atomic(&large, &vec![0; (4 << 20) + 1]).unwrap();
    assert!(matches!(
        read_private(&large),
        Err(StateError::WrongKind { .. })
    ));
}

#[test]
fn a_failed_write_leaves_what_was_there() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("dir");
    fs::create_dir_all(dir.join("inside")).unwrap();
    assert!(write_private_atomic(&dir, b"x").is_err());
    assert!(write_private_atomic(&root.path().join("absent/file"), b"x").is_err());
    assert!(dir.join("inside").is_dir());
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn a_locked_directory_waits_for_its_holder() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("count");
    fs::write(&file, "0").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _lock = lock_dir(root.path()).unwrap();
                    let count: u32 = fs::read_to_string(&file).unwrap().parse().unwrap();
                    thread::yield_now();
                    fs::write(&file, (count + 1).to_string()).unwrap();
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(&file).unwrap(), "200");
}

#[test]
fn a_file_for_a_group_is_replaced_whole_and_no_more_than_the_group_reads_it() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("leaf");
    let own = fs::metadata(root.path()).unwrap().gid();
    for text in ["one", "two"] {
        write_group_atomic(&path, text.as_bytes(), own).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(
            (mode(&path), fs::metadata(&path).unwrap().gid()),
            (0o640, own)
        );
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    assert!(write_group_atomic(&root.path().join("missing/leaf"), b"x", own).is_err());
}

#[test]
fn what_is_mounted_may_be_read_by_a_group_of_the_process_and_by_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("tls.key");
    write_private_atomic(&file, b"key").unwrap();
    for (present, allowed) in [
        (0o600, true),
        (0o400, true),
        (0o440, true),
        (0o640, true),
        (0o660, false),
        (0o620, false),
        (0o444, false),
        (0o604, false),
        (0o641, false),
        (0o650, false),
    ] {
        set_mode(&file, present);
        assert_eq!(read_mounted_secret(&file).is_ok(), allowed, "{present:o}");
    }
    set_mode(&file, 0o644);
    let message = read_mounted_secret(&file).unwrap_err().to_string();
    assert!(message.contains("mode 0644"), "{message}");
    assert!(is_open_to_others(&std::fs::metadata(&file).unwrap()));
    set_mode(&file, 0o440);
    assert!(!is_open_to_others(&std::fs::metadata(&file).unwrap()));
}

#[test]
fn what_anybody_may_read_is_written_by_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("tls.crt");
    write_public_atomic(&file, b"certificate").unwrap();
    for (present, allowed) in [(0o644, true), (0o444, true), (0o664, false), (0o646, false)] {
        set_mode(&file, present);
        assert_eq!(read_mounted_public(&file).is_ok(), allowed, "{present:o}");
    }
}
