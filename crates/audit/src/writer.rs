//! The one thread that writes. Whatever waits is written with one call and one `fdatasync`; what cannot be written is
//! kept, in order, and tried again until it can.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use outgate_journey::record::DecisionRecord;

use crate::{
    chain::{ChainEnd, LogId},
    head::Head,
    ocsf::to_ocsf,
    open::Opened,
    store::{Store, StoreFault},
};

/// One group commit is at most about this long; what waits beyond it waits as records.
const BATCH_BYTES: usize = 1024 * 1024;
/// How far the head file may lag.
const HEAD_EVERY: Duration = Duration::from_millis(250);
/// Between two attempts on a failing store.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// How long a failing store is still tried once nobody holds the log.
const LAST_TRIES: Duration = Duration::from_secs(2);

/// What the writer and the callers tell each other.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    accepted: AtomicU64,
    durable: AtomicU64,
    failing: AtomicBool,
    closed: AtomicBool,
    gone: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<String>,
    finishing: Option<Instant>,
}

/// Why a wait ended early.
pub(crate) struct Stopped {
    pub(crate) writer_gone: bool,
    pub(crate) fault: Option<String>,
}

impl Progress {
    /// Counted before it is handed over, so that the count on disk can never run ahead.
    pub(crate) fn accept(&self) {
        self.accepted.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    pub(crate) fn pending(&self) -> u64 {
        let durable = self.durable.load(Ordering::Acquire);
        self.accepted().saturating_sub(durable)
    }

    pub(crate) fn is_open(&self, backlog_limit: u64) -> bool {
        !self.failing.load(Ordering::Acquire)
            && !self.closed.load(Ordering::Acquire)
            && !self.gone.load(Ordering::Acquire)
            && self.pending() <= backlog_limit
    }

    pub(crate) fn close_gate(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Tells the writer that no record will follow.
    pub(crate) fn finish(&self) {
        self.close_gate();
        self.state().finishing = Some(Instant::now());
        self.changed.notify_all();
    }

    /// Waits until `target` records are on disk; with no deadline, for as long as it takes.
    pub(crate) fn wait(&self, target: u64, deadline: Option<Instant>) -> Result<(), Stopped> {
        let mut state = self.state();
        loop {
            if self.durable.load(Ordering::Acquire) >= target {
                return Ok(());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let writer_gone = self.gone.load(Ordering::Acquire);
            if writer_gone || left.is_some_and(|left| left.is_zero()) {
                return Err(Stopped {
                    writer_gone,
                    fault: state.fault.clone(),
                });
            }
            state = match left {
                Some(left) => {
                    self.changed
                        .wait_timeout(state, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many more are on disk.
    pub(crate) fn wrote(&self, records: u64) {
        // Under the lock, or a caller between its check and its wait would sleep through it.
        let _state = self.state();
        self.durable.fetch_add(records, Ordering::AcqRel);
        self.changed.notify_all();
    }

    fn fail(&self, fault: &StoreFault) {
        self.state().fault = Some(fault.to_string());
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::error!(code = fault.code(), %fault, "the audit trail cannot be written: credentials are held back");
        }
    }

    fn recover(&self) {
        self.state().fault = None;
        if self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!(
                code = "audit_recovered",
                "the audit trail is written again; nothing was lost"
            );
        }
    }

    /// Waits between two attempts; says whether another one is worth it.
    fn may_retry(&self) -> bool {
        let state = self.state();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, RETRY_EVERY, |state| state.finishing.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        let Some(finishing) = state.finishing else {
            return true;
        };
        drop(state);
        std::thread::sleep(RETRY_EVERY / 4);
        finishing.elapsed() < LAST_TRIES
    }
}

/// The thread's own state.
pub(crate) struct Writer<S> {
    store: S,
    end: ChainEnd,
    log: LogId,
    records: Receiver<DecisionRecord>,
    progress: Arc<Progress>,
    /// Whole lines that are not on disk yet.
    batch: Vec<u8>,
    batched: u64,
    /// The chain's end is on disk and not yet in the head file.
    head_due: bool,
    head_written: Instant,
    /// While failing: the gate opens when so many records are on disk.
    reopen_at: Option<u64>,
}

impl<S> fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<S: Store> Writer<S> {
    pub(crate) fn new(
        opened: Opened<S>,
        records: Receiver<DecisionRecord>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            store: opened.store,
            end: opened.end,
            log: opened.log,
            records,
            progress,
            batch: Vec::with_capacity(BATCH_BYTES / 4),
            batched: 0,
            head_due: false,
            head_written: Instant::now(),
            reopen_at: None,
        }
    }

    /// Writes until nobody can hand in a record any more.
    pub(crate) fn run(mut self) {
        // Also on a panic: the gate must not stay open in front of a writer that is gone.
        let _gone = Gone(Arc::clone(&self.progress));
        while self.collect() {
            if !self.until_done(Self::commit) {
                self.give_up();
                return;
            }
        }
        if self.head_due && !self.until_done(Self::commit_head) {
            tracing::error!(
                code = "audit_head_failed",
                "the audit head file is behind the records"
            );
        }
    }

    /// Waits for records and takes what is there. `false` if there is none and none will come.
    fn collect(&mut self) -> bool {
        let first = if self.head_due {
            let left = HEAD_EVERY.saturating_sub(self.head_written.elapsed());
            self.records.recv_timeout(left)
        } else {
            self.records
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected)
        };
        match first {
            Ok(record) => self.add(&record),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        while self.batch.len() < BATCH_BYTES {
            match self.records.try_recv() {
                Ok(record) => self.add(&record),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        true
    }

    fn add(&mut self, record: &DecisionRecord) {
        self.batched += 1;
        if let Err(error) = self.end.append(&mut self.batch, &to_ocsf(record)) {
            // Plain numbers and text always serialise.
            tracing::error!(code = "audit_record_unwritable", %error, request = record.request_id);
        }
    }

    /// The batch, and the head file where it is due.
    fn commit(&mut self) -> Result<(), StoreFault> {
        if self.batched > 0 {
            self.store.append(&self.batch)?;
            self.batch.clear();
            self.head_due = true;
            self.progress.wrote(std::mem::take(&mut self.batched));
        }
        if self.head_due && self.head_written.elapsed() >= HEAD_EVERY {
            self.commit_head()?;
        }
        Ok(())
    }

    fn commit_head(&mut self) -> Result<(), StoreFault> {
        let Some(seq) = self.end.next_seq.checked_sub(1) else {
            return Ok(());
        };
        self.store.write_head(&Head {
            log: self.log,
            seq,
            hash: self.end.prev,
        })?;
        self.head_due = false;
        self.head_written = Instant::now();
        Ok(())
    }

    /// Tries until it works; `false` if it did not and nobody is left to wait for.
    fn until_done(&mut self, attempt: impl Fn(&mut Self) -> Result<(), StoreFault>) -> bool {
        loop {
            match attempt(self) {
                Ok(()) => {
                    self.settle();
                    return true;
                }
                Err(fault) => {
                    self.progress.fail(&fault);
                    self.reopen_at = Some(u64::MAX);
                    if !self.progress.may_retry() {
                        return false;
                    }
                }
            }
        }
    }

    /// After a success: opens the gate once all that piled up in front of a failing store is on disk.
    fn settle(&mut self) {
        let Some(target) = self.reopen_at else {
            return;
        };
        let target = if target == u64::MAX {
            self.progress.accepted()
        } else {
            target
        };
        self.reopen_at = Some(target);
        if self.progress.durable.load(Ordering::Acquire) >= target {
            self.reopen_at = None;
            self.progress.recover();
        }
    }

    fn give_up(&self) {
        tracing::error!(
            code = "audit_records_lost",
            records = self.progress.pending(),
            "the gateway ends with audit records that could not be written"
        );
    }
}

struct Gone(Arc<Progress>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _state = self.0.state();
        self.0.gone.store(true, Ordering::Release);
        self.0.changed.notify_all();
    }
}
