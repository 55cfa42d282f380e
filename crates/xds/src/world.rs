//! The state-of-the-world protocol: every response says all that the client is subscribed to and that there is.
//!
//! What is gone cannot be said here but by leaving it out, and only listeners and clusters take that for an answer; a
//! client that has to know uses the incremental protocol. The version of a type is a digest of the versions of its
//! resources, so that it means the same on every stream and in every process.

use std::{collections::HashSet, sync::Arc, time::Instant};

use aws_lc_rs::digest::{Context, SHA256};
use tonic::Status;

use crate::{
    codec::WorldResponse,
    kinds::{self, Kinds, WILDCARD},
    order::points_to_clusters,
    pb,
    source::{Lookup, Resource, Sent, type_urls},
    talk::{Asked, Asking, Host, InFlight, Nonces, Talk, checked_name, too_many_names},
};

type Kind = kinds::Kind<State>;

/// All types of one stream.
#[derive(Default)]
pub(crate) struct World {
    kinds: Kinds<State>,
    nonces: Nonces,
}

/// Of one type.
#[derive(Default)]
pub(crate) struct State {
    /// The client has named something at some time: from then on, naming nothing means nothing.
    has_named: bool,
    /// Since when there may be something to say.
    stale_since: Option<Instant>,
    /// The client waits for a response, even for one that it has.
    owed: bool,
    /// What it has been sent, or had from another stream.
    version: Option<Arc<str>>,
    /// The last response's.
    nonce: Option<Arc<str>>,
}

/// One resource.
#[derive(Default)]
pub(crate) struct Item {
    asking: Asking,
    /// Looked up at least once.
    known: bool,
    resource: Option<Resource>,
}

impl kinds::State for State {
    type Item = Item;

    fn asking(item: &mut Item) -> &mut Asking {
        &mut item.asking
    }

    fn whole_stale(&mut self) {
        self.stale_since.get_or_insert_with(Instant::now);
    }
}

impl Talk for World {
    type Request = pb::DiscoveryRequest;
    type Response = WorldResponse;
    type State = State;

    fn node(request: &Self::Request) -> Option<&pb::Node> {
        request.node.as_ref()
    }

    fn kinds(&mut self) -> &mut Kinds<State> {
        &mut self.kinds
    }

    fn take(&mut self, request: Self::Request, host: &Host) -> Result<(), Status> {
        let type_url = host.type_of(&request.type_url)?;
        let (kind, is_first) = self.kinds.take(type_url, host)?;
        if is_first {
            kind.state.begin(&request.version_info);
        }
        // Superseded: the answer to the newer response says it all again.
        if kind.state.is_outdated(&request.response_nonce) {
            return Ok(());
        }
        kind.settle(&request.response_nonce, request.error_detail.as_ref(), host);
        kind.subscribe(&request.resource_names)?;
        let names: usize = self.kinds.iter().map(|kind| kind.items.len()).sum();
        if names > host.limits.subscriptions {
            return Err(too_many_names(&host.limits));
        }
        Ok(())
    }

    fn answered(&mut self, asked: &Asked, lookup: Lookup) {
        let Some(kind) = self.kinds.get_mut(&asked.type_url) else {
            return;
        };
        let Some(item) = kind.looked_up(asked) else {
            return;
        };
        match lookup {
            Lookup::Found(mut resource) => {
                resource.name = Arc::clone(&asked.name);
                item.resource = Some(resource);
            }
            Lookup::Absent => item.resource = None,
            Lookup::Later => {}
        }
        item.known = true;
        kind.state.stale_since.get_or_insert_with(Instant::now);
    }

    fn next_response(&mut self, host: &Host, now: Instant) -> Option<WorldResponse> {
        let nonces = &mut self.nonces;
        let mut clusters_wait = false;
        self.kinds.iter_mut().find_map(|kind| {
            kind.state.stale_since?;
            if kind.awaits(host, now) {
                clusters_wait |= *kind.type_url == *type_urls::CLUSTER;
                return None;
            }
            if clusters_wait && points_to_clusters(&kind.type_url) {
                return None;
            }
            kind.respond(nonces, host, now)
        })
    }

