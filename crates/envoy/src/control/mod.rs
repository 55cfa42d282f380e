//! Outgate as Envoy's control plane: answers ext_authz and rate-limit calls with the journey's verdicts, holds the streams
//! that the operator may have to cut, and turns Envoy's access log into the audit trail.
//!
//! A request meets this control plane four times. ext_authz ([`authorize`]) takes the evidence through the journey up to
//! *authorize*; the rate-limit service ([`limit`]) takes the same request, by its id, through *limit* and *inject*; an
//! external processor ([`process`]) holds the stream, or takes the credential out of what comes back; and the access log
//! ([`access_log`]) says how it ended. What they know of one request is its [`exchange`].

mod access_log;
mod authorize;
mod evidence;
pub(crate) mod exchange;
mod keys;
mod limit;
mod metadata;
mod process;
mod refusal;
mod scrub;
mod treatment;

use std::{
    future::ready,
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_envoy_proto::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessorServer;
use outgate_plane::Core;
use outgate_xds::{Client, LOCAL, Services};
use tokio::time::MissedTickBehavior;

use self::{
    access_log::AccessLogService,
    exchange::{Exchanges, MOST_OPEN},
    keys::KeysService,
};

use crate::entitled::Entitled;

#[cfg(feature = "fuzz")]
pub(crate) use self::{authorize::Question, evidence::Evidence};
pub use keys::{Keys, PATH as KEYS_PATH};
pub use treatment::Treatment;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
const LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// The largest message of a stream that a data plane may send, in bytes: a piece of a body, or of the log. A request's head
/// is a call's one message, which the door bounds.
const MAX_MESSAGE: usize = 4 << 20;

/// The data plane that makes a call: the name on its certificate.
fn data_plane(extensions: &http::Extensions) -> Arc<str> {
    let client = extensions.get::<Client>();
    client.map_or_else(|| Arc::from(LOCAL), |client| Arc::clone(&client.name))
}

/// The services that decide for Envoys.
#[derive(Clone)]
pub struct ControlPlane {
    core: Arc<Core>,
    exchanges: Arc<Exchanges>,
    entitled: Arc<Entitled>,
}

impl ControlPlane {
    /// A control plane that shares its gateway's core.
    #[must_use]
    pub fn new(core: &Arc<Core>) -> Self {
        Self::with_room_for(core, MOST_OPEN)
    }

    /// The same, for no more than `most` requests and tunnels at once.
    #[must_use]
    pub fn with_room_for(core: &Arc<Core>, most: usize) -> Self {
        Self {
            core: Arc::clone(core),
            exchanges: Arc::new(Exchanges::new(most)),
            entitled: Arc::default(),
        }
    }

    /// Which data planes may have a credential.
    #[must_use]
    pub const fn entitled(&self) -> &Arc<Entitled> {
        &self.entitled
    }

    /// Whether an Envoy has a tunnel to this host, or had one a moment ago.
    #[must_use]
    pub fn has_tunnel_to(&self, host: &str) -> bool {
        self.exchanges.has_tunnel_to(host)
    }

    /// Offers the services on a door, and the public keys of session tokens.
    #[must_use]
    pub fn offer(&self, services: Services, keys: Keys) -> Services {
        let (checking, limiting) = (self.clone(), self.clone());
        services
            .add(KeysService(keys))
            .method(CHECK, move |call| checking.clone().check(call))
            .method(LIMIT, move |call| {
                ready(Ok(limiting.should_rate_limit(&call)))
            })
            .add(AccessLogService(self.clone()))
            .add(ExternalProcessorServer::new(self.clone()).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Writes the records of what has ended and is not heard of any more. Runs for ever.
    pub async fn keep_house(&self) {
        let mut often = tokio::time::interval(Duration::from_millis(250));
        often.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            often.tick().await;
            self.exchanges.sweep_in_turns().await;
        }
    }

    /// Writes the records of what has ended, and is not heard of any more by this moment.
    pub fn sweep(&self, now: Instant) {
        self.exchanges.sweep(now);
    }

    /// Writes the records of everything that is still open: nobody will say any more how it ended.
    pub fn close(&self) {
        self.exchanges.drain();
    }

    /// How many exchanges are open.
    #[must_use]
    pub fn open_exchanges(&self) -> usize {
        self.exchanges.len()
    }
}
