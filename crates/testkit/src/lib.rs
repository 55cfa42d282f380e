//! Test support that speaks real protocols over real sockets, all of it on loopback and on ports that the kernel
//! chooses: [`Origin`] (an upstream), [`DnsServer`], [`Gateway`] (the real binary), [`Envoy`] (a real one, under the real
//! binary), [`Guest`] and [`raw`] (clients).
//!
//! Everything panics on a fault of its own: a harness that cannot do its part must fail the test it serves.
//! Tests that use it need a multi-thread runtime, because starting processes blocks.

pub mod certs;
pub mod channel;
pub mod codec;
pub mod dns;
pub mod envoy;
pub mod frames;
pub mod gateway;
pub mod guest;
pub mod h1;
pub mod hello;
pub mod io;
pub mod message;
pub mod origin;
pub mod process;
pub mod raw;
pub mod websocket;

pub use certs::{CertificateKind, TestCa};
pub use channel::{Channel, Streaming};
pub use dns::{DnsAnswer, DnsServer};
pub use envoy::{Envoy, free_port};
pub use gateway::{CommandOutput, Gateway, GatewayOptions};
pub use guest::{Guest, Outcome, TlsOptions, Way};
pub use message::{Headers, Req, Response};
pub use origin::{Alpn, Origin, OriginOptions, Seen};

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Asks `probe` every 10 ms until it gives a value; `None` once `limit` has passed.
pub async fn eventually<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if begin.elapsed() > limit {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `future`, or a panic that names `what` after `seconds`.
pub async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing after {seconds} s"),
    }
}
