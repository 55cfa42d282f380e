//! What a session was given, and what can end it.

use std::{fmt, sync::Arc};

use super::{TokenClaims, is_plain_name};
use crate::{denial::DenyCode, policy::SessionLimits};

/// The name of one of the file's `policies`. 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// Parses a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_plain_name(text).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a session was given when it was created. It narrows what the policy allows and never widens it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The policy that it is confined to; a name that the file does not have allows nothing.
    pub policy: Option<PolicyName>,
    /// Limits beside the policy's own.
    pub limits: SessionLimits,
}

/// What ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionEnd {
    /// Its owner, or an operator.
    Ended,
    /// An entry of the denylist.
    Denied,
    /// The kill switch, which is on.
    KillSwitch,
    /// It did nothing for too long (S5).
    Idle,
    /// It lived for as long as a session may (S5).
    LifetimeOver,
    /// It ran into an armed tripwire (S7).
    Tripwire,
}

impl SessionEnd {
    /// Every end.
    pub const ALL: &'static [Self] = &[
        Self::Ended,
        Self::Denied,
        Self::KillSwitch,
        Self::Idle,
        Self::LifetimeOver,
        Self::Tripwire,
    ];

    /// The word used in records, in answers and on disk.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Denied => "denied",
            Self::KillSwitch => "kill_switch",
            Self::Idle => "idle",
            Self::LifetimeOver => "lifetime_over",
            Self::Tripwire => "tripwire",
        }
    }

    /// The end of this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|end| end.as_str() == text)
    }

    /// What a guest of the session is told.
    #[must_use]
    pub const fn code(self) -> DenyCode {
        match self {
            Self::Ended | Self::Denied | Self::Tripwire => DenyCode::SessionRevoked,
            Self::KillSwitch => DenyCode::KillSwitch,
            Self::Idle => DenyCode::SessionIdle,
            Self::LifetimeOver => DenyCode::SessionLifetime,
        }
    }
}

/// Knows which sessions may go on.
pub trait Denylist {
    /// The session's standing at this moment: what the operator has limited it to since it was created, if anything.
    ///
    /// # Errors
    /// What ended it.
    fn standing(&self, claims: &TokenClaims) -> Result<Option<Arc<SessionLimits>>, SessionEnd>;

    /// Whether what it knows is recent enough to draw credentials by (C7).
    fn is_fresh(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_read_back_from_its_word() {
        for end in SessionEnd::ALL {
            assert_eq!(SessionEnd::parse(end.as_str()), Some(*end));
        }
        assert_eq!(SessionEnd::parse("over"), None);
    }
}
