//! The line that sessions are judged on. It goes on with the machine's own clock alone, and begins where the last
//! process had got to, or at the clock's time if that is later: setting the wall clock back, before or after a restart,
//! takes nothing off it, and setting it forward ends nothing while the process runs.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use outgate_clock::Clock;
use outgate_journey::session::UnixSeconds;
use outgate_store::Steady;

use super::activity::milliseconds;

pub(super) struct Timeline {
    clock: Arc<dyn Clock>,
    begin: Duration,
    /// The machine's own clock at the beginning.
    machine: Duration,
    /// The line as of the last look, in milliseconds, for those who cannot ask a clock each time.
    lately: Arc<AtomicU64>,
}

impl Timeline {
    pub(super) fn new(clock: Arc<dyn Clock>, floor: Steady) -> Self {
        let begin = clock.unix().0.max(floor.0);
        Self {
            begin: Duration::from_secs(begin),
            machine: clock.monotonic(),
            lately: Arc::new(AtomicU64::new(milliseconds(Duration::from_secs(begin)))),
            clock,
        }
    }

    /// Where the line has got to.
    pub(super) fn now(&self) -> Duration {
        let elapsed = self.clock.monotonic().saturating_sub(self.machine);
        self.begin.saturating_add(elapsed)
    }

    pub(super) const fn lately(&self) -> &Arc<AtomicU64> {
        &self.lately
    }

    /// The same, in whole seconds.
    pub(super) fn steady(&self) -> Steady {
        Steady(self.now().as_secs())
    }

    /// The time that tokens are judged by.
    pub(super) fn unix(&self) -> UnixSeconds {
        self.clock.unix().max(UnixSeconds(self.now().as_secs()))
    }

    /// The point on the line at which it will be `at`, if nobody touches the clock.
    pub(super) fn when(&self, at: UnixSeconds) -> Steady {
        let away = at.0.saturating_sub(self.unix().0);
        Steady(self.steady().0.saturating_add(away))
    }

    /// The time that it was at a point on the line, for people to read.
    pub(super) fn shown(&self, point: Duration) -> u64 {
        let ago = self.now().saturating_sub(point);
        self.unix().0.saturating_sub(ago.as_secs())
    }
}
