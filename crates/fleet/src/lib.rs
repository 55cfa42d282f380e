//! Several gateways, one control plane (C7). Decides what a gateway that follows a control plane holds to be true:
//! policy, public keys and denylist, as the control plane last said them over mutual TLS, and how long ago that was.
//!
//! It refuses to guess. What is not whole, not in order, of another control plane, or older than what is held is not
//! applied; what the gateway's parts refuse is reported and the last good stays; and the denylist counts as heard of
//! only as of when the control plane *sent* that it is current, so that neither a half-open connection nor bytes that
//! sat in a paused network make an old one look fresh.
//!
//! Trust goes one way. A gateway reads, and reports anomalies; the service has no method that changes anything, and
//! a gateway's identity (its certificate's name) carries no operator's right. No secret travels: a key set with a
//! private part is neither sent nor taken.

mod convert;
mod core;
mod denylist;
mod document;
mod error;
mod follow;
mod freshness;
mod held;
mod keep;
mod last_state;
mod ledger;
mod link;
mod peers;
mod publish;
mod reporter;
mod server;
mod service;
mod tls;

use std::time::Duration;

pub use denylist::{Denylist, Fact, FactKey, Target};
pub use document::PolicyDocument;
pub use error::{FleetError, LastStateError};
pub use follow::{FollowConfig, FollowStatus, Follower, Refusal, Restored, StatePart, StateSink};
pub use freshness::Freshness;
pub use outgate_journey::record::AnomalyRecord;
pub use publish::StateSource;
pub use reporter::Reporter;
pub use server::{FleetServer, FollowerView};
pub use tls::ServerTls;

/// How often things happen. The default is what the promises are stated for; tests shorten it.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The longest that the control plane says nothing.
    pub heartbeat: Duration,
    /// The longest that a gateway waits to hear something before it gives a connection up.
    pub silence: Duration,
    /// How often each side asks whether the other is there, and how long it waits for the answer.
    pub keep_alive: (Duration, Duration),
    /// How long a stream lives. Bounded, so that certificates are judged again, and so that two clocks that run at
    /// different speeds cannot drift apart by more than a fraction of a second.
    pub stream_life: Duration,
    /// The longest wait before connecting again.
    pub back_off: Duration,
    /// How often a gateway writes down, with nothing else to write, that its denylist is current.
    pub keep_heard: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            silence: Duration::from_secs(6),
            keep_alive: (Duration::from_secs(2), Duration::from_secs(3)),
            stream_life: Duration::from_secs(15 * 60),
            back_off: Duration::from_secs(10),
            keep_heard: Duration::from_secs(5),
        }
    }
}

/// From 0 to 1. Spreads what would come at once; nothing worse follows where the machine has no randomness to give.
fn random() -> f64 {
    let mut random = [0_u8; 1];
    let _ = aws_lc_rs::rand::fill(&mut random);
    f64::from(random[0]) / 255.0
}
