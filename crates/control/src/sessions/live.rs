//! One session that is known: created here, or seen.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use outgate_journey::{
    policy::SessionLimits,
    session::{SessionEnd, SessionId, Terms, TokenClaims, TokenOrigin, UnixSeconds},
};
use outgate_store::{Steady, StoredSession};

use super::{
    NewSession, SessionRules,
    activity::{Activity, Pulse},
    lock,
    timeline::Timeline,
};

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    pub(super) cause: SessionEnd,
    pub(super) at: UnixSeconds,
    pub(super) by: String,
    /// On the line.
    pub(super) since: Duration,
}

pub(super) struct Live {
    pub(super) id: SessionId,
    pub(super) tenant: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) container: Option<String>,
    /// Of one that was only seen: those of its latest token. Its issuer's policy may change under it.
    pub(super) terms: ArcSwap<Terms>,
    pub(super) created: UnixSeconds,
    pub(super) created_by: String,
    pub(super) origin: TokenOrigin,
    /// Where its lifetime is counted from.
    pub(super) began: Duration,
    /// Whether it was never created here.
    pub(super) is_seen: bool,
    expires: AtomicU64,
    /// The same on the line, in seconds.
    runs_out: AtomicU64,
    pub(super) pulse: Arc<Pulse>,
    /// What an operator set.
    pub(super) limits: ArcSwapOption<SessionLimits>,
    pub(super) over: OnceLock<Over>,
    /// What is open, by token.
    open: Mutex<Vec<(Arc<str>, Arc<Activity>)>>,
    /// Whether it takes a place of its tenant's.
    pub(super) has_place: AtomicBool,
    /// What the store knows of its last use and of its last token; zeroes if it does not know the session.
    saved: (AtomicU64, AtomicU64),
}

/// Who created a session that was only seen here: no operator, whose names all have a colon.
const ISSUER: &str = "issuer";

impl Live {
    pub(super) fn created(new: NewSession, time: &Timeline) -> Self {
        let line = time.now();
        Self {
            id: new.id,
            tenant: new.tenant,
            labels: new.labels,
            container: new.container,
            terms: ArcSwap::from_pointee(new.terms),
            created: time.unix(),
            created_by: new.created_by,
            origin: TokenOrigin::Own,
            began: line,
            is_seen: false,
            expires: AtomicU64::new(new.expires.0),
            runs_out: AtomicU64::new(time.when(new.expires).0),
            pulse: Arc::new(Pulse::new(line, time.lately())),
            limits: ArcSwapOption::empty(),
            over: OnceLock::new(),
            open: Mutex::default(),
            has_place: AtomicBool::new(true),
            saved: (
                AtomicU64::new(line.as_secs()),
                AtomicU64::new(new.expires.0),
            ),
        }
    }

    pub(super) fn seen(claims: &TokenClaims, time: &Timeline) -> Self {
        let line = time.now();
        Self {
            id: claims.session.clone(),
            tenant: None,
            labels: BTreeMap::new(),
            container: None,
            terms: ArcSwap::from_pointee(claims.terms.clone()),
            created: time.unix(),
            created_by: ISSUER.to_owned(),
            origin: claims.origin.clone(),
            began: line,
            is_seen: true,
            expires: AtomicU64::new(claims.expires.0),
            runs_out: AtomicU64::new(time.when(claims.expires).0),
            pulse: Arc::new(Pulse::new(line, time.lately())),
            limits: ArcSwapOption::empty(),
            over: OnceLock::new(),
            open: Mutex::default(),
            has_place: AtomicBool::new(false),
            saved: (AtomicU64::new(0), AtomicU64::new(0)),
        }
    }

    pub(super) fn restored(stored: StoredSession, time: &Timeline) -> Self {
        let last = Duration::from_secs(stored.last_active.0);
        let is_seen = stored.created_by == ISSUER;
        Self {
            id: stored.id,
            tenant: stored.tenant,
            labels: stored.labels,
            container: stored.container,
            terms: ArcSwap::from_pointee(stored.terms),
            created: stored.created,
            created_by: stored.created_by,
            origin: stored.origin,
            began: Duration::from_secs(stored.began.0),
            is_seen,
            expires: AtomicU64::new(stored.expires.0),
            runs_out: AtomicU64::new(time.when(stored.expires).0),
            pulse: Arc::new(Pulse::new(last, time.lately())),
            limits: ArcSwapOption::new(stored.set_limits.map(Arc::new)),
            over: OnceLock::new(),
            open: Mutex::default(),
            has_place: AtomicBool::new(false),
            saved: (
                AtomicU64::new(stored.last_active.0),
                AtomicU64::new(stored.expires.0),
            ),
        }
    }

