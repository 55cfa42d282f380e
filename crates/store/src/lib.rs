//! What the operator's side must still know after a restart: sessions, what ended, the denylist, the kill switch,
//! quotas, and how far time had got.
//!
//! A change is on disk before it is acknowledged. What revokes goes in an urgent lane and never waits behind what
//! does not, so a flood of creations cannot hold an ending up. A store that cannot be read is an error and never an
//! empty one: a denylist with a hole in it lets out what was ended.

mod error;
mod model;
mod read_only;
mod sqlite;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outgate_journey::session::UnixSeconds;

pub use error::{StoreError, StoreFault};
pub use model::{
    Change, DenyEntry, DenyTarget, KillSwitch, Progress, Remembered, Steady, StoredDenial,
    StoredEnding, StoredSession,
};
pub use read_only::ReadOnlyStore;
pub use sqlite::SqliteStore;

/// Takes the entries of the denylist one by one, as they are read: of those there may be a million.
pub type OnDenial = Box<dyn FnMut(StoredDenial) + Send>;

/// A store of what the registry of sessions must not forget. One process at a time writes to it.
pub trait SessionStore: Send + Sync {
    /// Everything that is remembered; the denylist is told to `on_denial`, all of it before there is an answer.
    ///
    /// # Errors
    /// [`StoreError`] if any part of it cannot be read: there is no partial answer, and what was told is to be dropped.
    fn load(&self, on_denial: OnDenial) -> BoxFuture<'_, Result<Remembered, StoreError>>;

    /// Makes one change, and notes that time had got as far as `now`. When the answer is `Ok`, it is on disk.
    ///
    /// Urgent changes ([`Change::is_urgent`]) are in their lane when this returns, whether the answer is awaited or
    /// not, in the order of the calls; others when the answer is first polled.
    ///
    /// # Errors
    /// [`StoreFault::Exists`] for a session that exists already; [`StoreFault::WriteFailed`] and
    /// [`StoreFault::Closed`] if the change was not made.
    fn commit(&self, change: Change, now: Steady) -> BoxFuture<'static, Result<(), StoreError>>;

    /// How far time had got when the store was opened: no clock may start earlier.
    fn clock_floor(&self) -> UnixSeconds;

    /// Finishes what was handed in and lets go of the file.
    fn close(&self) -> BoxFuture<'_, ()>;
}

impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn load(&self, on_denial: OnDenial) -> BoxFuture<'_, Result<Remembered, StoreError>> {
        (**self).load(on_denial)
    }

    fn commit(&self, change: Change, now: Steady) -> BoxFuture<'static, Result<(), StoreError>> {
        (**self).commit(change, now)
    }

    fn clock_floor(&self) -> UnixSeconds {
        (**self).clock_floor()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        (**self).close()
    }
}
