//! The one place that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outgate_journey::session::UnixSeconds;

/// Time since 1970; zero on a machine whose clock stands before it, where every token is then refused.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that the others take as a parameter"
)]
pub fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The wall clock for tokens and certificates.
#[must_use]
pub fn unix_now() -> UnixSeconds {
    UnixSeconds(since_epoch().as_secs())
}
