//! What is known of an exporter from outside, and the log lines that say when it changes: once on the way in, once on
//! the way out, and again where it stays bad.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    config::ExporterName,
    fault::{ExportCode, Fault, Retry},
};

/// A failure that lasts is logged again.
const REMIND_AFTER: Duration = Duration::from_secs(600);

/// How an exporter does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExportStatus {
    /// Its name.
    pub name: String,
    /// The last record that the receiver acknowledged.
    pub acknowledged_seq: Option<u64>,
    /// Records that are on disk and not acknowledged.
    pub pending: u64,
    /// Whether a record has been waiting for too long.
    pub behind: bool,
    /// Records that the receiver took note of and refused for good.
    pub rejected: u64,
    /// Records that were gone from disk before they were sent.
    pub missing: u64,
    /// The last failure, also where it is over.
    pub last_error: Option<LastError>,
    /// When the receiver last acknowledged, in seconds since 1970.
    pub last_success: Option<u64>,
}

/// A failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// One of [`ExportCode`].
    pub code: &'static str,
    /// For operators.
    pub detail: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// The status, and who is told about its changes.
#[derive(Debug)]
pub(crate) struct StatusCell {
    inner: Mutex<Inner>,
    behind_after: Duration,
}

#[derive(Debug)]
struct Inner {
    status: ExportStatus,
    /// What is wrong now, and when that was last logged.
    failing: Option<(ExportCode, Instant)>,
    /// The newest record at some moment: once it is acknowledged, what was pending then has arrived.
    mark: Option<(u64, Instant)>,
}

impl StatusCell {
    pub(crate) fn new(name: &ExporterName, behind_after: Duration) -> Self {
        Self {
            inner: Mutex::new(Inner {
                status: ExportStatus {
                    name: name.to_string(),
                    acknowledged_seq: None,
                    pending: 0,
                    behind: false,
                    rejected: 0,
                    missing: 0,
                    last_error: None,
                    last_success: None,
                },
                failing: None,
                mark: None,
            }),
            behind_after,
        }
    }

    pub(crate) fn get(&self) -> ExportStatus {
        self.lock().status.clone()
    }

    /// What the cursor says.
    pub(crate) fn position(&self, acknowledged: Option<u64>, rejected: u64, missing: u64) {
        let status = &mut self.lock().status;
        status.acknowledged_seq = acknowledged;
        status.rejected = rejected;
        status.missing = missing;
    }

    pub(crate) fn delivered(&self, unix_seconds: u64) {
        let mut inner = self.lock();
        inner.status.last_success = Some(unix_seconds);
        if inner.failing.take().is_some() {
            let exporter = inner.status.name.as_str();
            tracing::info!(
                code = "export_resumed",
                exporter,
                "the receiver acknowledges again"
            );
        }
    }

    pub(crate) fn failed(&self, fault: &Fault, unix_seconds: u64, now: Instant) {
        let mut inner = self.lock();
        let code = fault.code.as_str();
        inner.status.last_error = Some(LastError {
            code,
            detail: fault.detail.clone(),
            at: unix_seconds,
        });
        let is_new = inner.failing.is_none_or(|(before, logged)| {
            before != fault.code || now.saturating_duration_since(logged) >= REMIND_AFTER
        });
        if !is_new {
            return;
        }
        inner.failing = Some((fault.code, now));
        let (exporter, pending) = (inner.status.name.as_str(), inner.status.pending);
        let detail = fault.detail.as_str();
        if fault.retry == Retry::Slowly {
            tracing::error!(
                code,
                exporter,
                pending,
                detail,
                "audit records are not exported until this is mended"
            );
        } else {
            tracing::warn!(
                code,
                exporter,
                pending,
                detail,
                "audit records wait to be exported"
            );
        }
    }

    /// `last`: the newest record on disk.
    pub(crate) fn progress(&self, last: Option<u64>, now: Instant) {
        let mut inner = self.lock();
        let done = inner
            .status
            .acknowledged_seq
            .map_or(0, |seq| seq.saturating_add(1));
        let there = last.map_or(0, |seq| seq.saturating_add(1));
        inner.status.pending = there.saturating_sub(done);
        let waited = |since: Instant| now.saturating_duration_since(since) >= self.behind_after;
        let newest = last.filter(|_| inner.status.pending > 0);
        let was_behind = inner.status.behind;
        inner.status.behind = match (newest, inner.mark) {
            (None, _) => false,
            (Some(_), None) => was_behind,
            (Some(_), Some((mark, since))) if mark >= done => was_behind || waited(since),
            (Some(_), Some((_, since))) => waited(since),
        };
        inner.mark = match (newest, inner.mark) {
            (Some(_), Some((mark, since))) if mark >= done => Some((mark, since)),
            (newest, _) => newest.map(|seq| (seq, now)),
        };
        let status = &inner.status;
        let (exporter, pending) = (status.name.as_str(), status.pending);
        match (was_behind, status.behind) {
            (false, true) => tracing::warn!(
                code = "export_behind",
                exporter,
                pending,
                "the exporter falls behind the audit trail"
            ),
            (true, false) => tracing::info!(
                code = "export_caught_up",
                exporter,
                pending,
                "the exporter keeps up with the audit trail again"
            ),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exporter_is_behind_when_a_record_waits_too_long_and_not_because_there_is_always_one_waiting()
     {
        let cell = StatusCell::new(&ExporterName::new("x").unwrap(), Duration::from_secs(30));
        let begin = Instant::now();
        let at = |acknowledged, last, seconds| {
            cell.position(acknowledged, 0, 0);
            cell.progress(last, begin + Duration::from_secs(seconds));
            let status = cell.get();
            (status.pending, status.behind)
        };
        assert_eq!(at(None, None, 0), (0, false));
        assert_eq!(at(None, Some(9), 0), (10, false));
        // Always something pending, and always something moving.
        for step in 1..20 {
            assert_eq!(
                at(Some(step * 10), Some(step * 10 + 9), step * 10),
                (9, false)
            );
        }
        assert_eq!(at(Some(200), Some(300), 200), (100, false));
        assert_eq!(at(Some(250), Some(400), 229), (150, false));
        assert_eq!(at(Some(250), Some(400), 230), (150, true));
        // It moves, but what was there thirty seconds ago has not arrived.
        assert_eq!(at(Some(290), Some(400), 240), (110, true));
        // That has arrived late: what came since is not judged yet.
        assert_eq!(at(Some(300), Some(400), 241), (100, true));
        assert_eq!(at(Some(400), Some(401), 250), (1, false));
        assert_eq!(at(Some(401), Some(401), 251), (0, false));
        assert_eq!(at(Some(401), Some(402), 500), (1, false));
    }
}
