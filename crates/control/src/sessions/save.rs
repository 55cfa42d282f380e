//! Brings the disk up to what is in force: each second what a failed or abandoned call left, each minute how far
//! sessions and time have got.

use std::{
    collections::HashMap,
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

use futures_util::future::{BoxFuture, try_join_all};
use outgate_journey::session::{SessionId, UnixSeconds};
use outgate_store::{Change, DenyTarget, Progress, Steady, StoreError};
use tokio::time::MissedTickBehavior;

use super::{RegistryError, Sessions, lock, operate::limits_of};

const ROUND: Duration = Duration::from_secs(1);
/// What an unclean end may take off the time that sessions have had.
const SAVED_EVERY_SECONDS: u64 = 60;
/// Rows of one change: an ending waits for no more than this.
const ROWS: usize = 64;

/// What the disk may not know. Not what was to be written, but what to look at: what is in force by then is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Ending(SessionId),
    Denial(DenyTarget),
    Limits(SessionId),
    Switch,
}

#[derive(Default)]
pub(super) struct Unsaved {
    keys: Mutex<Keys>,
    /// Sessions that are gone from memory.
    pub(super) forget: Mutex<Vec<SessionId>>,
}

#[derive(Default)]
struct Keys {
    /// Each with the last change of it that may not be on disk. An earlier one that is says nothing of that.
    changes: HashMap<Key, u64>,
    last: u64,
}

/// One change of what a key names.
#[derive(Debug)]
pub(super) struct Mark {
    key: Key,
    change: u64,
}

impl Unsaved {
    pub(super) fn add(&self, key: Key) -> Mark {
        let mut keys = lock(&self.keys);
        keys.last += 1;
        let change = keys.last;
        keys.changes.insert(key.clone(), change);
        Mark { key, change }
    }

    /// The disk knows of this change, or there is nothing to know.
    pub(super) fn done(&self, mark: &Mark) {
        let mut keys = lock(&self.keys);
        if keys.changes.get(&mark.key) == Some(&mark.change) {
            keys.changes.remove(&mark.key);
        }
    }

    fn marks(&self) -> Vec<Mark> {
        let keys = lock(&self.keys);
        let mark = |(key, change): (&Key, &u64)| Mark {
            key: key.clone(),
            change: *change,
        };
        keys.changes.iter().map(mark).collect()
    }
}

impl Sessions {
    /// Runs for ever: once a second ends what is idle or too old, once a minute saves how far time has got. The disk is
    /// waited for beside the judging, so that a slow one lets nobody stay.
    pub async fn keep_time(&self) {
        let judging = async {
            let mut rounds = rounds();
            loop {
                rounds.tick().await;
                self.judge();
            }
        };
        let saving = async {
            let mut rounds = rounds();
            loop {
                rounds.tick().await;
                self.save().await;
            }
        };
        tokio::join!(judging, saving);
    }

    /// One round of [`Self::keep_time`].
    pub async fn tick(&self) {
        self.judge();
        self.save().await;
    }

    /// Saves how far time has got and lets go of the store: the last thing that a gateway does.
    ///
    /// # Errors
    /// [`RegistryError::Store`]; the store is closed all the same.
    pub async fn close(&self) -> Result<(), RegistryError> {
        let saved = async {
            self.save_changes().await?;
            self.save_times().await
        };
        let saved = saved.await;
        if let Some(store) = &self.store {
            store.close().await;
        }
        saved
    }

    async fn save(&self) {
        let now = self.time.steady().0;
        let is_due = self
            .saved_at
            .load(Ordering::Relaxed)
            .saturating_add(SAVED_EVERY_SECONDS)
            <= now;
        let saved = async {
            self.save_changes().await?;
            if is_due {
                self.save_times().await?;
                self.saved_at.store(now, Ordering::Relaxed);
            }
            Ok::<_, RegistryError>(())
        };
        if let Err(error) = saved.await {
            tracing::error!(%error, "sessions could not be saved; trying again in a second");
        }
    }

