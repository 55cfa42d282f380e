//! What there is, and what was heard of a client's answers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use outgate_xds::{Body, BoxFuture, Change, Client, Lookup, Node, Resource, Sent, Source};
use tokio::sync::broadcast;

use super::is_whole;

/// How long the things may be used that run out.
pub(super) const TTL: Duration = Duration::from_secs(100);

pub(super) struct Truth(Mutex<Inner>);

struct Inner {
    /// By type and name.
    versions: BTreeMap<(String, String), u8>,
    answers: Vec<Answer>,
    has_ttl: bool,
}

/// A client accepted or refused what a response said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) type_url: String,
    pub(super) things: BTreeMap<String, Option<String>>,
    pub(super) is_accepted: bool,
}

impl Truth {
    pub(super) fn new(has_ttl: bool) -> Self {
        Self(Mutex::new(Inner {
            versions: BTreeMap::new(),
            answers: Vec::new(),
            has_ttl,
        }))
    }

    pub(super) fn has_no_ttl(&self) -> bool {
        !self.inner().has_ttl
    }

    /// Version 0: it is gone.
    pub(super) fn set(&self, type_url: &str, name: &str, version: u8) {
        let key = (type_url.to_owned(), name.to_owned());
        match version {
            0 => self.inner().versions.remove(&key),
            version => self.inner().versions.insert(key, version),
        };
    }

    /// All of a type: names and versions.
    pub(super) fn of(&self, type_url: &str) -> BTreeMap<String, String> {
        let inner = self.inner();
        let versions = inner.versions.iter();
        versions
            .filter(|((kind, _), _)| kind == type_url)
            .map(|((_, name), version)| (name.clone(), format!("v{version}")))
            .collect()
    }

    pub(super) fn find(&self, type_url: &str, name: &str) -> Lookup {
        let found = self.of(type_url).remove(name);
        found.map_or(Lookup::Absent, |version| {
            Lookup::Found(self.resource(name, &version))
        })
    }

    /// The answers since the last call.
    pub(super) fn answers(&self) -> Vec<Answer> {
        std::mem::take(&mut self.inner().answers)
    }

    fn resource(&self, name: &str, version: &str) -> Resource {
        let resource = Resource::new(name, version, Body::from_encoded(body(name, version)));
        match self.inner().has_ttl {
            true => resource.with_ttl(TTL),
            false => resource,
        }
    }

    fn heard(&self, type_url: &str, sent: &[Sent], is_accepted: bool) {
        let things = sent
            .iter()
            .map(|it| {
                (
                    it.name.to_string(),
                    it.version.as_deref().map(str::to_owned),
                )
            })
            .collect();
        self.inner().answers.push(Answer {
            type_url: type_url.to_owned(),
            things,
            is_accepted,
        });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nothing panics and goes on")
    }
}

/// What a resource is made of.
pub(super) fn body(name: &str, version: &str) -> Vec<u8> {
    format!("{name}@{version}").into_bytes()
}

/// The name and version that a resource was made of.
pub(super) fn read_body(body: &[u8]) -> (String, String) {
    let body = std::str::from_utf8(body).expect("a body of ours");
    let (name, version) = body.split_once('@').expect("a body of ours");
    (name.to_owned(), version.to_owned())
}

impl Source for Truth {
    fn all(&self, _client: &Client, type_url: &str) -> Option<Vec<Resource>> {
        let all = self.of(type_url).into_iter();
        let all = all.map(|(name, version)| self.resource(&name, &version));
        is_whole(type_url).then(|| all.collect())
    }

    fn one<'a>(&'a self, _: &'a Client, _: &'a str, _: &'a str) -> BoxFuture<'a, Lookup> {
        unreachable!("the script looks names up itself")
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        unreachable!("the script says itself what changes")
    }

    fn acked(&self, _: &Node<'_>, type_url: &str, sent: &[Sent]) {
        self.heard(type_url, sent, true);
    }

    fn nacked(&self, _: &Node<'_>, type_url: &str, sent: &[Sent], _: &str) {
        self.heard(type_url, sent, false);
    }
}
