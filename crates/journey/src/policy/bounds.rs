//! How much a session may use.

/// A number of events in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Events, at least 1.
    pub events: std::num::NonZeroU32,
    /// Window, in seconds: 1, 60, 3600 or 86400.
    pub window_seconds: u32,
}

/// What one session may use. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Requests.
    pub requests: Option<Rate>,
    /// New connections.
    pub connections: Option<Rate>,
    /// Connections open at once.
    pub concurrent_connections: Option<u32>,
    /// Bytes sent towards upstreams over the session's life.
    pub bytes_out: Option<u64>,
    /// Distinct hosts over the session's life.
    pub distinct_destinations: Option<u32>,
}

/// What one session may use, with all that bounds it: each rate on its own, and the lowest of each number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionBounds {
    /// Requests.
    pub requests: [Option<Rate>; Self::LAYERS],
    /// New connections.
    pub connections: [Option<Rate>; Self::LAYERS],
    /// Connections open at once.
    pub concurrent_connections: Option<u32>,
    /// Bytes sent towards upstreams over the session's life.
    pub bytes_out: Option<u64>,
    /// Distinct hosts over the session's life.
    pub distinct_destinations: Option<u32>,
}

impl SessionBounds {
    /// What bounds a session: the policy for all, the one that it is confined to, what it was given, and what the
    /// operator set since.
    pub const LAYERS: usize = 4;

    /// All of these limits at once.
    #[must_use]
    pub fn of(layers: [Option<&SessionLimits>; Self::LAYERS]) -> Self {
        let lowest = |pick: fn(&SessionLimits) -> Option<u64>| {
            layers
                .iter()
                .flatten()
                .filter_map(|limits| pick(limits))
                .min()
        };
        let narrow =
            |number: Option<u64>| number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        Self {
            requests: layers.map(|limits| limits?.requests),
            connections: layers.map(|limits| limits?.connections),
            concurrent_connections: narrow(lowest(|it| it.concurrent_connections.map(u64::from))),
            bytes_out: lowest(|it| it.bytes_out),
            distinct_destinations: narrow(lowest(|it| it.distinct_destinations.map(u64::from))),
        }
    }
}

/// What one session may use of one destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DestinationLimits {
    /// Requests.
    pub requests: Option<Rate>,
}
