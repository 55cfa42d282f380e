//! The denylist as it travels: a set of facts, each with a key that a later fact of the same key replaces.

use std::{collections::HashMap, sync::Arc};

use outgate_journey::{
    policy::SessionLimits,
    session::{SessionEnd, SessionId, UnixSeconds},
};

/// The longest identifier that travels; a token that carried a longer one would not fit a request's head either.
const IDENTIFIER_BYTES: usize = 16 * 1024;

/// One line of the denylist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The kill switch is on: nobody has standing.
    KillSwitch {
        /// Since when.
        since: UnixSeconds,
        /// Who pulled it; what is over 512 bytes is cut off, as in every text that explains.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// A session is over.
    Ended {
        /// Which.
        session: SessionId,
        /// By what.
        how: SessionEnd,
    },
    /// An entry of the denylist.
    Denied {
        /// Who.
        target: Target,
        /// Why.
        reason: Arc<str>,
        /// Who said so.
        by: Arc<str>,
        /// Since when.
        at: UnixSeconds,
        /// The first second at which it no longer holds. `None`: it holds until it is taken off.
        until: Option<UnixSeconds>,
    },
    /// What an operator has limited a session to since it was created.
    Limits {
        /// Which.
        session: SessionId,
        /// To what.
        limits: SessionLimits,
    },
}

/// Whom an entry denies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// A session.
    Session(SessionId),
    /// One token, by its `jti`.
    Token(Arc<str>),
    /// Every session of a subject.
    Subject {
        /// The issuer's `iss`.
        issuer: Arc<str>,
        /// The subject, as the issuer calls it.
        subject: Arc<str>,
    },
}

/// What a fact is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FactKey {
    /// The kill switch.
    KillSwitch,
    /// A session's end.
    Ended(SessionId),
    /// A denial.
    Denied(Target),
    /// A session's limits.
    Limits(SessionId),
}

impl Fact {
    /// What it is about.
    #[must_use]
    pub fn key(&self) -> FactKey {
        match self {
            Self::KillSwitch { .. } => FactKey::KillSwitch,
            Self::Ended { session, .. } => FactKey::Ended(session.clone()),
            Self::Denied { target, .. } => FactKey::Denied(target.clone()),
            Self::Limits { session, .. } => FactKey::Limits(session.clone()),
        }
    }

    /// Whether its identifiers are short enough to travel.
    pub(crate) fn fits(&self) -> bool {
        match self {
            Self::Denied { target, .. } => target.fits(),
            _ => true,
        }
    }
}

impl Target {
    pub(crate) fn fits(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Token(id) => id.len() <= IDENTIFIER_BYTES,
            Self::Subject { issuer, subject } => issuer.len() + subject.len() <= IDENTIFIER_BYTES,
        }
    }
}

/// All that the control plane denies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denylist(HashMap<FactKey, Fact>);

impl Denylist {
    /// The most facts that a denylist may have. One that has more is not sent, and so goes stale, and so stops
    /// injection: a gateway that took a part of it would let the rest pass.
    pub const MAX_FACTS: usize = 1_000_000;

    /// Adds a fact, in place of one with its key.
    pub fn insert(&mut self, fact: Fact) {
        self.0.insert(fact.key(), fact);
    }

    /// Takes a fact off.
    pub fn remove(&mut self, key: &FactKey) {
        self.0.remove(key);
    }

    /// The fact of this key.
    #[must_use]
    pub fn get(&self, key: &FactKey) -> Option<&Fact> {
        self.0.get(key)
    }

    /// Its facts, in no order.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Set(fact) => self.insert(fact),
            Change::Removed(key) => self.remove(&key),
        }
    }
}

impl FromIterator<Fact> for Denylist {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        Self(facts.into_iter().map(|fact| (fact.key(), fact)).collect())
    }
}

/// One step from a denylist to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Set(Fact),
    Removed(FactKey),
}
