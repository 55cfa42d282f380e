//! Decides whether a session still is. Ending one, denying and the kill switch take effect in memory first, before
//! anything is waited for: from then on the session is refused, and whatever it has open holds a signal that was
//! given. Only then it goes to disk, and only then the caller is told that it is done.
//!
//! Time is judged on a line that never runs back ([`timeline`]), so a wall clock that is set back stretches nothing,
//! and neither does a restart. A session that was idle or lived for too long is over for good.
//!
//! Looking a session up takes no lock across an await, no allocation and no disk.

mod activity;
mod denials;
mod endings;
mod error;
mod follow;
mod judge;
mod live;
mod operate;
mod quotas;
mod recent;
mod restore;
mod revoke;
mod save;
mod standing;
mod timeline;
mod view;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use dashmap::DashMap;
use foldhash::quality::RandomState;
use outgate_clock::Clock;
use outgate_journey::session::{SessionEnd, SessionId, Terms, TokenClaims, UnixSeconds};
use tokio::sync::watch;

pub use outgate_store::{
    DenyEntry, DenyTarget, KillSwitch, ReadOnlyStore, SessionStore, SqliteStore, StoreError,
};

pub use self::{
    activity::Activity,
    error::RegistryError,
    follow::{DenylistSnapshot, EndedSession},
    quotas::{QuotasView, TenantQuota},
    recent::{Bodies, BodyStart, RecentRequest, ViewRules},
    view::{EndView, SessionState, SessionView},
};
use self::{
    denials::Denials, endings::Endings, follow::Followed, live::Live, quotas::Quotas,
    recent::Recent, save::Unsaved, timeline::Timeline,
};

/// How long sessions may live, and how many there may be. `None`: no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionRules {
    /// A session that does nothing for this long is over (S5).
    pub idle: Option<Duration>,
    /// A session is over after this long, whatever it does (S5).
    pub lifetime: Option<Duration>,
    /// Live sessions of one tenant.
    pub sessions_per_tenant: Option<u32>,
    /// Live sessions that were created here; and, apart from those, as many identities of external issuers.
    pub sessions: Option<u32>,
    /// What is kept of what sessions ask for.
    pub view: ViewRules,
}

/// A session to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Its id; never used before.
    pub id: SessionId,
    /// Whose.
    pub tenant: Option<String>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The container that it is for.
    pub container: Option<String>,
    /// What it is given.
    pub terms: Terms,
    /// When its first token ends.
    pub expires: UnixSeconds,
    /// Who asked for it.
    pub created_by: String,
}

/// Asked several times for each request. Its keys come from whoever issues tokens, not from guests.
type Map<K, V> = DashMap<K, V, RandomState>;

type ToldEnd = Box<dyn Fn(&SessionId, SessionEnd) + Send + Sync>;
type ToldBegin = Box<dyn Fn(&TokenClaims) + Send + Sync>;

/// Every session that this gateway knows, and everything that takes one's standing away.
pub struct Sessions {
    /// `None`: nothing outlives the process.
    store: Option<Arc<dyn SessionStore>>,
    rules: ArcSwap<SessionRules>,
    time: Timeline,

    kill: ArcSwapOption<KillSwitch>,
    /// Counts the times the switch was put on, and keeps its changes in one order in memory and on disk.
    kills: Mutex<u64>,
    endings: Endings,
    denials: Arc<Denials>,
    /// Keeps changes of the denylist and of limits in one order in memory and on disk. Never held across an await.
    edits: Mutex<()>,
    /// What the control plane says, on a gateway that follows one.
    followed: ArcSwapOption<Followed>,

    known: Map<SessionId, Arc<Live>>,
    /// How many of them were never created here, only seen.
    seen: AtomicUsize,
    quotas: Quotas,
    recent: Recent,

    version: watch::Sender<u64>,
    unsaved: Unsaved,
    /// When times were last saved and endings swept, in seconds on the line.
    saved_at: AtomicU64,
    swept_at: AtomicU64,
    told_end: OnceLock<ToldEnd>,
    told_begin: OnceLock<ToldBegin>,
    is_fresh: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

impl Sessions {
    /// Loads everything that is remembered. What was revoked before is revoked when this returns.
    ///
    /// # Errors
    /// [`RegistryError::Store`]: a gateway that cannot read its denylist must not start.
    pub async fn open(
        store: Arc<dyn SessionStore>,
        rules: SessionRules,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RegistryError> {
        let denials = Arc::<Denials>::default();
        let told = Arc::clone(&denials);
        let remembered = store
            .load(Box::new(move |denial| told.put(&denial)))
            .await?;
        let time = Timeline::new(clock, remembered.floor);
        let sessions = Self::with(Some(store), denials, rules, time);
        sessions.restore(remembered);
        Ok(sessions)
    }

    /// Sessions that end with this process, and leave nothing on disk.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        let time = Timeline::new(clock, outgate_store::Steady::default());
        Self::with(None, Arc::default(), SessionRules::default(), time)
    }

    fn with(
        store: Option<Arc<dyn SessionStore>>,
        denials: Arc<Denials>,
        rules: SessionRules,
        time: Timeline,
    ) -> Self {
        Self {
            store,
            rules: ArcSwap::from_pointee(rules),
            time,
            kill: ArcSwapOption::empty(),
            kills: Mutex::default(),
            endings: Endings::default(),
            denials,
            edits: Mutex::default(),
            followed: ArcSwapOption::empty(),
            known: Map::default(),
            seen: AtomicUsize::new(0),
            quotas: Quotas::default(),
            recent: Recent::default(),
            version: watch::Sender::new(0),
            unsaved: Unsaved::default(),
            saved_at: AtomicU64::new(0),
            swept_at: AtomicU64::new(0),
            told_end: OnceLock::new(),
            told_begin: OnceLock::new(),
            is_fresh: OnceLock::new(),
        }
    }

    /// Other rules, from the next look on: a session that is too old by them is over.
    pub fn set_rules(&self, rules: SessionRules) {
        let view = rules.view;
        self.rules.store(Arc::new(rules));
        self.recent.keep_to(&view);
    }

    /// Who is told of each session that the clock ended. The first one stays.
    pub fn on_end(&self, told: impl Fn(&SessionId, SessionEnd) + Send + Sync + 'static) {
        let _ = self.told_end.set(Box::new(told));
    }

    /// Who is told of each session that was not created here, when it is first seen. The first one stays.
    pub fn on_begin(&self, told: impl Fn(&TokenClaims) + Send + Sync + 'static) {
        let _ = self.told_begin.set(Box::new(told));
    }

    /// Credentials are drawn only while this is true (C7); without it always. Asked for every request. The first one
    /// stays.
    pub fn fresh_while(&self, is_fresh: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.is_fresh.set(Box::new(is_fresh));
    }

    /// A number that moves with every ending, every change of the denylist, of the kill switch and of a session's
    /// limits.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn live(&self, id: &SessionId) -> Option<Arc<Live>> {
        self.known.get(id).map(|live| Arc::clone(&live))
    }

    /// A copy to go through, so that nobody waits for whoever goes through it.
    fn lives(&self) -> Vec<Arc<Live>> {
        self.known.iter().map(|live| Arc::clone(&live)).collect()
    }
}

/// What these locks guard is whole between any two statements: a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
