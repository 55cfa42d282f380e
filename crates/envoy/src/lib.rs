//! Envoy as the data plane: its configuration, rendered from the policy ([`render`]) and served over xDS ([`source`]); the
//! services that answer its questions with the journey's verdicts and write the records ([`control`]); the process that
//! runs it ([`supervise`]). Refuses whatever Envoy cannot say who or what it is about.

pub mod control;
pub mod entitled;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod leg;
pub mod nodes;
pub mod reasons;
pub mod render;
pub mod source;
pub mod supervise;
