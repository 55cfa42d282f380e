//! Sessions, endings and entries to store.

use std::{
    collections::BTreeMap,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use outgate_journey::{
    policy::SessionLimits,
    session::{PolicyName, SessionEnd, SessionId, Terms, TokenOrigin, UnixSeconds},
};
use outgate_store::{
    Change, DenyEntry, DenyTarget, KillSwitch, Remembered, SessionStore, SqliteStore, Steady,
    StoreError, StoredDenial, StoredEnding, StoredSession,
};

pub(crate) const NOW: Steady = Steady(1_000_000);

pub(crate) fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

pub(crate) fn limits(requests: &str, bytes_out: u64) -> SessionLimits {
    SessionLimits {
        requests: Some(requests.parse().unwrap()),
        bytes_out: Some(bytes_out),
        ..SessionLimits::default()
    }
}

pub(crate) fn session(name: &str) -> StoredSession {
    StoredSession {
        id: id(name),
        tenant: Some("team-a".to_owned()),
        labels: BTreeMap::from([("task".to_owned(), "a \"quoted\" label; --".to_owned())]),
        container: Some("c1".to_owned()),
        terms: Terms {
            policy: PolicyName::parse("read-only"),
            limits: limits("120/min", 1024),
        },
        set_limits: None,
        created: UnixSeconds(NOW.0),
        created_by: "local:1000".to_owned(),
        expires: UnixSeconds(NOW.0 + 600),
        began: NOW,
        last_active: NOW,
        origin: TokenOrigin::Own,
    }
}

pub(crate) fn external(name: &str) -> StoredSession {
    StoredSession {
        tenant: None,
        labels: BTreeMap::new(),
        container: None,
        terms: Terms::default(),
        origin: TokenOrigin::External {
            issuer: "https://idp.example.org".into(),
            subject: "build".into(),
        },
        ..session(name)
    }
}

pub(crate) fn ending(name: &str, cause: SessionEnd, tokens_until: Option<u64>) -> StoredEnding {
    StoredEnding {
        id: id(name),
        cause,
        at: UnixSeconds(NOW.0 + 5),
        by: "token:ci".to_owned(),
        tokens_until: tokens_until.map(UnixSeconds),
        own: tokens_until.is_none(),
        began: Steady(NOW.0 + 5),
        keep_until: Steady(NOW.0 + 1000),
    }
}

pub(crate) fn denial(target: DenyTarget, reason: &str, lapses: Option<u64>) -> StoredDenial {
    StoredDenial {
        entry: DenyEntry {
            target,
            reason: reason.to_owned(),
            by: "oidc:alice".to_owned(),
            at: NOW.0,
            until: lapses,
        },
        lapses: lapses.map(Steady),
    }
}

pub(crate) fn kill(reason: &str) -> KillSwitch {
    KillSwitch {
        since: NOW.0,
        by: "webhook:soar".to_owned(),
        reason: reason.to_owned(),
    }
}

pub(crate) async fn commit(store: &impl SessionStore, change: Change) -> Result<(), StoreError> {
    store.commit(change, NOW).await
}

/// What is remembered, in an order that does not depend on the store.
pub(crate) async fn remembered(store: &impl SessionStore) -> Everything {
    let denials = Arc::<Mutex<Vec<_>>>::default();
    let told = Arc::clone(&denials);
    let on_denial = Box::new(move |denial| told.lock().unwrap().push(denial));
    let mut all = store.load(on_denial).await.unwrap();
    all.sessions.sort_by(|a, b| a.id.cmp(&b.id));
    all.endings.sort_by(|a, b| a.id.cmp(&b.id));
    let mut denials: Vec<StoredDenial> = std::mem::take(&mut denials.lock().unwrap());
    denials.sort_by(|a, b| a.entry.target.cmp(&b.entry.target));
    Everything { all, denials }
}

/// What is remembered, but for the denylist.
pub(crate) async fn load(store: &impl SessionStore) -> Result<Remembered, StoreError> {
    store.load(Box::new(|_| {})).await
}

/// What is remembered, and the denylist.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Everything {
    all: Remembered,
    pub(crate) denials: Vec<StoredDenial>,
}

impl Deref for Everything {
    type Target = Remembered;

    fn deref(&self) -> &Remembered {
        &self.all
    }
}

/// A folder with a store in it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("outgate.db")
    }

    pub(crate) async fn open(&self) -> SqliteStore {
        SqliteStore::open(&self.path()).await.unwrap()
    }

    pub(crate) async fn refused(&self) -> StoreError {
        match SqliteStore::open(&self.path()).await {
            Ok(_) => panic!("the store was opened"),
            Err(error) => error,
        }
    }
}
