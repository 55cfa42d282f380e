//! Values that a server tells: they are good for as long as the server is heard of, and gone when it says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Uri};
use outgate_credential::{
    Change, ChangeKind, Contact, CredentialStore, SourceCode, SourceProblem, Told,
};
use outgate_journey::{
    inject::{CredentialFault, Credentials},
    policy::{CredentialName, CredentialSource, PlaneAddress, SdsSource},
};
use support::{header, name};
use zeroize::Zeroizing;

const NEVER: u64 = u64::MAX;

/// A server that was last heard of so many seconds ago.
#[derive(Default)]
struct Silent(AtomicU64);

impl Contact for Silent {
    fn silent_for(&self) -> Option<Duration> {
        let seconds = self.0.load(Ordering::Relaxed);
        (seconds != NEVER).then(|| Duration::from_secs(seconds))
    }
}

fn source(secret: &str, max_age: Option<u64>) -> SdsSource {
    SdsSource {
        address: PlaneAddress::Socket(PathBuf::from("/run/vault.sock")),
        name: secret.to_owned(),
        max_age: max_age.map(Duration::from_secs),
    }
}

fn wanted(source: &SdsSource) -> BTreeMap<CredentialName, CredentialSource> {
    BTreeMap::from([(name(), CredentialSource::Sds(source.clone()))])
}

fn store(source: &SdsSource) -> (CredentialStore, Vec<SourceProblem>) {
    CredentialStore::open(&wanted(source), &[(name(), header("x-api-key", ""))])
}

fn value(text: &str, contact: &Arc<Silent>) -> Told {
    Told::Value {
        value: Zeroizing::new(text.as_bytes().to_vec()),
        contact: Arc::clone(contact) as Arc<dyn Contact>,
    }
}

fn injected(store: &CredentialStore) -> Result<String, CredentialFault> {
    let (mut headers, mut uri) = (HeaderMap::new(), Uri::from_static("/"));
    store
        .lease(&name())?
        .attach(&header("x-api-key", ""), &mut headers, &mut uri)?;
    Ok(String::from_utf8(headers["x-api-key"].as_bytes().to_vec()).unwrap())
}

fn kind(change: Option<Change>) -> ChangeKind {
    change.expect("a change").kind
}

#[test]
fn there_is_no_value_before_the_server_told_one() {
    let source = source("key", None);
    let (store, problems) = store(&source);
    assert_eq!(problems[0].code, SourceCode::Unheard);
    let said = injected(&store).unwrap_err().to_string();
    assert!(
        said.contains("the secret key of unix:/run/vault.sock"),
        "{said}"
    );
    let (change, problems) = store.tell(&name(), &source, value("first-value", &Arc::default()));
    assert_eq!((kind(change), problems), (ChangeKind::Restored(1), vec![]));
    assert_eq!(injected(&store).as_deref(), Ok("first-value"));
}

#[test]
fn another_value_is_another_version_and_requests_under_way_keep_theirs() {
    let source = source("key", None);
    let (store, _) = store(&source);
    let contact = Arc::default();
    store.tell(&name(), &source, value("first-value", &contact));
    let held = store.lease(&name()).unwrap();
    let (change, _) = store.tell(&name(), &source, value("first-value", &contact));
    assert_eq!(change, None);
    assert!(Arc::ptr_eq(&held, &store.lease(&name()).unwrap()));
    let (change, _) = store.tell(&name(), &source, value("second-value", &contact));
    assert_eq!(kind(change), ChangeKind::Rotated(2));
    assert_eq!(injected(&store).as_deref(), Ok("second-value"));
    assert_eq!(held.version(), 1);
}

#[test]
fn a_value_that_cannot_be_used_takes_the_last_one_away() {
    let long = "x".repeat(65 * 1024);
    let contact = Arc::default();
    let cases = [
        (value("", &contact), SourceCode::Empty),
        (value(&long, &contact), SourceCode::TooLong),
        (Told::Nothing(SourceCode::Missing), SourceCode::Missing),
        (
            Told::Nothing(SourceCode::NotGeneric),
            SourceCode::NotGeneric,
        ),
        (
            Told::Nothing(SourceCode::SessionToken),
            SourceCode::SessionToken,
        ),
        (Told::Nothing(SourceCode::Stale), SourceCode::Stale),
    ];
    for (told, code) in cases {
        let source = source("key", None);
        let (store, _) = store(&source);
        store.tell(&name(), &source, value("first-value", &contact));
        let (change, problems) = store.tell(&name(), &source, told);
        assert!(
            matches!(kind(change), ChangeKind::Lost(problem) if problem.code == code),
            "{code:?}"
        );
        assert_eq!(problems[0].code, code);
        assert!(!problems[0].to_string().contains("first-value"));
        assert!(
            matches!(injected(&store), Err(CredentialFault::Missing(_))),
            "{code:?}"
        );
    }
}

