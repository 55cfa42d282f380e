//! The rules, tried in real network namespaces: a pod with an agent (user 1000) and a gateway (user 65532), and what is
//! outside of it, joined by a cable. Needs root, `ip` and `nft`; without them these tests fail.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub
)]

mod closed;
mod envoy;
mod gateway;
mod installing;
mod redirected;
mod served;
mod ways;
mod world;
