//! What the upstream has seen since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// Goes up by one.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections to the TLS listener.
    pub tcp: Counter,
    pub tls_full: Counter,
    pub tls_resumed: Counter,
    pub tls_fail: Counter,
    /// Requests by HTTP/1.1, also in clear.
    pub h1: Counter,
    /// Requests by HTTP/2.
    pub h2: Counter,
    /// WebSocket messages sent back.
    pub ws: Counter,
    /// Questions for names.
    pub dns: Counter,
}

impl Counters {
    /// The answer to `/stats`.
    pub(super) fn json(&self) -> Value {
        json!({
            "tcp": self.tcp.read(),
            "tls_full": self.tls_full.read(),
            "tls_resumed": self.tls_resumed.read(),
            "tls_fail": self.tls_fail.read(),
            "h1": self.h1.read(),
            "h2": self.h2.read(),
            "ws": self.ws.read(),
            "dns": self.dns.read(),
        })
    }
}
