//! How old the denylist is. Judged on the machine's own clock, which a wall clock set back does not touch and which
//! goes on while the machine sleeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use outgate_clock::Clock;

const NEVER: i64 = i64::MIN;

/// When the denylist was last known to be current. Reading it is wait-free.
pub struct Freshness {
    clock: Arc<dyn Clock>,
    /// Milliseconds on the machine's own clock; negative for what was before the machine started.
    heard: AtomicI64,
}

impl Freshness {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            heard: AtomicI64::new(NEVER),
        }
    }

    /// How long ago it was known to be current. `None`: never, or one cannot tell.
    #[must_use]
    pub fn last_heard(&self) -> Option<Duration> {
        let heard = self.heard.load(Ordering::Acquire);
        (heard != NEVER).then(|| {
            let age = self.now().saturating_sub(heard);
            Duration::from_millis(u64::try_from(age).unwrap_or(0))
        })
    }

    /// Whether that was no longer ago than `bound`. What was never heard of is not.
    #[must_use]
    pub fn is_within(&self, bound: Duration) -> bool {
        self.last_heard().is_some_and(|age| age <= bound)
    }

    /// It was current at this moment of the machine's own clock. An earlier moment than one known before, or one to
    /// come, changes nothing.
    pub(crate) fn note(&self, at: Duration) {
        let at = millis(at).min(self.now());
        self.heard.fetch_max(at, Ordering::AcqRel);
    }

    /// It was current this long ago, in another process.
    pub(crate) fn note_age(&self, age: Duration) {
        let at = self.now().saturating_sub(millis(age));
        self.heard.fetch_max(at, Ordering::AcqRel);
    }

    fn now(&self) -> i64 {
        millis(self.clock.monotonic())
    }
}

impl std::fmt::Debug for Freshness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Freshness({:?})", self.last_heard())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use outgate_clock::FakeClock;
    use outgate_journey::session::UnixSeconds;

    use super::*;

    const BOUND: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_never_heard_of_is_not_fresh() {
        let freshness = Freshness::new(Arc::new(FakeClock::at(UnixSeconds(1000))));
        assert_eq!(freshness.last_heard(), None);
        assert!(!freshness.is_within(Duration::MAX));
    }

    #[test]
    fn it_ages_with_the_machines_clock_and_not_with_the_wall_clock() {
        let clock = Arc::new(FakeClock::at(UnixSeconds(100_000)));
        let freshness = Freshness::new(clock.clone());
        freshness.note(clock.monotonic());
        assert!(freshness.is_within(BOUND));
        clock.advance(BOUND);
        assert!(freshness.is_within(BOUND));
        clock.set_wall(UnixSeconds(10));
        clock.advance(Duration::from_secs(1));
        assert_eq!(freshness.last_heard(), Some(BOUND + Duration::from_secs(1)));
        assert!(!freshness.is_within(BOUND));
    }

    #[test]
    fn an_older_word_does_not_undo_a_newer_and_no_word_is_from_the_future() {
        let clock = Arc::new(FakeClock::at(UnixSeconds(100_000)));
        let freshness = Freshness::new(clock.clone());
        let start = clock.monotonic();
        clock.advance(Duration::from_secs(10));
        freshness.note(clock.monotonic());
        freshness.note(start);
        freshness.note_age(Duration::from_secs(5));
        assert_eq!(freshness.last_heard(), Some(Duration::ZERO));
        freshness.note(clock.monotonic() + Duration::from_secs(1000));
        clock.advance(Duration::from_secs(7));
        assert_eq!(freshness.last_heard(), Some(Duration::from_secs(7)));
    }
}
