//! The messages between a control plane and the gateways that follow it. The source is
//! `proto/outgate/fleet/v1/fleet.proto`; the code is generated from it and checked in, so that a build needs no
//! compiler for it. A test refuses code that is not what the source generates; run it with `OUTGATE_BLESS=1` to
//! write the code anew.

#[rustfmt::skip]
#[allow(
    missing_docs,
    unreachable_pub,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    reason = "generated code keeps no house style; the source has the comments"
)]
mod generated;

pub use generated::*;
