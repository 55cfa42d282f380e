//! Sources and their rotation: a new value is a new version, a lost value is no value.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use http::{HeaderMap, Uri};
use outgate_credential::{ChangeKind, CredentialStore, SourceCode};
use outgate_journey::{
    inject::{CredentialFault, Credentials},
    policy::{CredentialName, CredentialSource, PlaneAddress, SdsSource},
};
use support::{basic, bearer, header, name, wanted};

const FIRST: &str = "first-secret-value";
const SECOND: &str = "second-secret-value";

fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn injected(store: &CredentialStore) -> Result<String, CredentialFault> {
    let (mut headers, mut uri) = (HeaderMap::new(), Uri::from_static("/"));
    store
        .lease(&name())?
        .attach(&header("x-api-key", ""), &mut headers, &mut uri)?;
    Ok(String::from_utf8(headers["x-api-key"].as_bytes().to_vec()).unwrap())
}

#[test]
fn a_value_loses_exactly_one_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for (written, read) in [
        ("value-123", "value-123"),
        ("value-123\n", "value-123"),
        ("value-123\r\n", "value-123"),
    ] {
        write_private(&path, written);
        let (store, problems) = CredentialStore::open(&wanted(&path), &[(name(), bearer())]);
        assert_eq!(problems, []);
        assert_eq!(injected(&store).as_deref(), Ok(read));
    }
    write_private(&path, "value-123\n\n");
    let (store, problems) = CredentialStore::open(&wanted(&path), &[(name(), bearer())]);
    assert_eq!(problems[0].code, SourceCode::Unfit);
    assert_eq!(injected(&store), Err(CredentialFault::Unfit));
}

#[test]
fn what_cannot_be_read_is_reported_and_leases_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        write_private(&folder.path().join(name), text);
        CredentialSource::File(folder.path().join(name))
    };
    let pipe = folder.path().join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let cases = [
        (
            CredentialSource::File(folder.path().join("absent")),
            SourceCode::Missing,
        ),
        (
            CredentialSource::File(folder.path().to_owned()),
            SourceCode::NotAFile,
        ),
        (CredentialSource::File(pipe), SourceCode::NotAFile),
        (
            CredentialSource::Env("OUTGATE_TEST_NOT_SET".into()),
            SourceCode::Missing,
        ),
        (CredentialSource::Env("A=B".into()), SourceCode::Missing),
        (file("empty", b""), SourceCode::Empty),
        (file("blank", b"\n"), SourceCode::Empty),
        (file("long", &[b'x'; 65_537]), SourceCode::TooLong),
        (file("longer", &[b'x'; 100_000]), SourceCode::TooLong),
        (
            CredentialSource::Sds(SdsSource {
                address: PlaneAddress::Socket(folder.path().join("sds.sock")),
                name: "key".to_owned(),
                max_age: None,
            }),
            SourceCode::Unheard,
        ),
    ];
    for (source, code) in cases {
        let (store, problems) =
            CredentialStore::open(&[(name(), source.clone())].into(), &[(name(), bearer())]);
        assert_eq!(
            problems
                .iter()
                .map(|problem| problem.code)
                .collect::<Vec<_>>(),
            [code],
            "{source:?}"
        );
        assert!(!code.is_warning());
        assert!(
            matches!(store.lease(&name()), Err(CredentialFault::Missing(_))),
            "{source:?}"
        );
    }
}

#[test]
fn the_longest_value_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    write_private(&path, [&[b'x'; 65_536][..], b"\r\n"].concat());
    let (store, problems) = CredentialStore::open(&wanted(&path), &[]);
    assert_eq!(problems, []);
    assert!(store.lease(&name()).is_ok());
}

#[test]
fn doubts_are_warnings_and_the_credential_works() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for (text, mode, code) in [
        ("short", 0o600, SourceCode::Short),
        (FIRST, 0o604, SourceCode::ReadableByOthers),
        (FIRST, 0o444, SourceCode::ReadableByOthers),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (store, problems) = CredentialStore::open(&wanted(&path), &[(name(), bearer())]);
        assert_eq!(
            problems
                .iter()
                .map(|problem| problem.code)
                .collect::<Vec<_>>(),
            [code]
        );
        assert!(code.is_warning() && !problems[0].to_string().contains(text));
        assert_eq!(injected(&store).as_deref(), Ok(text));
    }
}

#[test]
fn a_secret_that_a_group_of_the_gateways_may_read_is_nothing_to_warn_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, FIRST).unwrap();
    for mode in [0o440, 0o640] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let (_, problems) = CredentialStore::open(&wanted(&path), &[(name(), bearer())]);
        assert_eq!(problems, [], "{mode:o}");
    }
}

