//! The denylist as the control plane sends it: one numbered line per key, newest last. A follower is a number in it,
//! so one that is slow or away costs nothing: whatever happened meanwhile, it is sent the newest line of each key that
//! changed since, and not the lines in between.

use std::collections::{BTreeMap, HashMap, VecDeque};

use outgate_fleet_proto as pb;
use prost::Message;

use crate::{
    convert::change_to_proto,
    denylist::{Change, Denylist, FactKey},
};

/// How many removals are remembered. Who has missed more than these is sent the whole list.
const REMOVALS_KEPT: usize = 10_000;
/// How much of it one message carries, but for its last line.
const PART_BYTES: usize = 48 * 1024;
/// The number of the empty list. Not zero, which stands for having none.
const BEGIN: u64 = 1;

#[derive(Debug)]
pub(crate) struct Ledger {
    lines: BTreeMap<u64, Change>,
    numbers: HashMap<FactKey, u64>,
    live: usize,
    removals: VecDeque<u64>,
    /// Below this, removals are forgotten.
    floor: u64,
    head: u64,
}

/// What a follower that stood before it is sent.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) changes: Vec<pb::Change>,
    pub(crate) reaches: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            numbers: HashMap::new(),
            live: 0,
            removals: VecDeque::new(),
            floor: 0,
            head: BEGIN,
        }
    }
}

impl Ledger {
    /// The number of its newest line.
    pub(crate) const fn head(&self) -> u64 {
        self.head
    }

    /// Whether a follower that has taken part up to `position` could keep what has been removed since.
    pub(crate) const fn has_forgotten(&self, position: u64) -> bool {
        position < self.floor
    }

