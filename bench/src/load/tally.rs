//! What came of the requests, and whether the window in which they count is open.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::histogram::Histogram;

#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests, messages, events or streams that did what they should.
    pub ok: u64,
    /// Those that did not.
    pub err: u64,
    /// These outside the window too.
    pub err_all: u64,
    pub bytes: u64,
    /// From the moment that a request began.
    pub latency: Histogram,
    /// From the moment that it should have begun.
    pub scheduled: Histogram,
    /// Until a new connection could be used.
    pub handshake: Histogram,
    pub first_error: Option<String>,
}

/// Shared by all connections. What ends while the window is open counts.
#[derive(Debug, Default)]
pub(super) struct Recorder(Mutex<(bool, Tally)>);

impl Recorder {
    pub(super) fn open(&self) {
        self.lock().0 = true;
    }

    /// Closes the window and hands out what was counted.
    pub(super) fn close(&self) -> Tally {
        std::mem::take(&mut *self.lock()).1
    }

    /// A success that moved `bytes` and took `ns`.
    pub(super) fn ok(&self, bytes: u64, ns: u64) {
        self.counted(|tally| {
            tally.ok += 1;
            tally.bytes += bytes;
            tally.latency.record(ns);
        });
    }

    pub(super) fn scheduled(&self, ns: u64) {
        self.counted(|tally| tally.scheduled.record(ns));
    }

    pub(super) fn handshake(&self, ns: u64) {
        self.counted(|tally| tally.handshake.record(ns));
    }

    pub(super) fn error(&self, problem: &io::Error) {
        let mut state = self.lock();
        let open = state.0;
        let tally = &mut state.1;
        tally.err += u64::from(open);
        tally.err_all += 1;
        tally.first_error.get_or_insert_with(|| problem.to_string());
    }

    fn counted(&self, count: impl FnOnce(&mut Tally)) {
        let mut state = self.lock();
        if state.0 {
            count(&mut state.1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, (bool, Tally)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
