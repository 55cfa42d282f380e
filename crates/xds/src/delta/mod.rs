//! The incremental protocol: what one client of it has, and what it is owed.
//!
//! A response says what changed since what was *sent*, not since what was accepted: a version that the client refuses
//! is not sent again before there is another. Of what changes while an answer is awaited, only the last is sent.

mod kind;

use std::{cmp::Reverse, time::Instant};

use tonic::Status;

use self::kind::State;
use crate::{
    codec::DeltaResponse,
    kinds::Kinds,
    order::points_to_clusters,
    pb,
    source::{Lookup, type_urls},
    talk::{Asked, Host, Nonces, Talk, too_many_names},
};

/// All types of one stream.
#[derive(Default)]
pub(crate) struct Delta {
    kinds: Kinds<State>,
    nonces: Nonces,
    subscriptions: usize,
}

impl Talk for Delta {
    type Request = pb::DeltaDiscoveryRequest;
    type Response = DeltaResponse;
    type State = State;

    fn node(request: &Self::Request) -> Option<&pb::Node> {
        request.node.as_ref()
    }

    fn kinds(&mut self) -> &mut Kinds<State> {
        &mut self.kinds
    }

    fn take(&mut self, request: Self::Request, host: &Host) -> Result<(), Status> {
        let type_url = host.type_of(&request.type_url)?;
        tracing::debug!(
            type_url,
            subscribe = ?request.resource_names_subscribe,
            unsubscribe = ?request.resource_names_unsubscribe,
            nonce = request.response_nonce,
            "a data plane asks"
        );
        let (kind, is_first) = self.kinds.take(type_url, host)?;
        kind.settle(&request.response_nonce, request.error_detail.as_ref(), host);
        if is_first {
            kind.begin(&request, &host.limits)?;
        }
        for name in &request.resource_names_unsubscribe {
            self.subscriptions -= usize::from(kind.unsubscribe(name));
        }
        for name in &request.resource_names_subscribe {
            let known = is_first && request.initial_resource_versions.contains_key(name);
            self.subscriptions += usize::from(kind.subscribe(name, known)?);
            if self.subscriptions > host.limits.subscriptions {
                return Err(too_many_names(&host.limits));
            }
        }
        if is_first {
            kind.forget_unwanted();
        }
        Ok(())
    }

    fn answered(&mut self, asked: &Asked, lookup: Lookup) {
        if let Some(kind) = self.kinds.get_mut(&asked.type_url) {
            kind.answered(asked, lookup);
        }
    }

    fn next_response(&mut self, host: &Host, now: Instant) -> Option<DeltaResponse> {
        for kind in self.kinds.iter_mut() {
            kind.read_whole(host);
        }
        let clusters_wait = self.clusters_wait(host, now);
        let routes_move = self.routes_move(host, now);
        let nonces = &mut self.nonces;
        self.kinds.iter_mut().find_map(|kind| {
            if kind.awaits(host, now) || (clusters_wait && points_to_clusters(&kind.type_url)) {
                return None;
            }
            let keep_removed = routes_move && *kind.type_url == *type_urls::CLUSTER;
            let response = kind.respond(nonces, keep_removed, now)?;
            tracing::debug!(
                type_url = %kind.type_url,
                sent = ?kind.in_flight.as_ref().map(|flight| flight.names()),
                "a data plane is answered"
            );
            Some(response)
        })
    }

    fn wake_at(&self, host: &Host, now: Instant) -> Option<Instant> {
        // Whoever waits, waits for an answer, or for one of another type.
        let waits = self
            .kinds
            .iter()
            .any(|kind| !kind.state.ready.is_empty() || kind.state.owed);
        let answers = self.kinds.iter().filter_map(|kind| kind.in_flight.as_ref());
        let answered = answers.map(|flight| flight.until(host)).filter(|_| waits);
        let beats = self.kinds.iter().filter_map(|kind| {
            let Reverse((at, _)) = kind.state.beats.peek()?;
            let until = kind.in_flight.as_ref().map(|flight| flight.until(host));
            Some(until.map_or(*at, |until| until.max(*at)))
        });
        // What is past has been looked at already: it waits for another type's answer.
        answered.chain(beats).filter(|at| *at > now).min()
    }
}

impl Delta {
    /// Clusters are to be sent, and cannot be yet: what points to them would arrive first.
    fn clusters_wait(&self, host: &Host, now: Instant) -> bool {
        self.kinds.iter().any(|kind| {
            *kind.type_url == *type_urls::CLUSTER
                && kind.awaits(host, now)
                && kind.state.ready.values().any(Option::is_some)
        })
    }

    /// The client may still have a route to what is gone.
    fn routes_move(&self, host: &Host, now: Instant) -> bool {
        self.kinds.iter().any(|kind| {
            points_to_clusters(&kind.type_url)
                && (kind.awaits(host, now) || !kind.state.ready.is_empty())
        })
    }
}
