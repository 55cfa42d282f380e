//! A client of the incremental protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outgate_envoy_proto::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    google::rpc,
};
use outgate_xds::{
    fuzz::Serving,
    type_urls::{CLUSTER, LISTENER, ROUTE},
};
use prost::Message;

use super::{
    Request, Said, Verdict, WILDCARD, is_name, is_whole,
    truth::{TTL, Truth, body},
};

#[derive(Default)]
pub(super) struct Model(BTreeMap<&'static str, Kind>);

#[derive(Default)]
struct Kind {
    wildcard: bool,
    named: BTreeSet<String>,
    /// The last that was said of each name; `None`: that it is gone.
    told: BTreeMap<String, Option<String>>,
    /// To be said, even if it was.
    owed: BTreeSet<String>,
    /// Everything was asked for, of which there may be nothing.
    may_be_empty: bool,
}

impl Kind {
    fn begins(&mut self, request: &Request) {
        for (name, version) in &request.has {
            self.told.insert(name.clone(), Some(version.clone()));
        }
        if request.subscribe.is_empty() && request.unsubscribe.is_empty() {
            self.wants_all(request.type_url);
        }
    }

    fn wants_all(&mut self, type_url: &str) {
        if is_whole(type_url) {
            self.may_be_empty |= !self.wildcard;
            self.wildcard = true;
        }
    }

    fn unsubscribes(&mut self, name: &str) {
        if name == WILDCARD {
            self.wildcard = false;
            self.forgets();
        } else if !self.wildcard {
            self.named.remove(name);
            self.told.remove(name);
            self.owed.remove(name);
        } else if self.named.remove(name) {
            // It is to be told whether it is to go on with it.
            self.owed.insert(name.to_owned());
        }
    }

    fn subscribes(&mut self, name: &str, type_url: &str, has: bool) {
        if name == WILDCARD {
            return self.wants_all(type_url);
        }
        self.named.insert(name.to_owned());
        if !has {
            self.owed.insert(name.to_owned());
        }
    }

    fn forgets(&mut self) {
        if !self.wildcard {
            self.told.retain(|name, _| self.named.contains(name));
            self.owed.retain(|name| self.named.contains(name));
        }
    }

    /// It is said now; whether it had to be.
    fn hears(&mut self, name: &str, version: Option<&str>) -> bool {
        assert!(self.wants(name), "{name} is not wanted");
        let version = version.map(str::to_owned);
        let is_owed = self.owed.remove(name);
        let before = self.told.insert(name.to_owned(), version.clone());
        is_owed || before != Some(version)
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.named.contains(name)
    }
}

impl super::Model for Model {
    fn serving(truth: Arc<Truth>) -> Serving {
        Serving::delta(truth)
    }

    fn encode(&self, request: &Request) -> Vec<u8> {
        let message = DeltaDiscoveryRequest {
            type_url: request.type_url.to_owned(),
            response_nonce: request.nonce.clone(),
            error_detail: request.refuses.then(rpc::Status::default),
            resource_names_subscribe: request.subscribe.clone(),
            resource_names_unsubscribe: request.unsubscribe.clone(),
            initial_resource_versions: request.has.clone().into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        };
        message.encode_to_vec()
    }

    fn asks(&mut self, request: &Request, _: Option<&str>) -> Verdict {
        let is_first = !self.0.contains_key(request.type_url);
        let kind = self.0.entry(request.type_url).or_default();
        if is_first {
            kind.begins(request);
        }
        for name in &request.unsubscribe {
            kind.unsubscribes(name);
        }
        for name in &request.subscribe {
            let has = is_first && request.has.contains_key(name);
            kind.subscribes(name, request.type_url, has);
        }
        if is_first {
            kind.forgets();
        }
        let names: usize = self.0.values().map(|kind| kind.named.len()).sum();
        let has = request.has.keys().filter(|_| is_first);
        let are_names = request.subscribe.iter().chain(has).all(|it| is_name(it));
        match are_names && names <= Serving::SUBSCRIPTIONS {
            true => Verdict::Taken,
            false => Verdict::Refused,
        }
    }

    fn accepts(&self, type_url: &'static str, nonce: String) -> Request {
        Request {
            type_url,
            nonce,
            refuses: false,
            subscribe: Vec::new(),
            unsubscribe: Vec::new(),
            has: BTreeMap::new(),
        }
    }

    fn hears(&mut self, response: &[u8], is_awaited: &dyn Fn(&str) -> bool) -> Said {
        let response = DeltaDiscoveryResponse::decode(response).expect("a response");
        let type_url = response.type_url.as_str();
        let kind = self.0.get_mut(type_url).expect("a type that was asked for");
        let mut things = BTreeMap::new();
        let is_empty = response.resources.is_empty() && response.removed_resources.is_empty();
        assert!(!is_empty || kind.may_be_empty, "a response says nothing");
        kind.may_be_empty = false;
        for resource in response.resources {
            let (name, version) = (resource.name, resource.version);
            let Some(any) = resource.resource else {
                assert_eq!(kind.told.get(&name), Some(&Some(version)), "another's time");
                assert_eq!(resource.ttl.and_then(|it| it.try_into().ok()), Some(TTL));
                continue;
            };
            assert_eq!(any.type_url, type_url);
            assert_eq!(any.value, body(&name, &version));
            assert!(kind.hears(&name, Some(&version)), "{name} was said before");
            let before = things.insert(name, Some(version));
            assert!(before.is_none(), "said twice");
        }
        for name in response.removed_resources {
            assert!(kind.hears(&name, None), "{name} was gone before");
            assert!(things.insert(name, None).is_none(), "said twice");
        }
        let routes_stand = [LISTENER, ROUTE].into_iter().any(is_awaited);
        if type_url == CLUSTER && routes_stand {
            let all_there = things.values().all(Option::is_some);
            assert!(all_there, "a cluster goes to which a route may point");
        }
        Said {
            type_url: response.type_url,
            nonce: response.nonce,
            things,
        }
    }

    fn is_news(&mut self, _: &[u8]) -> bool {
        false
    }

    fn assert_knows(&self, truth: &Truth) {
        for (type_url, kind) in &self.0 {
            let there = truth.of(type_url);
            let wanted = there.iter().filter(|(name, _)| kind.wants(name));
            for (name, version) in wanted {
                let told = kind.told.get(name);
                assert_eq!(told, Some(&Some(version.clone())), "{type_url} {name}");
            }
            let owed = &kind.owed;
            assert!(owed.is_empty(), "{type_url} {owed:?}: nothing was said");
            for (name, told) in &kind.told {
                let is_there = there.contains_key(name);
                assert_eq!(told.is_some(), is_there, "{type_url} {name}");
            }
        }
    }
}
