//! What a connection holds of its session: where it says that bytes moved, and the signal that cuts it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use outgate_journey::session::SessionEnd;
use tokio_util::sync::CancellationToken;

/// How often the line is looked at for those who cannot ask a clock each time, in milliseconds.
const LOOKED_AT_EVERY_MS: u64 = 1000;

/// When a session last did anything, in milliseconds on the line; shared by all its connections.
#[derive(Debug)]
pub(super) struct Pulse {
    last: AtomicU64,
    /// The line as of the last second, so that a byte need not ask a clock.
    lately: Arc<AtomicU64>,
}

impl Pulse {
    pub(super) fn new(last: Duration, lately: &Arc<AtomicU64>) -> Self {
        Self {
            last: AtomicU64::new(milliseconds(last)),
            lately: Arc::clone(lately),
        }
    }

    pub(super) fn last(&self) -> Duration {
        Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Notes that something was done at this moment.
    pub(super) fn touch(&self, now: Duration) {
        let now = milliseconds(now);
        self.lately.fetch_max(now, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// One token's use of a session.
#[derive(Debug)]
pub struct Activity {
    pulse: Option<Arc<Pulse>>,
    cut: CancellationToken,
    why: OnceLock<SessionEnd>,
}

impl Activity {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        Self {
            pulse: Some(pulse),
            cut: CancellationToken::new(),
            why: OnceLock::new(),
        }
    }

    /// Of a session that has no standing.
    pub(super) fn refused(why: SessionEnd) -> Self {
        let refused = Self {
            pulse: None,
            cut: CancellationToken::new(),
            why: OnceLock::new(),
        };
        refused.cut_for(why);
        refused
    }

    /// Notes that bytes moved: two relaxed atomic operations, no clock. The line is known as of the last look at it, so
    /// the moment is taken for the next one: a session that moves bytes is never found idle, and one that stops is at
    /// most a second late.
    pub fn note(&self) {
        if let Some(pulse) = &self.pulse {
            let lately = pulse.lately.load(Ordering::Relaxed);
            pulse
                .last
                .store(lately.saturating_add(LOOKED_AT_EVERY_MS), Ordering::Relaxed);
        }
    }

    /// The signal that is given when the session loses its standing.
    #[must_use]
    pub const fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// Why the signal was given; `None` until then.
    #[must_use]
    pub fn why(&self) -> Option<SessionEnd> {
        self.why.get().copied()
    }

    /// Gives the signal. Whoever wakes up by it finds the reason.
    pub(super) fn cut_for(&self, why: SessionEnd) {
        let _ = self.why.set(why);
        self.cut.cancel();
    }
}
