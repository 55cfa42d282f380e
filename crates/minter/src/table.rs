//! What was handed out: the leaves themselves, up to a number, and of more names when their leaf is due, so that a data
//! plane that still has one is told. Both are bounded: a guest chooses the names below a wildcard.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use outgate_journey::{name::HostName, session::UnixSeconds};

use crate::Leaf;

/// So many names are remembered for each leaf that is held.
const NAMES_PER_LEAF: usize = 10;
/// When a leaf that is due was not asked for, or could not be minted again, it is announced again after so many seconds.
const AGAIN_AFTER: u64 = 10 * 60;

/// Leaves by host, and names by time.
#[derive(Debug)]
pub(crate) struct Table {
    capacity: usize,
    names: HashMap<HostName, Known>,
    by_due: BTreeSet<(UnixSeconds, HostName)>,
    /// Of those that hold a leaf, the one that was asked for longest ago first.
    by_use: BTreeMap<u64, HostName>,
    uses: u64,
}

#[derive(Debug)]
struct Known {
    announce: UnixSeconds,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    leaf: Arc<Leaf>,
    used: u64,
}

impl Table {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            names: HashMap::new(),
            by_due: BTreeSet::new(),
            by_use: BTreeMap::new(),
            uses: 0,
        }
    }

    /// How many leaves are held.
    pub(crate) fn len(&self) -> usize {
        self.by_use.len()
    }

    /// The leaf of a host, if one is held that is good, due or not.
    pub(crate) fn recall(&mut self, host: &HostName, now: UnixSeconds) -> Option<Arc<Leaf>> {
        let held = self.names.get_mut(host)?.held.as_mut()?;
        if !held.leaf.is_good(now) {
            return None;
        }
        self.uses += 1;
        // The spelling that is in the table is kept: one name, one allocation.
        let name = self.by_use.remove(&held.used)?;
        held.used = self.uses;
        self.by_use.insert(self.uses, name);
        Some(Arc::clone(&held.leaf))
    }

    /// Holds a leaf in place of the one before.
    pub(crate) fn hold(&mut self, leaf: Arc<Leaf>) {
        let host = leaf.host().clone();
        self.forget(&host);
        self.uses += 1;
        self.by_use.insert(self.uses, host.clone());
        self.by_due.insert((leaf.due(), host.clone()));
        let known = Known {
            announce: leaf.due(),
            held: Some(Held {
                leaf,
                used: self.uses,
            }),
        };
        self.names.insert(host, known);
        self.keep_to_bounds();
    }

    /// The names whose leaf is due, at most `most`. What becomes of them, whoever is told decides by asking.
    pub(crate) fn due(&mut self, now: UnixSeconds, most: usize) -> Vec<HostName> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some((at, _)) = self.by_due.first()
            && *at <= now
            && let Some((_, host)) = self.by_due.pop_first()
        {
            let good = self.names.get_mut(&host).filter(|known| {
                let held = known.held.as_ref();
                held.is_some_and(|held| held.leaf.is_good(now))
            });
            if let Some(known) = good {
                known.announce = UnixSeconds(now.0.saturating_add(AGAIN_AFTER));
                self.by_due.insert((known.announce, host.clone()));
            } else {
                self.forget(&host);
            }
            due.push(host);
        }
        due
    }

    /// Forgets the names that are not to be kept, and says which they were.
    pub(crate) fn drop_unless(&mut self, keep: impl Fn(&HostName) -> bool) -> Vec<HostName> {
        let dropped = self.names.keys().filter(|host| !keep(host));
        let dropped: Vec<_> = dropped.cloned().collect();
        for host in &dropped {
            self.forget(host);
        }
        dropped
    }

    fn forget(&mut self, host: &HostName) {
        if let Some((host, known)) = self.names.remove_entry(host) {
            self.by_due.remove(&(known.announce, host));
            if let Some(held) = known.held {
                self.by_use.remove(&held.used);
            }
        }
    }

    fn keep_to_bounds(&mut self) {
        while self.by_use.len() > self.capacity
            && let Some((_, host)) = self.by_use.pop_first()
        {
            if let Some(known) = self.names.get_mut(&host) {
                known.held = None;
            }
        }
        while self.names.len() > self.capacity.saturating_mul(NAMES_PER_LEAF)
            && let Some((_, host)) = self.by_due.first().cloned()
        {
            self.forget(&host);
        }
    }
}
