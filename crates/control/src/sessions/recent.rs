//! What sessions asked for lately, in memory alone: the records of their exchanges as they went to the audit trail,
//! and, where the owner said so, the beginnings of decrypted bodies.
//!
//! Bounded three ways: so many requests of one session, so many bytes of each body, and so many bytes of all sessions
//! together, of which the oldest go first. So a session pushes out its own past before that of any other. What is
//! forgotten of a session goes with it, and bodies are wiped.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex},
};

use outgate_journey::{record::DecisionRecord, session::SessionId};
use zeroize::Zeroizing;

use super::{Sessions, lock};

/// How much is kept. `Default`: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ViewRules {
    /// Requests of one session.
    pub requests: usize,
    /// Bytes of each body; 0: none of any.
    pub bodies: usize,
    /// Bytes of all sessions together.
    pub memory: usize,
}

/// The beginning of a body.
#[derive(Default, PartialEq, Eq)]
pub struct BodyStart {
    /// Its first bytes.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whether it went on.
    pub is_cut: bool,
}

impl fmt::Debug for BodyStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

/// What an exchange carried, after scrubbing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// As the guest sent it.
    pub request: BodyStart,
    /// As the guest got it.
    pub response: BodyStart,
}

/// One exchange of a session.
#[derive(Debug, Clone)]
pub struct RecentRequest {
    /// Counts the exchanges of all sessions; never 0.
    pub seq: u64,
    /// Its record.
    pub record: Arc<DecisionRecord>,
    /// What it carried, where that is kept.
    pub bodies: Option<Arc<Bodies>>,
}

/// What is held, and of whom.
#[derive(Default)]
pub(super) struct Recent(Mutex<Held>);

#[derive(Default)]
struct Held {
    requests: BTreeMap<u64, RecentRequest>,
    of: HashMap<SessionId, VecDeque<u64>>,
    bytes: usize,
    last: u64,
}

impl Sessions {
    /// Keeps the record of an exchange, if it is one of a session that is known here.
    pub fn note_request(&self, record: &Arc<DecisionRecord>, bodies: Option<Bodies>) {
        let rules = self.view_rules();
        let Some(id) = record.session.as_ref().filter(|_| rules.requests > 0) else {
            return;
        };
        if !self.known.contains_key(id) {
            return;
        }
        let request = RecentRequest {
            seq: 0,
            record: Arc::clone(record),
            bodies: bodies.filter(|_| rules.bodies > 0).map(Arc::new),
        };
        self.recent.push(id, request, &rules);
    }

    /// At most `most` exchanges of a session, the oldest first: those behind `after`, or without it the latest ones.
    #[must_use]
    pub fn requests(&self, id: &SessionId, after: Option<u64>, most: usize) -> Vec<RecentRequest> {
        let held = lock(&self.recent.0);
        let numbers = held.of.get(id).into_iter().flatten();
        let found = numbers.filter_map(|number| held.requests.get(number));
        match after {
            Some(after) => found
                .filter(|it| it.seq > after)
                .take(most)
                .cloned()
                .collect(),
            None => {
                let skipped = held
                    .of
                    .get(id)
                    .map_or(0, |it| it.len().saturating_sub(most));
                found.skip(skipped).cloned().collect()
            }
        }
    }

    /// How much is kept.
    #[must_use]
    pub fn view_rules(&self) -> ViewRules {
        self.rules.load().view
    }
}

impl Recent {
    fn push(&self, id: &SessionId, mut request: RecentRequest, rules: &ViewRules) {
        // Wiped and given back when the lock is, not while others wait for it.
        let mut gone = Vec::new();
        let mut held = lock(&self.0);
        held.last += 1;
        let seq = held.last;
        request.seq = seq;
        held.bytes = held.bytes.saturating_add(size_of_request(&request));
        held.requests.insert(seq, request);
        held.of.entry(id.clone()).or_default().push_back(seq);
        held.narrow(id, rules.requests, &mut gone);
        held.fit(rules.memory, &mut gone);
        drop(held);
        drop(gone);
    }

    /// Forgets all of a session.
    pub(super) fn forget(&self, id: &SessionId) {
        let mut gone = Vec::new();
        let mut held = lock(&self.0);
        held.narrow(id, 0, &mut gone);
        drop(held);
        drop(gone);
    }

    /// Forgets what other rules do not keep: bodies that are switched off are gone, not merely no longer shown.
    pub(super) fn keep_to(&self, rules: &ViewRules) {
        let mut gone = Vec::new();
        let mut bodies = Vec::new();
        let mut held = lock(&self.0);
        let ids: Vec<_> = held.of.keys().cloned().collect();
        for id in ids {
            held.narrow(&id, rules.requests, &mut gone);
        }
        if rules.bodies == 0 {
            let mut freed = 0;
            for request in held.requests.values_mut() {
                freed += size_of_bodies(request);
                bodies.extend(request.bodies.take());
            }
            held.bytes = held.bytes.saturating_sub(freed);
        }
        held.fit(rules.memory, &mut gone);
        drop(held);
        drop((gone, bodies));
    }
}

impl Held {
    /// Takes the oldest of a session until there are no more than `most`.
    fn narrow(&mut self, id: &SessionId, most: usize, gone: &mut Vec<RecentRequest>) {
        let Some(numbers) = self.of.get_mut(id) else {
            return;
        };
        while numbers.len() > most {
            let request = numbers
                .pop_front()
                .and_then(|number| self.requests.remove(&number));
            if let Some(request) = request {
                self.bytes = self.bytes.saturating_sub(size_of_request(&request));
                gone.push(request);
            }
        }
        if numbers.is_empty() {
            self.of.remove(id);
        }
    }

    /// Takes the oldest of all until they fit.
    fn fit(&mut self, memory: usize, gone: &mut Vec<RecentRequest>) {
        while self.bytes > memory {
            let Some((number, request)) = self.requests.pop_first() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(size_of_request(&request));
            if let Some(id) = &request.record.session
                && let Some(numbers) = self.of.get_mut(id)
            {
                // The oldest of all is the oldest of its session.
                if numbers.front() == Some(&number) {
                    numbers.pop_front();
                }
                if numbers.is_empty() {
                    self.of.remove(id);
                }
            }
            gone.push(request);
        }
    }
}

/// About what a request takes: its texts, what holds them, and its places in two maps.
fn size_of_request(request: &RecentRequest) -> usize {
    const PLACES: usize = 160;
    let record = &request.record;
    let texts = [&record.host, &record.method, &record.path, &record.rule];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    PLACES
        + size_of::<DecisionRecord>()
        + record.request_id.len()
        + record.detail.len()
        + texts
        + size_of_bodies(request)
}

fn size_of_bodies(request: &RecentRequest) -> usize {
    let bodies = request.bodies.as_ref();
    bodies.map_or(0, |it| {
        size_of::<Bodies>() + it.request.bytes.capacity() + it.response.bytes.capacity()
    })
}
