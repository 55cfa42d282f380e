//! How long to wait before Envoy is started again: 100 ms, doubled each time up to 10 s, and from the start again after
//! a process that ran for a minute.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
const LONG_ENOUGH: Duration = Duration::from_secs(60);

pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait after a process that ran for so long.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= LONG_ENOUGH {
            self.next = FIRST;
        }
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_start_again_after_a_minute() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9)
            .map(|_| backoff.after(Duration::from_secs(59)).as_millis())
            .collect();
        assert_eq!(
            waits,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(backoff.after(LONG_ENOUGH), FIRST);
        assert_eq!(backoff.after(Duration::ZERO), FIRST * 2);
    }
}
