//! What the data planes of a gateway share: the journey's needs as this process meets them, the policy of the moment,
//! and the signals that end things. A plane gathers evidence, asks the journey with what is here, and carries the
//! verdict; nothing of one plane alone is here.

pub mod answer;
pub mod budget;
pub mod clock;
pub mod connection;
mod core;
pub mod counts;
pub mod limits;
pub mod resolver;
pub mod tls_provider;
mod tls_records;
pub mod tokens;
pub mod trail;
pub mod tripwire;
pub mod upstream_tls;
mod view;

pub use crate::core::{
    AnomalyObserver, Core, CoreParts, GatewayPlane, Live, Observer, RandomFailed, random_hex,
};
