//! The bodies of everything but sessions.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::operator::text::{ID, SAYING, TEXT};

/// What an entry of the denylist covers: exactly one of a session, a token's id, or an issuer's subject.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DenyTargetBody {
    /// A session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// A token's id (`jti`), never the token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// An external issuer, together with `subject`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What that issuer calls the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// `POST /v1/denylist`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["session"] },
    { "required": ["token"] },
    { "required": ["issuer", "subject"] },
]))]
pub struct DenyRequest {
    /// A session's id.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schemars(with = "String", regex(pattern = ID))]
    pub session: Option<String>,
    /// A token's id (`jti`), never the token itself.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schemars(with = "String", regex(pattern = SAYING), length(max = 256))]
    pub token: Option<String>,
    /// An external issuer, together with `subject`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schemars(with = "String", regex(pattern = SAYING), length(max = 1024))]
    pub issuer: Option<String>,
    /// What that issuer calls the session.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::given"
    )]
    #[schemars(with = "String", regex(pattern = SAYING), length(max = 1024))]
    pub subject: Option<String>,
    /// Why; it is recorded.
    #[schemars(regex(pattern = SAYING), length(max = 256))]
    pub reason: String,
    /// When the entry ends, seconds since 1970; never, if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = i64::MAX))]
    pub until: Option<u64>,
}

/// An entry of the denylist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DenyBody {
    /// The session that it covers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The token that it covers, by its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The external issuer, where it covers one of its subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// That subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why.
    pub reason: String,
    /// Who: kind and name.
    pub by: String,
    /// Since when, seconds since 1970.
    pub at: u64,
    /// Until when, if it ends.
    pub until: Option<u64>,
}

/// `GET /v1/denylist`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DenyList {
    /// The entries that a caller may see.
    pub entries: Vec<DenyBody>,
}

/// `POST /v1/kill`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KillAll {
    /// Why; it is recorded.
    #[schemars(regex(pattern = SAYING), length(max = 256))]
    pub reason: String,
}

/// The kill switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KillState {
    /// Whether it is on: then no session may do anything.
    pub on: bool,
    /// Since when, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Who: kind and name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/quotas`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quotas {
    /// The most live sessions of all tenants together.
    pub sessions: Option<u32>,
    /// The most live sessions of a tenant without a quota of its own.
    pub sessions_per_tenant: Option<u32>,
    /// Live sessions.
    pub live: u32,
    /// Tenants that have sessions or a quota of their own.
    pub tenants: BTreeMap<String, TenantQuotaBody>,
}

/// One tenant's quota.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantQuotaBody {
    /// The most live sessions.
    pub sessions: Option<u32>,
    /// Whether that was set for this tenant.
    pub own: bool,
    /// Live sessions.
    pub live: u32,
}

/// `PUT /v1/quotas/{tenant}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetQuota {
    /// The most live sessions; null: back to the configured one.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schemars(schema_with = "count_or_null")]
    pub sessions: Option<u32>,
}

/// `POST /v1/keys/rotate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RotatedKey {
    /// The `kid` that signs from here on.
    pub kid: String,
}

/// `GET /v1/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyText {
    /// The text in force.
    pub text: String,
}

/// `GET /v1/audit/records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecords {
    /// The records, by their sequence numbers.
    pub records: Vec<AuditRecordBody>,
}

/// A record of the audit trail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecordBody {
    /// Its sequence number: what `after` of the next call is.
    pub seq: u64,
    /// The record as it stands in the trail (OCSF), with its place in the chain.
    pub record: serde_json::Map<String, serde_json::Value>,
}

/// `POST /v1/webhooks/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookCall {
    /// What to do.
    pub action: WebhookAction,
    /// A session's id, for `end` and `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = ID))]
    pub session: Option<String>,
    /// A token's id (`jti`), for `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SAYING), length(max = 256))]
    pub token: Option<String>,
    /// An external issuer, together with `subject`, for `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SAYING), length(max = 256))]
    pub issuer: Option<String>,
    /// What that issuer calls the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SAYING), length(max = 256))]
    pub subject: Option<String>,
    /// Why; it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = TEXT))]
    pub reason: Option<String>,
}

/// What a webhook asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WebhookAction {
    /// End a session.
    End,
    /// Put something on the denylist.
    Deny,
    /// Pull the kill switch.
    KillAll,
}

/// The answer to a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookAnswer {
    /// What was done.
    pub action: WebhookAction,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`: the interface answers.
    pub status: String,
}

/// `GET /v1/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// `ready`: the gateway can be given work.
    pub status: String,
}

/// `GET /v1/gateway`: what a workload's environment is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct About {
    /// The sockets of the explicit proxy.
    #[schemars(with = "Vec<String>")]
    pub proxy: Vec<std::net::SocketAddr>,
    /// The CA's certificate, where something is bumped.
    pub ca: Option<PathBuf>,
    /// The system's roots and the CA.
    pub bundle: Option<PathBuf>,
    /// The variables in which workloads look for their keys: where the gateway's own credentials come from.
    pub token_variables: Vec<String>,
    /// The data planes that ask this gateway for their configuration; none for an operator of one tenant.
    #[serde(default)]
    pub data_planes: Vec<DataPlane>,
}

/// A data plane that asks this gateway for its configuration, or for secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DataPlane {
    /// The name on its certificate; `local` on a Unix socket.
    pub client: String,
    /// What it calls itself.
    pub node: String,
    /// How many discovery streams it has open; 0: it is gone.
    pub streams: u32,
    /// When it took over what it was sent the last time, in milliseconds since 1970.
    pub accepted_unix_ms: Option<u64>,
    /// What it refused, in its own words, by the type of resource: it goes on with what it had.
    pub refused: BTreeMap<String, String>,
}

fn count_or_null(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX })
}
