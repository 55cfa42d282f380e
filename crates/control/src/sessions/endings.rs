//! What is over. Remembered for far longer than a token can live.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::mapref::entry::Entry;
use outgate_journey::session::{SessionEnd, SessionId, TokenClaims};
use outgate_store::{Steady, StoredEnding};

use super::Map;

#[derive(Default)]
pub(super) struct Endings {
    over: Map<SessionId, StoredEnding>,
    /// How many of them are of sessions whose tokens are not known to be ours.
    foreign: AtomicUsize,
}

impl Endings {
    /// What ended the session, for a token of this end.
    pub(super) fn refuse(&self, claims: &TokenClaims) -> Option<SessionEnd> {
        let ending = self.over.get(&claims.session)?;
        let covers = ending
            .tokens_until
            .is_none_or(|until| claims.expires <= until);
        covers.then_some(ending.cause)
    }

    pub(super) fn get(&self, id: &SessionId) -> Option<StoredEnding> {
        self.over.get(id).map(|ending| ending.clone())
    }

    /// Adds an ending and answers with the one in force: an ending for every token stays as it was.
    pub(super) fn add(&self, ending: StoredEnding) -> StoredEnding {
        let foreign = usize::from(!ending.own);
        match self.over.entry(ending.id.clone()) {
            Entry::Occupied(mut there) => {
                let is_wider = match (there.get().tokens_until, ending.tokens_until) {
                    (None, _) => false,
                    (Some(_), None) => true,
                    (Some(there), Some(until)) => until > there,
                };
                if is_wider {
                    let before = there.insert(ending);
                    self.foreign.fetch_add(foreign, Ordering::Relaxed);
                    self.foreign
                        .fetch_sub(usize::from(!before.own), Ordering::Relaxed);
                }
                there.get().clone()
            }
            Entry::Vacant(free) => {
                self.foreign.fetch_add(foreign, Ordering::Relaxed);
                free.insert(ending).clone()
            }
        }
    }

    pub(super) fn foreign(&self) -> usize {
        self.foreign.load(Ordering::Relaxed)
    }

    /// Those for every token.
    pub(super) fn whole(&self) -> Vec<StoredEnding> {
        let whole = |ending: &StoredEnding| ending.tokens_until.is_none();
        self.over
            .iter()
            .filter(|ending| whole(ending))
            .map(|ending| ending.clone())
            .collect()
    }

    /// Forgets those that nobody can come back from any more.
    pub(super) fn forget(&self, now: Steady) {
        self.over.retain(|_, ending| {
            let stays = ending.keep_until > now;
            if !stays {
                self.foreign
                    .fetch_sub(usize::from(!ending.own), Ordering::Relaxed);
            }
            stays
        });
    }
}
