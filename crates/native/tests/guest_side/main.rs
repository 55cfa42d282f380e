//! The guest's side of a session's sockets: connections that were captured on their way to any address, the explicit
//! proxy, and the name server, of a real gateway in this process, over real sockets on loopback.
//!
//! A captured connection's port is its destination's, so the listeners stand on other loopback addresses at the port
//! at which an upstream listens on `127.0.0.1`: to the gateway they are the addresses that a guest dialled.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test fails by panicking, in its helpers too"
)]
#![cfg(target_os = "linux")]

mod dns_wire;
mod vault;
mod world;

mod admission;
mod attribution;
mod clear;
mod ending;
mod leaves;
mod names;
mod names_hostile;
mod opaque;
mod opening;
mod proxy;
mod refused_upload;
mod server_name;
mod told;
