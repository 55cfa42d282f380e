//! The native plane's counters: per session, in memory, on the monotonic clock. What is compared with which number
//! is the policy's business; here it is only counted, without a lock that two sessions share.

use std::{
    collections::HashSet,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock, Reference},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use outgate_journey::{
    destination::Destination,
    limit::{Exceeded, Limits},
    name::HostName,
    policy::{Rate, Rule, RuleId, SessionBounds},
    session::{Session, SessionId},
    tripwire::{Overrun, Tripwire},
};

use crate::tripwire::{Seen, Window};

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A limiter and the rate that it was made for.
type Rated<C> = (Rate, Arc<Limiter<C>>);

/// How many rates a session's limiters are kept for: more than a policy of the moment has.
const MOST_RATES: usize = 2 * SessionBounds::LAYERS;

/// How long a session that does nothing is remembered: longer than any token lives, so that waiting resets nothing.
const FORGET_AFTER_SWEEPS: u32 = 24;

/// The counters of every session.
pub struct SessionCounters<C: Clock + Clone = DefaultClock> {
    uses: DashMap<SessionId, Arc<SessionUse<C>>, RandomState>,
    clock: C,
    started: C::Instant,
}

/// What one session has used.
pub struct SessionUse<C: Clock + Clone = DefaultClock> {
    requests: Mutex<Vec<Rated<C>>>,
    connections: Mutex<Vec<Rated<C>>>,
    by_rule: DashMap<RuleId, Rated<C>>,
    open_connections: AtomicU32,
    bytes_out: AtomicU64,
    hosts: Mutex<HashSet<HostName>>,
    /// What the tripwire looks at.
    window: Mutex<Window>,
    idle_sweeps: AtomicU32,
}

impl<C: Clock + Clone> SessionUse<C> {
    fn new() -> Self {
        Self {
            requests: Mutex::default(),
            connections: Mutex::default(),
            by_rule: DashMap::new(),
            open_connections: AtomicU32::new(0),
            bytes_out: AtomicU64::new(0),
            hosts: Mutex::default(),
            window: Mutex::default(),
            idle_sweeps: AtomicU32::new(0),
        }
    }

    /// Counts bytes towards upstreams; `false` once the session has sent more than `limit`.
    pub fn charge(&self, bytes: u64, limit: Option<u64>) -> bool {
        let add = |sent: u64| Some(sent.saturating_add(bytes));
        let before = self
            .bytes_out
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .unwrap_or(u64::MAX);
        limit.is_none_or(|limit| before.saturating_add(bytes) <= limit)
    }

    /// Counts bytes that are about to be sent; `false`, and nothing is counted, where they are more than is left of
    /// `limit`.
    pub fn reserve(&self, bytes: u64, limit: Option<u64>) -> bool {
        let add = |sent: u64| {
            let after = sent.saturating_add(bytes);
            limit.is_none_or(|limit| after <= limit).then_some(after)
        };
        self.bytes_out
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_ok()
    }
}

impl Default for SessionCounters<DefaultClock> {
    fn default() -> Self {
        Self::with_clock(DefaultClock::default())
    }
}

impl<C: Clock + Clone> SessionCounters<C> {
    fn with_clock(clock: C) -> Self {
        Self {
            uses: DashMap::default(),
            started: clock.now(),
            clock,
        }
    }

    /// One session's counters.
    pub fn of(&self, session: &SessionId) -> Arc<SessionUse<C>> {
        if let Some(known) = self.uses.get(session) {
            known.idle_sweeps.store(0, Ordering::Relaxed);
            return Arc::clone(&known);
        }
        Arc::clone(
            &self
                .uses
                .entry(session.clone())
                .or_insert_with(|| Arc::new(SessionUse::new())),
        )
    }

    /// Forgets sessions that did nothing for a day of hourly sweeps.
    pub fn sweep(&self) {
        self.uses.retain(|_, used| {
            Arc::strong_count(used) > 1
                || used.idle_sweeps.fetch_add(1, Ordering::Relaxed) < FORGET_AFTER_SWEEPS
        });
    }

    /// Notes what a session does, and says if it is more than the tripwire expects.
    pub fn watch(&self, used: &SessionUse<C>, wire: &Tripwire, seen: Seen<'_>) -> Option<Overrun> {
        let now: Duration = self.clock.now().duration_since(self.started).into();
        let mut window = used.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.note(wire, seen, now)
    }

