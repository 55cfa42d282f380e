//! Envoy's v3 API, as far as Outgate speaks it: the typed messages and services of a control plane (xDS discovery,
//! secrets, authorization, rate limits, access logs, external processing), and with the feature `reflect` a
//! translation of Envoy's configuration from JSON to protobuf ([`any_from_json`], [`message_from_json`]).
//!
//! Everything is generated from `proto/` and checked in, so that a build needs no compiler for it. A test refuses
//! code and descriptors that are not what the sources say; run it with `OUTGATE_BLESS=1` to write them anew. What the
//! sources reach but no root needs is left out: `tests/source/roots.rs` has the roots.
//!
//! Messages that can carry a key, a credential or a guest's token are generated without `Debug`, and so is whatever
//! contains one. [`prost_types::Any`] has it and prints its bytes: never format one that may hold a secret.

#[rustfmt::skip]
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    reason = "generated code keeps no house style; the sources have the comments"
)]
mod generated {
    include!("generated/mod.rs");
}

#[cfg(feature = "reflect")]
mod json;

pub use generated::{envoy, google, xds};
#[cfg(feature = "reflect")]
pub use json::{Problem, RenderError, any_from_json, check, message_from_json};
/// How the generated services encode and decode: for a service that takes only a part of a message.
pub use tonic_prost::ProstCodec;
