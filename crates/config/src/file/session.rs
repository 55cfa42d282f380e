//! Sessions, as written: what a token is, what each session may use, and what it can be confined to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    form::{AnyOneOrMany, DurationText, OneOrMany, RateText, SizeText},
    issuer::FileIssuer,
};

/// Sessions and what each of them may use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSessions {
    /// A token's life, 1s to 60m. Default 30m.
    pub(crate) ttl: Option<DurationText>,
    /// Further header fields in which a session token may be presented.
    pub(crate) token_headers: Option<AnyOneOrMany<String>>,
    /// What each session may use. Default: no limit.
    pub(crate) limits: Option<FileSessionLimits>,
    /// A session that did nothing for this long is over: 1s to 15m. Default 15m.
    pub(crate) idle: Option<DurationText>,
    /// The longest that a session may live, 1s to 12h. Default: as long as its tokens are renewed.
    pub(crate) lifetime: Option<DurationText>,
    /// What is an anomaly, by amounts alone. Needs at least one budget.
    pub(crate) tripwire: Option<FileTripwire>,
    /// What operators can see of the latest requests of each session. It is in memory alone.
    pub(crate) view: Option<FileView>,
    /// Others whose tokens are taken for session tokens.
    #[serde(default)]
    pub(crate) issuers: Vec<FileIssuer>,
}

/// What each session may use.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSessionLimits {
    /// Requests per window.
    pub(crate) requests: Option<RateText>,
    /// New connections per window.
    pub(crate) connections: Option<RateText>,
    /// Connections open at once.
    #[schemars(range(min = 1))]
    pub(crate) concurrent_connections: Option<u32>,
    /// Bytes sent to upstreams over the session's life.
    pub(crate) bytes_out: Option<SizeText>,
    /// Different hosts over the session's life.
    #[schemars(range(min = 1))]
    pub(crate) distinct_destinations: Option<u32>,
}

/// What is kept of the latest requests of each session.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileView {
    /// How many requests of each session, at most 1000; 0: none. Default 50.
    #[schemars(range(max = 1000))]
    pub(crate) requests: Option<u32>,
    /// How many bytes of each decrypted body, at most 16KiB. Default: no body is kept.
    pub(crate) bodies: Option<SizeText>,
    /// How many bytes of all sessions together, 1MiB to 1GiB. Default 32MiB.
    pub(crate) memory: Option<SizeText>,
}

/// What one session may do within a window before it is an anomaly, which is recorded.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [
    {"required": ["bytes_out"]}, {"required": ["requests"]}, {"required": ["distinct_destinations"]}
]))]
pub(crate) struct FileTripwire {
    /// The window, 1s to 24h. Default 1h.
    pub(crate) window: Option<DurationText>,
    /// Bytes sent to upstreams within the window.
    pub(crate) bytes_out: Option<SizeText>,
    /// Requests within the window; a tunnel that shows none counts as one.
    #[schemars(range(min = 1))]
    pub(crate) requests: Option<u32>,
    /// Different hosts within the window.
    #[schemars(range(min = 1))]
    pub(crate) distinct_destinations: Option<u32>,
    /// Whether an anomaly also ends the session.
    #[serde(default)]
    pub(crate) arm: bool,
}

/// What a session is confined to that was created with this policy's name.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilePolicy {
    /// Hosts, one or a list, each written as under `destinations`.
    pub(crate) destinations: OneOrMany<String>,
    /// What such a session may use, besides `sessions.limits`.
    pub(crate) limits: Option<FileSessionLimits>,
}
