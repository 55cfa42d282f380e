//! One type of the incremental protocol.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::Status;

use crate::{
    codec::{DeltaResponse, Prolonged},
    kinds::{self, WILDCARD},
    pb,
    source::{Lookup, Resource, Sent},
    talk::{
        Asked, Asking, Host, InFlight, Limits, Nonces, VERSION_BYTES, checked_name, too_many_names,
    },
};

/// How much one response carries where resources are sent by name; clients commonly take 4 MiB.
const RESPONSE_BYTES: usize = 2 * 1024 * 1024;
/// What may be used for less than twice this runs out now and then.
const SHORTEST_BEAT: Duration = Duration::from_millis(100);

pub(super) type Kind = kinds::Kind<State>;

#[derive(Default)]
pub(crate) struct State {
    /// The whole is to be read again.
    whole_stale: bool,
    /// The client waits for a response, if only for an empty one.
    pub(super) owed: bool,
    /// What is to be sent; `None`: that it is gone.
    pub(super) ready: HashMap<Arc<str>, Option<Resource>>,
    /// When the time of what was sent for a time is to begin anew.
    pub(super) beats: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
}

/// One resource, as far as this client goes.
#[derive(Debug, Default)]
pub(crate) struct Item {
    /// Subscribed to by name.
    named: bool,
    has: Has,
    /// It is to be sent even if the client seems to have it.
    owed: bool,
    asking: Asking,
    /// How long it may be used, and when that is to begin anew.
    beat: Option<(Duration, Instant)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Has {
    #[default]
    Unknown,
    Absent,
    Version(Arc<str>),
}

impl kinds::State for State {
    type Item = Item;

    fn asking(item: &mut Item) -> &mut Asking {
        &mut item.asking
    }

    fn whole_stale(&mut self) {
        self.whole_stale = true;
    }
}

impl Kind {
    /// The first request of the type on this stream.
    pub(super) fn begin(
        &mut self,
        request: &pb::DeltaDiscoveryRequest,
        limits: &Limits,
    ) -> Result<(), Status> {
        let versions = &request.initial_resource_versions;
        if versions.len() > limits.subscriptions {
            return Err(too_many_names(limits));
        }
        for (name, version) in versions {
            let mut item = Item::default();
            if version.len() <= VERSION_BYTES {
                item.has = Has::Version(version.as_str().into());
            }
            self.items.insert(checked_name(name)?, item);
        }
        // As clients of old say that they want everything.
        let legacy = request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty();
        if legacy {
            self.subscribe_to_all();
        }
        Ok(())
    }

    fn subscribe_to_all(&mut self) {
        if self.is_whole {
            self.state.owed |= !self.wildcard && self.items.is_empty();
            self.wildcard = true;
            self.state.whole_stale = true;
        }
    }

    /// Whether it is one more subscription. `known`: the client has said which version it has.
    pub(super) fn subscribe(&mut self, name: &str, known: bool) -> Result<bool, Status> {
        if name == WILDCARD {
            self.subscribe_to_all();
            return Ok(false);
        }
        let name = checked_name(name)?;
        let item = self.items.entry(Arc::clone(&name)).or_default();
        let is_new = !item.named;
        item.named = true;
        item.owed |= !known;
        if self.is_whole {
            self.state.whole_stale = true;
        } else {
            self.questions.ask(&name, &mut item.asking);
        }
        Ok(is_new)
    }

    /// Whether it is one subscription fewer.
    pub(super) fn unsubscribe(&mut self, name: &str) -> bool {
        if name == WILDCARD {
            self.wildcard = false;
            self.forget_unwanted();
            return false;
        }
        let Entry::Occupied(mut item) = self.items.entry(name.into()) else {
            return false;
        };
        let was_named = item.get().named;
        if self.wildcard {
            // It cannot tell whether it is to go on with it, and is told.
            item.get_mut().named = false;
            item.get_mut().owed |= was_named;
            self.state.whole_stale = true;
        } else {
            item.remove();
            self.state.ready.remove(name);
        }
        was_named
    }

    pub(super) fn forget_unwanted(&mut self) {
        if !self.wildcard {
            self.items.retain(|_, item| item.named);
            self.state
                .ready
                .retain(|name, _| self.items.contains_key(name));
        }
    }

    pub(super) fn answered(&mut self, asked: &Asked, lookup: Lookup) {
        let Some(item) = self.looked_up(asked) else {
            return;
        };
        let name = &asked.name;
        let due = match lookup {
            Lookup::Found(mut resource) => {
                resource.name = Arc::clone(name);
                item.lacks(&resource).then_some(Some(resource))
            }
            Lookup::Absent => (item.owed || item.has != Has::Absent).then_some(None),
            Lookup::Later => return,
        };
        match due {
            Some(outcome) => self.state.ready.insert(Arc::clone(name), outcome),
            // What was to be sent has been taken back meanwhile.
            None => self.state.ready.remove(name),
        };
    }

