//! The operator's side: which sessions there are, which were ended, and the door through which the operator says
//! so. Nothing here is reachable from a guest-facing listener.

pub mod client;
pub mod operator;
pub mod sessions;
