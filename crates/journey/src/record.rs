//! The audit record of one decision: plain data, the same for every way in and every plane. It has no field that
//! could hold a secret: no query, no header, no body.

mod operator;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use crate::{denial::DenyCode, policy::CredentialName, session::SessionId};

pub use operator::{
    ActionRecord, AnomalyRecord, Operator, OperatorKind, SessionChange, SessionRecord,
};

/// How the request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// `CONNECT` to the explicit proxy: the tunnel itself.
    Connect,
    /// Absolute-form `http://` to the explicit proxy.
    AbsoluteForm,
    /// A request inside a bumped tunnel.
    Bumped,
    /// A request in clear inside a tunnel.
    TunnelledPlain,
    /// A connection that was captured on its way to an address: the connection itself.
    Transparent,
    /// A request in clear on a captured connection.
    TransparentPlain,
    /// A question to the gateway's name server.
    Dns,
    /// What the session's network namespace refused without asking anybody: how much of it, told once.
    Namespace,
    /// A request to the service that this gateway stands in front of, inside TLS.
    Inbound,
    /// The same in clear.
    InboundPlain,
    /// Bytes that never became a request.
    Listener,
}

impl Entry {
    /// The word used in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::AbsoluteForm => "absolute-form",
            Self::Bumped => "bumped",
            Self::TunnelledPlain => "tunnelled-plain",
            Self::Transparent => "transparent",
            Self::TransparentPlain => "transparent-plain",
            Self::Dns => "dns",
            Self::Namespace => "namespace",
            Self::Inbound => "inbound",
            Self::InboundPlain => "inbound-plain",
            Self::Listener => "listener",
        }
    }
}

/// Who called a service that a gateway stands in front of, by a token that verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who issued the token.
    pub issuer: Arc<str>,
    /// What the caller is called there.
    pub subject: Arc<str>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was let out.
    Allowed,
    /// It was refused, for this reason.
    Denied(DenyCode),
}

/// How an allowed exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both sides finished.
    Completed,
    /// One side went away early.
    Aborted,
    /// The gateway cut it, for this reason.
    Cut(DenyCode),
}

/// One decision, allow or deny.
#[derive(Debug, Clone)]
pub struct DecisionRecord {
    /// Unique within the deployment; in the answer's `x-request-id` and in denial bodies.
    pub request_id: String,
    /// Wall-clock start, in milliseconds since 1970.
    pub time_unix_ms: u64,
    /// The way in.
    pub entry: Entry,
    /// The guest's socket.
    pub client: SocketAddr,
    /// Whose request.
    pub session: Option<SessionId>,
    /// Which of its tokens, or which of the caller's.
    pub token_id: Option<Arc<str>>,
    /// Who called, where the request came from outside.
    pub caller: Option<Caller>,
    /// What it named, canonical if it could be read, else as written, at most 255 bytes.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// `bump` or `pass-through`, once decided.
    pub posture: Option<&'static str>,
    /// The method, at most 32 bytes.
    pub method: Option<String>,
    /// The path without its query, at most 1,024 bytes.
    pub path: Option<String>,
    /// `HTTP/1.1` or `HTTP/2`, on the client's leg.
    pub http_version: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// Private detail of a denial.
    pub detail: String,
    /// The credential that was attached.
    pub injected: Option<CredentialName>,
    /// How often the credential was taken out of the response.
    pub scrubbed: u64,
    /// The upstream's socket.
    pub upstream: Option<SocketAddr>,
    /// The status that the client got.
    pub status: Option<u16>,
    /// Towards the upstream.
    pub bytes_out: u64,
    /// Towards the client.
    pub bytes_in: u64,
    /// From the request to the verdict.
    pub decided_after: Duration,
    /// From the request to the response head.
    pub answered_after: Option<Duration>,
    /// From the request to the end.
    pub ended_after: Duration,
    /// How it ended.
    pub ending: Ending,
}

impl DecisionRecord {
    /// A record with everything unknown and the verdict of a fault: what is written if nothing else is decided.
    #[must_use]
    pub fn begin(request_id: String, time_unix_ms: u64, entry: Entry, client: SocketAddr) -> Self {
        Self {
            request_id,
            time_unix_ms,
            entry,
            client,
            session: None,
            token_id: None,
            caller: None,
            host: None,
            port: None,
            posture: None,
            method: None,
            path: None,
            http_version: None,
            rule: None,
            verdict: Verdict::Denied(DenyCode::InternalFault),
            detail: String::new(),
            injected: None,
            scrubbed: 0,
            upstream: None,
            status: None,
            bytes_out: 0,
            bytes_in: 0,
            decided_after: Duration::ZERO,
            answered_after: None,
            ended_after: Duration::ZERO,
            ending: Ending::Completed,
        }
    }
}

/// Something that is recorded.
#[derive(Debug, Clone)]
pub enum AuditEvent {
    /// A guest's exchange was decided and has ended.
    Decision(Arc<DecisionRecord>),
    /// An operator asked for something.
    Action(Box<ActionRecord>),
    /// A session began, went on or ended.
    Session(Box<SessionRecord>),
    /// A session ran into the tripwire.
    Anomaly(Box<AnomalyRecord>),
}

/// Where records go. Accepting a record never blocks and never drops it.
pub trait AuditSink {
    /// Takes one record.
    fn record(&self, event: AuditEvent);
}
