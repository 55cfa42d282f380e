//! What keeps a flood of one kind of call from standing in the way of another: a bounded lane for everything that does
//! not revoke, and a rate for creations. Nothing queues here: who does not fit is told so at once, and a call that ends
//! or denies something never asks.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use outgate_journey::policy::Rate;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{code::ErrorCode, problem::Refusal};

/// Calls in the lane at once.
pub(crate) const LANE: usize = 32;
/// Tenants whose rate is remembered before those that used nothing lately are forgotten.
const TENANTS: usize = 1024;

/// The lane.
#[derive(Debug, Clone)]
pub(crate) struct Lane(Arc<Semaphore>);

impl Default for Lane {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LANE)))
    }
}

impl Lane {
    /// A place in the lane, until it is dropped.
    pub(crate) fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        Arc::clone(&self.0)
            .try_acquire_owned()
            .map_err(|_| Refusal::from(ErrorCode::TooBusy).retry_after(1))
    }
}

/// How fast each tenant creates sessions: a rate whose whole window may be used at once.
#[derive(Debug, Default)]
pub(crate) struct Creations(Mutex<HashMap<Option<String>, Duration>>);

impl Creations {
    /// Counts one. `now` is monotonic.
    pub(crate) fn count(
        &self,
        tenant: Option<&str>,
        rate: Rate,
        now: Duration,
    ) -> Result<(), Refusal> {
        let window = Duration::from_secs(u64::from(rate.window_seconds));
        let interval = window / rate.events.get();
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if used.len() >= TENANTS {
            used.retain(|_, until| *until > now);
        }
        // When what was used so far will have been earned again.
        let until = used.entry(tenant.map(str::to_owned)).or_default();
        let next = (*until).max(now) + interval;
        let over = next.saturating_sub(now).saturating_sub(window);
        if !over.is_zero() {
            let seconds = over.as_secs() + u64::from(over.subsec_nanos() > 0);
            return Err(Refusal::from(ErrorCode::CreationsLimited).retry_after(seconds));
        }
        *until = next;
        Ok(())
    }
}

/// Bounds the records of refusals that anybody can cause: what is left out is counted, and the counts are recorded.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    until: Duration,
    left_out: HashMap<&'static str, u64>,
}

/// Records at once, and one more every so often.
const AT_ONCE: u32 = 200;
const EVERY: Duration = Duration::from_millis(100);

impl Refusals {
    /// Whether this one gets a record of its own.
    pub(crate) fn admit(&self, code: &'static str, now: Duration) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = counted.until.max(now) + EVERY;
        if next.saturating_sub(now) > EVERY * AT_ONCE {
            *counted.left_out.entry(code).or_default() += 1;
            return false;
        }
        counted.until = next;
        true
    }

    /// What was left out since this was last asked: as text, if anything.
    pub(crate) fn left_out(&self) -> Option<String> {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts: Vec<_> = counted.left_out.drain().collect();
        counts.sort_unstable();
        let words: Vec<_> = counts
            .iter()
            .map(|(code, count)| format!("{code}: {count}"))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lane_takes_as_many_as_it_has_places_and_no_more() {
        let lane = Lane::default();
        let held: Vec<_> = (0..LANE).map(|_| lane.enter().unwrap()).collect();
        assert_eq!(lane.enter().unwrap_err().code, ErrorCode::TooBusy);
        drop(held);
        assert!(lane.enter().is_ok());
    }

    #[test]
    fn a_tenant_that_used_its_rate_up_waits_and_the_others_do_not() {
        let creations = Creations::default();
        let rate: Rate = "3/min".parse().unwrap();
        let at = Duration::from_secs;
        for _ in 0..3 {
            creations.count(Some("a"), rate, at(100)).unwrap();
        }
        let refused = creations.count(Some("a"), rate, at(100)).unwrap_err();
        assert_eq!(
            (refused.code, refused.retry_after),
            (ErrorCode::CreationsLimited, Some(20))
        );
        assert!(creations.count(Some("b"), rate, at(100)).is_ok());
        assert!(creations.count(None, rate, at(100)).is_ok());
        assert!(creations.count(Some("a"), rate, at(119)).is_err());
        assert!(creations.count(Some("a"), rate, at(120)).is_ok());
    }

    #[test]
    fn a_flood_of_refusals_is_summed_up_and_nothing_is_lost() {
        let refusals = Refusals::default();
        let now = Duration::from_secs(10);
        let own = (0..1000)
            .filter(|_| refusals.admit("credential_missing", now))
            .count();
        assert_eq!(own, 200);
        assert_eq!(
            refusals.left_out().as_deref(),
            Some("credential_missing: 800")
        );
        assert_eq!(refusals.left_out(), None);
        assert!(refusals.admit("credential_missing", now + EVERY));
    }
}
