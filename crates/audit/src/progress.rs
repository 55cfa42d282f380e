//! What the writer and those who hand in records tell each other: how many were accepted, how many are on disk, and
//! whether it is safe to act.

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::store::StoreFault;

/// Between two attempts on a failing store.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// How long a failing store is still tried once nobody holds the log.
const LAST_TRIES: Duration = Duration::from_secs(2);

/// What the writer and the callers tell each other.
#[derive(Debug)]
pub(crate) struct Progress {
    accepted: AtomicU64,
    durable: AtomicU64,
    failing: AtomicBool,
    closed: AtomicBool,
    gone: AtomicBool,
    /// When the writer began what it is doing on the disk, in milliseconds after `began`; 0: nothing.
    busy_since: AtomicU64,
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
    /// For who waits without a thread: told whatever `changed` is told.
    told: watch::Sender<()>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            accepted: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            busy_since: AtomicU64::new(0),
            began: Instant::now(),
            state: Mutex::default(),
            changed: Condvar::new(),
            told: watch::Sender::new(()),
        }
    }
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

    pub(crate) fn is_open(&self, backlog_limit: u64, slow_after: Duration) -> bool {
        !self.failing.load(Ordering::Acquire)
            && !self.closed.load(Ordering::Acquire)
            && !self.is_gone()
            && self.pending() <= backlog_limit
            && self.busy_for() <= slow_after
    }

    /// How long the disk has not answered.
    fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => self
                .began
                .elapsed()
                .saturating_sub(Duration::from_millis(since)),
        }
    }

    /// The writer turns to the disk, or comes back from it.
    pub(crate) fn set_busy(&self, busy: bool) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.busy_since
            .store(if busy { now.max(1) } else { 0 }, Ordering::Release);
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    fn is_durable(&self, target: u64) -> bool {
        self.durable() >= target
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
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
            if self.is_durable(target) {
                return Ok(());
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if self.is_gone() || left.is_some_and(|left| left.is_zero()) {
                return Err(self.stopped(&state));
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

    /// As [`wait`](Self::wait), without a thread that waits.
    pub(crate) async fn waited(&self, target: u64, deadline: Duration) -> Result<(), Stopped> {
        // Subscribed before the first look, so that nothing is told in between.
        let mut told = self.told.subscribe();
        let until = async {
            while !self.is_durable(target) && !self.is_gone() {
                if told.changed().await.is_err() {
                    return;
                }
            }
        };
        // What is durable by the deadline counts, whoever was faster.
        let _ = tokio::time::timeout(deadline, until).await;
        if self.is_durable(target) {
            return Ok(());
        }
        Err(self.stopped(&self.state()))
    }

    fn stopped(&self, state: &State) -> Stopped {
        Stopped {
            writer_gone: self.is_gone(),
            fault: state.fault.clone(),
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
        self.tell();
    }

    /// The writer ends, whatever the reason.
    pub(crate) fn set_gone(&self) {
        let _state = self.state();
        self.gone.store(true, Ordering::Release);
        self.tell();
    }

    fn tell(&self) {
        self.changed.notify_all();
        self.told.send_replace(());
    }

    pub(crate) fn fail(&self, fault: &StoreFault) {
        self.state().fault = Some(fault.to_string());
        if !self.failing.swap(true, Ordering::AcqRel) {
            tracing::error!(code = fault.code(), %fault, "the audit trail cannot be written: credentials are held back");
        }
    }

    pub(crate) fn recover(&self) {
        self.state().fault = None;
        if self.failing.swap(false, Ordering::AcqRel) {
            tracing::info!(
                code = "audit_recovered",
                "the audit trail is written again; nothing was lost"
            );
        }
    }

    /// Waits between two attempts; says whether another one is worth it.
    pub(crate) fn may_retry(&self) -> bool {
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
