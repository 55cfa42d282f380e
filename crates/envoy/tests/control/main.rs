//! The control plane's services without an Envoy: the tests play its part over a real door, with real tokens, and read the
//! audit trail's records.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod ask;
mod world;

mod access_log;
mod hold;
mod limit;
mod nodes;
mod requests;
mod secrets;
mod tunnels;
