//! What guests do: HTTP Activity and Network Activity.

use std::net::IpAddr;

use outgate_journey::{
    denial::{DenyCode, Fault},
    record::{DecisionRecord, Ending, Entry, Verdict},
};
use serde::Serialize;

use super::{Actor, Head, HttpResponse, MAX_NAME, MAX_TEXT, Metadata, OTHER, Uid, User, text};
use crate::text::Text;

const MAX_METHOD: usize = 32;

/// One decision.
#[derive(Serialize)]
pub(super) struct TrafficEvent<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    duration: u64,
    severity_id: u8,
    status_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<Text<'a>>,
    action_id: u8,
    disposition_id: u8,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Actor<'a>>,
    src_endpoint: Endpoint<'a>,
    dst_endpoint: Endpoint<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    firewall_rule: Option<Uid<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_request: Option<HttpRequest<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_response: Option<HttpResponse>,
    traffic: Traffic,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Endpoint<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// An endpoint must be called something; this is for one that was never named.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

#[derive(Serialize)]
struct HttpRequest<'a> {
    uid: Text<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_method: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<Url<'a>>,
}

#[derive(Serialize)]
struct Url<'a> {
    scheme: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    path: Text<'a>,
}

#[derive(Serialize)]
struct Traffic {
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Serialize)]
struct Unmapped<'a> {
    entry: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    posture: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    injected: Option<Text<'a>>,
    scrubbed: u64,
    /// The status that a refused tunnel was answered with: Network Activity has no place for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    decided_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_us: Option<u64>,
    ending: &'static str,
}

/// The OCSF event of a decision.
pub(super) fn event(record: &DecisionRecord) -> TrafficEvent<'_> {
    let class = Class::of(record);
    let activity_id = class.activity(record);
    let code = deny_code(record);
    let unlisted = record
        .method
        .as_deref()
        .filter(|_| activity_id == OTHER)
        .map(|method| Text::new(method, MAX_METHOD));
    TrafficEvent {
        head: Head::new(class.uid(), activity_id, record.time_unix_ms).named(unlisted),
        duration: whole(record.ended_after.as_millis()),
        severity_id: severity(record),
        status_id: if code.is_none() && record.ending == Ending::Completed {
            1
        } else {
            2
        },
        status_code: code.map(DenyCode::as_str),
        status_detail: text(&record.detail, MAX_TEXT),
        action_id: if record.verdict == Verdict::Allowed {
            1
        } else {
            2
        },
        disposition_id: disposition(record),
        metadata: Metadata::new(
            &["host", "security_control"],
            text(&record.request_id, MAX_NAME),
        ),
        actor: actor(record),
        src_endpoint: Endpoint {
            hostname: None,
            ip: Some(record.client.ip().to_canonical()),
            port: Some(record.client.port()),
            name: None,
        },
        dst_endpoint: destination(record),
        firewall_rule: record.rule.as_deref().map(|rule| Uid {
            uid: Text::new(rule, MAX_NAME),
        }),
        http_request: (class == Class::Http).then(|| http_request(record)),
        http_response: record
            .status
            .filter(|_| class == Class::Http)
            .map(|code| HttpResponse { code }),
        traffic: Traffic {
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
        },
        unmapped: unmapped(record, class),
    }
}

/// The session, or whoever called from outside.
fn actor(record: &DecisionRecord) -> Option<Actor<'_>> {
    let session = record.session.as_ref().map(|session| Uid {
        uid: Text::new(session.as_str(), MAX_NAME),
    });
    let user = record.caller.as_ref().map(|caller| User {
        uid: None,
        name: text(&caller.subject, MAX_NAME),
    });
    (session.is_some() || user.is_some()).then_some(Actor { session, user })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Network,
    Http,
}

impl Class {
    const fn of(record: &DecisionRecord) -> Self {
        match record.entry {
            Entry::Connect
            | Entry::Transparent
            | Entry::Dns
            | Entry::Namespace
            | Entry::Listener => Self::Network,
            Entry::AbsoluteForm
            | Entry::Bumped
            | Entry::TunnelledPlain
            | Entry::TransparentPlain
            | Entry::Inbound
            | Entry::InboundPlain => Self::Http,
        }
    }

    const fn uid(self) -> u32 {
        match self {
            Self::Network => 4001,
            Self::Http => 4002,
        }
    }

