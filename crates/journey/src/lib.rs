//! The journey of a request: every decision, in order, with no I/O.
//!
//! Passing a stage yields a value that only that stage can make, and the next stage asks for it:
//! [`Destination`](destination::Destination) → [`Session`](session::Session) →
//! [`AllowedDestination`](policy::AllowedDestination) → [`ResolvedDestination`](resolve::ResolvedDestination) →
//! [`Permit`](authorize::Permit) → [`Admission`](limit::Admission) → [`InjectionPlan`](inject::InjectionPlan).
//! A dialer that accepts nothing less than a `ResolvedDestination` cannot be reached around a stage.
//!
//! [`gate`] holds the order. What the stages need from outside (tokens, denylist, counters, resolver, credentials,
//! audit state) are small traits that a data plane implements.

pub mod address;
pub mod authorize;
pub mod denial;
pub mod destination;
pub mod gate;
pub mod inject;
pub mod limit;
pub mod limit_text;
pub mod name;
pub mod outgoing;
pub mod path;
pub mod policy;
pub mod record;
pub mod resolve;
pub mod session;
pub mod tripwire;
