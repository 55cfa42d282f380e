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
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use outgate_journey::{
    destination::Destination,
    limit::{Exceeded, Limits},
    name::HostName,
    policy::{Rate, Rule, RuleId, SessionLimits},
    session::{Session, SessionId},
};

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// A limiter and the rate that it was made for.
type Rated<C> = (Rate, Arc<Limiter<C>>);

/// How long a session that does nothing is remembered: longer than any token lives, so that waiting resets nothing.
const FORGET_AFTER_SWEEPS: u32 = 24;

/// The counters of every session.
pub(crate) struct SessionCounters<C: Clock + Clone = DefaultClock> {
    uses: DashMap<SessionId, Arc<SessionUse<C>>>,
    clock: C,
}

/// What one session has used.
pub(crate) struct SessionUse<C: Clock + Clone = DefaultClock> {
    requests: Mutex<Option<Rated<C>>>,
    connections: Mutex<Option<Rated<C>>>,
    by_rule: DashMap<RuleId, Rated<C>>,
    open_connections: AtomicU32,
    bytes_out: AtomicU64,
    hosts: Mutex<HashSet<HostName>>,
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
            idle_sweeps: AtomicU32::new(0),
        }
    }

    /// Counts bytes towards upstreams; `false` once the session has sent more than `limit`.
    pub(crate) fn charge(&self, bytes: u64, limit: Option<u64>) -> bool {
        let before = self.bytes_out.fetch_add(bytes, Ordering::Relaxed);
        limit.is_none_or(|limit| before.saturating_add(bytes) <= limit)
    }
}

impl SessionCounters<DefaultClock> {
    pub(crate) fn new() -> Self {
        Self::with_clock(DefaultClock::default())
    }
}

impl<C: Clock + Clone> SessionCounters<C> {
    fn with_clock(clock: C) -> Self {
        Self {
            uses: DashMap::new(),
            clock,
        }
    }

    /// One session's counters.
    pub(crate) fn of(&self, session: &SessionId) -> Arc<SessionUse<C>> {
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
    pub(crate) fn sweep(&self) {
        self.uses.retain(|_, used| {
            Arc::strong_count(used) > 1
                || used.idle_sweeps.fetch_add(1, Ordering::Relaxed) < FORGET_AFTER_SWEEPS
        });
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

    /// The limiter in a slot, made anew when the policy's rate is another one.
    fn in_slot(&self, slot: &Mutex<Option<Rated<C>>>, rate: Rate) -> Arc<Limiter<C>> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some((known, limiter)) if *known == rate => Arc::clone(limiter),
            _ => Arc::clone(&slot.insert((rate, self.limiter(rate))).1),
        }
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
pub(crate) struct ConnectionSlot<C: Clock + Clone = DefaultClock>(Arc<SessionUse<C>>);

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
        limits: &SessionLimits,
    ) -> Result<Self::Slot, Exceeded> {
        let used = self.of(session.id());
        // The slot is taken before it is compared, so that two at once cannot both have the last one.
        let open = used.open_connections.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = ConnectionSlot(Arc::clone(&used));
        if limits
            .concurrent_connections
            .is_some_and(|most| open > most)
        {
            return Err(Exceeded::Connections);
        }
        let host = destination.host();
        let mut hosts = used.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let is_another = limits.distinct_destinations.is_some() && !hosts.contains(host);
        if is_another
            && limits
                .distinct_destinations
                .is_some_and(|most| hosts.len() >= most as usize)
        {
            return Err(Exceeded::DistinctDestinations);
        }
        // The rate is asked last: what it lets through is counted and cannot be given back.
        if let Some(rate) = limits.connections {
            self.check(&self.in_slot(&used.connections, rate))
                .map_err(|_| Exceeded::Connections)?;
        }
        if is_another {
            hosts.insert(host.clone());
        }
        Ok(slot)
    }

    fn admit_request(
        &self,
        session: &Session,
        rule: &Rule,
        limits: &SessionLimits,
    ) -> Result<(), Exceeded> {
        if limits.requests.is_none() && limits.bytes_out.is_none() && rule.limits.requests.is_none()
        {
            return Ok(());
        }
        let used = self.of(session.id());
        let exceeded = |retry_after_seconds| Exceeded::Requests {
            retry_after_seconds,
        };
        if limits
            .bytes_out
            .is_some_and(|most| used.bytes_out.load(Ordering::Relaxed) >= most)
        {
            return Err(Exceeded::BytesOut);
        }
        if let Some(rate) = rule.limits.requests {
            self.check(&self.for_rule(&used, rule, rate))
                .map_err(exceeded)?;
        }
        if let Some(rate) = limits.requests {
            self.check(&self.in_slot(&used.requests, rate))
                .map_err(exceeded)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
