//! The exfiltration tripwire (S7): decides, without reading content, whether what a session did within a window is more
//! than its owner expects of any. The counting is the plane's; what is compared with what is decided here.

use std::time::Duration;

/// What a session may do within a window before it is an anomaly. `None`: not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tripwire {
    /// The length of the window.
    pub window: Duration,
    /// Bytes towards upstreams.
    pub bytes_out: Option<u64>,
    /// Requests; a tunnel that shows none counts as one.
    pub requests: Option<u64>,
    /// Distinct hosts.
    pub distinct_destinations: Option<u64>,
    /// Whether an anomaly ends the session.
    pub arm: bool,
}

/// What a session did within a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowUse {
    /// Bytes towards upstreams.
    pub bytes_out: u64,
    /// Requests.
    pub requests: u64,
    /// Distinct hosts.
    pub distinct_destinations: u64,
}

/// A budget of the tripwire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Bytes towards upstreams.
    BytesOut,
    /// Requests.
    Requests,
    /// Distinct hosts.
    DistinctDestinations,
}

impl Budget {
    /// The key of the file, which is also the word used in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BytesOut => "bytes_out",
            Self::Requests => "requests",
            Self::DistinctDestinations => "distinct_destinations",
        }
    }
}

/// A budget that was overrun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overrun {
    /// Which.
    pub budget: Budget,
    /// What was expected at most.
    pub limit: u64,
    /// What was seen.
    pub seen: u64,
}

impl Tripwire {
    /// The first budget that is overrun, if any.
    #[must_use]
    pub fn judge(&self, used: &WindowUse) -> Option<Overrun> {
        let budgets = [
            (Budget::BytesOut, self.bytes_out, used.bytes_out),
            (Budget::Requests, self.requests, used.requests),
            (
                Budget::DistinctDestinations,
                self.distinct_destinations,
                used.distinct_destinations,
            ),
        ];
        budgets.into_iter().find_map(|(budget, limit, seen)| {
            let limit = limit?;
            (seen > limit).then_some(Overrun {
                budget,
                limit,
                seen,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: Tripwire = Tripwire {
        window: Duration::from_secs(60),
        bytes_out: Some(100),
        requests: Some(10),
        distinct_destinations: None,
        arm: false,
    };

    #[test]
    fn a_budget_holds_up_to_its_limit_and_what_is_not_watched_has_none() {
        for (used, expected) in [
            ((100, 10, 1000), None),
            ((101, 10, 0), Some(Budget::BytesOut)),
            ((0, 11, 0), Some(Budget::Requests)),
            ((101, 11, 0), Some(Budget::BytesOut)),
        ] {
            let (bytes_out, requests, distinct_destinations) = used;
            let used = WindowUse {
                bytes_out,
                requests,
                distinct_destinations,
            };
            assert_eq!(
                WIRE.judge(&used).map(|over| over.budget),
                expected,
                "{used:?}"
            );
        }
    }
}
