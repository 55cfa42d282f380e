//! xDS, as far as a control plane that holds secrets needs it: the door that data planes connect to, the discovery
//! services behind it (aggregated and of secrets, incremental and state of the world), and a client of secrets.
//!
//! Who connects is known before a byte of a request is read: on TCP by a certificate, on a Unix socket by its user.
//! What a client misdoes costs that client its stream, and nobody else anything: subscriptions, names, messages,
//! look-ups at once and what waits to be sent are bounded.
//!
//! The protocol is the one of <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol>; each rule has a test
//! that is named for it.

mod clean;
pub mod client;
mod codec;
mod connection;
mod delta;
mod door;
mod drive;
mod fault;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod kinds;
mod order;
mod pb;
mod secret;
mod serve;
mod services;
mod socket;
mod source;
mod talk;
mod tls;
mod world;

pub use connection::{Client, LOCAL};
pub use door::{Door, bare::Call};
pub use fault::DoorFault;
pub use serve::XdsService;
pub use services::Services;
pub use source::{Body, BoxFuture, Change, Lookup, Node, Resource, Sent, Source, type_urls};
pub use tls::{TlsDoor, TlsParts};

/// From 0 to 1. Spreads what would come at once; nothing worse follows where the machine has no randomness to give.
fn random() -> f64 {
    let mut random = [0_u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut random);
    f64::from(random[0]) / 255.0
}
