//! A client of the state-of-the-world protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use outgate_envoy_proto::{
    envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    google::rpc,
};
use outgate_xds::fuzz::Serving;
use prost::Message;

use super::{
    Request, Said, Verdict, WILDCARD, is_name, is_whole,
    truth::{Truth, read_body},
};

#[derive(Default)]
pub(super) struct Model {
    kinds: BTreeMap<&'static str, Kind>,
    /// What each version of each type means.
    versions: BTreeMap<(String, String), BTreeMap<String, String>>,
}

#[derive(Default)]
struct Kind {
    wildcard: bool,
    has_named: bool,
    named: BTreeSet<String>,
    /// As it was last asked for.
    asked: Vec<String>,
    /// What was said since something was asked for beyond what had been.
    told: Option<BTreeMap<String, String>>,
}

impl Kind {
    fn asks(&mut self, names: &[String], is_whole: bool) {
        self.asked = names.to_vec();
        self.has_named |= !names.is_empty();
        let all = names.iter().any(|name| name == WILDCARD);
        let wildcard = is_whole && (all || !self.has_named);
        let named = names.iter().filter(|name| *name != WILDCARD);
        let named: BTreeSet<String> = named.cloned().collect();
        if (wildcard && !self.wildcard) || !named.is_subset(&self.named) {
            self.told = None;
        }
        (self.wildcard, self.named) = (wildcard, named);
    }

    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.named.contains(name)
    }
}

impl super::Model for Model {
    fn serving(truth: Arc<Truth>) -> Serving {
        Serving::world(truth)
    }

    fn encode(&self, request: &Request) -> Vec<u8> {
        let message = DiscoveryRequest {
            // No version that this server would give.
            version_info: request.has.keys().next().cloned().unwrap_or_default(),
            type_url: request.type_url.to_owned(),
            response_nonce: request.nonce.clone(),
            error_detail: request.refuses.then(rpc::Status::default),
            resource_names: request.subscribe.clone(),
            ..DiscoveryRequest::default()
        };
        message.encode_to_vec()
    }

    fn asks(&mut self, request: &Request, last_nonce: Option<&str>) -> Verdict {
        let is_old = last_nonce.is_some_and(|last| last != request.nonce);
        if is_old && !request.nonce.is_empty() {
            return Verdict::PassedOver;
        }
        let kind = self.kinds.entry(request.type_url).or_default();
        kind.asks(&request.subscribe, is_whole(request.type_url));
        let names: usize = self.kinds.values().map(|kind| kind.named.len()).sum();
        let are_names = request.subscribe.iter().all(|it| is_name(it));
        match are_names && names <= Serving::SUBSCRIPTIONS {
            true => Verdict::Taken,
            false => Verdict::Refused,
        }
    }

    fn accepts(&self, type_url: &'static str, nonce: String) -> Request {
        let kind = self.kinds.get(type_url);
        Request {
            type_url,
            nonce,
            refuses: false,
            subscribe: kind.map(|kind| kind.asked.clone()).unwrap_or_default(),
            unsubscribe: Vec::new(),
            has: BTreeMap::new(),
        }
    }

    fn hears(&mut self, response: &[u8], _: &dyn Fn(&str) -> bool) -> Said {
        let response = DiscoveryResponse::decode(response).expect("a response");
        let type_url = response.type_url.as_str();
        let kind = self.kinds.get_mut(type_url);
        let kind = kind.expect("a type that was asked for");
        let mut told = BTreeMap::new();
        for any in response.resources {
            assert_eq!(any.type_url, type_url);
            let (name, version) = read_body(&any.value);
            assert!(kind.wants(&name), "{name} is not wanted");
            assert!(told.insert(name, version).is_none(), "said twice");
        }
        assert!(!response.version_info.is_empty());
        let version = (type_url.to_owned(), response.version_info);
        let meant = self.versions.entry(version).or_insert(told.clone());
        assert_eq!(*meant, told, "a version means two things");
        kind.told = Some(told.clone());
        Said {
            type_url: response.type_url,
            nonce: response.nonce,
            things: told
                .into_iter()
                .map(|(name, it)| (name, Some(it)))
                .collect(),
        }
    }

    fn is_news(&mut self, response: &[u8]) -> bool {
        let told = |model: &Self| -> Vec<_> {
            let kinds = model.kinds.values();
            kinds.map(|kind| kind.told.clone()).collect()
        };
        let before = told(self);
        self.hears(response, &|_| false);
        told(self) != before
    }

    fn assert_knows(&self, truth: &Truth) {
        for (type_url, kind) in &self.kinds {
            if !kind.wildcard && kind.named.is_empty() {
                continue;
            }
            let mut there = truth.of(type_url);
            there.retain(|name, _| kind.wants(name));
            let mut told = kind.told.clone().expect("something was asked for");
            told.retain(|name, _| kind.wants(name));
            assert_eq!(told, there, "{type_url}");
        }
    }
}
