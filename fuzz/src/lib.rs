//! What must hold for any input of the gateway's parsers, one plain function each. Beyond "does not panic": what was
//! accepted has one spelling, a verdict does not change when more bytes arrive, and an independent parser that reads
//! the same bytes reads the same thing.
//!
//! `tests/targets.rs` runs them: over the checked-in corpora and random bytes in an ordinary test run, coverage-guided
//! under `cargo xtask fuzz`.

mod config;
mod destination;
#[cfg(feature = "discovery")]
mod discovery;
mod envoy_log;
#[cfg(feature = "questions")]
mod evidence;
#[cfg(feature = "discovery")]
mod message;
mod opening;
mod question;
mod request_head;
#[cfg(feature = "discovery")]
mod script;
#[cfg(feature = "discovery")]
mod secrets;

pub use config::config;
pub use destination::{absolute_form, connect};
#[cfg(feature = "discovery")]
pub use discovery::{delta_stream, world_stream};
pub use envoy_log::envoy_log;
#[cfg(feature = "questions")]
pub use evidence::evidence;
#[cfg(feature = "discovery")]
pub use message::message;
pub use opening::client_hello;
pub use question::question;
pub use request_head::http1_head;
#[cfg(feature = "discovery")]
pub use secrets::{delta_secrets, world_secrets};
