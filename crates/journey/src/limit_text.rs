//! How limits are written: in the operator's interface, in a token's claims and towards other gateways. One spelling,
//! so that what was given is what is enforced.

use std::{num::NonZeroU32, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::policy::{Rate, SessionLimits};

/// What one session may use, as written. What is not there has no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsText {
    /// Requests per window, as in `120/min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<String>,
    /// New connections per window, as in `30/min`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<String>,
    /// Connections open at once, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent_connections: Option<u32>,
    /// Bytes towards upstreams over the session's life, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
    /// Distinct hosts over the session's life, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct_destinations: Option<u32>,
}

/// A limit that cannot be read: which, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct LimitFault {
    /// The key.
    pub key: &'static str,
    /// Why.
    pub why: &'static str,
}

const RATE: &str = "write a number from 1 and a window (s, min, h or d), as in `120/min`";
const ZERO: &str = "0 would let nothing through: write at least 1";

impl TryFrom<&LimitsText> for SessionLimits {
    type Error = LimitFault;

    fn try_from(text: &LimitsText) -> Result<Self, LimitFault> {
        let rate = |key, text: &Option<String>| {
            text.as_deref()
                .map(|text| text.parse().map_err(|()| LimitFault { key, why: RATE }))
                .transpose()
        };
        fn at_least_one<N: PartialEq + From<u8>>(
            key: &'static str,
            number: Option<N>,
        ) -> Result<Option<N>, LimitFault> {
            match number {
                Some(number) if number == N::from(0) => Err(LimitFault { key, why: ZERO }),
                number => Ok(number),
            }
        }
        Ok(Self {
            requests: rate("requests", &text.requests)?,
            connections: rate("connections", &text.connections)?,
            concurrent_connections: at_least_one(
                "concurrent_connections",
                text.concurrent_connections,
            )?,
            bytes_out: at_least_one("bytes_out", text.bytes_out)?,
            distinct_destinations: at_least_one(
                "distinct_destinations",
                text.distinct_destinations,
            )?,
        })
    }
}

impl From<&SessionLimits> for LimitsText {
    fn from(limits: &SessionLimits) -> Self {
        Self {
            requests: limits.requests.as_ref().map(ToString::to_string),
            connections: limits.connections.as_ref().map(ToString::to_string),
            concurrent_connections: limits.concurrent_connections,
            bytes_out: limits.bytes_out,
            distinct_destinations: limits.distinct_destinations,
        }
    }
}

impl FromStr for Rate {
    type Err = ();

    /// Reads `120/min`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (events, window) = text.split_once('/').ok_or(())?;
        // A sign would be read as part of the number.
        if !events.bytes().all(|b| b.is_ascii_digit()) {
            return Err(());
        }
        let window_seconds = match window {
            "s" | "sec" | "second" => 1,
            "min" | "minute" => 60,
            "h" | "hour" => 3600,
            "d" | "day" => 86_400,
            _ => return Err(()),
        };
        Ok(Self {
            events: events.parse::<NonZeroU32>().map_err(|_| ())?,
            window_seconds,
        })
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let window = match self.window_seconds {
            1 => "s",
            60 => "min",
            3600 => "h",
            86_400 => "d",
            other => return write!(f, "{}/{other}s", self.events),
        };
        write!(f, "{}/{window}", self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_back_as_they_were_written() {
        let limits = SessionLimits {
            requests: "120/min".parse().ok(),
            connections: "3/d".parse().ok(),
            concurrent_connections: Some(10),
            bytes_out: Some(1 << 40),
            distinct_destinations: Some(2),
        };
        assert_eq!(
            SessionLimits::try_from(&LimitsText::from(&limits)),
            Ok(limits)
        );
        let none = SessionLimits::default();
        assert_eq!(SessionLimits::try_from(&LimitsText::from(&none)), Ok(none));
    }

    #[test]
    fn what_is_no_rate_or_lets_nothing_through_is_refused_by_name() {
        for bad in [
            "",
            "5",
            "0/s",
            "-1/s",
            "+1/s",
            "1/week",
            "1.5/s",
            "/s",
            "10 / s",
            "99999999999/s",
            "1//s",
        ] {
            assert_eq!(bad.parse::<Rate>(), Err(()), "{bad}");
        }
        let zero = LimitsText {
            bytes_out: Some(0),
            ..LimitsText::default()
        };
        let fault = SessionLimits::try_from(&zero).unwrap_err();
        assert_eq!(fault.key, "bytes_out");
    }
}
