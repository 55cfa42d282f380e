//! What an identity may do: a closed set of scopes. An identity without a scope may do nothing but prove who it is.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One right.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Scope {
    /// Create and renew sessions, and end them, of the identity's own tenant.
    #[serde(rename = "session:create")]
    SessionCreate,
    /// See sessions, the denylist and the kill switch.
    #[serde(rename = "session:read")]
    SessionRead,
    /// End, kill, deny, take back a denial, lift the kill switch, limit.
    #[serde(rename = "revoke")]
    Revoke,
    /// See and reload the policy, set quotas, rotate keys.
    #[serde(rename = "policy")]
    Policy,
    /// Read and verify the audit trail.
    #[serde(rename = "audit:read")]
    AuditRead,
}

impl Scope {
    /// Every scope.
    pub const ALL: &'static [Self] = &[
        Self::SessionCreate,
        Self::SessionRead,
        Self::Revoke,
        Self::Policy,
        Self::AuditRead,
    ];

    /// The word used in configuration, answers and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionCreate => "session:create",
            Self::SessionRead => "session:read",
            Self::Revoke => "revoke",
            Self::Policy => "policy",
            Self::AuditRead => "audit:read",
        }
    }

    /// The scope of this word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::SessionCreate => 1,
            Self::SessionRead => 1 << 1,
            Self::Revoke => 1 << 2,
            Self::Policy => 1 << 3,
            Self::AuditRead => 1 << 4,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Some scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

impl Scopes {
    /// All of them.
    pub(crate) fn all() -> Self {
        Scope::ALL.iter().copied().collect()
    }

    /// Whether one of these is among them.
    pub(crate) fn has_any(self, wanted: &[Scope]) -> bool {
        wanted.iter().any(|scope| self.0 & scope.bit() != 0)
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scope_is_read_back_from_its_word_and_nothing_else_is_one() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.as_str()), Some(*scope));
            let json = serde_json::to_string(scope).unwrap();
            assert_eq!(json, format!("\"{scope}\""));
        }
        for wrong in ["", "Revoke", "session", "*", "session:create "] {
            assert_eq!(Scope::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_set_has_what_was_put_in_and_nothing_else() {
        for own in Scope::ALL {
            let set: Scopes = [*own].into_iter().collect();
            for asked in Scope::ALL {
                assert_eq!(set.has_any(&[*asked]), own == asked);
            }
        }
        assert!(!Scopes::default().has_any(Scope::ALL));
        assert!(!Scopes::all().has_any(&[]));
    }
}
