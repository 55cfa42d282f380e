//! One record for people. Text that a guest chose is shown with everything escaped that a terminal would obey.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use serde::Deserialize;

use crate::{day::rfc3339, text::is_unsafe_to_show};

/// One record. `Display` is the one-line form: time, verdict, code, session, method, host, path, status and, of what
/// guests do, bytes; `-` where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownRecord {
    /// The line as it stands, without its line break.
    pub raw: String,
    /// Its place in the chain.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub time_unix_ms: u64,
    /// What was decided.
    pub verdict: ShownVerdict,
    /// The deny code.
    pub code: Option<String>,
    /// Whose request.
    pub session: Option<String>,
    /// `connect` for a tunnel, `listener` for a connection that never became a request, else the method; an operator's
    /// operation; for sessions and the log's own records, what happened; for an anomaly, the budget.
    pub method: Option<String>,
    /// What it named, with the port if that is known; for what operators do and for sessions, who did it, as in
    /// `oidc:alice`.
    pub host: Option<String>,
    /// The path; on what an operator acted; the day that was sealed.
    pub path: Option<String>,
    /// The status that the client got.
    pub status: Option<u16>,
    /// Towards the upstream and towards the client, of what guests do.
    pub bytes: Option<(u64, u64)>,
}

/// The verdict, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownVerdict {
    /// It was let out.
    Allowed,
    /// It was let out and then cut.
    Cut,
    /// It was refused.
    Denied,
    /// Not a decision: what became of a session.
    Session,
    /// Not a decision: what was out of the ordinary.
    Anomaly,
    /// Not a decision: what happened to the log itself.
    Log,
}

impl ShownVerdict {
    /// The word in the one-line form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Cut => "cut",
            Self::Denied => "denied",
            Self::Session => "session",
            Self::Anomaly => "anomaly",
            Self::Log => "log",
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    seq: u64,
    #[serde(borrow)]
    record: Event<'a>,
}

#[derive(Deserialize)]
struct Event<'a> {
    class_uid: u32,
    activity_id: u8,
    time: u64,
    action_id: Option<u8>,
    activity_name: Option<String>,
    status_code: Option<String>,
    actor: Option<Actor>,
    api: Option<Api>,
    resources: Option<Vec<Uid>>,
    session: Option<Uid>,
    dst_endpoint: Option<Endpoint>,
    http_request: Option<Request>,
    http_response: Option<Response>,
    traffic: Option<Traffic>,
    #[serde(borrow)]
    unmapped: Option<Unmapped<'a>>,
}

#[derive(Default, Deserialize)]
struct Actor {
    session: Option<Uid>,
    user: Option<User>,
}

#[derive(Deserialize)]
struct Uid {
    uid: String,
}

#[derive(Deserialize)]
struct User {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Api {
    operation: String,
}

#[derive(Deserialize)]
struct Endpoint {
    hostname: Option<String>,
    ip: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Request {
    http_method: Option<String>,
    url: Option<Url>,
}

#[derive(Deserialize)]
struct Url {
    path: Option<String>,
}

#[derive(Deserialize)]
struct Response {
    code: u16,
}

#[derive(Deserialize)]
struct Traffic {
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Default, Deserialize)]
struct Unmapped<'a> {
    #[serde(borrow)]
    entry: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ending: Option<Cow<'a, str>>,
    #[serde(borrow)]
    budget: Option<Cow<'a, str>>,
    #[serde(borrow)]
    day: Option<Cow<'a, str>>,
    #[serde(borrow)]
    identity: Option<Cow<'a, str>>,
    status: Option<u16>,
}

