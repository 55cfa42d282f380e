//! The life of an exporter: find the place, take a batch, send it until it is acknowledged, move the cursor, again.

mod begin;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_clock::Clock;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Bounds, Supply},
    config::{ExportConfig, ExporterName, Tuning},
    cursor::{Cursor, CursorFile, Place},
    fault::{ExportCode, Fault, Retry},
    retry::Waits,
    send::{Accepted, Sender},
    status::StatusCell,
    trail::{TrailFault, TrailReader},
};

/// While waiting, how often the trail's growth and the secrets' files are looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// The audit log says what is on disk for good this much late: for so long, the end of the trail is not yet its end.
const SETTLE: Duration = Duration::from_millis(300);
/// Between the attempts of an exporter that has been told to stop.
const HASTE: Duration = Duration::from_millis(100);

/// What was told to stop.
pub(crate) struct Stopping;

/// One exporter at work.
pub(crate) struct Shipper<T> {
    name: ExporterName,
    tuning: Tuning,
    supply: Supply<T>,
    file: CursorFile,
    cursor: Cursor,
    /// Whether the last attempt to write the cursor failed.
    is_unsaved: bool,
    sender: Sender,
    status: Arc<StatusCell>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    /// When there was nothing left to send and it was to stop.
    stopping_since: Option<Instant>,
    waits: Waits,
    /// Records of a batch; fewer while a receiver refuses larger ones.
    most: usize,
    /// What the receiver last had to say.
    words: Option<String>,
}

