//! Credentials and destinations, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    form::{AnyOneOrMany, OneOrMany, PortNumber, RateText},
    plane::FileSds,
};

/// What the gateway does with traffic to a destination.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FilePosture {
    /// Nothing goes out.
    DenyAll,
    /// TLS is not terminated; only the server name is judged.
    PassThrough,
    /// TLS is terminated with a certificate minted by the gateway's own CA, and re-originated.
    Bump,
    /// `bump` if a credential is injected, else `pass-through`.
    #[default]
    Auto,
}

/// One upstream credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileCredential {
    /// Where its value comes from.
    pub(crate) from: FileCredentialSource,
    /// The data planes that may have it, by a name in their certificates, one or a list. Default: all that
    /// `listen.xds` lets in.
    pub(crate) planes: Option<OneOrMany<String>>,
}

/// Where a credential's value comes from: `env`, `file` or `sds`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}, {"required": ["sds"]}]))]
pub(crate) struct FileCredentialSource {
    /// An environment variable of the gateway, read at start.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub(crate) env: Option<String>,
    /// A file, watched; relative to this file's folder. One trailing line break is not part of the value.
    pub(crate) file: Option<String>,
    /// A server that speaks Envoy's Secret Discovery Service.
    pub(crate) sds: Option<FileSds>,
}

/// Where a secret's value comes from: `env` or `file`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["env"]}, {"required": ["file"]}]))]
pub(crate) struct FileSource {
    /// An environment variable of the gateway, read at start.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub(crate) env: Option<String>,
    /// A file, watched; relative to this file's folder. One trailing line break is not part of the value.
    pub(crate) file: Option<String>,
}

/// One destination: a host, its ports and what may happen there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDestination {
    /// A name, or `*.` and a name: exactly one label in front of it. Never an address.
    pub(crate) host: String,
    /// TCP ports, one or a list. Default 443; 443 and 80 with `plaintext: true`.
    pub(crate) ports: Option<OneOrMany<PortNumber>>,
    /// What the gateway does with the traffic. Default: the file's `posture`.
    pub(crate) posture: Option<FilePosture>,
    /// What a tunnel carries.
    #[serde(default)]
    pub(crate) protocol: FileProtocol,
    /// Whether plain `http://` is served too.
    #[serde(default)]
    pub(crate) plaintext: bool,
    /// Whether a TLS handshake with a real Encrypted ClientHello may pass through.
    #[serde(default)]
    pub(crate) encrypted_client_hello: bool,
    /// Whether a request must present a session token.
    #[serde(default)]
    pub(crate) token: FileToken,
    /// Which credential is attached, and how.
    pub(crate) inject: Option<FileInject>,
    /// Requests that are let through; at least one entry must cover a request. Default: all.
    #[schemars(length(min = 1))]
    pub(crate) allow: Option<Vec<FileRequests>>,
    /// Requests that are refused; wins over `allow`.
    #[schemars(length(min = 1))]
    pub(crate) deny: Option<Vec<FileRequests>>,
    /// What one session may use of this destination.
    pub(crate) limits: Option<FileDestinationLimits>,
    /// Exceptions to the address deny-set for this destination.
    pub(crate) addresses: Option<FileAddresses>,
}

/// What a tunnel carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileProtocol {
    /// TLS whose server name is the host.
    #[default]
    Tls,
    /// Any bytes: only host and port are judged. Only with pass-through and without request rules.
    Opaque,
}

/// Whether a request must present a session token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum FileToken {
    /// Without one the request is refused.
    #[default]
    Required,
    /// Without one the request is forwarded with nothing attached.
    Optional,
}

/// How a credential is attached: exactly one of `header`, `basic` and `query`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["header"]}, {"required": ["basic"]}, {"required": ["query"]}],
    "dependentRequired" = {"template": ["header"]}
))]
pub(crate) struct FileInject {
    /// A name under `credentials`.
    pub(crate) credential: String,
    /// A header field.
    pub(crate) header: Option<String>,
    /// The header's value, with `{credential}` once. Default: `Bearer {credential}` for `authorization`, else
    /// `{credential}`.
    pub(crate) template: Option<String>,
    /// HTTP Basic: this user name, and the credential as the password.
    pub(crate) basic: Option<String>,
    /// A query parameter.
    pub(crate) query: Option<String>,
    /// Whether the credential may be sent without TLS. Needs `plaintext: true`.
    #[serde(default)]
    pub(crate) over_plaintext: bool,
}

/// A set of requests. A key that is not there covers everything; all that are there must cover the request.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub(crate) struct FileRequests {
    /// Methods, one or a list, exactly as sent.
    pub(crate) methods: Option<OneOrMany<String>>,
    /// Path patterns, one or a list: `*` is one segment or a part of one, `**` any number of segments.
    pub(crate) paths: Option<OneOrMany<String>>,
    /// Header fields that must be present with one of these values; an empty list: with any value.
    pub(crate) headers: Option<BTreeMap<String, AnyOneOrMany<String>>>,
}

/// What one session may use of one destination.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileDestinationLimits {
    /// Requests per window.
    pub(crate) requests: Option<RateText>,
}

/// Exceptions to the address deny-set, as ranges or single addresses. `deny` wins.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileAddresses {
    /// Ranges that may be dialled although the deny-set covers them.
    pub(crate) allow: Option<AnyOneOrMany<String>>,
    /// Ranges that are not dialled.
    pub(crate) deny: Option<AnyOneOrMany<String>>,
}
