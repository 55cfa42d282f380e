//! What a session may send, as it is used up.

use std::sync::Arc;

use outgate_journey::{
    denial::DenyCode,
    session::{Session, SessionId},
    tripwire::Tripwire,
};

use crate::{Core, Live, limits::SessionUse, tripwire::Seen};

/// The session's upload budget, charged as bytes go out, and what the tripwire makes of them.
#[derive(Clone)]
pub struct Budget {
    core: Arc<Core>,
    session: SessionId,
    used: Arc<SessionUse>,
    limit: Option<u64>,
    wire: Option<Tripwire>,
}

impl Budget {
    /// A session's budget, where the policy bounds or watches what it sends.
    pub fn of(core: &Arc<Core>, live: &Live, session: &Session) -> Option<Self> {
        let limit = live.policy.bounds_of(session).bytes_out;
        let wire = live.policy.tripwire().copied();
        if limit.is_none() && wire.is_none() {
            return None;
        }
        Some(Self {
            core: Arc::clone(core),
            session: session.id().clone(),
            used: core.plane.limits.of(session.id()),
            limit,
            wire,
        })
    }

    /// Counts bytes; `Err` once the budget is used up, or the tripwire has ended the session.
    pub fn charge(&self, bytes: usize) -> Result<(), DenyCode> {
        let bytes = bytes as u64;
        if !self.used.charge(bytes, self.limit) {
            return Err(DenyCode::BytesLimit);
        }
        self.watch(bytes)
    }

    /// Counts bytes that are announced before they are sent; `Err`, and nothing is counted, where the budget has no room
    /// for them, or the tripwire has ended the session.
    pub fn reserve(&self, bytes: u64) -> Result<(), DenyCode> {
        if !self.used.reserve(bytes, self.limit) {
            return Err(DenyCode::BytesLimit);
        }
        self.watch(bytes)
    }

    fn watch(&self, bytes: u64) -> Result<(), DenyCode> {
        let Some(wire) = &self.wire else {
            return Ok(());
        };
        let seen = Seen::BytesOut(bytes);
        self.core.watch(wire, &self.used, &self.session, seen)
    }
}
