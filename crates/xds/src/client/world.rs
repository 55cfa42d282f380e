//! The state-of-the-world protocol, from the client's side. That there is no such secret cannot be said in it: what has
//! not come in time counts as absent, and comes later all the same if it is made.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Shared,
    read::{Unusable, read},
    stream::{Talk, give, refusal},
};
use crate::{pb, source::type_urls};

/// How long a name is waited for, as the protocol's document has it.
const ABSENT_AFTER: Duration = Duration::from_secs(15);

/// One stream.
#[derive(Default)]
pub(super) struct World {
    /// What has not come, and since when it is asked for.
    waiting: HashMap<Arc<str>, Instant>,
    /// What was accepted last.
    version: String,
    /// The last response's.
    nonce: String,
}

impl Talk for World {
    const PATH: &'static str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
    type Request = pb::DiscoveryRequest;
    type Response = pb::DiscoveryResponse;

    fn first(&mut self, shared: &Shared) -> pb::DiscoveryRequest {
        pb::DiscoveryRequest {
            node: Some(pb::Node {
                id: shared.node_id.clone(),
                ..pb::Node::default()
            }),
            ..self.ask(shared, None)
        }
    }

    fn tell(&mut self, shared: &Shared) -> Option<pb::DiscoveryRequest> {
        let now = Instant::now();
        {
            let mut cache = shared.cache();
            let due = |since: &Instant| now.saturating_duration_since(*since) >= ABSENT_AFTER;
            for (name, _) in self.waiting.extract_if(|_, since| due(since)) {
                cache.absent(&name);
            }
        }
        let nothing = shared.cache().moved().is_empty();
        (!nothing).then(|| self.ask(shared, None))
    }

    fn take(&mut self, shared: &Shared, response: pb::DiscoveryResponse) -> pb::DiscoveryRequest {
        let version: Arc<str> = response.version_info.as_str().into();
        let mut refused = Vec::new();
        for (at, any) in response.resources.into_iter().enumerate() {
            match read(any) {
                Ok((name, value)) => {
                    self.waiting.remove(name.as_str());
                    give(shared, &name, Arc::clone(&version), value, None);
                }
                Err(Unusable { name, why }) => {
                    // The one before may be what this was to take out of use.
                    self.waiting.remove(name.as_str());
                    shared.cache().absent(&name);
                    refused.push((format!("[{at}]"), why));
                }
            }
        }
        self.nonce = response.nonce;
        let error = refusal(&refused);
        if error.is_none() {
            self.version = response.version_info;
        }
        self.ask(shared, error)
    }
}

impl World {
    /// Says all that is wanted; with it, whether the last response is accepted.
    fn ask(&mut self, shared: &Shared, error: Option<pb::Status>) -> pb::DiscoveryRequest {
        let names = {
            let mut cache = shared.cache();
            cache.moved();
            for name in cache.waiting() {
                self.waiting.entry(name).or_insert_with(Instant::now);
            }
            cache.wanted()
        };
        pb::DiscoveryRequest {
            version_info: self.version.clone(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            type_url: type_urls::SECRET.to_owned(),
            response_nonce: self.nonce.clone(),
            error_detail: error,
            ..pb::DiscoveryRequest::default()
        }
    }
}
