//! The registry: what takes a session's standing away, when, and what of it a restart, a failing disk or a clock that
//! is set back can undo (nothing).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot get its stage up has failed"
)]

mod clocks;
mod disk;
mod external;
mod follow;
mod operators;
mod places;
mod recent;
mod revoking;
mod support;
