//! The one thread that writes. Whatever waits is written with one call and one `fdatasync`; what cannot be written is
//! kept, in order, and tried again until it can. It also decides when a day is over, and when a file is full.

use std::{
    fmt,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use outgate_clock::Clock;
use outgate_journey::record::AuditEvent;

use crate::{
    day::Day,
    log::Rotation,
    note::{AuditKey, VerifierKey},
    ocsf::{LogChange, to_ocsf},
    open::Opened,
    progress::Progress,
    spine::{DayHead, Spine},
    store::{Store, StoreFault},
};

/// One group commit is at most about this long; what waits beyond it waits as records.
const BATCH_BYTES: usize = 1024 * 1024;
/// For how long others are waited for that go with the first, while they come in crowds: a flush costs more than a
/// hundred records.
const GATHER: Duration = Duration::from_millis(20);
/// So many in one group commit are a crowd.
const CROWD: u64 = 8;
/// How far the head file may lag.
const HEAD_EVERY: Duration = Duration::from_millis(250);
/// How often an idle writer looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Between two attempts to begin another file; meanwhile the old one grows.
const ROTATE_AGAIN: Duration = Duration::from_secs(60);

/// The signing key, with what checks it.
#[derive(Debug)]
pub(crate) struct Signer {
    pub(crate) key: AuditKey,
    pub(crate) verifier: VerifierKey,
}

impl Signer {
    fn sign(&self, head: &DayHead) -> (Day, String) {
        (head.day, self.key.sign(&self.verifier, &head.checkpoint))
    }
}

/// The thread's own state.
pub(crate) struct Writer<S> {
    store: S,
    spine: Spine,
    signer: Signer,
    clock: Arc<dyn Clock>,
    rotation: Rotation,
    records: Receiver<AuditEvent>,
    progress: Arc<Progress>,
    /// Whole lines that are not on disk yet.
    batch: Vec<u8>,
    batched: u64,
    /// Whether the last group commit was one of a crowd.
    crowded: bool,
    /// Signed heads whose record is in the batch or on disk, and which are not in their place yet.
    day_heads: Vec<(Day, String)>,
    /// The chain's end is on disk and not yet in the head file.
    head_due: bool,
    head_written: Instant,
    /// When the file's first record was written.
    file_began_ms: u64,
    rotation_failed: Option<Instant>,
    /// While failing: the gate opens when so many records are on disk.
    reopen_at: Option<u64>,
}

impl<S> fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("end", &self.spine.end)
            .finish_non_exhaustive()
    }
}

