//! What operators do, and what becomes of sessions: API Activity and Authentication.

use std::net::IpAddr;

use outgate_journey::{
    record::{ActionRecord, Operator, SessionChange, SessionRecord},
    session::SessionEnd,
};
use serde::Serialize;

use super::{
    Actor, Head, HttpResponse, MAX_NAME, MAX_TEXT, Metadata, Name, OTHER, Uid, User, text,
};
use crate::text::Text;

/// The service that operators call and that gives sessions.
const SERVICE: Text<'static> = Text::new("outgate", MAX_NAME);

/// One call to the operator API.
#[derive(Serialize)]
pub(super) struct ActionEvent<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    severity_id: u8,
    status_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<Text<'a>>,
    action_id: u8,
    disposition_id: u8,
    metadata: Metadata<'a>,
    actor: Actor<'a>,
    api: Api<'a>,
    src_endpoint: Caller,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<[Uid<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_response: Option<HttpResponse>,
    unmapped: Identity<'a>,
}

#[derive(Serialize)]
struct Api<'a> {
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Uid<'a>>,
    service: Name<'static>,
}

#[derive(Serialize)]
struct Caller {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// An endpoint must be called something; a Unix socket's peer has no address.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

#[derive(Serialize)]
struct Identity<'a> {
    identity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<Text<'a>>,
}

pub(super) fn action(record: &ActionRecord) -> ActionEvent<'_> {
    let activity = activity_of(record.operation);
    let refused = record.outcome.err();
    let unlisted = (activity == OTHER).then(|| Text::new(record.operation, MAX_NAME));
    ActionEvent {
        head: Head::new(6003, activity, record.time_unix_ms).named(unlisted),
        severity_id: if refused.is_none() { 1 } else { 2 },
        status_id: if refused.is_none() { 1 } else { 2 },
        status_code: refused,
        status_detail: text(&record.detail, MAX_TEXT),
        action_id: if refused.is_none() { 1 } else { 2 },
        disposition_id: if refused.is_none() { 1 } else { 2 },
        metadata: Metadata::new(
            &["host", "security_control"],
            text(&record.request_id, MAX_NAME),
        ),
        actor: by(&record.operator),
        api: Api {
            operation: record.operation,
            request: text(&record.request_id, MAX_NAME).map(|uid| Uid { uid }),
            service: Name { name: SERVICE },
        },
        src_endpoint: Caller {
            ip: record.client.map(|client| client.ip().to_canonical()),
            port: record.client.map(|client| client.port()),
            name: record.client.is_none().then_some("unix socket"),
        },
        resources: record.target.as_deref().map(|target| {
            [Uid {
                uid: Text::new(target, MAX_NAME),
            }]
        }),
        http_response: record.status.map(|code| HttpResponse { code }),
        unmapped: identity(&record.operator),
    }
}

/// Create, Read, Update or Delete, by the verb behind the last dot.
fn activity_of(operation: &str) -> u8 {
    match operation.rsplit('.').next().unwrap_or_default() {
        "create" | "add" => 1,
        "read" | "list" | "show" | "get" => 2,
        "renew" | "set" | "update" | "rotate" | "reload" | "limits" => 3,
        "delete" | "remove" | "end" | "lift" => 4,
        _ => OTHER,
    }
}

/// One step in the life of a session.
#[derive(Serialize)]
pub(super) struct SessionEvent<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    severity_id: u8,
    status_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<&'static str>,
    metadata: Metadata<'a>,
    actor: Actor<'a>,
    user: User<'a>,
    session: Session<'a>,
    service: Name<'static>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Name<'a>>,
    unmapped: Identity<'a>,
}

#[derive(Serialize)]
struct Session<'a> {
    uid: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_uid: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<Text<'a>>,
    /// In milliseconds, as all times of OCSF.
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_reason: Option<&'static str>,
}

pub(super) fn session(record: &SessionRecord) -> SessionEvent<'_> {
    // Logon, Service Ticket Renew, Logoff.
    let (activity, ended) = match record.change {
        SessionChange::Began => (1, None),
        SessionChange::Renewed => (5, None),
        SessionChange::Ended(end) => (2, Some(end)),
    };
    SessionEvent {
        head: Head::new(3002, activity, record.time_unix_ms),
        severity_id: severity(ended),
        status_id: 1,
        status_code: ended.map(SessionEnd::as_str),
        metadata: Metadata::new(&["host", "security_control"], None),
        actor: by(&record.by),
        user: User {
            uid: Some(Text::new(record.session.as_str(), MAX_NAME)),
            name: record.subject.as_deref().and_then(|s| text(s, MAX_NAME)),
        },
        session: Session {
            uid: Text::new(record.session.as_str(), MAX_NAME),
            credential_uid: record.token_id.as_deref().and_then(|id| text(id, MAX_NAME)),
            issuer: record.issuer.as_deref().and_then(|i| text(i, MAX_NAME)),
            expiration_time: record.expires.map(|at| at.0.saturating_mul(1000)),
            expiration_reason: ended.map(SessionEnd::as_str),
        },
        service: Name { name: SERVICE },
        policy: record.policy.as_deref().map(|policy| Name {
            name: Text::new(policy, MAX_NAME),
        }),
        unmapped: identity(&record.by),
    }
}

/// Informational for what is ordinary, Low for what somebody took away, High for what the tripwire did.
const fn severity(ended: Option<SessionEnd>) -> u8 {
    match ended {
        Some(SessionEnd::Tripwire) => 4,
        Some(SessionEnd::Denied | SessionEnd::KillSwitch) => 2,
        Some(SessionEnd::Ended | SessionEnd::Idle | SessionEnd::LifetimeOver) | None => 1,
    }
}

fn by(operator: &Operator) -> Actor<'_> {
    Actor {
        session: None,
        user: Some(User {
            uid: None,
            name: Some(match operator.name.as_str() {
                "" => Text::new("unknown", MAX_NAME),
                name => Text::new(name, MAX_NAME),
            }),
        }),
    }
}

fn identity(operator: &Operator) -> Identity<'_> {
    Identity {
        identity: operator.kind.as_str(),
        tenant: operator.tenant.as_deref().map(|t| Text::new(t, MAX_NAME)),
    }
}
