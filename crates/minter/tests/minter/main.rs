//! Leaves through the public API: who gets one, how often one is minted, what is recorded, and when it goes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod support;

mod audit;
mod files;
mod flight;
mod names;
mod process;
mod renewal;
mod secrets;
