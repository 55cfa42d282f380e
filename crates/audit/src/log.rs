//! The log as the rest of the gateway sees it: takes records without waiting, and says whether it is safe to act.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use outgate_journey::{
    inject::AuditGate,
    record::{AuditSink, DecisionRecord},
};

use crate::{
    error::AuditError,
    open::{Opened, open_log},
    store::Store,
    writer::{Progress, Writer},
};

/// With more records than this not yet on disk, the gate is closed.
pub const BACKLOG_LIMIT: u64 = 65_536;

/// The audit log. Clones write to the same file; the last one to go waits up to two seconds for what is not on disk.
#[derive(Debug, Clone)]
pub struct AuditLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` only while being dropped: the writer ends when its last record is taken.
    sender: Option<Sender<DecisionRecord>>,
    progress: Arc<Progress>,
    writer: Mutex<Option<JoinHandle<()>>>,
    path: PathBuf,
}

impl AuditLog {
    /// Opens the log in `dir` (created with mode 0700), or founds one. Reads the end of what is there and continues its
    /// chain; a torn last line, which nobody was told is on disk, is moved to `audit.torn-<n>`.
    ///
    /// # Errors
    /// [`AuditError`]; [`AuditError::Damaged`] if what is there does not verify.
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        let opened = open_log(dir)?;
        let path = opened.path.clone();
        Self::start(opened, path)
    }

    /// Starts the writer over any store.
    pub(crate) fn start<S: Store>(opened: Opened<S>, path: PathBuf) -> Result<Self, AuditError> {
        let (sender, records) = mpsc::channel();
        let progress = Arc::new(Progress::default());
        let writer = Writer::new(opened, records, Arc::clone(&progress));
        let writer = thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())
            .map_err(|_| AuditError::Start("no thread for the writer"))?;
        Ok(Self(Arc::new(Inner {
            sender: Some(sender),
            progress,
            writer: Mutex::new(Some(writer)),
            path,
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
            .map_err(|stop| {
                if stop.writer_gone {
                    return AuditError::WriterGone;
                }
                AuditError::Pending {
                    pending: self.pending(),
                    waited: started.elapsed(),
                    fault: stop.fault,
                }
            })
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

    /// The file of records.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// How many accepted records are not on disk yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        usize::try_from(self.0.progress.pending()).unwrap_or(usize::MAX)
    }
}

impl AuditSink for AuditLog {
    fn record(&self, record: DecisionRecord) {
        self.0.progress.accept();
        let sent = match &self.0.sender {
            Some(sender) => sender.send(record).is_ok(),
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
        self.0.progress.is_open(BACKLOG_LIMIT)
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
