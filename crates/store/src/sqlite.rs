//! The store as one SQLite file, readable by the gateway's user alone.
//!
//! Rollback journal with `synchronous=FULL`: an acknowledged change has been flushed into the file itself. A write-ahead
//! log would hold the newest changes alone, and SQLite drops what is damaged at its end without a word: revocations
//! would be. One thread writes, on a runtime of its own, so that neither a busy data plane nor a busy operator's door
//! delays it. A file that is not the one that was opened any more takes no change: who would be told that it is on
//! disk?

mod file;
mod read;
mod schema;
mod write;
mod writer;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use outgate_journey::session::UnixSeconds;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Change, OnDenial, ReadOnlyStore, Remembered, SessionStore, Steady, StoreError, StoreFault,
    sqlite::writer::{Commit, Job, Lanes},
};

/// How long an ordinary change may take, with all that goes before it. One that is given up may be made later: a session
/// of which nobody has a token.
const ORDINARY_WITHIN: Duration = Duration::from_secs(5);

/// Changes that wait in the ordinary lane before the one who brings another has to wait.
const ORDINARY_LANE: usize = 1024;

/// The embedded store.
pub struct SqliteStore {
    path: Box<Path>,
    floor: Steady,
    lanes: Lanes,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the store, creates it if there is none, and checks all of it.
    ///
    /// # Errors
    /// [`StoreError`]: a gateway whose denylist cannot be read must not start.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::start(path).await
    }

    /// As [`Self::open`], where there has to be a store already: one that is gone, or empty, held what was revoked.
    ///
    /// # Errors
    /// [`StoreFault::Missing`] beside those of [`Self::open`].
    pub async fn open_existing(path: &Path) -> Result<Self, StoreError> {
        file::require(path)?;
        Self::start(path).await
    }

    async fn start(path: &Path) -> Result<Self, StoreError> {
        let (urgent, urgent_lane) = mpsc::unbounded_channel();
        let (ordinary, ordinary_lane) = mpsc::channel(ORDINARY_LANE);
        let (opened, opening) = oneshot::channel();
        let owned = path.to_owned();
        let failed = |detail: &dyn ToString| {
            StoreError::new(StoreFault::Unreadable, path, detail.to_string())
        };
        let thread = std::thread::Builder::new()
            .name("outgate-store".to_owned())
            .spawn(move || writer::run(owned, opened, urgent_lane, ordinary_lane))
            .map_err(|error| failed(&error))?;
        let floor = opening
            .await
            .unwrap_or_else(|_| Err(failed(&"its thread ended")))?;
        Ok(Self {
            path: path.into(),
            floor,
            lanes: Lanes { urgent, ordinary },
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Reads a store that a running gateway may be writing to, and changes nothing. No file is an empty store.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_read_only(path: &Path) -> Result<ReadOnlyStore, StoreError> {
        if !file::is_there(path)? {
            return Ok(ReadOnlyStore::new(path, Remembered::default(), Vec::new()));
        }
        let options = file::options(path).read_only(true);
        let unreadable = |error| schema::fault(path, StoreFault::Unreadable, &error);
        let mut connection = SqliteConnection::connect_with(&options)
            .await
            .map_err(unreadable)?;
        schema::check(&mut connection, path).await?;
        let mut denials = Vec::new();
        let on_denial = |denial| denials.push(denial);
        let remembered = read::everything(&mut connection, path, on_denial).await?;
        // Only reading was done: there is nothing that closing could lose.
        let _ = connection.close().await;
        Ok(ReadOnlyStore::new(path, remembered, denials))
    }

    fn closed(path: &Path) -> StoreError {
        StoreError::new(StoreFault::Closed, path, "the store was closed")
    }
}

impl SessionStore for SqliteStore {
    fn load(&self, on_denial: OnDenial) -> BoxFuture<'_, Result<Remembered, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.lanes.urgent.send(Job::Load(on_denial, answer));
        async move {
            sent.map_err(|_| Self::closed(&self.path))?;
            answered
                .await
                .unwrap_or_else(|_| Err(Self::closed(&self.path)))
        }
        .boxed()
    }

    fn commit(&self, change: Change, now: Steady) -> BoxFuture<'static, Result<(), StoreError>> {
        let path = self.path.clone();
        let is_urgent = change.is_urgent();
        let (done, is_done) = oneshot::channel();
        let job = Job::Commit(Commit { change, now, done });
        let answer =
            move |answer: Result<_, _>| answer.unwrap_or_else(|_| Err(Self::closed(&path)));
        if is_urgent {
            // In the lane before this returns: whoever stops waiting for the answer has still revoked.
            if self.lanes.urgent.send(job).is_err() {
                return ready(Err(Self::closed(&self.path))).boxed();
            }
            return is_done.map(answer).boxed();
        }
        let lane = self.lanes.ordinary.clone();
        let late = StoreError::new(
            StoreFault::WriteFailed,
            &self.path,
            "the database was busy for too long",
        );
        let made = async move {
            // If the lane is closed the job is dropped, and with it the sender that `is_done` waits for.
            let _ = lane.send(job).await;
            answer(is_done.await)
        };
        async move {
            let made = tokio::time::timeout(ORDINARY_WITHIN, made).await;
            made.unwrap_or(Err(late))
        }
        .boxed()
    }

    fn clock_floor(&self) -> UnixSeconds {
        UnixSeconds(self.floor.0)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let (done, is_done) = oneshot::channel();
        let sent = self.lanes.urgent.send(Job::Close(done));
        async move {
            if sent.is_ok() {
                let _ = is_done.await;
            }
            let thread = self
                .thread
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            // It has said that it is done: what is left is its last instruction.
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
        .boxed()
    }
}
