//! A registry on a clock and a store that the test owns.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, pending, ready};
use outgate_clock::{Clock, FakeClock};
use outgate_control::sessions::{
    DenyEntry, DenyTarget, NewSession, RegistryError, SessionRules, SessionStore, Sessions,
    SqliteStore, StoreError,
};
use outgate_journey::session::{
    Denylist, SessionEnd, SessionId, Terms, TokenClaims, TokenOrigin, UnixSeconds,
};
use outgate_store::{Change, OnDenial, Remembered, Steady, StoreFault};

pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: u64 = 86_400;

pub(crate) fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

pub(crate) fn new(name: &str) -> NewSession {
    NewSession {
        id: id(name),
        tenant: None,
        labels: BTreeMap::new(),
        container: None,
        terms: Terms::default(),
        expires: UnixSeconds(START + 3600),
        created_by: "local:1000".to_owned(),
    }
}

pub(crate) fn of_tenant(name: &str, tenant: &str) -> NewSession {
    NewSession {
        tenant: Some(tenant.to_owned()),
        ..new(name)
    }
}

/// A token of a session of ours.
pub(crate) fn token(name: &str, token_id: &str) -> TokenClaims {
    TokenClaims {
        session: id(name),
        token_id: token_id.into(),
        expires: UnixSeconds(START + 3600),
        terms: Terms::default(),
        origin: TokenOrigin::Own,
    }
}

pub(crate) fn claims(name: &str) -> TokenClaims {
    token(name, "t1")
}

/// A token of an external issuer that ends this many seconds after the start.
pub(crate) fn external(name: &str, expires: u64) -> TokenClaims {
    TokenClaims {
        origin: TokenOrigin::External {
            issuer: "https://idp.example.org".into(),
            subject: name.into(),
        },
        expires: UnixSeconds(START + expires),
        ..token(name, &format!("{name}-{expires}"))
    }
}

pub(crate) fn entry(target: DenyTarget, until: Option<u64>) -> DenyEntry {
    DenyEntry {
        target,
        reason: "leaked".to_owned(),
        by: "oidc:alice".to_owned(),
        at: 0,
        until,
    }
}

pub(crate) fn rules(idle: Option<Duration>, lifetime: Option<Duration>) -> SessionRules {
    SessionRules {
        idle,
        lifetime,
        ..SessionRules::default()
    }
}

/// What a guest of these claims is told.
pub(crate) fn standing(sessions: &Sessions, claims: &TokenClaims) -> Result<(), SessionEnd> {
    sessions.standing(claims).map(|_| ())
}

pub(crate) async fn end(sessions: &Sessions, name: &str) -> Result<(), RegistryError> {
    sessions.end(&id(name), SessionEnd::Ended, "token:ci").await
}

/// A store in memory that fails or hangs when it is told to, and can be opened again.
#[derive(Clone, Default)]
pub(crate) struct TestStore {
    pub(crate) kept: Arc<Mutex<Kept>>,
    pub(crate) fails: Arc<AtomicBool>,
    pub(crate) hangs: Arc<AtomicBool>,
    pub(crate) takes_time: Arc<AtomicBool>,
}

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) changes: Vec<Change>,
}

impl TestStore {
    pub(crate) fn set_failing(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }

    pub(crate) fn hang(&self) {
        self.hangs.store(true, Ordering::SeqCst);
    }

    /// From here on, whether a change is written is decided when it comes in, and told later.
    pub(crate) fn take_time(&self) {
        self.takes_time.store(true, Ordering::SeqCst);
    }

    fn written<T>(&self, write: impl FnOnce(&mut Kept) -> T) -> Result<T, StoreError> {
        if self.fails.load(Ordering::SeqCst) {
            let place = std::path::Path::new("/state/outgate.db");
            let fault = StoreFault::WriteFailed;
            return Err(StoreError::new(fault, place, "the disk is full"));
        }
        Ok(write(&mut self.kept.lock().unwrap()))
    }

    pub(crate) fn changes(&self) -> Vec<Change> {
        self.kept.lock().unwrap().changes.clone()
    }
}

impl SessionStore for TestStore {
    fn load(&self, _: OnDenial) -> BoxFuture<'_, Result<Remembered, StoreError>> {
        ready(self.written(|_| Remembered::default())).boxed()
    }

    fn commit(&self, change: Change, _now: Steady) -> BoxFuture<'static, Result<(), StoreError>> {
        if self.hangs.load(Ordering::SeqCst) {
            return pending().boxed();
        }
        let written = self.written(|kept| kept.changes.push(change));
        if self.takes_time.load(Ordering::SeqCst) {
            return tokio::task::yield_now().map(|()| written).boxed();
        }
        ready(written).boxed()
    }

    fn clock_floor(&self) -> UnixSeconds {
        UnixSeconds(0)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

/// A registry on a clock that stands still, with a store in memory.
pub(crate) struct Bench {
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) store: TestStore,
    pub(crate) sessions: Arc<Sessions>,
}

impl Bench {
    pub(crate) async fn new(rules: SessionRules) -> Self {
        let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
        let store = TestStore::default();
        let shared: Arc<dyn Clock> = Arc::<FakeClock>::clone(&clock);
        let sessions = Sessions::open(Arc::new(store.clone()), rules, shared)
            .await
            .unwrap();
        Self {
            clock,
            store,
            sessions: Arc::new(sessions),
        }
    }
}

/// A registry on disk that can be stopped, cleanly or not, and started again.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    rules: SessionRules,
}

impl Machine {
    pub(crate) fn new(rules: SessionRules) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            rules,
        }
    }

    /// A process that starts with this clock.
    pub(crate) async fn start(&self, clock: &Arc<FakeClock>) -> Sessions {
        let path = self.folder.path().join("outgate.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let clock: Arc<dyn Clock> = Arc::<FakeClock>::clone(clock);
        Sessions::open(Arc::new(store), self.rules.clone(), clock)
            .await
            .unwrap()
    }
}