    pub(super) fn read_whole(&mut self, host: &Host) {
        if !std::mem::take(&mut self.state.whole_stale) {
            return;
        }
        let all = host.source.all(&host.client, &self.type_url);
        let mut there = HashSet::new();
        for resource in all.unwrap_or_default() {
            let item = self.items.get(&resource.name);
            if !self.wildcard && item.is_none_or(|item| !item.named) {
                continue;
            }
            there.insert(Arc::clone(&resource.name));
            if item.is_none_or(|item| item.lacks(&resource)) {
                self.state
                    .ready
                    .insert(Arc::clone(&resource.name), Some(resource));
            } else {
                self.state.ready.remove(&resource.name);
            }
        }
        self.state
            .ready
            .retain(|name, outcome| outcome.is_none() || there.contains(name));
        for (name, item) in &self.items {
            let told = item.has == Has::Absent || (item.has == Has::Unknown && !item.named);
            if !there.contains(name) && (item.owed || !told) {
                self.state.ready.insert(Arc::clone(name), None);
            }
        }
    }

    /// `keep_removed`: what is gone is not said yet.
    pub(super) fn respond(
        &mut self,
        nonces: &mut Nonces,
        keep_removed: bool,
        now: Instant,
    ) -> Option<DeltaResponse> {
        let names = self.next_names(keep_removed);
        let prolonged = self.due_beats(now);
        if names.is_empty() && prolonged.is_empty() && !self.state.owed {
            return None;
        }
        self.state.owed = false;
        let mut response = DeltaResponse {
            type_url: Arc::clone(&self.type_url),
            nonce: nonces.next(),
            resources: Vec::new(),
            prolonged,
            removed: Vec::new(),
        };
        let mut sent = Vec::with_capacity(names.len());
        for name in names {
            let Some(outcome) = self.state.ready.remove(&name) else {
                continue;
            };
            let version = outcome
                .as_ref()
                .map(|resource| Arc::clone(&resource.version));
            self.note(&name, version.clone());
            if let Some(ttl) = outcome.as_ref().and_then(|resource| resource.ttl) {
                self.beat(&name, ttl, now);
            }
            match outcome {
                Some(resource) => response.resources.push(resource),
                None => response.removed.push(Arc::clone(&name)),
            }
            sent.push(Sent { name, version });
        }
        self.in_flight = Some(InFlight {
            nonce: Arc::clone(&response.nonce),
            since: now,
            sent,
        });
        Some(response)
    }

    /// Its time begins anew when half of it is over.
    fn beat(&mut self, name: &Arc<str>, ttl: Duration, now: Instant) {
        let Some(item) = self.items.get_mut(name) else {
            return;
        };
        let at = now + (ttl / 2).max(SHORTEST_BEAT);
        item.beat = Some((ttl, at));
        self.state.beats.push(Reverse((at, Arc::clone(name))));
    }

    fn due_beats(&mut self, now: Instant) -> Vec<Prolonged> {
        let mut due = Vec::new();
        while self
            .state
            .beats
            .peek()
            .is_some_and(|Reverse((at, _))| *at <= now)
        {
            let Some(Reverse((at, name))) = self.state.beats.pop() else {
                break;
            };
            let Some(item) = self.items.get(&name) else {
                continue;
            };
            // Of one that was sent again meanwhile there is a later one.
            if let (Has::Version(version), Some((ttl, expected))) = (&item.has, item.beat)
                && expected == at
                && !self.state.ready.contains_key(&name)
            {
                due.push(Prolonged {
                    name: Arc::clone(&name),
                    version: Arc::clone(version),
                    ttl,
                });
                self.beat(&name, ttl, now);
            }
        }
        due
    }

    fn next_names(&self, keep_removed: bool) -> Vec<Arc<str>> {
        let mut bytes = 0;
        self.state
            .ready
            .iter()
            .filter(|(_, outcome)| outcome.is_some() || !keep_removed)
            .take_while(|(name, outcome)| {
                // The whole of a type is not taken apart: a client goes on once it has the first part.
                let before = bytes;
                let body = outcome.as_ref().map_or(0, |r| r.body.bytes().len());
                bytes += body + name.len() + 64;
                self.is_whole || before == 0 || bytes <= RESPONSE_BYTES
            })
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// The client is sent this.
    fn note(&mut self, name: &Arc<str>, version: Option<Arc<str>>) {
        let item = self.items.entry(Arc::clone(name)).or_default();
        item.owed = false;
        item.has = version.map_or(Has::Absent, Has::Version);
        item.beat = None;
        if item.has == Has::Absent && !item.named {
            self.items.remove(name);
        }
    }
}

impl Item {
    fn lacks(&self, resource: &Resource) -> bool {
        self.owed || !matches!(&self.has, Has::Version(has) if *has == resource.version)
    }
}