#[test]
fn a_value_is_verbatim_and_one_that_no_header_carries_is_not_sent() {
    let source = source("key", None);
    let (store, _) = store(&source);
    let (_, problems) = store.tell(&name(), &source, value("value-123\n", &Arc::default()));
    assert_eq!(problems[0].code, SourceCode::Unfit);
    assert_eq!(injected(&store), Err(CredentialFault::Unfit));
}

#[test]
fn a_value_is_not_leased_once_its_server_was_silent_for_longer_than_max_age() {
    let table = [
        (Some(60), 0, true),
        (Some(60), 60, true),
        (Some(60), 61, false),
        (Some(60), NEVER, false),
        (None, 61, true),
        (None, NEVER, true),
    ];
    for (max_age, silent, leased) in table {
        let source = source("key", max_age);
        let (store, _) = store(&source);
        let contact: Arc<Silent> = Arc::default();
        store.tell(&name(), &source, value("first-value", &contact));
        contact.0.store(silent, Ordering::Relaxed);
        assert_eq!(store.lease(&name()).is_ok(), leased, "{max_age:?} {silent}");
        contact.0.store(0, Ordering::Relaxed);
        assert!(store.lease(&name()).is_ok(), "heard of again");
    }
}

#[test]
fn a_reload_keeps_a_told_value_for_the_same_secret_only() {
    let old = source("key", None);
    let (store, _) = store(&old);
    let contact: Arc<Silent> = Arc::default();
    contact.0.store(30, Ordering::Relaxed);
    store.tell(&name(), &old, value("first-value", &contact));
    let held = store.lease(&name()).unwrap();

    let forms = [(name(), header("x-other", ""))];
    assert_eq!(store.reconfigure(&wanted(&old), &forms), []);
    assert_eq!(store.lease(&name()).unwrap().version(), held.version());

    let shorter = source("key", Some(10));
    store.reconfigure(&wanted(&shorter), &forms);
    assert!(
        store.lease(&name()).is_err(),
        "a max_age counts from the reload on"
    );
    store.reconfigure(&wanted(&old), &forms);
    assert!(store.lease(&name()).is_ok());

    let other = source("other", None);
    let problems = store.reconfigure(&wanted(&other), &forms);
    assert_eq!(problems[0].code, SourceCode::Unheard);
    assert!(store.lease(&name()).is_err());
    let (change, _) = store.tell(&name(), &old, value("first-value", &contact));
    assert_eq!(change, None, "it is told by another server by now");
    assert!(store.lease(&name()).is_err());
}

#[test]
fn a_look_at_the_files_leaves_a_told_value_alone() {
    let source = source("key", None);
    let (store, _) = store(&source);
    store.tell(&name(), &source, value("first-value", &Arc::default()));
    let held = store.lease(&name()).unwrap();
    assert_eq!(store.refresh(), []);
    assert!(Arc::ptr_eq(&held, &store.lease(&name()).unwrap()));
    assert_eq!(store.watched_files(), Vec::<PathBuf>::new());
    assert_eq!(store.told_by_servers(), BTreeMap::from([(name(), source)]));
}

#[test]
fn an_observer_is_shown_each_change_when_leases_are_as_it_says() {
    let source = source("key", None);
    let (store, _) = store(&source);
    let store = Arc::new(store);
    let seen: Arc<Mutex<Vec<(ChangeKind, bool)>>> = Arc::default();
    let (weak, told) = (Arc::downgrade(&store), Arc::clone(&seen));
    store.on_change(move |changes| {
        let leased = weak.upgrade().unwrap().lease(&name()).is_ok();
        let changes = changes.iter().map(|change| (change.kind.clone(), leased));
        told.lock().unwrap().extend(changes);
    });
    let contact = Arc::default();
    store.tell(&name(), &source, value("first-value", &contact));
    store.tell(&name(), &source, value("first-value", &contact));
    store.tell(&name(), &source, Told::Nothing(SourceCode::Missing));
    store.tell(&name(), &source, Told::Nothing(SourceCode::Missing));
    let seen = seen.lock().unwrap();
    assert!(
        matches!(
            &seen[..],
            [
                (ChangeKind::Restored(1), true),
                (ChangeKind::Lost(_), false)
            ]
        ),
        "{seen:?}"
    );
}