impl<T: TrailReader> Shipper<T> {
    pub(crate) fn new(
        config: &ExportConfig,
        file: CursorFile,
        trail: T,
        status: Arc<StatusCell>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            name: config.name.clone(),
            tuning: config.tuning,
            supply: Supply::new(trail),
            file,
            cursor: Cursor::begin(String::new()),
            is_unsaved: false,
            sender: Sender::new(config),
            status,
            clock,
            stop,
            stopping_since: None,
            waits: Waits::new(config.tuning),
            most: config.tuning.max_records.max(1),
            words: None,
        }
    }

    /// Runs until it is told to stop and there is nothing left, or nothing left that can be sent.
    pub(crate) async fn run(&mut self) -> Stopping {
        for path in self.sender.secrets().exposed() {
            let (exporter, path) = (self.name.as_str(), path.display());
            tracing::warn!(code = "export_secret_exposed", exporter, %path, "other users can read a secret of the exporter; set its mode to 0600");
        }
        while let Err(fault) = self.begin() {
            if let Err(stopping) = self.failed(&unreadable(&fault)).await {
                return stopping;
            }
        }
        loop {
            if let Err(stopping) = self.step().await {
                return stopping;
            }
        }
    }

    /// One batch, or one look at a trail that stands still.
    async fn step(&mut self) -> Result<(), Stopping> {
        let bounds = Bounds {
            records: self.most,
            bytes: self.tuning.max_bytes,
            until: self.cursor.sending,
        };
        match self.supply.batch(bounds) {
            Ok(Some(batch)) => self.deliver(batch).await,
            Ok(None) => self.idle().await,
            Err(fault) => self.failed(&unreadable(&fault)).await,
        }
    }

    /// Waits for records; told to stop, only for those that are written already.
    async fn idle(&mut self) -> Result<(), Stopping> {
        self.glance();
        if !self.stop.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(self.tuning.poll) => {}
                () = self.stop.cancelled() => {}
            }
            return Ok(());
        }
        let since = *self.stopping_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SETTLE {
            return Err(Stopping);
        }
        tokio::time::sleep(self.tuning.poll.min(HASTE)).await;
        Ok(())
    }

    /// Sends a batch until it is acknowledged.
    async fn deliver(&mut self, mut batch: Batch) -> Result<(), Stopping> {
        let missing = batch.first_seq().saturating_sub(self.cursor.next_seq());
        if missing > 0 {
            let (exporter, first, next) = (
                self.name.as_str(),
                self.cursor.next_seq(),
                batch.first_seq(),
            );
            tracing::error!(
                code = "export_records_missing",
                exporter,
                first,
                next,
                missing,
                "audit records were gone from disk before they were exported"
            );
        }
        loop {
            self.note_sending(&batch);
            if let Some(accepted) = self.attempts(&mut batch).await? {
                self.cursor.missing = self.cursor.missing.saturating_add(missing);
                self.acknowledged(&batch, accepted);
                // Slowly: whoever refused larger ones refuses them again.
                let more = self.most.saturating_add((self.most / 8).max(1));
                self.most = more.min(self.tuning.max_records.max(1));
                return Ok(());
            }
        }
    }

    /// Sends a batch until it is acknowledged (`Some`), or has become smaller.
    async fn attempts(&mut self, batch: &mut Batch) -> Result<Option<Accepted>, Stopping> {
        let parcel = match self.sender.pack(&self.cursor.log_id, batch) {
            Ok(parcel) => parcel,
            Err(fault) => return self.failed(&unreadable(&fault)).await.map(|()| None),
        };
        let whole = batch.len();
        while batch.len() == whole {
            self.glance();
            match self.sender.attempt(&parcel, self.clock.wall_ms()).await {
                Ok(accepted) => return Ok(Some(accepted)),
                Err(fault) => {
                    let fault = self.narrow(fault, batch);
                    self.failed(&fault).await?;
                }
            }
        }
        Ok(None)
    }

    /// Fewer records next time, so that what the receiver refuses is found and the others arrive. A record that is
    /// refused alone stays where it is.
    fn narrow(&mut self, fault: Fault, batch: &mut Batch) -> Fault {
        if fault.retry != Retry::Narrower {
            return fault;
        }
        if batch.len() > 1 {
            self.supply.give_back(batch.halve());
            self.most = batch.len();
            return fault;
        }
        let detail = format!("record {} alone: {}", batch.first_seq(), fault.detail);
        Fault::new(fault.code, Retry::Slowly, detail)
    }

    fn acknowledged(&mut self, batch: &Batch, accepted: Accepted) {
        let sent = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let rejected = accepted.rejected.min(sent);
        let (exporter, words) = (self.name.as_str(), accepted.words.as_deref().unwrap_or(""));
        let (first_seq, last_seq) = (batch.first_seq(), batch.last_seq());
        if rejected > 0 {
            tracing::error!(
                code = "export_records_rejected",
                exporter,
                rejected,
                first_seq,
                last_seq,
                words,
                "the receiver took note of audit records and refused them for good"
            );
        } else if accepted.words != self.words && accepted.words.is_some() {
            tracing::warn!(
                code = "export_receiver_advice",
                exporter,
                words,
                "the receiver took the audit records, and has something to say"
            );
        }
        self.words = accepted.words;
        self.cursor.acknowledged = Some(Place {
            seq: last_seq,
            // The batch was read as records, so it reads as such again.
            hash: batch.last_hash().unwrap_or_default(),
        });
        self.cursor.rejected = self.cursor.rejected.saturating_add(rejected);
        self.cursor.sending = None;
        self.save();
        self.waits.reset();
        self.publish();
        self.status.delivered(self.clock.unix().0);
        self.glance();
    }

    /// A batch that is on its way is known after a restart, so that it gets the same id again.
    fn note_sending(&mut self, batch: &Batch) {
        let last = Some(batch.last_seq());
        if self.sender.names_batches() && self.cursor.sending != last {
            self.cursor.sending = last;
            self.save();
        }
    }

    /// A cursor that cannot be written does not hold the export up: after a restart, more is sent twice.
    fn save(&mut self) {
        let saved = self.file.save(&self.cursor);
        let exporter = self.name.as_str();
        match (&saved, self.is_unsaved) {
            (Err(error), false) => {
                tracing::warn!(code = "export_cursor_unsaved", exporter, %error, "the cursor cannot be written: after a restart, records are exported twice")
            }
            (Ok(()), true) => tracing::info!(
                code = "export_cursor_saved",
                exporter,
                "the cursor is written again"
            ),
            _ => {}
        }
        self.is_unsaved = saved.is_err();
    }

    /// The last words.
    pub(crate) fn say_end(&mut self) {
        self.glance();
        let (exporter, pending) = (self.name.as_str(), self.status.get().pending);
        if pending > 0 {
            tracing::warn!(
                code = "export_pending_at_stop",
                exporter,
                pending,
                "audit records are exported after the next start"
            );
        }
    }

    fn publish(&self) {
        let Cursor {
            rejected, missing, ..
        } = self.cursor;
        let acknowledged = self.cursor.acknowledged.as_ref().map(|place| place.seq);
        self.status.position(acknowledged, rejected, missing);
    }

    fn glance(&mut self) {
        // What is wrong with the trail is said when it is read.
        if let Ok(last) = self.supply.last_seq() {
            self.status.progress(last, Instant::now());
        }
    }

    /// Says what happened and waits. Told to stop, it tries once more, and again only what may pass by itself.
    async fn failed(&mut self, fault: &Fault) -> Result<(), Stopping> {
        self.status
            .failed(fault, self.clock.unix().0, Instant::now());
        let wait = self.waits.next(fault.retry);
        if self.stop.is_cancelled() {
            if !matches!(fault.retry, Retry::Backoff | Retry::Narrower) {
                return Err(Stopping);
            }
            tokio::time::sleep(wait.min(HASTE)).await;
            return Ok(());
        }
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (fault.is_about_secrets() && self.sender.has_new_files()) {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(GLANCE)) => self.glance(),
                () = self.stop.cancelled() => return match fault.retry {
                    Retry::After(_) => Err(Stopping),
                    _ => Ok(()),
                },
            }
        }
    }
}

fn unreadable(fault: &TrailFault) -> Fault {
    Fault::new(ExportCode::Trail, Retry::Backoff, fault.to_string())
}