    async fn save_changes(&self) -> Result<(), RegistryError> {
        // All are handed in before the first is waited for, so that they share a flush. They stay marked until they are
        // written: whoever stops waiting here leaves them to the next one.
        let handed_in: Vec<_> = self
            .unsaved
            .marks()
            .into_iter()
            .map(|mark| (self.hand_in_what_is(&mark.key), mark))
            .collect();
        let mut outcome = Ok(());
        for (answer, mark) in handed_in {
            match answer {
                Some(answer) => match answer.await {
                    Ok(()) => self.unsaved.done(&mark),
                    Err(error) => outcome = Err(error.into()),
                },
                None => self.unsaved.done(&mark),
            }
        }
        outcome
    }

    fn hand_in_what_is(&self, key: &Key) -> Option<BoxFuture<'static, Result<(), StoreError>>> {
        match key {
            Key::Ending(id) => Some(self.hand_in(Change::End(self.endings.get(id)?))),
            Key::Denial(target) => {
                let _one_order = lock(&self.edits);
                Some(self.hand_in(match self.denials.get(target) {
                    Some(denial) => Change::Deny(denial),
                    None => Change::Undeny(target.clone()),
                }))
            }
            Key::Limits(id) => {
                let live = self.live(id)?;
                let _one_order = lock(&self.edits);
                let limits = live.limits.load().as_deref().copied()?;
                Some(self.hand_in(limits_of(&live, limits)))
            }
            Key::Switch => {
                let _one_order = lock(&self.kills);
                Some(self.hand_in(match self.kill_switch() {
                    Some(kill) => Change::Kill(kill),
                    None => Change::Lift,
                }))
            }
        }
    }

    async fn save_times(&self) -> Result<(), RegistryError> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        // First out, then in: an identity may have come back since it was forgotten.
        let forget = std::mem::take(&mut *lock(&self.unsaved.forget));
        let mut chunks: Vec<_> = forget.chunks(ROWS).map(<[SessionId]>::to_vec).collect();
        // Always one: it also sweeps, and notes how far time has got.
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let now = self.time.steady();
        for (done, chunk) in chunks.iter().enumerate() {
            if let Err(error) = store.commit(Change::Forget(chunk.clone()), now).await {
                let left = chunks.iter().skip(done).flatten().cloned();
                lock(&self.unsaved.forget).extend(left);
                return Err(error.into());
            }
        }
        self.save_progress().await
    }

    async fn save_progress(&self) -> Result<(), RegistryError> {
        let (mut moved, mut unknown) = (Vec::new(), Vec::new());
        for live in self.lives() {
            let (last_active, expires) = (live.pulse.last().as_secs(), live.expires().0);
            match live.saved() {
                None => unknown.push(live),
                Some(saved) if saved == (last_active, expires) => {}
                Some(_) => moved.push((live, last_active, expires)),
            }
        }
        for chunk in unknown.chunks(ROWS) {
            // Together, so that they share a flush.
            let tracked = chunk.iter().map(|live| async {
                let stored = live.to_stored();
                let (last_active, expires) = (stored.last_active.0, stored.expires.0);
                self.hand_in(Change::Track(Box::new(stored))).await?;
                live.note_saved(last_active, expires);
                Ok::<_, RegistryError>(())
            });
            try_join_all(tracked).await?;
        }
        for chunk in moved.chunks(ROWS) {
            let progress = chunk.iter().map(|(live, last_active, expires)| Progress {
                id: live.id.clone(),
                last_active: Steady(*last_active),
                expires: UnixSeconds(*expires),
            });
            self.hand_in(Change::Progress(progress.collect())).await?;
            for (live, last_active, expires) in chunk {
                live.note_saved(*last_active, *expires);
            }
        }
        Ok(())
    }
}

fn rounds() -> tokio::time::Interval {
    let mut rounds = tokio::time::interval(ROUND);
    // After a pause one round says all that the missed ones would have.
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}
