//! A listener in front of a real service, over real sockets, with real tokens: who is let in, what the service is told, and
//! how streams end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "../../../issuer/tests/support/mod.rs"]
mod idp;
mod service;
mod world;

mod admission;
mod form;
mod paths;
mod reload;
mod streams;