    fn activity(self, record: &DecisionRecord) -> u8 {
        match (self, record.verdict) {
            (Self::Http, _) => http_activity(record.method.as_deref()),
            // Traffic or Reset; Fail or Refuse.
            (Self::Network, Verdict::Allowed) if matches!(record.ending, Ending::Cut(_)) => 3,
            (Self::Network, Verdict::Allowed) => 6,
            (Self::Network, Verdict::Denied(code)) => match code.fault() {
                Fault::Upstream | Fault::Gateway => 4,
                Fault::Client | Fault::Policy => 5,
            },
        }
    }
}

fn http_activity(method: Option<&str>) -> u8 {
    match method {
        Some("CONNECT") => 1,
        Some("DELETE") => 2,
        Some("GET") => 3,
        Some("HEAD") => 4,
        Some("OPTIONS") => 5,
        Some("POST") => 6,
        Some("PUT") => 7,
        Some("TRACE") => 8,
        Some("PATCH") => 9,
        Some(_) => OTHER,
        None => 0,
    }
}

const fn deny_code(record: &DecisionRecord) -> Option<DenyCode> {
    match (record.verdict, record.ending) {
        (Verdict::Denied(code), _) | (Verdict::Allowed, Ending::Cut(code)) => Some(code),
        (Verdict::Allowed, Ending::Completed | Ending::Aborted) => None,
    }
}

/// Informational for what was let out, Low for a refusal, Medium where the gateway failed to do its part.
fn severity(record: &DecisionRecord) -> u8 {
    match deny_code(record).map(DenyCode::fault) {
        None => 1,
        Some(Fault::Client | Fault::Policy | Fault::Upstream) => 2,
        Some(Fault::Gateway) => 3,
    }
}

/// Allowed, Blocked, or Access Revoked for what was let out and then cut.
const fn disposition(record: &DecisionRecord) -> u8 {
    match (record.verdict, record.ending) {
        (Verdict::Denied(_), _) => 2,
        (Verdict::Allowed, Ending::Cut(_)) => 24,
        (Verdict::Allowed, Ending::Completed | Ending::Aborted) => 1,
    }
}

fn destination(record: &DecisionRecord) -> Endpoint<'_> {
    let hostname = record.host.as_deref().and_then(|host| text(host, MAX_NAME));
    let unnamed = hostname.is_none() && record.upstream.is_none();
    Endpoint {
        hostname,
        ip: record.upstream.map(|upstream| upstream.ip().to_canonical()),
        port: record
            .port
            .or(record.upstream.map(|upstream| upstream.port())),
        name: unnamed.then_some("unknown"),
    }
}

fn http_request(record: &DecisionRecord) -> HttpRequest<'_> {
    HttpRequest {
        uid: Text::new(&record.request_id, MAX_NAME),
        // The schema lists the methods that it knows; another one is the activity's name.
        http_method: record
            .method
            .as_deref()
            .filter(|method| http_activity(Some(method)) != OTHER)
            .map(|method| Text::new(method, MAX_METHOD)),
        version: record.http_version,
        url: record.path.as_deref().map(|path| Url {
            scheme: if matches!(record.entry, Entry::Bumped | Entry::Inbound) {
                "https"
            } else {
                "http"
            },
            hostname: record.host.as_deref().map(|host| Text::new(host, MAX_NAME)),
            port: record.port,
            path: Text::new(path, MAX_TEXT),
        }),
    }
}

fn unmapped(record: &DecisionRecord, class: Class) -> Unmapped<'_> {
    Unmapped {
        entry: record.entry.as_str(),
        posture: record.posture,
        token_id: record.token_id.as_deref().map(|id| Text::new(id, MAX_NAME)),
        issuer: record
            .caller
            .as_ref()
            .map(|caller| Text::new(&caller.issuer, MAX_NAME)),
        injected: record
            .injected
            .as_ref()
            .map(|name| Text::new(name.as_str(), MAX_NAME)),
        scrubbed: record.scrubbed,
        status: record.status.filter(|_| class == Class::Network),
        decided_us: whole(record.decided_after.as_micros()),
        answered_us: record.answered_after.map(|after| whole(after.as_micros())),
        ending: match record.ending {
            Ending::Completed => "completed",
            Ending::Aborted => "aborted",
            Ending::Cut(_) => "cut",
        },
    }
}

fn whole(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
