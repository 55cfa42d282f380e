//! How long to wait. Doubling with jitter, so that the receiver of many gateways is not met by all at once when it
//! comes back; and what the receiver itself asked for (RFC 9110 section 10.2.3), within reason.

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;

use crate::{config::Tuning, fault::Retry};

/// A receiver that asks for more gets its next request after this: it cannot silence the trail for a day.
const LONGEST_ASKED: Duration = Duration::from_secs(60 * 60);

/// The waits between attempts.
#[derive(Debug)]
pub(crate) struct Waits {
    tuning: Tuning,
    failures: u32,
}

impl Waits {
    pub(crate) const fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            failures: 0,
        }
    }

    /// After a success.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next wait, between its half and its whole; what the receiver asked for is never cut short.
    pub(crate) fn next(&mut self, retry: Retry) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.min(20));
        let backoff = self
            .tuning
            .first_retry
            .saturating_mul(doubled)
            .min(self.tuning.longest_retry);
        match retry {
            Retry::After(asked) => {
                let asked = asked.min(LONGEST_ASKED);
                asked.saturating_add(asked.min(self.tuning.first_retry).mul_f64(chance()))
            }
            Retry::Narrower => self.tuning.first_retry.mul_f64(0.5 + chance() / 2.0),
            Retry::Backoff => {
                self.failures = self.failures.saturating_add(1);
                backoff.mul_f64(0.5 + chance() / 2.0)
            }
            Retry::Slowly => self.tuning.slow_retry.mul_f64(0.5 + chance() / 2.0),
        }
    }
}

/// From 0 to 1. Without randomness: 1, the longest wait.
fn chance() -> f64 {
    let mut bytes = [0; 2];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 1.0,
    }
}

/// What a `Retry-After` asks for: seconds, or a date.
pub(crate) fn asked_for(headers: &HeaderMap, wall_ms: u64) -> Option<Duration> {
    let value = headers
        .get(http::header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.parse().map_or(LONGEST_ASKED, Duration::from_secs));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let since_1970 = date.duration_since(UNIX_EPOCH).ok()?;
    Some(since_1970.saturating_sub(Duration::from_millis(wall_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_success() {
        let tuning = Tuning {
            first_retry: Duration::from_millis(100),
            longest_retry: Duration::from_secs(1),
            slow_retry: Duration::from_secs(9),
            ..Tuning::default()
        };
        let mut waits = Waits::new(tuning);
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let wait = waits.next(Retry::Backoff);
            let whole = Duration::from_millis(whole);
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} of {whole:?}");
        }
        waits.reset();
        assert!(waits.next(Retry::Backoff) <= Duration::from_millis(100));
        let slowly = waits.next(Retry::Slowly);
        assert!(slowly >= Duration::from_millis(4500) && slowly <= Duration::from_secs(9));
    }

    #[test]
    fn what_the_receiver_asks_for_is_waited_for_but_not_for_ever() {
        let mut waits = Waits::new(Tuning::default());
        let asked = Duration::from_secs(7);
        let wait = waits.next(Retry::After(asked));
        assert!(
            wait >= asked && wait <= asked + Duration::from_secs(1),
            "{wait:?}"
        );
        let day = waits.next(Retry::After(Duration::from_secs(86_400)));
        assert!(day <= Duration::from_secs(3601), "{day:?}");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wall_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, wanted) in [
            ("0", Some(0)),
            (" 12 ", Some(12)),
            ("99999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::RETRY_AFTER, value.parse().unwrap());
            let wanted = wanted.map(Duration::from_secs);
            assert_eq!(asked_for(&headers, wall_ms), wanted, "{value}");
        }
        assert_eq!(asked_for(&HeaderMap::new(), wall_ms), None);
    }
}
