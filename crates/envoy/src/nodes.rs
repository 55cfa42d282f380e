//! The data planes that ask for configuration: who is connected, and what they said of what they were sent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use outgate_clock::Clock;
use outgate_plane::clock::machine;
use outgate_xds::Node;

/// How many data planes are remembered.
const MOST: usize = 10_000;

/// One data plane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataPlane {
    /// The name on its certificate, or `local`.
    pub client: String,
    /// What it calls itself.
    pub node: String,
    /// How many discovery streams it has open; 0: it is gone.
    pub streams: u32,
    /// When it took over what it was sent the last time, in milliseconds since 1970.
    pub accepted_unix_ms: Option<u64>,
    /// What it refused the last time, by the type of resource, until it takes over another version.
    pub refused: BTreeMap<String, String>,
}

/// Every data plane.
#[derive(Default)]
pub struct Nodes(Mutex<BTreeMap<(String, String), DataPlane>>);

impl Nodes {
    /// All of them, by name.
    #[must_use]
    pub fn list(&self) -> Vec<DataPlane> {
        let nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.values().cloned().collect()
    }

    fn change(&self, node: &Node<'_>, change: impl FnOnce(&mut DataPlane)) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.client.name.to_string(), node.id.to_owned());
        if nodes.len() >= MOST && !nodes.contains_key(&key) {
            nodes.retain(|_, known| known.streams > 0);
            if nodes.len() >= MOST {
                return;
            }
        }
        let known = nodes.entry(key).or_insert_with(|| DataPlane {
            client: node.client.name.to_string(),
            node: node.id.to_owned(),
            ..DataPlane::default()
        });
        change(known);
    }

    pub(crate) fn connected(&self, node: &Node<'_>) {
        self.change(node, |known| known.streams += 1);
    }

    pub(crate) fn gone(&self, node: &Node<'_>) {
        self.change(node, |known| {
            known.streams = known.streams.saturating_sub(1)
        });
    }

    pub(crate) fn acked(&self, node: &Node<'_>, type_url: &str) {
        self.change(node, |known| {
            known.accepted_unix_ms = Some(machine().wall_ms());
            known.refused.remove(type_url);
        });
    }

    pub(crate) fn nacked(&self, node: &Node<'_>, type_url: &str, text: &str) {
        self.change(node, |known| {
            known.refused.insert(type_url.to_owned(), text.to_owned());
        });
    }
}