    fn wake_at(&self, host: &Host, now: Instant) -> Option<Instant> {
        let stale = || {
            self.kinds
                .iter()
                .filter(|kind| kind.state.stale_since.is_some())
        };
        let answers = self.kinds.iter().filter_map(|kind| kind.in_flight.as_ref());
        let answered = answers.map(|flight| flight.until(host));
        let gathered = stale()
            .filter_map(|kind| kind.state.stale_since)
            .map(|since| since + host.limits.gathering);
        stale().next()?;
        // What is past has been looked at already.
        answered.chain(gathered).filter(|at| *at > now).min()
    }
}

impl State {
    /// What the client has from another stream, if it has anything.
    fn begin(&mut self, version: &str) {
        self.owed = version.is_empty();
        self.version = Some(version.into()).filter(|_| !version.is_empty());
    }

    fn is_outdated(&self, nonce: &str) -> bool {
        let last = self.nonce.as_deref();
        !nonce.is_empty() && last.is_some_and(|last| last != nonce)
    }
}

impl Kind {
    fn subscribe(&mut self, names: &[String]) -> Result<(), Status> {
        let is_first = self.state.stale_since.is_none() && self.state.nonce.is_none();
        self.state.has_named |= !names.is_empty();
        let had_all = self.wildcard;
        // As clients of old say that they want everything.
        self.wildcard =
            self.is_whole && (!self.state.has_named || names.iter().any(|name| name == WILDCARD));
        let mut more = self.wildcard && !had_all;
        let wanted: HashSet<&str> = names.iter().map(String::as_str).collect();
        self.items.retain(|name, _| wanted.contains(name.as_ref()));
        for name in wanted.into_iter().filter(|name| *name != WILDCARD) {
            if self.items.contains_key(name) {
                continue;
            }
            more = true;
            let name = checked_name(name)?;
            let item = self.items.entry(Arc::clone(&name)).or_default();
            if self.is_whole {
                item.known = true;
            } else {
                self.questions.ask(&name, &mut item.asking);
            }
        }
        if more {
            // On a stream's first request the client may have it all from another.
            self.state.owed |= !is_first;
            self.state.stale_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// Whether look-ups are to be waited for, which make one response of many.
    fn gathers(&self, host: &Host, now: Instant) -> bool {
        let since = self.state.stale_since.unwrap_or(now);
        now < since + host.limits.gathering
            && self
                .items
                .values()
                .any(|item| !item.known || item.asking != Asking::Not)
    }

    fn respond(&mut self, nonces: &mut Nonces, host: &Host, now: Instant) -> Option<WorldResponse> {
        if self.gathers(host, now) {
            return None;
        }
        self.state.stale_since = None;
        if !self.wildcard && self.items.is_empty() {
            // Nobody waits for it.
            return None;
        }
        let resources = self.resources(host);
        let version = version_of(&resources);
        let owed = std::mem::take(&mut self.state.owed);
        if !owed && self.state.version.as_ref() == Some(&version) {
            return None;
        }
        let nonce = nonces.next();
        self.state.version = Some(Arc::clone(&version));
        self.state.nonce = Some(Arc::clone(&nonce));
        self.in_flight = Some(InFlight {
            nonce: Arc::clone(&nonce),
            since: now,
            sent: resources.iter().map(sent).collect(),
        });
        Some(WorldResponse {
            type_url: Arc::clone(&self.type_url),
            nonce,
            version,
            resources,
        })
    }

    /// In the order of their names, each once.
    fn resources(&self, host: &Host) -> Vec<Resource> {
        let mut resources: Vec<Resource> = if self.is_whole {
            let all = host.source.all(&host.client, &self.type_url);
            let all = all.unwrap_or_default().into_iter();
            all.filter(|resource| self.wildcard || self.items.contains_key(&resource.name))
                .collect()
        } else {
            let items = self.items.values();
            items.filter_map(|item| item.resource.clone()).collect()
        };
        resources.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        resources.dedup_by(|a, b| a.name == b.name);
        resources
    }
}

fn sent(resource: &Resource) -> Sent {
    Sent {
        name: Arc::clone(&resource.name),
        version: Some(Arc::clone(&resource.version)),
    }
}

/// A digest of names and versions: 32 hexadecimal digits.
pub(crate) fn version_of(resources: &[Resource]) -> Arc<str> {
    let mut digest = Context::new(&SHA256);
    for resource in resources {
        for part in [&resource.name, &resource.version] {
            let len = u64::try_from(part.len()).unwrap_or(u64::MAX);
            digest.update(&len.to_be_bytes());
            digest.update(part.as_bytes());
        }
    }
    let digest = digest.finish();
    let hex = digest.as_ref().iter().take(16);
    hex.map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .into()
}