    pub(super) fn to_stored(&self) -> StoredSession {
        StoredSession {
            id: self.id.clone(),
            tenant: self.tenant.clone(),
            labels: self.labels.clone(),
            container: self.container.clone(),
            terms: Terms::clone(&self.terms.load()),
            set_limits: self.limits.load().as_deref().copied(),
            created: self.created,
            created_by: self.created_by.clone(),
            expires: self.expires(),
            began: Steady(self.began.as_secs()),
            last_active: Steady(self.pulse.last().as_secs()),
            origin: self.origin.clone(),
        }
    }

    pub(super) fn expires(&self) -> UnixSeconds {
        UnixSeconds(self.expires.load(Ordering::Relaxed))
    }

    /// Notes what a token of the session says that it was given.
    pub(super) fn is_given(&self, terms: &Terms) {
        if self.is_seen && **self.terms.load() != *terms {
            self.terms.store(Arc::new(terms.clone()));
        }
    }

    /// Notes a token of the session.
    pub(super) fn has_token_until(&self, expires: UnixSeconds, time: &Timeline) {
        if expires > self.expires() {
            let runs_out = time.when(expires).0;
            self.runs_out.fetch_max(runs_out, Ordering::Relaxed);
            self.expires.fetch_max(expires.0, Ordering::Relaxed);
        }
    }

    /// Whether its last token ran out this long ago. On the line: nobody forgets a session by moving a clock.
    pub(super) fn ran_out(&self, ago: Duration, now: Duration) -> bool {
        let runs_out = Duration::from_secs(self.runs_out.load(Ordering::Relaxed));
        runs_out.saturating_add(ago) <= now
    }

    /// What the store knows of its last use and of its last token; `None` if it does not know the session.
    pub(super) fn saved(&self) -> Option<(u64, u64)> {
        let saved = (
            self.saved.0.load(Ordering::Relaxed),
            self.saved.1.load(Ordering::Relaxed),
        );
        (saved != (0, 0)).then_some(saved)
    }

    pub(super) fn note_saved(&self, last_active: u64, expires: u64) {
        self.saved.0.store(last_active, Ordering::Relaxed);
        self.saved.1.store(expires, Ordering::Relaxed);
    }

    pub(super) fn is_external(&self) -> bool {
        matches!(self.origin, TokenOrigin::External { .. })
    }

    /// What the clock has to say: why the session is over at this point of the line.
    pub(super) fn overdue(&self, rules: &SessionRules, now: Duration) -> Option<SessionEnd> {
        let too_long = |since: Duration, bound: Option<Duration>| {
            bound.is_some_and(|bound| now.saturating_sub(since) >= bound)
        };
        if too_long(self.began, rules.lifetime) {
            return Some(SessionEnd::LifetimeOver);
        }
        too_long(self.pulse.last(), rules.idle).then_some(SessionEnd::Idle)
    }

    /// The activity of one of its tokens; another one if that was cut, as the session may have its standing back.
    pub(super) fn activity(&self, token_id: &Arc<str>) -> Arc<Activity> {
        let mut open = self.open();
        // Those that nobody holds go, so the list is never longer than what is open.
        open.retain(|(id, activity)| {
            !activity.cut().is_cancelled() && (id == token_id || Arc::strong_count(activity) > 1)
        });
        if let Some((_, activity)) = open.iter().find(|(id, _)| id == token_id) {
            return Arc::clone(activity);
        }
        let activity = Arc::new(Activity::new(Arc::clone(&self.pulse)));
        open.push((Arc::clone(token_id), Arc::clone(&activity)));
        activity
    }

    /// Whether anything of the session is open.
    pub(super) fn is_open(&self) -> bool {
        self.open()
            .iter()
            .any(|(_, activity)| Arc::strong_count(activity) > 1)
    }

    /// Cuts what is open, of every token.
    pub(super) fn cut(&self, why: SessionEnd) {
        self.cut_where(why, |_| true);
    }

    /// Cuts what is open of some tokens.
    pub(super) fn cut_where(&self, why: SessionEnd, of: impl Fn(&str) -> bool) {
        self.open().retain(|(token_id, activity)| {
            let is_cut = of(token_id);
            if is_cut {
                activity.cut_for(why);
            }
            !is_cut
        });
    }

    fn open(&self) -> MutexGuard<'_, Vec<(Arc<str>, Arc<Activity>)>> {
        lock(&self.open)
    }
}
