//! What whoever operates a gateway asks of it: the real program, real signals, real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod control;
mod metrics;
mod probes;
mod rolling;
mod support;
