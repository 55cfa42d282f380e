//! What a workload's pod runs, as its user would: the real program, a real gateway, real networks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod exec;
mod files;
mod gateway;
mod network;
mod rounds;
mod support;