impl<S: Store> Writer<S> {
    pub(crate) fn new(
        opened: Opened<S>,
        signer: Signer,
        clock: Arc<dyn Clock>,
        rotation: Rotation,
        records: Receiver<AuditEvent>,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            store: opened.store,
            spine: opened.spine,
            day_heads: opened
                .unsigned
                .iter()
                .map(|head| signer.sign(head))
                .collect(),
            signer,
            clock,
            rotation,
            records,
            progress,
            batch: Vec::with_capacity(BATCH_BYTES / 4),
            batched: 0,
            crowded: false,
            head_due: false,
            head_written: Instant::now(),
            file_began_ms: opened.file_began_ms,
            rotation_failed: None,
            reopen_at: None,
        }
    }

    /// Writes until nobody can hand in a record any more.
    pub(crate) fn run(mut self) {
        // Also on a panic: the gate must not stay open in front of a writer that is gone.
        let _gone = Gone(Arc::clone(&self.progress));
        let mut more = true;
        while more {
            // Before the first record, too: a day may have ended while the gateway was down.
            self.turn_day();
            if !self.until_done(Self::commit) {
                self.give_up();
                return;
            }
            more = self.collect();
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
        let left = match self.head_due {
            true => HEAD_EVERY.saturating_sub(self.head_written.elapsed()),
            false => TICK,
        };
        match self.records.recv_timeout(left) {
            Ok(event) => {
                self.turn_day();
                self.add(&event);
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        if self.crowded {
            // Asleep, and not woken by each of them.
            std::thread::sleep(GATHER);
        }
        while self.batch.len() < BATCH_BYTES {
            match self.records.try_recv() {
                Ok(event) => self.add(&event),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        true
    }

    fn add(&mut self, event: &AuditEvent) {
        self.batched += 1;
        if let Err(error) = self.spine.append(&mut self.batch, &to_ocsf(event)) {
            // Plain numbers and text always serialise.
            tracing::error!(code = "audit_record_unwritable", %error, "an audit record has no text");
        }
    }

    /// Puts the seal of a day that is over in front of what follows.
    fn turn_day(&mut self) {
        let (now, key) = (self.clock.wall_ms(), &self.signer.verifier);
        match self.spine.turn_day(&mut self.batch, now, key) {
            Ok(Some(head)) => self.day_heads.push(self.signer.sign(&head)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(code = "audit_record_unwritable", %error, "a day has no seal")
            }
        }
    }

    /// The batch, and whatever else is due.
    fn commit(&mut self) -> Result<(), StoreFault> {
        if !self.batch.is_empty() {
            self.store.append(&self.batch)?;
            self.batch.clear();
            self.head_due = true;
        }
        if self.batched > 0 {
            self.crowded = self.batched >= CROWD;
            self.progress.wrote(std::mem::take(&mut self.batched));
        }
        let head_due = self.head_due && self.head_written.elapsed() >= HEAD_EVERY;
        if head_due || !self.day_heads.is_empty() {
            self.commit_head()?;
        }
        if self.is_file_full() {
            self.rotate()?;
        }
        Ok(())
    }

    /// The head file, behind the signed heads: a day that the head file has seen has its head.
    fn commit_head(&mut self) -> Result<(), StoreFault> {
        while let Some((day, note)) = self.day_heads.first() {
            self.store.write_day_head(*day, note)?;
            self.day_heads.remove(0);
        }
        if let Some(head) = self.spine.head() {
            self.store.write_head(&head)?;
        }
        self.head_due = false;
        self.head_written = Instant::now();
        Ok(())
    }

    fn is_file_full(&self) -> bool {
        // The line that continues the log is no reason to continue it elsewhere.
        if self.spine.end.next_seq <= self.store.first_seq().saturating_add(1) {
            return false;
        }
        let age = self.clock.wall_ms().saturating_sub(self.file_began_ms);
        let too_old = |limit: Duration| Duration::from_millis(age) >= limit;
        let is_full = self
            .rotation
            .size
            .is_some_and(|size| self.store.size() >= size);
        let waits = |failed: Instant| failed.elapsed() < ROTATE_AGAIN;
        (is_full || self.rotation.age.is_some_and(too_old))
            && !self.rotation_failed.is_some_and(waits)
    }

    /// Goes on in another file. Where that does not work, the old one goes on: it is too long, and nothing is lost.
    fn rotate(&mut self) -> Result<(), StoreFault> {
        // What is closed is seen by the head file whole.
        self.commit_head()?;
        let (now, seq) = (self.clock.wall_ms(), self.spine.end.next_seq);
        let continued = LogChange::Continued {
            first_seq: seq,
            previous_hash: self.spine.end.prev,
        };
        let (mut spine, mut line) = (self.spine.clone(), Vec::new());
        if spine.append_own(&mut line, now, &continued).is_err() {
            return Ok(());
        }
        match self.store.rotate(&line, seq) {
            Ok(()) => {
                self.spine = spine;
                self.file_began_ms = now;
                self.rotation_failed = None;
                self.head_due = true;
            }
            Err(fault) => {
                tracing::error!(code = fault.code(), %fault, "the audit trail goes on in the same file");
                self.rotation_failed = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Tries until it works; `false` if it did not and nobody is left to wait for.
    fn until_done(&mut self, attempt: impl Fn(&mut Self) -> Result<(), StoreFault>) -> bool {
        loop {
            self.progress.set_busy(true);
            let done = attempt(self);
            self.progress.set_busy(false);
            match done {
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
        if self.progress.durable() >= target {
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
        self.0.set_gone();
    }
}
