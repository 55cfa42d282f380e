//! What one gateway tells another about who has no standing, and what a gateway does that is told.

use std::{collections::HashMap, sync::Arc};

use outgate_journey::{
    policy::SessionLimits,
    session::{SessionEnd, SessionId, TokenClaims},
};
use outgate_store::{DenyEntry, KillSwitch, Steady, StoredDenial};

use super::{Sessions, denials::Denials, live::Live};

/// For how long other gateways are told of an ending of a session whose tokens are ours: twice a token's life (S1).
const TOLD_SECONDS: u64 = 2 * 3600;

/// Everything that a data plane refuses by. Whole: what is not in it is not refused.
///
/// Endings by the clock of identities of external issuers are not in it: each gateway keeps time for those it serves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DenylistSnapshot {
    /// [`Sessions::changes`] at the time; if it has moved since, there is a later one.
    pub version: u64,
    /// What is over.
    pub ended: Vec<EndedSession>,
    /// The denylist. An entry is in force for as long as it is here, whatever its `until` says.
    pub denied: Vec<DenyEntry>,
    /// The kill switch, if it is on.
    pub kill: Option<KillSwitch>,
    /// What operators have limited sessions to.
    pub limits: Vec<(SessionId, SessionLimits)>,
}

/// A session that is over for every token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// Which.
    pub id: SessionId,
    /// What ended it.
    pub cause: SessionEnd,
}

/// What a control plane said last.
#[derive(Default)]
pub(super) struct Followed {
    is_killed: bool,
    ended: HashMap<SessionId, SessionEnd>,
    denials: Denials,
    pub(super) limits: HashMap<SessionId, Arc<SessionLimits>>,
}

impl Followed {
    fn new(snapshot: &DenylistSnapshot) -> Self {
        let denials = Denials::default();
        for entry in &snapshot.denied {
            denials.put(&StoredDenial {
                entry: entry.clone(),
                lapses: None,
            });
        }
        let ended = snapshot.ended.iter();
        let limits = snapshot.limits.iter();
        Self {
            is_killed: snapshot.kill.is_some(),
            ended: ended.map(|ended| (ended.id.clone(), ended.cause)).collect(),
            denials,
            limits: limits
                .map(|(id, limits)| (id.clone(), Arc::new(*limits)))
                .collect(),
        }
    }

    pub(super) fn refuse(&self, claims: &TokenClaims) -> Option<SessionEnd> {
        if self.is_killed {
            return Some(SessionEnd::KillSwitch);
        }
        if let Some(cause) = self.ended.get(&claims.session) {
            return Some(*cause);
        }
        let is_denied = self.denials.refuse(claims, Steady::default);
        is_denied.then_some(SessionEnd::Denied)
    }

    /// What takes the standing of a whole session away.
    pub(super) fn covers(&self, live: &Live) -> Option<SessionEnd> {
        if self.is_killed {
            return Some(SessionEnd::KillSwitch);
        }
        if let Some(cause) = self.ended.get(&live.id) {
            return Some(*cause);
        }
        let is_denied = self
            .denials
            .covers(&live.id, &live.origin, Steady::default());
        is_denied.then_some(SessionEnd::Denied)
    }

    fn cut(&self, live: &Live) {
        match self.covers(live) {
            Some(why) => live.cut(why),
            None => live.cut_where(SessionEnd::Denied, |token_id| {
                self.denials.covers_token(token_id, Steady::default())
            }),
        }
    }
}

impl Sessions {
    /// All that a gateway that follows this one needs.
    #[must_use]
    pub fn snapshot(&self) -> DenylistSnapshot {
        // Read first: what changes while the rest is read moves it on, and is sent again.
        let version = *self.version.borrow();
        let now = self.time.steady();
        let mut ended = self.endings.whole();
        ended.retain(|ending| !ending.own || now.0 < ending.began.0.saturating_add(TOLD_SECONDS));
        let limits = self.lives();
        let limits = limits
            .iter()
            .filter(|live| live.over.get().is_none())
            .filter_map(|live| Some((live.id.clone(), *live.limits.load().as_deref()?)));
        DenylistSnapshot {
            version,
            ended: ended
                .into_iter()
                .map(|ending| EndedSession {
                    id: ending.id,
                    cause: ending.cause,
                })
                .collect(),
            denied: self.denials.in_force(now, |_| true),
            kill: self.kill_switch(),
            limits: limits.collect(),
        }
    }

    /// Takes over what a control plane says, in the place of all that it said before, and cuts what is cut by it. What
    /// was revoked here stays revoked.
    pub fn apply(&self, snapshot: &DenylistSnapshot) {
        let followed = Arc::new(Followed::new(snapshot));
        self.followed.store(Some(Arc::clone(&followed)));
        for live in self.lives() {
            followed.cut(&live);
        }
        self.changed();
    }
}
