//! The incremental protocol, from the client's side.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Shared,
    read::read,
    stream::{Talk, give, refusal},
};
use crate::{pb, source::type_urls};

/// One stream.
#[derive(Default)]
pub(super) struct Delta {
    /// What the server knows that we want.
    told: HashSet<Arc<str>>,
}

impl Talk for Delta {
    const PATH: &'static str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
    type Request = pb::DeltaDiscoveryRequest;
    type Response = pb::DeltaDiscoveryResponse;

    /// What is held already is not mentioned, so that all of it is said again: a server that counts its versions anew
    /// would keep a newer value to itself, and many begin their answer with the first thing that they have to say, so one
    /// that had nothing would seem not to be there.
    fn first(&mut self, shared: &Shared) -> pb::DeltaDiscoveryRequest {
        let mut cache = shared.cache();
        // All of it is said here.
        cache.moved();
        self.told.extend(cache.wanted());
        pb::DeltaDiscoveryRequest {
            node: Some(pb::Node {
                id: shared.node_id.clone(),
                ..pb::Node::default()
            }),
            type_url: type_urls::SECRET.to_owned(),
            resource_names_subscribe: self.told.iter().map(ToString::to_string).collect(),
            ..pb::DeltaDiscoveryRequest::default()
        }
    }

    fn tell(&mut self, shared: &Shared) -> Option<pb::DeltaDiscoveryRequest> {
        let mut request = pb::DeltaDiscoveryRequest {
            type_url: type_urls::SECRET.to_owned(),
            ..pb::DeltaDiscoveryRequest::default()
        };
        {
            let mut cache = shared.cache();
            // A name may have moved to and fro; how it stands is what counts.
            let moved: HashSet<Arc<str>> = cache.moved().into_iter().collect();
            for name in moved {
                if cache.is_wanted(&name) {
                    request.resource_names_subscribe.push(name.to_string());
                    self.told.insert(name);
                } else if self.told.remove(&name) {
                    request.resource_names_unsubscribe.push(name.to_string());
                }
            }
        }
        let nothing = request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty();
        (!nothing).then_some(request)
    }

    fn take(
        &mut self,
        shared: &Shared,
        response: pb::DeltaDiscoveryResponse,
    ) -> pb::DeltaDiscoveryRequest {
        let mut refused = Vec::new();
        for resource in response.resources {
            let name = resource.name.clone();
            if let Err(why) = take_one(shared, resource) {
                // The one before may be what this was to take out of use.
                shared.cache().absent(&name);
                refused.push((name, why));
            }
        }
        {
            let mut cache = shared.cache();
            for name in &response.removed_resources {
                cache.absent(name);
            }
        }
        pb::DeltaDiscoveryRequest {
            type_url: type_urls::SECRET.to_owned(),
            response_nonce: response.nonce,
            error_detail: refusal(&refused),
            ..pb::DeltaDiscoveryRequest::default()
        }
    }
}

fn take_one(shared: &Shared, resource: pb::Resource) -> Result<(), &'static str> {
    let expires = match resource.ttl.map(Duration::try_from) {
        None => None,
        Some(Ok(ttl)) => Instant::now().checked_add(ttl),
        Some(Err(_)) => return Err("a negative time to live"),
    };
    let Some(any) = resource.resource else {
        shared
            .cache()
            .prolonged(&resource.name, &resource.version, expires);
        return Ok(());
    };
    let (name, value) = read(any).map_err(|unusable| unusable.why)?;
    if name != resource.name {
        return Err("another one's name");
    }
    give(shared, &name, resource.version.into(), value, expires);
    Ok(())
}
