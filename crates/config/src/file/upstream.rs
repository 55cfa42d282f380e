//! The way to upstreams, as written: names, roots, times.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::form::{AnyOneOrMany, DurationText, OneOrMany};

/// Where names are looked up, and which resolved addresses may be dialled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileResolver {
    /// DNS servers, address and port, one or a list. Default: the system's.
    pub(crate) servers: Option<OneOrMany<String>>,
    /// Names with fixed addresses, which no DNS server is asked for.
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, OneOrMany<String>>,
    /// Ranges that every destination may dial although the deny-set covers them.
    pub(crate) allow: Option<AnyOneOrMany<String>>,
    /// Ranges that no destination may dial.
    pub(crate) deny: Option<AnyOneOrMany<String>>,
}

/// How upstreams are verified.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileUpstream {
    /// The root certificates to begin with.
    #[serde(default)]
    pub(crate) roots: FileRoots,
    /// PEM files with further root certificates, relative to this file's folder.
    pub(crate) extra_roots: Option<AnyOneOrMany<String>>,
    /// The lowest TLS version spoken to an upstream.
    #[serde(default)]
    #[schemars(schema_with = "min_tls_schema")]
    pub(crate) min_tls: FileTls,
}

/// Root certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileRoots {
    /// The operating system's.
    #[default]
    System,
    /// Mozilla's, built in.
    Bundled,
    /// Only `extra_roots`.
    None,
}

/// A TLS version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileTls {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// A YAML reader that guesses types sees a number where the quotes are left out; both are accepted.
fn min_tls_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The lowest TLS version spoken to an upstream.",
        "enum": ["1.2", "1.3", 1.2, 1.3],
        "default": "1.2"
    })
}

/// How long things may take.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileTimeouts {
    /// A request's head, from its first byte to its last. Default 10s.
    pub(crate) head: Option<DurationText>,
    /// A TLS handshake, on either side. Default 10s.
    pub(crate) handshake: Option<DurationText>,
    /// Resolving and connecting. Default 10s.
    pub(crate) connect: Option<DurationText>,
    /// From the end of a request to the head of its response. Default 10m.
    pub(crate) response: Option<DurationText>,
    /// A connection on which nothing moves. Default 10m.
    pub(crate) idle: Option<DurationText>,
    /// Open streams, after the gateway was told to stop. Default 10s.
    pub(crate) drain: Option<DurationText>,
}
