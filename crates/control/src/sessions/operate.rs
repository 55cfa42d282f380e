//! What operators create and change. What is created is on disk before it is said to exist.

use std::sync::Arc;

use dashmap::mapref::entry::Entry;
use futures_util::future::BoxFuture;
use outgate_journey::{
    policy::SessionLimits,
    session::{SessionId, UnixSeconds},
};
use outgate_store::{Change, StoreError, StoreFault};

use super::{
    NewSession, RegistryError, SessionView, Sessions,
    live::Live,
    lock,
    save::{Key, Mark},
};

impl Sessions {
    /// Creates a session. When this returns, it is on disk.
    ///
    /// # Errors
    /// [`RegistryError::KillSwitchOn`], [`RegistryError::Exists`], [`RegistryError::QuotaExceeded`],
    /// [`RegistryError::Store`]; then it does not exist.
    pub async fn create(&self, new: NewSession) -> Result<SessionView, RegistryError> {
        if self.kill_switch().is_some() {
            return Err(RegistryError::KillSwitchOn);
        }
        if self.known.contains_key(&new.id) || self.endings.get(&new.id).is_some() {
            return Err(RegistryError::Exists);
        }
        let place = self.place(new.tenant.as_deref())?;
        let live = Arc::new(Live::created(new, &self.time));
        if let Some(store) = &self.store {
            let change = Change::Create(Box::new(live.to_stored()));
            let made = store.commit(change, self.time.steady()).await;
            made.map_err(|error| match error.fault() {
                StoreFault::Exists => RegistryError::Exists,
                _ => RegistryError::Store(error),
            })?;
        }
        match self.known.entry(live.id.clone()) {
            Entry::Occupied(_) => return Err(RegistryError::Exists),
            Entry::Vacant(free) => drop(free.insert(Arc::clone(&live))),
        }
        place.keep();
        // Ended while the disk was busy.
        if let Some(ending) = self.endings.get(&live.id) {
            self.take_standing(&ending, Some(&live));
        }
        Ok(self.view_of(&live))
    }

    /// Notes that a session was given a token that ends at `expires`. No activity: who holds a token must use it.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::NotLive`], [`RegistryError::KillSwitchOn`],
    /// [`RegistryError::Store`]; then no token may be given out.
    pub async fn renewed(&self, id: &SessionId, expires: UnixSeconds) -> Result<(), RegistryError> {
        if self.kill_switch().is_some() {
            return Err(RegistryError::KillSwitchOn);
        }
        let live = self.going_on(id)?;
        if let Some(store) = &self.store {
            let change = Change::Renew {
                id: id.clone(),
                expires,
            };
            store.commit(change, self.time.steady()).await?;
        }
        live.has_token_until(expires, &self.time);
        Ok(())
    }

    /// A session that can be given more: neither over nor denied, and its last token has not run out.
    fn going_on(&self, id: &SessionId) -> Result<Arc<Live>, RegistryError> {
        let live = self.live(id).ok_or(RegistryError::Unknown)?;
        if live.over.get().is_none()
            && let Some(why) = live.overdue(&self.rules.load(), self.time.now())
        {
            self.end_by_clock(&live, why);
        }
        let followed = self.followed.load();
        let is_refused = self.denials.covers(id, &live.origin, self.time.steady())
            || followed
                .as_ref()
                .is_some_and(|followed| followed.covers(&live).is_some());
        if live.over.get().is_some() || live.expires() <= self.time.unix() || is_refused {
            return Err(RegistryError::NotLive);
        }
        Ok(live)
    }

    /// Limits a session, beside what it was given and what the policy says.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`], [`RegistryError::NotLive`]; [`RegistryError::Store`]: in force all the same, and the
    /// disk is tried again.
    pub async fn set_limits(
        &self,
        id: &SessionId,
        limits: SessionLimits,
        by: &str,
    ) -> Result<SessionView, RegistryError> {
        let live = self.going_on(id)?;
        let handed_in = {
            let _one_order = lock(&self.edits);
            live.limits.store(Some(Arc::new(limits)));
            self.hand_in_marked(limits_of(&live, limits), Key::Limits(id.clone()))
        };
        tracing::debug!(%id, by, "the session's limits were set");
        self.changed();
        self.finish(handed_in).await?;
        Ok(self.view_of(&live))
    }

    /// Hands a change in; it is in its lane when this returns if it is urgent.
    pub(super) fn hand_in(&self, change: Change) -> BoxFuture<'static, Result<(), StoreError>> {
        match &self.store {
            Some(store) => store.commit(change, self.time.steady()),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    /// Hands in a change of what the key names. Under the lock under which it was made: of two changes, the one that is
    /// handed in last is in force, and is the one that must be on disk in the end.
    pub(super) fn hand_in_marked(&self, change: Change, key: Key) -> HandedIn {
        HandedIn {
            mark: self.unsaved.add(key),
            answer: self.hand_in(change),
        }
    }

    /// Waits for the disk. What was not written, or was not waited for, is written by the next second's round.
    pub(super) async fn finish(&self, handed_in: HandedIn) -> Result<(), RegistryError> {
        handed_in.answer.await?;
        self.unsaved.done(&handed_in.mark);
        Ok(())
    }
}

/// A change on its way to the disk.
pub(super) struct HandedIn {
    mark: Mark,
    answer: BoxFuture<'static, Result<(), StoreError>>,
}

/// A session that was only seen may not be on disk yet: then all of it is written, limits among it.
pub(super) fn limits_of(live: &Live, limits: SessionLimits) -> Change {
    match live.saved() {
        Some(_) => Change::SetLimits {
            id: live.id.clone(),
            limits,
        },
        None => Change::Track(Box::new(live.to_stored())),
    }
}
