//! The operator's door, from outside: real sockets, both ways in.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod audit_failure;
mod capacity;
mod document;
mod life;
mod parts;
mod refusals;
mod reload;
mod requests;
mod tenants;
mod webhooks;
mod world;