#[test]
fn an_environment_variable_is_a_source() {
    let source = CredentialSource::Env("CARGO_PKG_NAME".into());
    let (store, _) = CredentialStore::open(&[(name(), source)].into(), &[]);
    assert_eq!(injected(&store).as_deref(), Ok("outgate-credential"));
    assert!(store.watched_files().is_empty());
}

#[test]
fn a_credential_that_is_not_configured_is_not_leased() {
    let (store, _) = CredentialStore::open(&[].into(), &[]);
    assert!(store.lease(&CredentialName::new("other")).is_err());
}

#[test]
fn an_atomic_rename_makes_a_version_and_leaves_old_leases_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    write_private(&path, FIRST);
    let (store, _) = CredentialStore::open(&wanted(&path), &[(name(), bearer())]);
    assert_eq!(store.watched_files(), std::slice::from_ref(&path));
    let old = store.lease(&name()).unwrap();
    assert_eq!(store.refresh(), []);
    assert!(
        Arc::ptr_eq(&old, &store.lease(&name()).unwrap()),
        "an unchanged value keeps its version"
    );

    write_private(&folder.path().join("next"), SECOND);
    fs::rename(folder.path().join("next"), &path).unwrap();
    let changes = store.refresh();
    let new = store.lease(&name()).unwrap();
    assert_eq!(changes[0].kind, ChangeKind::Rotated(new.version()));
    assert!(new.version() > old.version());
    assert_eq!(injected(&store).as_deref(), Ok(SECOND));
    assert!(
        old.scrubber().contains(FIRST.as_bytes()) && !old.scrubber().contains(SECOND.as_bytes())
    );
}

#[test]
fn a_swapped_folder_link_is_picked_up() {
    // How Kubernetes updates a mounted ConfigMap or Secret.
    let folder = tempfile::tempdir().unwrap();
    for (version, text) in [("..1", FIRST), ("..2", SECOND)] {
        fs::create_dir(folder.path().join(version)).unwrap();
        write_private(&folder.path().join(version).join("secret"), text);
    }
    symlink("..1", folder.path().join("..data")).unwrap();
    symlink("..data/secret", folder.path().join("secret")).unwrap();
    let (store, _) = CredentialStore::open(&wanted(&folder.path().join("secret")), &[]);
    assert_eq!(injected(&store).as_deref(), Ok(FIRST));

    symlink("..2", folder.path().join("..data_tmp")).unwrap();
    fs::rename(
        folder.path().join("..data_tmp"),
        folder.path().join("..data"),
    )
    .unwrap();
    assert_eq!(store.refresh().len(), 1);
    assert_eq!(injected(&store).as_deref(), Ok(SECOND));
}

#[test]
fn a_lost_value_fails_closed_and_its_return_is_another_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    for how in ["removed", "emptied"] {
        write_private(&path, FIRST);
        let (store, _) = CredentialStore::open(&wanted(&path), &[]);
        let before = store.lease(&name()).unwrap().version();
        match how {
            "removed" => fs::remove_file(&path).unwrap(),
            _ => fs::write(&path, "").unwrap(),
        }
        let changes = store.refresh();
        assert!(
            matches!(&changes[0].kind, ChangeKind::Lost(problem) if !problem.code.is_warning()),
            "{how}"
        );
        assert!(
            matches!(injected(&store), Err(CredentialFault::Missing(_))),
            "{how}"
        );
        assert_eq!(store.refresh(), [], "{how}: told once");

        write_private(&path, FIRST);
        let changes = store.refresh();
        let after = store.lease(&name()).unwrap().version();
        assert_eq!(changes[0].kind, ChangeKind::Restored(after), "{how}");
        assert!(after > before, "{how}");
    }
}

#[test]
fn a_reload_keeps_unchanged_versions_and_drops_what_is_not_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    write_private(&path, FIRST);
    let other = CredentialName::new("other");
    let forms = [(name(), bearer())];
    let (store, _) = CredentialStore::open(&wanted(&path), &forms);
    let before = store.lease(&name()).unwrap();

    let mut both = wanted(&path);
    both.insert(other.clone(), CredentialSource::File(path.clone()));
    assert_eq!(store.reconfigure(&both, &forms), []);
    assert!(Arc::ptr_eq(&before, &store.lease(&name()).unwrap()));
    assert_ne!(store.lease(&other).unwrap().version(), before.version());

    // Another form: the same value and version, and a scrubber that knows the combined value.
    store.reconfigure(&wanted(&path), &[(name(), basic())]);
    let after = store.lease(&name()).unwrap();
    assert_eq!(after.version(), before.version());
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(store.lease(&other).is_err());
}
