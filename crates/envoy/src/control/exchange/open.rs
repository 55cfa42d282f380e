//! Every open exchange, by its id. There may be hundreds of thousands, and all of them have to be looked at again and again
//! for those that nobody will say any more of: so they are kept in many small parts, and looked at a part at a time.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use dashmap::DashMap;
use outgate_journey::denial::{Denial, DenyCode};

use super::Exchange;

/// In how many parts they are kept: with [`MOST_OPEN`] of them a part has a thousand.
const PARTS: usize = 1024;
/// How much is looked at before others have their turn, in exchanges: less than a tenth of a millisecond.
const AT_ONCE: usize = 256;
/// To write a record takes as long as to look at so many.
const A_RECORD: usize = 16;

/// How many there are at most: some gigabytes.
pub(crate) const MOST_OPEN: usize = 1_000_000;

type Part = Mutex<HashMap<Arc<str>, Arc<Exchange>>>;

/// Every open exchange.
pub(crate) struct Exchanges {
    parts: Box<[Part]>,
    /// Chooses the part of an id.
    hasher: RandomState,
    open: AtomicUsize,
    most: usize,
    /// Nothing more is kept: what began now would have nobody to write its record.
    closed: AtomicBool,
    /// How many tunnels there are to each host.
    hosts: DashMap<String, usize>,
}

impl Exchanges {
    /// No more than `most` at once.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            parts: std::iter::repeat_with(Part::default).take(PARTS).collect(),
            hasher: RandomState::new(),
            open: AtomicUsize::new(0),
            most,
            closed: AtomicBool::new(false),
            hosts: DashMap::new(),
        }
    }

    /// Keeps an exchange until it is recorded. `None` once [`Self::drain`] was called, or where there is no room; the record
    /// says so: then it must not go on.
    pub(crate) fn keep(&self, exchange: Exchange) -> Option<Arc<Exchange>> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            exchange.deny(&no_room());
            return None;
        }
        let exchange = Arc::new(exchange);
        if let (Some(tunnel), Some(_)) = (&exchange.inside, &exchange.upgrade) {
            tunnel.note_upgrade(&exchange);
        }
        if let Some(host) = exchange.host() {
            *self.hosts.entry(host.to_owned()).or_default() += 1;
        }
        self.part(&exchange.id)
            .insert(Arc::clone(&exchange.id), Arc::clone(&exchange));
        // Asked after the insertion: either this sees that all is closed, or the drain sees the exchange.
        if self.closed.load(Ordering::SeqCst) {
            exchange.cut(DenyCode::ShuttingDown);
            self.forget(&exchange.id);
            return None;
        }
        Some(exchange)
    }

    /// The exchange of this id, for the data plane whose it is.
    pub(crate) fn find(&self, plane: &str, id: &str) -> Option<Arc<Exchange>> {
        let part = self.part(id);
        let found = part.get(id)?;
        (*found.plane == *plane).then(|| Arc::clone(found))
    }

    /// Whether a tunnel to this host is open, or was a moment ago.
    pub(crate) fn has_tunnel_to(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
    }

    /// Forgets an exchange, whose record is written by this at the latest.
    pub(crate) fn forget(&self, id: &str) {
        let removed = self.part(id).remove(id);
        let Some(exchange) = removed else { return };
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(host) = exchange.host() {
            self.hosts.remove_if_mut(host, |_, count| {
                *count -= 1;
                *count == 0
            });
        }
        let mut state = exchange.state();
        state.trail = None;
        state.settled.get_or_insert_with(Instant::now);
    }

    /// Writes the records of what is over by this moment.
    pub(crate) fn sweep(&self, now: Instant) {
        for part in &self.parts {
            self.sweep_part(part, now);
        }
    }

    /// Writes the records of what is over; whatever else waits has its turn in between.
    pub(crate) async fn sweep_in_turns(&self) {
        let mut looked_at = 0;
        for part in &self.parts {
            looked_at += self.sweep_part(part, Instant::now());
            if looked_at >= AT_ONCE {
                looked_at = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Gives how much that was, in exchanges that were looked at.
    fn sweep_part(&self, part: &Part, now: Instant) -> usize {
        let part = locked(part);
        let all = part.len();
        let over = part.values().filter(|it| it.is_over(now));
        let over: Vec<Arc<str>> = over.map(|it| Arc::clone(&it.id)).collect();
        drop(part);
        for id in &over {
            self.forget(id);
        }
        all + over.len() * A_RECORD
    }

    /// Writes every record, and keeps nothing from here on.
    pub(crate) fn drain(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for part in &self.parts {
            let all = std::mem::take(&mut *locked(part));
            self.open.fetch_sub(all.len(), Ordering::Relaxed);
            for exchange in all.values() {
                exchange.state().trail = None;
            }
        }
    }

    /// Whether there is room for one more.
    ///
    /// # Errors
    /// [`DenyCode::TooManyConnections`].
    pub(crate) fn has_room(&self) -> Result<(), Denial> {
        if self.len() < self.most {
            return Ok(());
        }
        Err(no_room())
    }

    pub(crate) fn len(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn part(&self, id: &str) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Exchange>>> {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::indexing_slicing,
            reason = "the rest of a division by the number of parts"
        )]
        locked(&self.parts[self.hasher.hash_one(id) as usize % PARTS])
    }
}

fn no_room() -> Denial {
    Denial::new(DenyCode::TooManyConnections)
        .because("as many requests and tunnels are open as there may be")
}

fn locked(part: &Part) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Exchange>>> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
