//! The one thread that writes. Two lanes, of which the urgent one is always emptied first, and group commit: what has
//! come in while the disk was busy shares the next flush.

use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{file, file::FileId, read, schema, write};
use crate::{Change, OnDenial, Remembered, Steady, StoreError, StoreFault};

/// Rows of the ordinary lane that share a flush: all that an ending can have to wait for.
const ORDINARY_BATCH: usize = 64;
/// Changes of the urgent lane that share a flush.
const URGENT_BATCH: usize = 512;

/// A change, when it was asked for, and who waits for it.
pub(super) struct Commit {
    pub(super) change: Change,
    pub(super) now: Steady,
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// What the thread is asked for.
pub(super) enum Job {
    Commit(Commit),
    Load(OnDenial, oneshot::Sender<Result<Remembered, StoreError>>),
    /// Everything that came in before is finished first.
    Close(oneshot::Sender<()>),
}

/// The ways in.
pub(super) struct Lanes {
    pub(super) urgent: mpsc::UnboundedSender<Job>,
    pub(super) ordinary: mpsc::Sender<Job>,
}

/// The thread: opens the store, says so, and writes until it is closed or nobody can reach it.
pub(super) fn run(
    path: PathBuf,
    opened: oneshot::Sender<Result<Steady, StoreError>>,
    urgent: mpsc::UnboundedReceiver<Job>,
    ordinary: mpsc::Receiver<Job>,
) {
    let failed = |error: std::io::Error| StoreError::new(StoreFault::Unreadable, &path, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime.map_err(failed) {
        Ok(runtime) => runtime,
        Err(error) => return drop(opened.send(Err(error))),
    };
    runtime.block_on(async {
        match open(&path).await {
            Ok((connection, file, floor)) => {
                let writer = Writer {
                    path: &path,
                    file,
                    connection: Some(connection),
                    urgent,
                    ordinary,
                };
                if opened.send(Ok(floor)).is_ok() {
                    writer.run().await;
                }
            }
            Err(error) => drop(opened.send(Err(error))),
        }
    });
}

async fn open(path: &Path) -> Result<(SqliteConnection, FileId, Steady), StoreError> {
    file::prepare(path)?;
    let file = file::identify(path)?;
    let mut connection = SqliteConnection::connect_with(&file::writing(path))
        .await
        .map_err(|error| schema::fault(path, StoreFault::Unreadable, &error))?;
    schema::migrate(&mut connection, path).await?;
    let floor = read::floor(&mut connection, path).await?;
    Ok((connection, file, floor))
}

struct Writer<'a> {
    path: &'a Path,
    /// Which file was opened.
    file: FileId,
    /// `None` after a failure, until there is something to write again.
    connection: Option<SqliteConnection>,
    urgent: mpsc::UnboundedReceiver<Job>,
    ordinary: mpsc::Receiver<Job>,
}

impl Writer<'_> {
    async fn run(mut self) {
        let (mut closing, mut left) = (Vec::new(), None);
        loop {
            let next = match left.take() {
                Some(job) => Some(job),
                None => self.next().await,
            };
            match next {
                Some((Job::Load(on_denial, answer), _)) => {
                    let _ = answer.send(self.load(on_denial).await);
                }
                Some((Job::Close(done), _)) => {
                    // The lanes take nothing more; the loop ends when they are empty.
                    self.urgent.close();
                    self.ordinary.close();
                    closing.push(done);
                }
                Some((Job::Commit(commit), is_urgent)) => {
                    let (batch, not_a_change) = self.batch(commit, is_urgent);
                    left = not_a_change;
                    self.write(batch).await;
                }
                None => break,
            }
        }
        if let Some(connection) = self.connection
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the session store was not closed cleanly; its log is read at the next start");
        }
        for done in closing {
            let _ = done.send(());
        }
    }

    /// The next job, and whether it came in the urgent lane; `None` when both are closed and empty.
    async fn next(&mut self) -> Option<(Job, bool)> {
        tokio::select! {
            // Whatever waits in the ordinary lane, the urgent one is asked first.
            biased;
            Some(job) = self.urgent.recv() => Some((job, true)),
            Some(job) = self.ordinary.recv() => Some((job, false)),
            else => None,
        }
    }

    /// The changes that came in meanwhile share the flush of the first; what is no change comes after them.
    fn batch(&mut self, first: Commit, is_urgent: bool) -> (Vec<Commit>, Option<(Job, bool)>) {
        let most = if is_urgent {
            URGENT_BATCH
        } else {
            ORDINARY_BATCH
        };
        let mut weight = first.change.weight();
        let mut batch = vec![first];
        while weight < most {
            let next = match is_urgent {
                true => self.urgent.try_recv(),
                false => self.ordinary.try_recv(),
            };
            match next {
                Ok(Job::Commit(next)) => {
                    weight += next.change.weight();
                    batch.push(next);
                }
                Ok(job) => return (batch, Some((job, is_urgent))),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    async fn write(&mut self, batch: Vec<Commit>) {
        if let Err(error) = self.is_still_there() {
            return refuse(batch, &error);
        }
        let together = self.commit(&batch).await;
        if together.is_ok() || batch.len() == 1 {
            return self.answer(batch, together);
        }
        // One change that cannot be made must not take the others with it.
        for one in batch {
            let one = vec![one];
            let alone = self.commit(&one).await;
            self.answer(one, alone);
        }
    }

    /// All changes in one transaction, or none. A connection on which that failed is given up: SQLite may have rolled
    /// back by itself, and the library would count a transaction as open for ever.
    async fn commit(&mut self, batch: &[Commit]) -> Result<Vec<bool>, sqlx::Error> {
        let mut connection = self.connected().await?;
        let made = commit(&mut connection, batch).await;
        match made {
            Ok(_) => self.connection = Some(connection),
            // Also where it is no fault of the disk: another connection costs less than to tell them apart.
            Err(_) => drop(connection.close_hard().await),
        }
        made
    }

    async fn load(&mut self, on_denial: OnDenial) -> Result<Remembered, StoreError> {
        let failed = |error| schema::fault(self.path, StoreFault::Unreadable, &error);
        let mut connection = self.connected().await.map_err(failed)?;
        let all = read::everything(&mut connection, self.path, on_denial).await;
        self.connection = Some(connection);
        all
    }

    /// The connection that there is, or another one.
    async fn connected(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => SqliteConnection::connect_with(&file::writing(self.path)).await,
        }
    }

    /// What is written into a file that was removed or replaced is on no disk that the next start reads.
    fn is_still_there(&self) -> Result<(), StoreError> {
        if file::identify(self.path)? == self.file {
            return Ok(());
        }
        let detail = "replaced by another file while the gateway runs";
        Err(StoreError::new(StoreFault::Missing, self.path, detail))
    }

    fn answer(&self, batch: Vec<Commit>, outcome: Result<Vec<bool>, sqlx::Error>) {
        let path = self.path;
        let made = match outcome {
            Ok(made) => made,
            Err(error) => {
                return refuse(batch, &schema::fault(path, StoreFault::WriteFailed, &error));
            }
        };
        for (commit, made) in batch.into_iter().zip(made) {
            let _ = commit.done.send(made.then_some(()).ok_or_else(|| {
                StoreError::new(StoreFault::Exists, path, "the session exists already")
            }));
        }
    }
}

fn refuse(batch: Vec<Commit>, error: &StoreError) {
    tracing::error!(code = error.code(), %error, "the session store could not be written");
    for commit in batch {
        let _ = commit.done.send(Err(error.clone()));
    }
}

/// All changes in one transaction, or none; for each, whether it was made.
async fn commit(
    connection: &mut SqliteConnection,
    batch: &[Commit],
) -> Result<Vec<bool>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let (mut made, mut latest) = (Vec::with_capacity(batch.len()), Steady::default());
    for Commit { change, now, .. } in batch {
        made.push(write::apply(&mut transaction, change, *now).await?);
        latest = latest.max(*now);
    }
    write::set_floor(&mut transaction, latest).await?;
    transaction.commit().await?;
    Ok(made)
}
