//! What the benchmarks share: a client that loads a door as Envoy does, services that decide nothing, and the machine's
//! clocks.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark that cannot go on should stop; each uses a part of this"
)]

pub(crate) mod caller;
pub(crate) mod edge;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod messages;
pub(crate) mod nothing;
pub(crate) mod template;
