//! Leaves as files: what is in the folder afterwards, and what a reader sees in between.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering, mpsc},
    time::Duration,
};

use notify::{
    EventKind, RecursiveMode, Watcher,
    event::{ModifyKind, RenameMode},
};
use outgate_clock::FakeClock;
use outgate_journey::{
    name::HostName,
    policy::{Policy, Posture},
};
use outgate_minter::{LeafFiles, LeafFilesError, Wildcards, Written, leaf_file_name, write_leaves};
use outgate_pki::Minter;
use serde_json::Value;

use crate::support::{Book, HOUR, NOW, bumping, minter, policy, rule};

struct Desk {
    root: tempfile::TempDir,
    minter: Minter,
    book: Book,
    clock: FakeClock,
    force: bool,
    wildcards: Wildcards,
    group: Option<u32>,
}

impl Desk {
    fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            minter: minter(),
            book: Book::new(),
            clock: FakeClock::at(NOW),
            force: false,
            wildcards: Wildcards::Refuse,
            group: None,
        }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("leaves")
    }

    async fn write(&self, policy: Arc<Policy>) -> Result<Written, LeafFilesError> {
        write_leaves(LeafFiles {
            dir: &self.dir(),
            policy: &policy,
            minter: &self.minter,
            trail: &self.book,
            clock: &self.clock,
            wildcards: self.wildcards,
            group: self.group,
            force: self.force,
        })
        .await
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.dir()).unwrap().map(Result::unwrap);
        let files = entries.map(|it| {
            (
                it.file_name().into_string().unwrap(),
                fs::read(it.path()).unwrap(),
            )
        });
        files.collect()
    }
}

