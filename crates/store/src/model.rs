//! What is remembered, as plain data, and the changes to it.

use std::collections::BTreeMap;

use outgate_journey::{
    policy::SessionLimits,
    session::{SessionEnd, SessionId, Terms, TokenOrigin, UnixSeconds},
};
use serde::{Deserialize, Serialize};

/// Seconds on a timeline that never runs back: not when the wall clock is set back, and not across a restart. In the
/// scale of seconds since 1970, and close to them while nobody touches the clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Steady(pub u64);

/// Whom an entry of the denylist refuses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DenyTarget {
    /// One session.
    Session(#[serde(with = "session_id")] SessionId),
    /// One token, by its `jti`.
    Token(String),
    /// Whatever an external issuer says of one subject.
    Subject {
        /// Its `iss`.
        issuer: String,
        /// What it calls the subject.
        subject: String,
    },
}

/// One entry of the denylist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyEntry {
    /// Whom.
    pub target: DenyTarget,
    /// Why, in the operator's words.
    pub reason: String,
    /// The operator.
    pub by: String,
    /// Since when, seconds since 1970.
    pub at: u64,
    /// Until when, seconds since 1970; without it until it is taken off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// The kill switch, while it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillSwitch {
    /// Since when, seconds since 1970.
    pub since: u64,
    /// The operator.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub tenant: Option<String>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The container that it was created for.
    pub container: Option<String>,
    /// What it was given.
    pub terms: Terms,
    /// What an operator set since.
    pub set_limits: Option<SessionLimits>,
    /// When it was created, or first seen.
    pub created: UnixSeconds,
    /// Who created it.
    pub created_by: String,
    /// When its last token ends.
    pub expires: UnixSeconds,
    /// Where its lifetime is counted from.
    pub began: Steady,
    /// When it last did anything.
    pub last_active: Steady,
    /// Who issues its tokens.
    pub origin: TokenOrigin,
}

/// A session that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEnding {
    /// The session, known or not.
    pub id: SessionId,
    /// What ended it.
    pub cause: SessionEnd,
    /// When.
    pub at: UnixSeconds,
    /// The operator, or the gateway itself.
    pub by: String,
    /// `None`: over for every token; else for those that end no later than this.
    pub tokens_until: Option<UnixSeconds>,
    /// Whether the tokens of the session are our own.
    pub own: bool,
    /// When, on the steady timeline.
    pub began: Steady,
    /// When it may be forgotten.
    pub keep_until: Steady,
}

/// An entry of the denylist, and when it lapses on the steady timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDenial {
    /// The entry.
    pub entry: DenyEntry,
    /// `Some` where the entry has an `until`.
    pub lapses: Option<Steady>,
}

/// How far a session has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub id: SessionId,
    /// When it last did anything.
    pub last_active: Steady,
    /// When its last token ends.
    pub expires: UnixSeconds,
}

/// Everything but the denylist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// How far time had got.
    pub floor: Steady,
    /// The sessions.
    pub sessions: Vec<StoredSession>,
    /// What is over.
    pub endings: Vec<StoredEnding>,
    /// The kill switch, if it is on.
    pub kill: Option<KillSwitch>,
    /// Sessions that a tenant may have.
    pub quotas: BTreeMap<String, u32>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A session was created.
    Create(Box<StoredSession>),
    /// A session of an external issuer was seen; replaces what was known of that id.
    Track(Box<StoredSession>),
    /// A session has a token that ends later.
    Renew {
        /// Which.
        id: SessionId,
        /// When.
        expires: UnixSeconds,
    },
    /// An operator limits a session.
    SetLimits {
        /// Which.
        id: SessionId,
        /// To what.
        limits: SessionLimits,
    },
    /// A session is over. An ending for every token is never replaced; one for some tokens is by one for more.
    End(StoredEnding),
    /// An entry is put on the denylist, or replaced.
    Deny(StoredDenial),
    /// An entry is taken off.
    Undeny(DenyTarget),
    /// The kill switch is put on.
    Kill(KillSwitch),
    /// The kill switch is taken off.
    Lift,
    /// A tenant may have this many sessions; `None`: as many as any other.
    SetQuota {
        /// Whose.
        tenant: String,
        /// How many.
        sessions: Option<u32>,
    },
    /// Sessions went on. Those that are not known are left out.
    Progress(Vec<Progress>),
    /// Forgets these sessions, and some of the endings and denials that nobody needs any more.
    Forget(Vec<SessionId>),
}

impl Change {
    /// Whether it takes something away from a session: such a change waits for no other.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::End(_)
            | Self::Deny(_)
            | Self::Undeny(_)
            | Self::Kill(_)
            | Self::Lift
            | Self::SetLimits { .. } => true,
            Self::Create(_)
            | Self::Track(_)
            | Self::Renew { .. }
            | Self::SetQuota { .. }
            | Self::Progress(_)
            | Self::Forget(_) => false,
        }
    }

    /// How many rows it writes, about.
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Progress(sessions) => sessions.len().max(1),
            Self::Forget(sessions) => sessions.len().max(1),
            _ => 1,
        }
    }
}

mod session_id {
    use outgate_journey::session::SessionId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(id: &SessionId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SessionId, D::Error> {
        let text = String::deserialize(from)?;
        SessionId::parse(&text).ok_or_else(|| D::Error::custom("not a session id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_as_one_key_and_nothing_else_is_read() {
        let subject = DenyTarget::Subject {
            issuer: "https://idp.example.org".to_owned(),
            subject: "build".to_owned(),
        };
        for (target, json) in [
            (
                DenyTarget::Session(SessionId::parse("s_1").unwrap()),
                r#"{"session":"s_1"}"#,
            ),
            (DenyTarget::Token("t".to_owned()), r#"{"token":"t"}"#),
            (
                subject,
                r#"{"subject":{"issuer":"https://idp.example.org","subject":"build"}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&target).unwrap(), json);
            assert_eq!(serde_json::from_str::<DenyTarget>(json).unwrap(), target);
        }
        for json in [
            r#"{"session":"no spaces"}"#,
            r#"{"session":1}"#,
            r#"{"host":"a"}"#,
            r#"{"session":"a","token":"b"}"#,
            r#"{"subject":{"issuer":"a","subject":"b","more":1}}"#,
            r#"{}"#,
        ] {
            assert!(serde_json::from_str::<DenyTarget>(json).is_err(), "{json}");
        }
    }
}
