//! Whether this gateway should be given new work, and how its configuration came to be in force: what is asked every second,
//! so that nothing here waits for anything.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use outgate_control::operator::WaitsFor;
use outgate_journey::{inject::AuditGate, session::UnixSeconds};
use outgate_plane::clock;

use super::core::Core;

/// Why it should not; empty: it should. A denylist that is too old is no reason: all gateways would be without work at once
/// while the control plane is away, and what passes through needs none of it.
pub(super) fn waits_for(core: &Core) -> Vec<WaitsFor> {
    let shared = core.gateway.core();
    let is_writable = core.audit.is_writable() && shared.keeps_records();
    let reasons = [
        (WaitsFor::Listeners, core.opened.get().is_none()),
        (WaitsFor::Stopping, shared.stopping.is_cancelled()),
        (WaitsFor::Audit, !is_writable),
        (WaitsFor::Ca, !core.gateway.ca_is_good()),
        (
            WaitsFor::ControlPlane,
            core.follower.is_some() && !core.reloads.has_document(),
        ),
    ];
    let reasons = reasons.into_iter();
    reasons
        .filter_map(|(reason, holds)| holds.then_some(reason))
        .collect()
}

/// What became of configurations and policies so far.
#[derive(Debug)]
pub(super) struct Reloads {
    since: AtomicU64,
    refused: AtomicU64,
    went_well: AtomicBool,
    has_document: AtomicBool,
}

impl Reloads {
    /// At the start; `has_document`: with what a control plane gave before.
    pub(super) fn new(has_document: bool) -> Self {
        Self {
            since: AtomicU64::new(clock::unix_now().0),
            refused: AtomicU64::new(0),
            went_well: AtomicBool::new(true),
            has_document: AtomicBool::new(has_document),
        }
    }

    /// Notes that one was taken over, or was not.
    pub(super) fn note<E>(&self, taken_over: &Result<(), E>) {
        match taken_over {
            Ok(()) => {
                let UnixSeconds(now) = clock::unix_now();
                self.since.store(now, Ordering::Relaxed);
            }
            Err(_) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.went_well.store(taken_over.is_ok(), Ordering::Relaxed);
    }

    /// Notes that what is in force came from a control plane.
    pub(super) fn note_document(&self) {
        self.has_document.store(true, Ordering::Release);
    }

    /// Whether anything of a control plane's is in force.
    pub(super) fn has_document(&self) -> bool {
        self.has_document.load(Ordering::Acquire)
    }

    /// When what is in force was taken over, in seconds since 1970.
    pub(super) fn in_force_since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// How many were not taken over.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the last one was.
    pub(super) fn went_well(&self) -> bool {
        self.went_well.load(Ordering::Relaxed)
    }
}
