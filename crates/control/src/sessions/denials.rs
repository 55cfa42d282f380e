//! The denylist's entries, to be asked at every request.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use outgate_journey::session::{SessionId, TokenClaims, TokenOrigin};
use outgate_store::{DenyTarget, Steady, StoredDenial};

use super::Map;

#[derive(Default)]
pub(super) struct Denials {
    sessions: Map<SessionId, StoredDenial>,
    tokens: Map<Arc<str>, StoredDenial>,
    subjects: Map<(Arc<str>, Arc<str>), StoredDenial>,
    /// Most of the time there is none, and then nothing is looked up.
    count: AtomicUsize,
}

impl Denials {
    /// Whether an entry covers these claims. `now` is asked only where an entry may have lapsed.
    pub(super) fn refuse(&self, claims: &TokenClaims, now: impl Fn() -> Steady) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let is_in_force = |denial: &StoredDenial| denial.lapses.is_none_or(|lapses| now() < lapses);
        let session = self.sessions.get(&claims.session);
        if session.is_some_and(|denial| is_in_force(&denial)) {
            return true;
        }
        let token = self.tokens.get(&*claims.token_id);
        if token.is_some_and(|denial| is_in_force(&denial)) {
            return true;
        }
        let TokenOrigin::External { issuer, subject } = &claims.origin else {
            return false;
        };
        let key = (Arc::clone(issuer), Arc::clone(subject));
        let subject = self.subjects.get(&key);
        subject.is_some_and(|denial| is_in_force(&denial))
    }

    /// Whether an entry covers every token of a session.
    pub(super) fn covers(&self, session: &SessionId, origin: &TokenOrigin) -> bool {
        self.sessions.contains_key(session)
            || match origin {
                TokenOrigin::Own => false,
                TokenOrigin::External { issuer, subject } => self
                    .subjects
                    .contains_key(&(Arc::clone(issuer), Arc::clone(subject))),
            }
    }

    /// Whether an entry covers this token.
    pub(super) fn covers_token(&self, token_id: &str) -> bool {
        self.tokens.contains_key(token_id)
    }

    pub(super) fn get(&self, target: &DenyTarget) -> Option<StoredDenial> {
        match target {
            DenyTarget::Session(id) => self.sessions.get(id).map(|denial| denial.clone()),
            DenyTarget::Token(id) => self.tokens.get(id.as_str()).map(|denial| denial.clone()),
            DenyTarget::Subject { issuer, subject } => {
                let key = (issuer.as_str().into(), subject.as_str().into());
                self.subjects.get(&key).map(|denial| denial.clone())
            }
        }
    }

    pub(super) fn put(&self, denial: StoredDenial) {
        // Counted first: an entry that is not counted is not looked for.
        self.count.fetch_add(1, Ordering::Release);
        let replaced = match denial.entry.target.clone() {
            DenyTarget::Session(id) => self.sessions.insert(id, denial).is_some(),
            DenyTarget::Token(id) => self.tokens.insert(id.into(), denial).is_some(),
            DenyTarget::Subject { issuer, subject } => {
                let key = (issuer.into(), subject.into());
                self.subjects.insert(key, denial).is_some()
            }
        };
        if replaced {
            self.count.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether there was one.
    pub(super) fn remove(&self, target: &DenyTarget) -> bool {
        let removed = match target {
            DenyTarget::Session(id) => self.sessions.remove(id).is_some(),
            DenyTarget::Token(id) => self.tokens.remove(id.as_str()).is_some(),
            DenyTarget::Subject { issuer, subject } => {
                let key = (issuer.as_str().into(), subject.as_str().into());
                self.subjects.remove(&key).is_some()
            }
        };
        if removed {
            self.count.fetch_sub(1, Ordering::Release);
        }
        removed
    }

    /// Every entry that has not lapsed.
    pub(super) fn in_force(&self, now: Steady) -> Vec<StoredDenial> {
        let mut all = self.all();
        all.retain(|denial| denial.lapses.is_none_or(|lapses| now < lapses));
        all
    }

    /// Takes those out that have lapsed; whether there were any.
    pub(super) fn lapse(&self, now: Steady) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let lapsed = |denial: &StoredDenial| {
            let is_over = denial.lapses.is_some_and(|lapses| lapses <= now);
            is_over.then(|| denial.entry.target.clone())
        };
        let sessions = self.sessions.iter().filter_map(|denial| lapsed(&denial));
        let tokens = self.tokens.iter().filter_map(|denial| lapsed(&denial));
        let subjects = self.subjects.iter().filter_map(|denial| lapsed(&denial));
        // All are found before the first is taken out: taking out waits for whoever goes through.
        let over: Vec<_> = sessions.chain(tokens).chain(subjects).collect();
        for target in &over {
            self.remove(target);
        }
        !over.is_empty()
    }

    fn all(&self) -> Vec<StoredDenial> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let sessions = self.sessions.iter().map(|denial| denial.clone());
        let tokens = self.tokens.iter().map(|denial| denial.clone());
        let subjects = self.subjects.iter().map(|denial| denial.clone());
        sessions.chain(tokens).chain(subjects).collect()
    }
}
