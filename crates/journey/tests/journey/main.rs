//! Tables of allows and denies for every stage, and the order of the stages, through the public API alone: a proof
//! that these tests can make without its stage is one that a data plane could make, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod support;

mod authorize;
mod confined;
mod gate_captured;
mod gate_connection;
mod gate_leaf;
mod gate_request;
mod gate_resume;
mod inject;
mod limit;
mod outgoing;
mod policy;
mod properties;
mod resolve;
mod session;
