//! The one place that reads clocks. Decides what time it is for everything that ends: tokens, sessions, revocations.
//!
//! A wall clock can be set back, by hand or by a bad time server, and whoever can do that must not be able to stretch
//! a session. So the time that things are judged by is the wall clock or the time since start on the machine's own
//! clock, whichever is later; and it starts no earlier than where the last process had got to. A clock that is set
//! *forward* ends things early, which is the safe side; it is followed back again as far as the machine's own clock
//! allows.

use std::{
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use outgate_journey::session::UnixSeconds;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// What time it is. Implementations never block.
pub trait Clock: Send + Sync {
    /// The time to judge by: never behind the machine's own clock, whatever becomes of the wall clock.
    fn unix(&self) -> UnixSeconds;

    /// Time since the machine started, asleep or awake; unaffected by the wall clock.
    fn monotonic(&self) -> Duration;

    /// The wall clock as it stands, in milliseconds since 1970: to write into records, never to judge by.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct GuardedClock {
    /// Where the time to judge by began, and the machine's own clock at that moment.
    begin: (AtomicU64, AtomicU64),
}

impl GuardedClock {
    /// A clock that starts no earlier than `floor`, which is where the process before had got to.
    #[must_use]
    pub fn new(floor: UnixSeconds) -> Self {
        let begin = wall().as_secs().max(floor.0);
        Self {
            begin: (
                AtomicU64::new(begin),
                AtomicU64::new(since_boot().as_secs()),
            ),
        }
    }

    /// Moves on to `floor`, if that is later than where the clock has got to by the machine's own clock: the wall clock
    /// may be ahead of that, and be set back the moment after.
    pub fn not_before(&self, floor: UnixSeconds) {
        let begin = floor.0.saturating_sub(self.elapsed());
        self.begin.0.fetch_max(begin, Ordering::AcqRel);
    }

    /// Seconds by the machine's own clock since this one began.
    fn elapsed(&self) -> u64 {
        let boot = self.begin.1.load(Ordering::Relaxed);
        since_boot().as_secs().saturating_sub(boot)
    }
}

impl Clock for GuardedClock {
    fn unix(&self) -> UnixSeconds {
        let begin = self.begin.0.load(Ordering::Acquire);
        let own = begin.saturating_add(self.elapsed());
        UnixSeconds(own.max(wall().as_secs()))
    }

    fn monotonic(&self) -> Duration {
        since_boot()
    }

    fn wall_ms(&self) -> u64 {
        u64::try_from(wall().as_millis()).unwrap_or(u64::MAX)
    }
}

static MACHINE: LazyLock<Arc<GuardedClock>> =
    LazyLock::new(|| Arc::new(GuardedClock::new(UnixSeconds(0))));

/// This process's clock. There is one, whatever runs in the process: what is over for one part of it is over for all.
#[must_use]
pub fn machine() -> Arc<GuardedClock> {
    Arc::clone(&MACHINE)
}

/// The time that the TLS library judges certificates by: this process's clock, so that a wall clock that was set back
/// does not make an expired one good again.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateTime;

impl TimeProvider for CertificateTime {
    fn current_time(&self) -> Option<UnixTime> {
        let now = MACHINE.unix();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(now.0)))
    }
}

/// Zero on a machine whose clock stands before 1970, where every token is refused as not valid yet.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that the others take as a parameter"
)]
fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// A suspended machine's clock for this counts on: a session does not outlive a closed lid.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// A clock for tests, which stands still until it is moved.
#[derive(Debug)]
pub struct FakeClock(Mutex<FakeTime>);

#[derive(Debug, Clone, Copy)]
struct FakeTime {
    wall: u64,
    begin: u64,
    elapsed: Duration,
}

impl FakeClock {
    /// A clock that shows this time.
    #[must_use]
    pub const fn at(now: UnixSeconds) -> Self {
        Self(Mutex::new(FakeTime {
            wall: now.0,
            begin: now.0,
            elapsed: Duration::ZERO,
        }))
    }

    /// The clock of a process that starts on the same machine with this floor, as [`GuardedClock::new`] does.
    #[must_use]
    pub fn restarted(&self, floor: UnixSeconds) -> Self {
        let now = self.time();
        Self(Mutex::new(FakeTime {
            begin: now.wall.max(floor.0),
            wall: now.wall,
            elapsed: Duration::ZERO,
        }))
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time();
        time.elapsed += by;
        time.wall += by.as_secs();
    }

    /// Sets the wall clock alone.
    pub fn set_wall(&self, now: UnixSeconds) {
        self.time().wall = now.0;
    }

    fn time(&self) -> std::sync::MutexGuard<'_, FakeTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FakeClock {
    fn unix(&self) -> UnixSeconds {
        let time = self.time();
        UnixSeconds(time.wall.max(time.begin + time.elapsed.as_secs()))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(1_000_000) + self.time().elapsed
    }

    fn wall_ms(&self) -> u64 {
        self.time().wall * 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_back_does_not_turn_the_time_back() {
        let clock = FakeClock::at(UnixSeconds(100_000));
        clock.advance(Duration::from_secs(60));
        clock.set_wall(UnixSeconds(100_000 - 86_400));
        assert_eq!(clock.unix(), UnixSeconds(100_060));
        clock.advance(Duration::from_secs(60));
        assert_eq!(clock.unix(), UnixSeconds(100_120));
    }

    #[test]
    fn a_wall_clock_that_was_set_forward_and_back_is_followed() {
        let clock = FakeClock::at(UnixSeconds(100_000));
        clock.set_wall(UnixSeconds(200_000));
        assert_eq!(clock.unix(), UnixSeconds(200_000));
        clock.set_wall(UnixSeconds(100_000));
        assert_eq!(clock.unix(), UnixSeconds(100_000));
    }

    #[test]
    fn the_machines_clock_starts_at_the_floor_and_can_be_moved_on_but_not_back() {
        let floor = UnixSeconds(wall().as_secs() + 86_400);
        let clock = GuardedClock::new(floor);
        assert!((floor.0..floor.0 + 5).contains(&clock.unix().0));
        clock.not_before(UnixSeconds(floor.0 + 1000));
        assert!((floor.0 + 1000..floor.0 + 1005).contains(&clock.unix().0));
        clock.not_before(UnixSeconds(floor.0));
        assert!(clock.unix().0 >= floor.0 + 1000);
    }

    #[test]
    fn a_floor_holds_also_where_the_wall_clock_is_ahead_of_the_machines_own() {
        let boot = since_boot().as_secs();
        let clock = GuardedClock {
            begin: (AtomicU64::new(0), AtomicU64::new(boot)),
        };
        let floor = UnixSeconds(wall().as_secs() + 100);
        clock.not_before(floor);
        assert!(clock.unix() >= floor);
    }

    #[test]
    fn certificates_are_judged_by_this_processs_clock() {
        let ahead = UnixSeconds(wall().as_secs() + 86_400);
        machine().not_before(ahead);
        let judged = CertificateTime.current_time().unwrap();
        assert!((ahead.0..ahead.0 + 5).contains(&judged.as_secs()));
        assert!(machine().unix() >= ahead);
    }

    #[test]
    fn a_restart_with_the_clock_set_back_goes_on_where_the_last_process_stood() {
        let clock = FakeClock::at(UnixSeconds(100_000));
        clock.set_wall(UnixSeconds(10_000));
        assert_eq!(
            clock.restarted(UnixSeconds(100_000)).unix(),
            UnixSeconds(100_000)
        );
        assert_eq!(clock.restarted(UnixSeconds(0)).unix(), UnixSeconds(10_000));
    }
}
