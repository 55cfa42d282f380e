//! Listeners in front of a service: a caller comes in with a token of a trusted issuer, and its request goes to the one
//! service that the file names.
//!
//! [`verdict`] decides, alone and from evidence: which request it is, whether it needs a token, whose token it is. Nothing
//! of a request says where it goes. Before anything is decided its bytes were judged by the guard of the gateway's own
//! listeners, and tokens are verified where operators' are (`outgate_issuer`): there is no second parser and no second
//! verifier. [`exchange`] is the one exit: the answer, and the record in the trail of what was let in and what was not.

mod answer;
mod bearer;
mod body;
mod connection;
mod exchange;
mod forward;
mod head;
mod listener;
mod relay;
mod service;
mod state;
mod verdict;

pub use listener::{Bound, InboundError, InboundListener};
pub use state::Prepared;
