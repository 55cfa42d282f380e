//! What a store promises, whatever it is built on (`contract`), and what the file promises (`sqlite`).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot get its stage up has failed"
)]

mod contract;
mod file;
mod full;
mod kill;
mod order;
mod support;
