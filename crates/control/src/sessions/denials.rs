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
use outgate_store::{DenyTarget, Steady, StoredDenial};

use self::packed::{Key, Packed};

/// So that who asks seldom waits for who writes.
const PARTS: usize = 16;

pub(super) struct Denials {
    hasher: RandomState,
    parts: [RwLock<Packed>; PARTS],
    /// Most of the time there is none, and then nothing is looked up.
    count: AtomicUsize,
}

impl Default for Denials {
    fn default() -> Self {
        let hasher = RandomState::default();
        Self {
            parts: std::array::from_fn(|_| RwLock::new(Packed::new(hasher.clone()))),
            hasher,
            count: AtomicUsize::new(0),
        }
    }
}

impl Denials {
    /// Whether an entry covers these claims. `now` is asked only where an entry may have lapsed.
    pub(super) fn refuse(&self, claims: &TokenClaims, now: impl Fn() -> Steady) -> bool {
        if self.is_empty() {
            return false;
        }
        let is_refused = |key| {
            let lapses = self.read(key).lapses(key);
            lapses.is_some_and(|lapses| lapses.is_none_or(|lapses| now() < lapses))
        };
        is_refused(Key::Session(claims.session.as_str()))
            || is_refused(Key::Token(&claims.token_id))
            || subject_of(&claims.origin).is_some_and(is_refused)
    }

    /// Whether an entry covers every token of a session.
    pub(super) fn covers(&self, session: &SessionId, origin: &TokenOrigin) -> bool {
        self.contains(Key::Session(session.as_str()))
            || subject_of(origin).is_some_and(|key| self.contains(key))
    }

    /// Whether an entry covers this token.
    pub(super) fn covers_token(&self, token_id: &str) -> bool {
        self.contains(Key::Token(token_id))
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

    /// Every entry that has not lapsed.
    pub(super) fn in_force(&self, now: Steady) -> Vec<StoredDenial> {
        let mut in_force = Vec::new();
        for part in &self.parts {
            let part = read(part);
            in_force.extend(
                part.all()
                    .filter(|denial| denial.lapses.is_none_or(|lapses| now < lapses)),
            );
        }
        in_force
    }

    /// Takes those out that have lapsed; whether there were any.
    pub(super) fn lapse(&self, now: Steady) -> bool {
        if self.is_empty() {
            return false;
        }
        let lapsed = self.parts.iter().map(|part| write(part).lapse(now)).sum();
        self.count.fetch_sub(lapsed, Ordering::Release);
        lapsed > 0
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn contains(&self, key: Key<'_>) -> bool {
        !self.is_empty() && self.read(key).contains(key)
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
