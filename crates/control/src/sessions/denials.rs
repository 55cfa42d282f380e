//! The denylist's entries, to be asked at every request.

mod packed;

use std::{
    hash::BuildHasher,
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::quality::RandomState;
use outgate_journey::session::{SessionId, TokenClaims, TokenOrigin};
use outgate_store::{DenyEntry, DenyTarget, Steady, StoredDenial};

use self::packed::{Key, Packed};

/// So that who asks seldom waits for who writes.
const PARTS: usize = 16;
/// Entries that one sweep looks through for what has lapsed, about: a few milliseconds. The rest has time until the next.
const SWEPT_AT_ONCE: usize = 50_000;

pub(super) struct Denials {
    hasher: RandomState,
    parts: [RwLock<Packed>; PARTS],
    /// Most of the time there is none, and then nothing is looked up.
    count: AtomicUsize,
    /// Where the next sweep begins.
    next_swept: AtomicUsize,
}

impl Default for Denials {
    fn default() -> Self {
        let hasher = RandomState::default();
        Self {
            parts: std::array::from_fn(|_| RwLock::new(Packed::new(hasher.clone()))),
            hasher,
            count: AtomicUsize::new(0),
            next_swept: AtomicUsize::new(0),
        }
    }
}

impl Denials {
    /// Whether an entry covers these claims. `now` is asked only where an entry may have lapsed.
    pub(super) fn refuse(&self, claims: &TokenClaims, now: impl Fn() -> Steady) -> bool {
        let is_refused = |key| self.is_refused(key, &now);
        is_refused(Key::Session(claims.session.as_str()))
            || is_refused(Key::Token(&claims.token_id))
            || subject_of(&claims.origin).is_some_and(is_refused)
    }

    /// Whether an entry covers every token of a session.
    pub(super) fn covers(&self, session: &SessionId, origin: &TokenOrigin, now: Steady) -> bool {
        self.is_refused(Key::Session(session.as_str()), || now)
            || subject_of(origin).is_some_and(|key| self.is_refused(key, || now))
    }

    /// Whether an entry covers this token.
    pub(super) fn covers_token(&self, token_id: &str, now: Steady) -> bool {
        self.is_refused(Key::Token(token_id), || now)
    }

    /// An entry that has lapsed may not be taken out yet.
    fn is_refused(&self, key: Key<'_>, now: impl Fn() -> Steady) -> bool {
        if self.is_empty() {
            return false;
        }
        let lapses = self.read(key).lapses(key);
        lapses.is_some_and(|lapses| lapses.is_none_or(|lapses| now() < lapses))
    }

    pub(super) fn get(&self, target: &DenyTarget) -> Option<StoredDenial> {
        let key = target.into();
        self.read(key).get(key)
    }

    pub(super) fn put(&self, denial: &StoredDenial) {
        // Counted first: an entry that is not counted is not looked for.
        self.count.fetch_add(1, Ordering::Release);
        if self.write((&denial.entry.target).into()).put(denial) {
            self.count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether there was one.
    pub(super) fn remove(&self, target: &DenyTarget) -> bool {
        let key = target.into();
        let removed = self.write(key).remove(key);
        if removed {
            self.count.fetch_sub(1, Ordering::Release);
        }
        removed
    }

    /// Every wanted entry that has not lapsed.
    pub(super) fn in_force(
        &self,
        now: Steady,
        wanted: impl Fn(&DenyTarget) -> bool,
    ) -> Vec<DenyEntry> {
        let has_not_lapsed =
            |denial: &StoredDenial| denial.lapses.is_none_or(|lapses| now < lapses);
        let mut in_force = Vec::new();
        for part in &self.parts {
            let denials: Vec<_> = read(part).all().filter(has_not_lapsed).collect();
            // Without the lock: who is asked may take others.
            let entries = denials.into_iter().map(|denial| denial.entry);
            in_force.extend(entries.filter(|entry| wanted(&entry.target)));
        }
        in_force
    }

    /// Takes those out that have lapsed, of a long list a part at a time; whether there were any. Nothing may be put on the
    /// list meanwhile.
    pub(super) fn lapse(&self, now: Steady) -> bool {
        if self.is_empty() {
            return false;
        }
        let (mut looked_at, mut lapsed) = (0, 0);
        for _ in 0..PARTS {
            if looked_at >= SWEPT_AT_ONCE {
                break;
            }
            let next = self.next_swept.fetch_add(1, Ordering::Relaxed) % PARTS;
            let Some(part) = self.parts.get(next) else {
                continue;
            };
            // Looked through beside those who ask; what comes of it is a short list.
            let due = read(part).due(now);
            if let Some(due) = due {
                looked_at += due.looked_at;
                lapsed += write(part).take_out(due);
            }
        }
        self.count.fetch_sub(lapsed, Ordering::Release);
        lapsed > 0
    }

    /// How many entries there are, with those that have lapsed and are not taken out yet.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The part that an entry of this key is in. By other bits of its hash than those by which it is found there.
    fn part(&self, key: Key<'_>) -> &RwLock<Packed> {
        let hash = self.hasher.hash_one(key);
        let [first, ..] = &self.parts;
        let index = usize::from(hash.to_le_bytes()[3]) % PARTS;
        self.parts.get(index).unwrap_or(first)
    }

    fn read(&self, key: Key<'_>) -> RwLockReadGuard<'_, Packed> {
        read(self.part(key))
    }

    fn write(&self, key: Key<'_>) -> RwLockWriteGuard<'_, Packed> {
        write(self.part(key))
    }
}

fn subject_of(origin: &TokenOrigin) -> Option<Key<'_>> {
    match origin {
        TokenOrigin::Own => None,
        TokenOrigin::External { issuer, subject } => Some(Key::Subject { issuer, subject }),
    }
}

fn read(part: &RwLock<Packed>) -> RwLockReadGuard<'_, Packed> {
    part.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(part: &RwLock<Packed>) -> RwLockWriteGuard<'_, Packed> {
    part.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn token(number: u32, lapses: Option<u64>) -> StoredDenial {
        StoredDenial {
            entry: DenyEntry {
                target: DenyTarget::Token(number.to_string()),
                reason: String::new(),
                by: String::new(),
                at: 0,
                until: lapses,
            },
            lapses: lapses.map(Steady),
        }
    }

    #[test]
    fn a_long_list_lapses_by_and_by_and_refuses_nobody_meanwhile() {
        let denials = Denials::default();
        let lapsing = u32::try_from(2 * SWEPT_AT_ONCE).unwrap();
        for number in 0..lapsing {
            denials.put(&token(number, Some(5)));
        }
        denials.put(&token(lapsing, Some(7)));
        denials.put(&token(lapsing + 1, None));
        assert!(!denials.lapse(Steady(4)));
        let left = || denials.len();
        let mut rounds = BTreeSet::new();
        while denials.lapse(Steady(5)) {
            rounds.insert(left());
            for number in (0..lapsing).step_by(997) {
                assert!(!denials.covers_token(&number.to_string(), Steady(5)));
            }
        }
        assert!(rounds.len() >= 2, "{rounds:?}");
        assert_eq!(left(), 2);
        let is_denied = |number: u32, now| denials.covers_token(&number.to_string(), Steady(now));
        assert!(is_denied(lapsing, 6) && !is_denied(lapsing, 7));
        assert!((0..3).any(|_| denials.lapse(Steady(7))));
        assert!(is_denied(lapsing + 1, 7) && left() == 1);
    }
}
