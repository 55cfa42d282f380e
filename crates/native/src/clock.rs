//! This process's clock, as the data plane reads it.

use std::time::Duration;

use outgate_clock::Clock;
use outgate_journey::session::UnixSeconds;

pub use outgate_clock::machine;

/// Time since 1970 as the wall clock stands: for records, never to judge by.
#[must_use]
pub fn since_epoch() -> Duration {
    Duration::from_millis(machine().wall_ms())
}

/// The time to judge tokens and certificates by: never runs back.
#[must_use]
pub fn unix_now() -> UnixSeconds {
    machine().unix()
}
