//! What must hold for any input of the gateway's parsers, one plain function each. Beyond "does not panic": what was
//! accepted has one spelling, a verdict does not change when more bytes arrive, and an independent parser that reads
//! the same bytes reads the same thing.
//!
//! `tests/targets.rs` runs them: over the checked-in corpora and random bytes in an ordinary test run, coverage-guided
//! under `cargo xtask fuzz`.

mod config;
mod destination;
mod opening;
mod question;
mod request_head;

pub use config::config;
pub use destination::{absolute_form, connect};
pub use opening::client_hello;
pub use question::question;
pub use request_head::http1_head;
