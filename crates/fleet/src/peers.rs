//! Who may follow, and how much each may ask for. One gateway that misbehaves takes nothing from the others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use outgate_mutual::Allowed;

/// Connections that share a name: the replicas of one gateway may share a certificate.
const CONNECTIONS_PER_NAME: usize = 64;
/// Reports that one name may send at once.
const REPORTS: u32 = 20;
/// How long until it may send another.
const REPORT_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
pub(crate) struct Peers {
    allowed: ArcSwap<Allowed>,
    known: Mutex<HashMap<Arc<str>, Peer>>,
}

#[derive(Debug)]
struct Peer {
    connections: usize,
    reports: u32,
    counted: Instant,
}

/// One of a name's connections; gives its place back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    peers: Arc<Peers>,
    name: Arc<str>,
}

impl Peers {
    pub(crate) fn allow(&self, names: Option<BTreeSet<String>>) {
        let allowed = names.map_or_else(Allowed::everybody, Allowed::only);
        self.allowed.store(Arc::new(allowed));
    }

    /// By which of a certificate's names its holder is known here, if it may follow at all.
    pub(crate) fn admit(&self, names: &[Arc<str>]) -> Option<Arc<str>> {
        self.allowed.load().admit(names)
    }

    /// A place for one more connection of this name; `None` if it has too many.
    pub(crate) fn connect(self: &Arc<Self>, name: &Arc<str>) -> Option<Place> {
        let mut known = self.known();
        // Whoever is gone and owes nothing need not be remembered.
        known.retain(|_, peer| peer.connections > 0 || peer.refilled(Instant::now()) < REPORTS);
        let peer = known.entry(Arc::clone(name)).or_insert_with(|| Peer {
            connections: 0,
            reports: REPORTS,
            counted: Instant::now(),
        });
        if peer.connections >= CONNECTIONS_PER_NAME {
            return None;
        }
        peer.connections += 1;
        Some(Place {
            peers: Arc::clone(self),
            name: Arc::clone(name),
        })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Peer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether its name may send a report at this moment; counted if so.
    pub(crate) fn may_report(&self) -> bool {
        let now = Instant::now();
        let mut known = self.peers.known();
        let Some(peer) = known.get_mut(&self.name) else {
            return false;
        };
        let reports = peer.refilled(now);
        if reports > peer.reports {
            peer.counted = now;
        }
        peer.reports = reports.saturating_sub(1);
        reports > 0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(peer) = self.peers.known().get_mut(&self.name) {
            peer.connections = peer.connections.saturating_sub(1);
        }
    }
}

impl Peer {
    fn refilled(&self, now: Instant) -> u32 {
        let since = now.saturating_duration_since(self.counted).as_millis();
        let earned = u32::try_from(since / REPORT_EVERY.as_millis()).unwrap_or(u32::MAX);
        self.reports.saturating_add(earned).min(REPORTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_lets_nobody_in_and_no_list_everybody() {
        let peers = Peers::default();
        let names = [Arc::from("gw-1"), Arc::from("gw-2")];
        let admitted = || peers.admit(&names).map(|name| name.to_string());
        assert_eq!(admitted().as_deref(), Some("gw-1"));
        peers.allow(Some(["GW-2".to_owned()].into()));
        assert_eq!(admitted().as_deref(), Some("gw-2"));
        peers.allow(Some(BTreeSet::new()));
        assert_eq!(admitted(), None);
        peers.allow(None);
        assert_eq!(admitted().as_deref(), Some("gw-1"));
    }

    #[test]
    fn a_name_has_so_many_places_and_gets_them_back() {
        let peers = Arc::new(Peers::default());
        let (one, two) = (Arc::from("gw-1"), Arc::from("gw-2"));
        let mut places: Vec<Place> = std::iter::from_fn(|| peers.connect(&one)).collect();
        assert_eq!(places.len(), CONNECTIONS_PER_NAME);
        assert!(peers.connect(&two).is_some());
        places.pop();
        assert!(peers.connect(&one).is_some());
    }

    #[test]
    fn reports_are_rationed_by_name_and_not_by_connection() {
        let peers = Arc::new(Peers::default());
        let name = Arc::from("gw-1");
        let places = [peers.connect(&name).unwrap(), peers.connect(&name).unwrap()];
        let sent = (0..200).filter(|n| places[n % 2].may_report()).count();
        assert!((20..25).contains(&sent), "{sent}");
        drop(places);
        let again = peers.connect(&name).unwrap();
        assert!((0..20).filter(|_| again.may_report()).count() < 5);
    }
}
