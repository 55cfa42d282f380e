//! The records of the operator's side: who asked for what, what became of sessions, and what was out of the ordinary.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    session::{SessionEnd, SessionId, UnixSeconds},
    tripwire::Overrun,
};

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// What it is called: a user id, a token's name in the file, a claim. Never a token.
    pub name: String,
    /// How that was proved.
    pub kind: OperatorKind,
    /// Whose sessions it may touch; `None`: everybody's.
    pub tenant: Option<String>,
}

impl Operator {
    /// The gateway itself: what its clocks and its tripwire do.
    #[must_use]
    pub fn itself() -> Self {
        Self {
            name: "outgate".to_owned(),
            kind: OperatorKind::Itself,
            tenant: None,
        }
    }
}

/// How it was proved who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorKind {
    /// By the kernel: the peer of the Unix socket.
    Local,
    /// By a bearer token from a file.
    Token,
    /// By an identity provider's token.
    Oidc,
    /// By the signature of a webhook.
    Webhook,
    /// By the client certificate of another gateway.
    Gateway,
    /// The gateway itself.
    Itself,
    /// Not at all.
    Nobody,
}

impl OperatorKind {
    /// The word used in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Token => "token",
            Self::Oidc => "oidc",
            Self::Webhook => "webhook",
            Self::Gateway => "gateway",
            Self::Itself => "itself",
            Self::Nobody => "nobody",
        }
    }
}

/// An operator's call, carried out or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionRecord {
    /// Also in the answer.
    pub request_id: String,
    /// When it arrived, in milliseconds since 1970.
    pub time_unix_ms: u64,
    /// Who asked.
    pub operator: Operator,
    /// From where; `None`: the Unix socket.
    pub client: Option<SocketAddr>,
    /// For what: `session.create`, `deny.add`, …
    pub operation: &'static str,
    /// On what: a session's id, a tenant, a key's id; at most 255 bytes.
    pub target: Option<String>,
    /// What became of it: a stable code where it was refused.
    pub outcome: Result<(), &'static str>,
    /// The status that was answered.
    pub status: Option<u16>,
    /// What there is to say about it; at most 1,024 bytes.
    pub detail: String,
}

/// What became of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// When, in milliseconds since 1970.
    pub time_unix_ms: u64,
    /// Which.
    pub session: SessionId,
    /// What.
    pub change: SessionChange,
    /// The token that was issued or first seen.
    pub token_id: Option<Arc<str>>,
    /// When that token ends.
    pub expires: Option<UnixSeconds>,
    /// Who issued the token, where it was not this gateway.
    pub issuer: Option<Arc<str>>,
    /// What that issuer calls the session.
    pub subject: Option<Arc<str>>,
    /// The policy that it is confined to.
    pub policy: Option<String>,
    /// Who did it.
    pub by: Operator,
}

impl SessionRecord {
    /// A change that no operator made, with everything else unknown.
    #[must_use]
    pub fn by_itself(session: &SessionId, change: SessionChange, time_unix_ms: u64) -> Self {
        Self {
            time_unix_ms,
            session: session.clone(),
            change,
            token_id: None,
            expires: None,
            issuer: None,
            subject: None,
            policy: None,
            by: Operator::itself(),
        }
    }
}

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionChange {
    /// It was created, or an external one was seen for the first time.
    Began,
    /// It was given another token.
    Renewed,
    /// It is over.
    Ended(SessionEnd),
}

/// A session ran into the tripwire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnomalyRecord {
    /// When, in milliseconds since 1970.
    pub time_unix_ms: u64,
    /// Which session.
    pub session: SessionId,
    /// Over which budget, and how far.
    pub overrun: Overrun,
    /// The length of the window, in seconds.
    pub window_seconds: u64,
    /// Whether the session was ended for it.
    pub armed: bool,
}