impl ShownRecord {
    pub(crate) fn parse(line: Vec<u8>) -> Option<Self> {
        let raw = String::from_utf8(line).ok()?;
        let Envelope { seq, record } = serde_json::from_str(&raw).ok()?;
        let verdict = record.verdict();
        let unmapped = record.unmapped.unwrap_or_default();
        let actor = record.actor.unwrap_or_default();
        let identity = unmapped.identity.as_deref();
        let who = actor
            .user
            .and_then(|user| user.name)
            .map(|name| match identity {
                Some(identity) => format!("{identity}:{name}"),
                None => name,
            });
        let words = match verdict {
            ShownVerdict::Log => (
                record
                    .activity_name
                    .map(|name| name.to_lowercase().replace(' ', "-")),
                None,
                unmapped.day.map(Cow::into_owned),
            ),
            ShownVerdict::Anomaly => (unmapped.budget.map(Cow::into_owned), None, None),
            ShownVerdict::Session => (
                Some(session_change(record.activity_id).to_owned()),
                who,
                None,
            ),
            _ if record.class_uid == API_ACTIVITY => (
                record.api.map(|api| api.operation),
                who,
                record
                    .resources
                    .and_then(|resources| Some(resources.into_iter().next()?.uid)),
            ),
            _ => {
                let host = record.dst_endpoint.and_then(Endpoint::named);
                match record.http_request {
                    Some(request) => (
                        request.http_method.or(record.activity_name),
                        host,
                        request.url.and_then(|u| u.path),
                    ),
                    None => (unmapped.entry.map(Cow::into_owned), host, None),
                }
            }
        };
        let (method, host, path) = words;
        Some(Self {
            seq,
            time_unix_ms: record.time,
            verdict,
            code: record.status_code,
            session: record.session.or(actor.session).map(|session| session.uid),
            method,
            host,
            path,
            status: record
                .http_response
                .map(|response| response.code)
                .or(unmapped.status),
            bytes: record.traffic.map(|it| (it.bytes_out, it.bytes_in)),
            raw,
        })
    }

    /// The record's time as RFC 3339 in UTC, with milliseconds.
    #[must_use]
    pub fn time(&self) -> String {
        rfc3339(self.time_unix_ms)
    }
}

const AUTHENTICATION: u32 = 3002;
const DETECTION_FINDING: u32 = 2004;
const API_ACTIVITY: u32 = 6003;

impl Event<'_> {
    fn verdict(&self) -> ShownVerdict {
        let ending = self.unmapped.as_ref().and_then(|u| u.ending.as_deref());
        match (self.class_uid, self.action_id) {
            (AUTHENTICATION, _) => ShownVerdict::Session,
            (DETECTION_FINDING, _) => ShownVerdict::Anomaly,
            (_, Some(1)) if ending == Some("cut") => ShownVerdict::Cut,
            (_, Some(1)) => ShownVerdict::Allowed,
            (_, Some(_)) => ShownVerdict::Denied,
            (_, None) => ShownVerdict::Log,
        }
    }
}

/// By the activity of Authentication.
const fn session_change(activity_id: u8) -> &'static str {
    match activity_id {
        1 => "began",
        5 => "renewed",
        2 => "ended",
        _ => "session",
    }
}

impl Endpoint {
    fn named(self) -> Option<String> {
        let host = self.hostname.or(self.ip)?;
        Some(match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    }
}

impl fmt::Display for ShownRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            &self.code,
            &self.session,
            &self.method,
            &self.host,
            &self.path,
        ];
        write!(f, "{} {:<7}", self.time(), self.verdict.as_str())?;
        for word in words {
            f.write_char(' ')?;
            write_word(f, word.as_deref())?;
        }
        match self.status {
            Some(status) => write!(f, " {status}")?,
            None => f.write_str(" -")?,
        }
        match self.bytes {
            Some((out, back)) => write!(f, " out={out} in={back}"),
            None => Ok(()),
        }
    }
}

/// One word: a space inside would let a guest write columns of its own.
fn write_word(f: &mut fmt::Formatter<'_>, word: Option<&str>) -> fmt::Result {
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        return f.write_char('-');
    };
    for c in word.chars() {
        if c == '\\' || c.is_whitespace() || is_unsafe_to_show(c) {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}
