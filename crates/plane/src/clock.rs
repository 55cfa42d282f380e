//! This process's clock, as the data plane reads it.

use outgate_clock::Clock;
use outgate_journey::session::UnixSeconds;

pub use outgate_clock::machine;

/// The time to judge tokens and certificates by: never runs back.
#[must_use]
pub fn unix_now() -> UnixSeconds {
    machine().unix()
}
