//! A store as it was when it was read, for asking beside a running gateway. It takes no change.

use std::path::{Path, PathBuf};

use futures_util::future::{BoxFuture, FutureExt, ready};
use outgate_journey::session::UnixSeconds;

use crate::{
    Change, OnDenial, Remembered, SessionStore, Steady, StoreError, StoreFault, StoredDenial,
};

/// What a store held.
#[derive(Debug)]
pub struct ReadOnlyStore {
    path: PathBuf,
    remembered: Remembered,
    denials: Vec<StoredDenial>,
}

impl ReadOnlyStore {
    pub(crate) fn new(path: &Path, remembered: Remembered, denials: Vec<StoredDenial>) -> Self {
        Self {
            path: path.to_owned(),
            remembered,
            denials,
        }
    }
}

impl SessionStore for ReadOnlyStore {
    fn load(&self, on_denial: OnDenial) -> BoxFuture<'_, Result<Remembered, StoreError>> {
        self.denials.iter().cloned().for_each(on_denial);
        ready(Ok(self.remembered.clone())).boxed()
    }

    fn commit(&self, _change: Change, _now: Steady) -> BoxFuture<'static, Result<(), StoreError>> {
        let refused = StoreError::new(StoreFault::ReadOnly, &self.path, "opened for reading");
        ready(Err(refused)).boxed()
    }

    fn clock_floor(&self) -> UnixSeconds {
        UnixSeconds(self.remembered.floor.0)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}
