//! A store as it was when it was read, for asking beside a running gateway. It takes no change.

use std::path::{Path, PathBuf};

use futures_util::future::{BoxFuture, FutureExt, ready};
use outgate_journey::session::UnixSeconds;

use crate::{Change, Remembered, SessionStore, Steady, StoreError, StoreFault};

/// What a store held.
#[derive(Debug)]
pub struct ReadOnlyStore {
    path: PathBuf,
    remembered: Remembered,
}

impl ReadOnlyStore {
    pub(crate) fn new(path: &Path, remembered: Remembered) -> Self {
        Self {
            path: path.to_owned(),
            remembered,
        }
    }
}

impl SessionStore for ReadOnlyStore {
    fn load(&self) -> BoxFuture<'_, Result<Remembered, StoreError>> {
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