fn hosts(names: &[&str]) -> Vec<HostName> {
    names
        .iter()
        .map(|it| HostName::parse(it).unwrap())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn each_bumped_host_has_a_file_that_envoy_reads() {
    let desk = Desk::new();
    let written = desk.write(policy(vec![
        rule("b.test", Posture::Bump),
        rule("a.test", Posture::Bump),
        rule("passed.test", Posture::PassThrough),
        rule("denied.test", Posture::DenyAll),
    ]));
    let written = written.await.unwrap();
    assert_eq!(written.minted, hosts(&["a.test", "b.test"]));
    assert_eq!(desk.book.mints(), ["a.test", "b.test"]);
    assert_eq!(mode(&desk.dir()), 0o700);
    let files = desk.files();
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["a.test.json", "b.test.json"]);
    for (name, text) in files {
        assert_eq!(mode(&desk.dir().join(&name)), 0o600);
        let response: Value = serde_json::from_slice(&text).unwrap();
        let resources = response["resources"].as_array().unwrap();
        assert_eq!(resources.len(), 1);
        let secret = &resources[0];
        assert_eq!(secret["@type"], outgate_xds::type_urls::SECRET);
        assert_eq!(format!("{}.json", secret["name"].as_str().unwrap()), name);
        let text = |field: &str| {
            secret["tls_certificate"][field]["inline_string"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let host = HostName::parse(secret["name"].as_str().unwrap()).unwrap();
        let good = desk.minter.authority().vouches_for(
            &text("certificate_chain"),
            &text("private_key"),
            &host,
            NOW,
        );
        assert!(good.is_some());
    }
}

#[tokio::test]
async fn what_is_good_stays_and_what_ends_soon_is_minted_again() {
    let desk = Desk::new();
    let policy = bumping(&["a.test", "b.test"]);
    desk.write(policy.clone()).await.unwrap();
    let before = desk.files();
    desk.clock.advance(Duration::from_secs(16 * HOUR - 1));
    let written = desk.write(policy.clone()).await.unwrap();
    assert_eq!(
        (written.minted, written.kept),
        (vec![], hosts(&["a.test", "b.test"]))
    );
    assert_eq!(desk.files(), before);
    desk.clock.advance(Duration::from_secs(1));
    let written = desk.write(policy).await.unwrap();
    assert_eq!(written.minted, hosts(&["a.test", "b.test"]));
    assert_eq!(desk.book.mints().len(), 4);
}

#[tokio::test]
async fn what_is_not_as_it_would_be_written_is_minted_again() {
    let mut desk = Desk::new();
    let policy = bumping(&["a.test", "b.test"]);
    desk.write(policy.clone()).await.unwrap();
    let (a, b) = (
        desk.dir().join("a.test.json"),
        desk.dir().join("b.test.json"),
    );
    let spoil: [(&str, &dyn Fn()); 5] = [
        ("damaged", &|| fs::write(&a, "{}").unwrap()),
        ("another host's", &|| assert!(fs::copy(&b, &a).unwrap() > 0)),
        ("open to others", &|| {
            fs::set_permissions(&a, fs::Permissions::from_mode(0o644)).unwrap()
        }),
        ("missing", &|| fs::remove_file(&a).unwrap()),
        ("a link", &|| {
            fs::remove_file(&a).unwrap();
            std::os::unix::fs::symlink(&b, &a).unwrap();
        }),
    ];
    for (what, spoil) in spoil {
        spoil();
        let written = desk.write(policy.clone()).await.unwrap();
        assert_eq!(
            (written.minted, written.kept),
            (hosts(&["a.test"]), hosts(&["b.test"])),
            "{what}"
        );
        assert_eq!(mode(&a), 0o600);
        assert!(fs::symlink_metadata(&a).unwrap().is_file());
    }
    desk.minter = minter();
    let written = desk.write(policy.clone()).await.unwrap();
    assert_eq!(written.minted.len(), 2, "another CA");
    desk.force = true;
    let written = desk.write(policy).await.unwrap();
    assert_eq!(written.minted.len(), 2, "told to");
}

#[tokio::test]
async fn a_host_that_the_policy_drops_loses_its_file_and_nothing_else_goes() {
    let desk = Desk::new();
    desk.write(bumping(&["a.test", "b.test"])).await.unwrap();
    let others = ["notes.json", "b.test.yaml", "c.test.json", "README"];
    for name in others {
        fs::write(desk.dir().join(name), "{\"resources\": []}").unwrap();
    }
    fs::copy(desk.dir().join("b.test.json"), desk.dir().join("copy.json")).unwrap();
    let written = desk.write(bumping(&["a.test"])).await.unwrap();
    assert_eq!(
        (written.kept, written.removed),
        (hosts(&["a.test"]), hosts(&["b.test"]))
    );
    let mut left: Vec<_> = desk.files().into_keys().collect();
    left.retain(|name| !others.contains(&name.as_str()));
    assert_eq!(left, ["a.test.json", "copy.json"]);
}

#[tokio::test]
async fn a_policy_with_wildcards_is_refused_by_name_or_passed_over_when_told() {
    let mut desk = Desk::new();
    let policy = policy(vec![
        rule("*.wild.test", Posture::Bump),
        rule("a.test", Posture::Bump),
        rule("*.other.test", Posture::Bump),
        rule("*.passed.test", Posture::PassThrough),
    ]);
    let refused = desk.write(policy.clone()).await.unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("*.other.test, *.wild.test:") && !text.contains("passed"),
        "{text}"
    );
    assert!(!desk.dir().exists() && desk.book.records().is_empty());
    desk.wildcards = Wildcards::Skip;
    let written = desk.write(policy).await.unwrap();
    assert_eq!(written.minted, hosts(&["a.test"]));
    let skipped: Vec<_> = written.skipped.iter().map(ToString::to_string).collect();
    assert_eq!(skipped, ["*.other.test", "*.wild.test"]);
}

#[tokio::test]
async fn a_trail_that_cannot_be_written_leaves_the_folder_as_it_was() {
    let mut desk = Desk::new();
    desk.write(bumping(&["a.test", "b.test"])).await.unwrap();
    let before = desk.files();
    desk.force = true;
    for fault in [&desk.book.closed, &desk.book.broken] {
        fault.store(true, Ordering::SeqCst);
        let refused = desk.write(bumping(&["a.test", "c.test"])).await;
        assert!(matches!(refused, Err(LeafFilesError::Audit(_))));
        assert_eq!(desk.files(), before);
        fault.store(false, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_group_reads_the_files_and_nobody_else_does() {
    let mut desk = Desk::new();
    let own = fs::metadata(desk.root.path()).unwrap().gid();
    desk.group = Some(own);
    desk.write(bumping(&["a.test"])).await.unwrap();
    let file = desk.dir().join("a.test.json");
    assert_eq!((mode(&desk.dir()), mode(&file)), (0o750, 0o640));
    assert_eq!(fs::metadata(&file).unwrap().gid(), own);
    let again = desk.write(bumping(&["a.test"])).await.unwrap();
    assert_eq!(again.kept, hosts(&["a.test"]));
    desk.group = None;
    let private = desk.write(bumping(&["a.test"])).await.unwrap();
    assert_eq!((private.minted, mode(&file)), (hosts(&["a.test"]), 0o600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_watches_the_folder_sees_renames_and_only_whole_files() {
    let mut desk = Desk::new();
    let policy = bumping(&["a.test"]);
    desk.write(policy.clone()).await.unwrap();
    let (events, seen) = mpsc::channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let _ = events.send(event.unwrap());
    })
    .unwrap();
    watcher
        .watch(&desk.dir(), RecursiveMode::NonRecursive)
        .unwrap();
    let file = desk.dir().join("a.test.json");
    let (stop, stopped) = mpsc::channel::<()>();
    let reader = {
        let file = file.clone();
        std::thread::spawn(move || {
            let mut versions = std::collections::BTreeSet::new();
            while stopped.try_recv().is_err() {
                let text = fs::read(&file).unwrap();
                serde_json::from_slice::<Value>(&text).unwrap();
                versions.insert(text);
            }
            versions.len()
        })
    };
    desk.force = true;
    for _ in 0..20 {
        desk.write(policy.clone()).await.unwrap();
    }
    stop.send(()).unwrap();
    assert!(reader.join().unwrap() > 1);
    let renamed_here = |event: &notify::Event| {
        let rename = matches!(
            event.kind,
            EventKind::Modify(ModifyKind::Name(RenameMode::To))
        );
        rename && event.paths == [file.clone()]
    };
    let mut renames = 0;
    while renames < 20 {
        let event = seen.recv_timeout(Duration::from_secs(5)).unwrap();
        renames += usize::from(renamed_here(&event));
        let written = matches!(event.kind, EventKind::Modify(ModifyKind::Data(_)));
        assert!(
            !(written && event.paths.contains(&file)),
            "written in its place"
        );
    }
}

#[test]
fn a_name_of_any_length_has_a_file_name_of_its_own_that_fits() {
    let long = |last: &str| {
        let label = "a".repeat(63);
        HostName::parse(&format!("{label}.{label}.{label}.{}{last}", "b".repeat(59))).unwrap()
    };
    let (one, other) = (leaf_file_name(&long("x")), leaf_file_name(&long("y")));
    assert_ne!(one, other);
    assert!(one.len() < 225 && one.ends_with(".json"));
    assert_eq!(leaf_file_name(&hosts(&["a.test"])[0]), "a.test.json");
}

#[tokio::test]
async fn a_host_with_a_very_long_name_is_kept_and_dropped_as_any_other() {
    let desk = Desk::new();
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "b".repeat(60));
    let written = desk.write(bumping(&[&name])).await.unwrap();
    assert_eq!(written.minted.len(), 1);
    assert_eq!(desk.write(bumping(&[&name])).await.unwrap().kept.len(), 1);
    assert_eq!(desk.write(bumping(&[])).await.unwrap().removed.len(), 1);
    assert_eq!(desk.files().len(), 0);
}