    fn check(&self, limiter: &Limiter<C>) -> Result<(), u64> {
        limiter.check().map_err(|until| {
            let wait = until.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }

    fn limiter(&self, rate: Rate) -> Arc<Limiter<C>> {
        let events = rate.events.get();
        let period = Duration::from_secs(u64::from(rate.window_seconds)) / events;
        let quota = Quota::with_period(period)
            .unwrap_or_else(|| Quota::per_second(NonZeroU32::MAX))
            .allow_burst(rate.events);
        Arc::new(RateLimiter::direct_with_clock(quota, self.clock.clone()))
    }

    /// Asks every rate that bounds a session; one that is set twice is asked once.
    fn check_all(
        &self,
        known: &Mutex<Vec<Rated<C>>>,
        rates: &[Option<Rate>; SessionBounds::LAYERS],
    ) -> Result<(), u64> {
        for (at, rate) in rates.iter().enumerate() {
            let Some(rate) = rate else { continue };
            let asked = rates.iter().take(at).flatten().any(|other| other == rate);
            if !asked {
                self.check(&self.of_rate(known, *rate))?;
            }
        }
        Ok(())
    }

    /// The limiter of a rate, made anew where the policy has it for the first time.
    fn of_rate(&self, known: &Mutex<Vec<Rated<C>>>, rate: Rate) -> Arc<Limiter<C>> {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, limiter)) = known.iter().find(|(other, _)| *other == rate) {
            return Arc::clone(limiter);
        }
        if known.len() >= MOST_RATES {
            known.remove(0);
        }
        let limiter = self.limiter(rate);
        known.push((rate, Arc::clone(&limiter)));
        limiter
    }

    fn for_rule(&self, used: &SessionUse<C>, rule: &Rule, rate: Rate) -> Arc<Limiter<C>> {
        match used.by_rule.get(&rule.id) {
            Some(known) if known.0 == rate => return Arc::clone(&known.1),
            _ => {}
        }
        let limiter = self.limiter(rate);
        used.by_rule
            .insert(rule.id.clone(), (rate, Arc::clone(&limiter)));
        limiter
    }
}

/// A counted connection; given back on drop.
pub struct ConnectionSlot<C: Clock + Clone = DefaultClock>(Arc<SessionUse<C>>);

impl<C: Clock + Clone> Drop for ConnectionSlot<C> {
    fn drop(&mut self) {
        self.0.open_connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<C> Limits for SessionCounters<C>
where
    C: Clock + Clone + Send + Sync,
    C::Instant: Send + Sync,
{
    type Slot = ConnectionSlot<C>;

    fn admit_connection(
        &self,
        session: &Session,
        destination: &Destination,
        bounds: &SessionBounds,
    ) -> Result<Self::Slot, Exceeded> {
        let used = self.of(session.id());
        // The slot is taken before it is compared, so that two at once cannot both have the last one.
        let open = used.open_connections.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = ConnectionSlot(Arc::clone(&used));
        if bounds
            .concurrent_connections
            .is_some_and(|most| open > most)
        {
            return Err(Exceeded::Connections);
        }
        let host = destination.host();
        let mut hosts = used.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_another = bounds.distinct_destinations.is_some() && !hosts.contains(host);
        if is_another
            && bounds
                .distinct_destinations
                .is_some_and(|most| hosts.len() >= most as usize)
        {
            return Err(Exceeded::DistinctDestinations);
        }
        // The rate is asked last: what it lets through is counted and cannot be given back.
        self.check_all(&used.connections, &bounds.connections)
            .map_err(|_| Exceeded::Connections)?;
        if is_another {
            hosts.insert(host.clone());
        }
        Ok(slot)
    }

    fn admit_request(
        &self,
        session: &Session,
        rule: &Rule,
        bounds: &SessionBounds,
    ) -> Result<(), Exceeded> {
        let rated = bounds
            .requests
            .iter()
            .flatten()
            .chain(&rule.limits.requests);
        if bounds.bytes_out.is_none() && rated.count() == 0 {
            return Ok(());
        }
        let used = self.of(session.id());
        let exceeded = |retry_after_seconds| Exceeded::Requests {
            retry_after_seconds,
        };
        if bounds
            .bytes_out
            .is_some_and(|most| used.bytes_out.load(Ordering::Relaxed) >= most)
        {
            return Err(Exceeded::BytesOut);
        }
        if let Some(rate) = rule.limits.requests {
            self.check(&self.for_rule(&used, rule, rate))
                .map_err(exceeded)?;
        }
        self.check_all(&used.requests, &bounds.requests)
            .map_err(exceeded)
    }
}

#[cfg(test)]
mod tests;