    /// What leads from this ledger to `wanted`.
    pub(crate) fn difference(&self, wanted: &Denylist) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut kept = 0_usize;
        for fact in wanted.facts() {
            match self.line(&fact.key()) {
                Some(Change::Set(known)) if known == fact => kept += 1,
                Some(Change::Set(_)) => {
                    kept += 1;
                    changes.push(Change::Set(fact.clone()));
                }
                _ => changes.push(Change::Set(fact.clone())),
            }
        }
        if kept < self.live {
            let gone = self.lines.values().filter_map(|line| match line {
                Change::Set(fact) => Some(fact.key()).filter(|key| wanted.get(key).is_none()),
                Change::Removed(_) => None,
            });
            changes.extend(gone.map(Change::Removed));
        }
        changes
    }

    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.head += 1;
            let key = match &change {
                Change::Set(fact) => {
                    self.live += 1;
                    fact.key()
                }
                Change::Removed(key) => {
                    self.removals.push_back(self.head);
                    key.clone()
                }
            };
            let before = self.numbers.insert(key, self.head);
            let line = before.and_then(|number| self.lines.remove(&number));
            if matches!(line, Some(Change::Set(_))) {
                self.live = self.live.saturating_sub(1);
            }
            self.lines.insert(self.head, change);
        }
        self.forget();
    }

    /// What comes after `position`, as much as fits a message. `None`: nothing does.
    pub(crate) fn after(&self, position: u64) -> Option<Part> {
        if position >= self.head {
            return None;
        }
        let mut changes = Vec::new();
        let mut bytes = 0_usize;
        for (number, line) in self.lines.range(position.saturating_add(1)..) {
            let change = change_to_proto(line);
            bytes += change.encoded_len() + 4;
            changes.push(change);
            if bytes >= PART_BYTES {
                let reaches = *number;
                return Some(Part { changes, reaches });
            }
        }
        let reaches = self.head;
        Some(Part { changes, reaches })
    }

    fn line(&self, key: &FactKey) -> Option<&Change> {
        self.lines.get(self.numbers.get(key)?)
    }

    fn forget(&mut self) {
        while self.removals.len() > REMOVALS_KEPT {
            let Some(number) = self.removals.pop_front() else {
                return;
            };
            // Otherwise its key came back since, and has a line of its own.
            if matches!(self.lines.get(&number), Some(Change::Removed(_)))
                && let Some(Change::Removed(key)) = self.lines.remove(&number)
            {
                self.numbers.remove(&key);
                self.floor = number;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use outgate_journey::session::{SessionEnd, SessionId};

    use super::*;
    use crate::{convert::change_from_proto, denylist::Fact};

    fn ended(number: usize) -> Fact {
        Fact::Ended {
            session: SessionId::parse(&format!("s_{number}")).unwrap(),
            how: SessionEnd::Ended,
        }
    }

    fn list(numbers: impl IntoIterator<Item = usize>) -> Denylist {
        numbers.into_iter().map(ended).collect()
    }

    fn update(ledger: &mut Ledger, wanted: &Denylist) -> usize {
        let changes = ledger.difference(wanted);
        let count = changes.len();
        ledger.apply(changes);
        count
    }

    /// Follows to the end; gives how many messages it took.
    fn follow(ledger: &Ledger, list: &mut Denylist, position: &mut u64) -> usize {
        let mut messages = 0;
        while let Some(part) = ledger.after(*position) {
            for change in part.changes {
                list.apply(change_from_proto(change).unwrap());
            }
            assert!(part.reaches > *position);
            *position = part.reaches;
            messages += 1;
        }
        messages
    }

    #[test]
    fn an_empty_list_is_something_to_say() {
        let part = Ledger::default().after(0).unwrap();
        assert_eq!((part.changes.len(), part.reaches), (0, BEGIN));
    }

    #[test]
    fn only_what_changed_is_sent_and_of_each_key_the_newest() {
        let mut ledger = Ledger::default();
        update(&mut ledger, &list(0..100));
        let (mut held, mut position) = (Denylist::default(), 0);
        follow(&ledger, &mut held, &mut position);
        assert_eq!(held, list(0..100));

        for round in 0..50 {
            let mut wanted = list(0..100);
            if round % 2 == 0 {
                wanted.remove(&ended(7).key());
            }
            assert_eq!(update(&mut ledger, &wanted), 1);
        }
        let limit = Fact::Ended {
            session: SessionId::parse("s_3").unwrap(),
            how: SessionEnd::Idle,
        };
        let mut wanted = list(0..100);
        wanted.insert(limit);
        assert_eq!(update(&mut ledger, &wanted), 1);
        let part = ledger.after(position).unwrap();
        assert_eq!(part.changes.len(), 2, "the newest of s_7 and of s_3");
        follow(&ledger, &mut held, &mut position);
        assert_eq!(held, wanted);
        assert_eq!(update(&mut ledger, &wanted), 0);
    }

    #[test]
    fn a_large_list_goes_in_parts_that_are_bounded() {
        let mut ledger = Ledger::default();
        update(&mut ledger, &list(0..20_000));
        let (mut held, mut position) = (Denylist::default(), 0);
        let longest = 60 * 1024;
        let first = ledger.after(0).unwrap();
        let size: usize = first.changes.iter().map(|c| c.encoded_len() + 4).sum();
        assert!((PART_BYTES..longest).contains(&size), "{size}");
        assert!(follow(&ledger, &mut held, &mut position) > 5);
        assert_eq!(held, list(0..20_000));
    }

    #[test]
    fn removals_do_not_pile_up_and_who_missed_too_many_starts_over() {
        let mut ledger = Ledger::default();
        let many = REMOVALS_KEPT + 500;
        update(&mut ledger, &list(0..many));
        let (mut held, mut position) = (Denylist::default(), 0);
        follow(&ledger, &mut held, &mut position);
        assert!(!ledger.has_forgotten(position));

        update(&mut ledger, &list(0..600));
        assert!(ledger.has_forgotten(position) || many - 600 <= REMOVALS_KEPT);
        update(&mut ledger, &list([]));
        assert!(ledger.has_forgotten(position));
        assert!(!ledger.has_forgotten(ledger.head()));
        assert!(ledger.lines.len() <= REMOVALS_KEPT);
        assert_eq!(ledger.lines.len(), ledger.numbers.len());
        let (mut anew, mut position) = (Denylist::default(), 0);
        follow(&ledger, &mut anew, &mut position);
        assert_eq!(anew, list([]));
    }

    #[test]
    fn what_is_removed_and_comes_back_is_live_once() {
        let mut ledger = Ledger::default();
        for _ in 0..3 {
            update(&mut ledger, &list([1, 2]));
            update(&mut ledger, &list([2]));
        }
        update(&mut ledger, &list([1, 2]));
        assert_eq!((ledger.live, ledger.lines.len()), (2, 2));
    }
}
