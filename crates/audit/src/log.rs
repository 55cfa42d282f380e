//! The log as the rest of the gateway sees it: takes records without waiting, and says whether it is safe to act.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use outgate_clock::Clock;
use outgate_journey::{
    inject::AuditGate,
    record::{AuditEvent, AuditSink},
};

use crate::{
    error::AuditError,
    note::{AuditKey, VerifierKey},
    open::{Opened, open_log},
    progress::{Progress, Stopped},
    store::Store,
    writer::{Signer, Writer},
};

/// With more records than this not yet on disk, the gate is closed.
pub const BACKLOG_LIMIT: u64 = 65_536;
/// When the disk has not answered for longer than this, the gate is closed until it does.
pub const SLOW_AFTER: Duration = Duration::from_secs(5);

/// When a file is closed and another one begun; whatever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Once it has so many bytes. It may be longer by what was written with one call, about 1 MiB.
    pub size: Option<u64>,
    /// Once its first record is so old and there are others.
    pub age: Option<Duration>,
}

impl Rotation {
    /// One file that grows.
    pub const NEVER: Self = Self {
        size: None,
        age: None,
    };
}

impl Default for Rotation {
    /// 1 GiB and 24 hours.
    fn default() -> Self {
        Self {
            size: Some(1024 * 1024 * 1024),
            age: Some(Duration::from_secs(24 * 60 * 60)),
        }
    }
}

/// What a log needs beside its folder.
pub struct AuditOptions {
    /// What time it is: its wall clock says which day is open, and how old a file is.
    pub clock: Arc<dyn Clock>,
    /// Signs the head of every day.
    pub key: AuditKey,
    /// When a file is closed.
    pub rotation: Rotation,
}

impl fmt::Debug for AuditOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditOptions")
            .field("rotation", &self.rotation)
            .finish_non_exhaustive()
    }
}

/// The audit log. Clones write to the same trail; the last one to go waits up to two seconds for what is not on disk.
#[derive(Debug, Clone)]
pub struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` only while being dropped: the writer ends when its last record is taken.
    sender: Option<Sender<AuditEvent>>,
    progress: Arc<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
    log_id: String,
    verifier: VerifierKey,
}

impl AuditLog {
    /// Opens the log in `dir` (created with mode 0700), or founds one. Reads the end of what is there and continues its
    /// chain; a torn last line, which nobody was told is on disk, is moved to `audit.torn-<n>`. A day that ended while
    /// the gateway was down is sealed and signed.
    ///
    /// # Errors
    /// [`AuditError`]; [`AuditError::Damaged`] if what is there does not verify.
    pub fn open(dir: &Path, options: AuditOptions) -> Result<Self, AuditError> {
        let opened = open_log(dir, &options)?;
        let path = dir.join(crate::RECORDS_FILE);
        Self::start(opened, path, options)
    }

    /// Starts the writer over any store.
    pub(crate) fn start<S: Store>(
        opened: Opened<S>,
        path: PathBuf,
        options: AuditOptions,
    ) -> Result<Self, AuditError> {
        let (sender, records) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let log = opened.spine.log;
        let verifier = options.key.verifier(log)?;
        let signer = Signer {
            key: options.key,
            verifier: verifier.clone(),
        };
        let (clock, rotation) = (options.clock, options.rotation);
        let shared = Arc::clone(&progress);
        let writer = Writer::new(opened, signer, clock, rotation, records, shared);
        let writer = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|_| AuditError::Start("no thread for the writer"))?;
        Ok(Self(Arc::new(Inner {
            sender: Some(sender),
            progress,
            writer: Mutex::new(Some(writer)),
            path,
            log_id: log.text(),
            verifier,
        })))
    }

    /// Waits until every record that was accepted before the call is on disk. Blocks the thread.
    ///
    /// # Errors
    /// [`AuditError::Pending`] after `deadline`; the records are kept. [`AuditError::WriterGone`].
    pub fn flush(&self, deadline: Duration) -> Result<(), AuditError> {
        let started = Instant::now();
        let target = self.0.progress.accepted();
        self.0
            .progress
            .wait(target, started.checked_add(deadline))
            .map_err(|stopped| self.not_durable(stopped, started))
    }

    /// As [`flush`](Self::flush), for what was accepted before the call, without blocking a thread; needs a tokio
    /// runtime with its timer. May be dropped at any time: the records are written all the same.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn durable(
        &self,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), AuditError>> + Send + use<> {
        let log = self.clone();
        let target = log.0.progress.accepted();
        async move {
            let started = Instant::now();
            let waited = log.0.progress.waited(target, deadline).await;
            waited.map_err(|stopped| log.not_durable(stopped, started))
        }
    }

    /// Hands in a record, at once, and waits as [`durable`](Self::durable) does.
    ///
    /// # Errors
    /// As [`flush`](Self::flush). The record is then written as soon as the store allows.
    pub fn commit(
        &self,
        event: AuditEvent,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), AuditError>> + Send + use<> {
        self.record(event);
        self.durable(deadline)
    }

    fn not_durable(&self, stopped: Stopped, started: Instant) -> AuditError {
        if stopped.writer_gone {
            return AuditError::WriterGone;
        }
        AuditError::Pending {
            pending: self.pending(),
            waited: started.elapsed(),
            fault: stopped.fault,
        }
    }

    /// Closes the gate for good, then waits as [`flush`](Self::flush) does. A record that another clone still hands in
    /// is written all the same.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(self, deadline: Duration) -> Result<(), AuditError> {
        self.0.progress.close_gate();
        self.flush(deadline)
    }

    /// The log's random name, in hex.
    #[must_use]
    pub fn log_id(&self) -> &str {
        &self.0.log_id
    }

    /// What checks the signatures on this log's heads: kept elsewhere, it shows a trail that was made anew.
    #[must_use]
    pub fn verifier_key(&self) -> &VerifierKey {
        &self.0.verifier
    }

    /// The file that records are written to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How many records were accepted since the log was opened.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.0.progress.accepted()
    }

    /// How many accepted records are not on disk yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        usize::try_from(self.0.progress.pending()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
impl AuditLog {
    pub(crate) fn is_open_unless_slower_than(&self, limit: Duration) -> bool {
        self.0.progress.is_open(BACKLOG_LIMIT, limit)
    }
}

impl AuditSink for AuditLog {
    fn record(&self, event: AuditEvent) {
        self.0.progress.accept();
        let sent = match &self.0.sender {
            Some(sender) => sender.send(event).is_ok(),
            None => false,
        };
        if !sent {
            tracing::error!(
                code = "audit_writer_gone",
                "an audit record was lost: the writer has stopped"
            );
        }
    }
}

impl AuditGate for AuditLog {
    fn is_writable(&self) -> bool {
        self.0.progress.is_open(BACKLOG_LIMIT, SLOW_AFTER)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.progress.finish();
        drop(self.sender.take());
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!(code = "audit_writer_gone", "the audit writer panicked");
        }
    }
}
