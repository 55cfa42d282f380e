//! What the control plane has to say. One task reads the source, however many follow and however often it changes;
//! those who follow read what it left here.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use outgate_journey::record::AnomalyRecord;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    denylist::{Denylist, Fact},
    document::{POLICY_BYTES, PolicyDocument, is_public_key_set},
    ledger::Ledger,
};

/// The least time between two readings of the source: what changes in between is sent together.
const READ_EVERY: Duration = Duration::from_millis(25);

/// What a control plane gives to those who follow it. There is no way back but [`Self::report`].
pub trait StateSource: Send + Sync + 'static {
    /// The policy in force. A text that differs from the last is sent whatever its number, which is then moved on.
    fn policy(&self) -> PolicyDocument;

    /// The public keys, as a JWK set. One with a private part in it is not sent.
    fn jwks(&self) -> Arc<str>;

    /// Everything that is denied at this moment. Called at most 40 times a second, where blocking is allowed.
    fn denylist(&self) -> Denylist;

    /// Moves *after* each change of any of these; its first value counts as a change.
    fn changed(&self) -> watch::Receiver<u64>;

    /// A gateway, by its certificate's name, saw this. Must not block.
    fn report(&self, gateway: &str, anomaly: AnomalyRecord);
}

/// What was last read from the source.
#[derive(Default)]
pub(crate) struct Published {
    pub(crate) policy: Option<PolicyDocument>,
    pub(crate) keys: Option<PolicyDocument>,
    pub(crate) ledger: Ledger,
    /// The source's version that the ledger is of, and a moment at which that was all there was.
    read: Option<(u64, Instant)>,
}

pub(crate) struct Publisher {
    pub(crate) source: Arc<dyn StateSource>,
    version: watch::Receiver<u64>,
    published: RwLock<Published>,
    moved: watch::Sender<u64>,
}

impl Publisher {
    pub(crate) fn new(source: Arc<dyn StateSource>) -> Self {
        Self {
            version: source.changed(),
            source,
            published: RwLock::default(),
            moved: watch::Sender::new(0),
        }
    }

    /// Moves whenever there is something else to read.
    pub(crate) fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Published> {
        self.published
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest moment at which this ledger was known to be all that the source knew.
    pub(crate) fn current_at(&self, published: &Published, now: Instant) -> Option<Instant> {
        let (version, at) = published.read?;
        // `now` was taken before this look, so what is true at the look was true then.
        Some(if *self.version.borrow() == version {
            now
        } else {
            at
        })
    }

    /// Reads the source whenever it has changed, until it is stopped.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut version = self.version.clone();
        version.mark_changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = version.changed() => if changed.is_err() {
                    // A source that is gone changes no more.
                    return;
                },
            }
            let seen = *version.borrow_and_update();
            let reader = Arc::clone(&self);
            if let Err(error) = tokio::task::spawn_blocking(move || reader.refresh(seen)).await {
                tracing::error!(%error, "the state for the gateways could not be read");
                version.mark_changed();
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// Blocks.
    fn refresh(&self, version: u64) {
        let now = Instant::now();
        // The denylist first: a revocation does not wait for a policy to be written out.
        self.refresh_denylist(version, now);
        self.refresh_documents();
    }

    fn refresh_denylist(&self, version: u64, now: Instant) {
        let denylist = self.source.denylist();
        if denylist.len() > Denylist::MAX_FACTS || !denylist.facts().all(Fact::fits) {
            // What is published goes stale from here, which stops injection wherever it is followed.
            tracing::error!(
                facts = denylist.len(),
                "the denylist is too large to be sent to the gateways"
            );
            return;
        }
        // Comparing takes long and happens beside the readers; only this task writes.
        let changes = self.read().ledger.difference(&denylist);
        let moved = !changes.is_empty();
        {
            let mut published = self.write();
            published.ledger.apply(changes);
            published.read = Some((version, now));
        }
        if moved {
            self.moved.send_modify(|n| *n += 1);
        }
    }

    fn refresh_documents(&self) {
        let policy = self.source.policy();
        let keys = self.source.jwks();
        let mut moved = false;
        {
            let mut published = self.write();
            if policy.text.len() > POLICY_BYTES {
                tracing::error!("the policy is too long to be sent to the gateways");
            } else {
                moved |= replace(&mut published.policy, policy);
            }
            if is_public_key_set(&keys) {
                let keys = PolicyDocument {
                    number: 1,
                    text: keys,
                };
                moved |= replace(&mut published.keys, keys);
            } else {
                tracing::error!("what should be the public keys is none, and is not sent");
            }
        }
        if moved {
            self.moved.send_modify(|n| *n += 1);
        }
    }
}

/// Puts a document in another's place if it says something else. Its number then is higher than the other's.
fn replace(current: &mut Option<PolicyDocument>, mut document: PolicyDocument) -> bool {
    let before = current.as_ref().map_or(0, |current| current.number);
    if current
        .as_ref()
        .is_some_and(|current| current.text == document.text)
    {
        return false;
    }
    document.number = document.number.max(before.saturating_add(1));
    *current = Some(document);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_says_something_else_gets_a_higher_number() {
        let document = |number, text: &str| PolicyDocument {
            number,
            text: text.into(),
        };
        let mut current = None;
        for (number, text, moved, after) in [
            (5, "a", true, 5),
            (5, "a", false, 5),
            (9, "a", false, 5),
            (5, "b", true, 6),
            (1, "a", true, 7),
            (20, "c", true, 20),
        ] {
            assert_eq!(replace(&mut current, document(number, text)), moved);
            assert_eq!(current.as_ref().unwrap().number, after, "{number} {text}");
        }
        let mut none = None;
        assert!(
            replace(&mut none, document(0, "")),
            "the first is something, even if empty"
        );
        assert_eq!(none.unwrap().number, 1);
    }
}
