//! Listeners in front of a service, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    form::{ClaimText, HttpsText, OneOrMany, ServiceUrlText},
    issuer::FileAlgorithm,
};

/// A listener in front of a service: callers come in with a token of a trusted issuer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    {"required": ["tls"]}, {"required": ["plaintext"], "properties": {"plaintext": {"const": true}}}
]))]
pub(crate) struct FileInbound {
    /// Address and port: `0.0.0.0:8443`.
    pub(crate) listen: String,
    /// The listener's certificate. Without it, `plaintext: true` says that callers speak plain HTTP.
    pub(crate) tls: Option<FileInboundTls>,
    /// Whether callers speak plain HTTP, because something in front of this listener ends TLS.
    #[serde(default)]
    pub(crate) plaintext: bool,
    /// The service, as `http://` or `https://`, host and port: `http://127.0.0.1:9000`.
    pub(crate) to: ServiceUrlText,
    /// Whether HTTP/2 is spoken to the service. gRPC needs it.
    #[serde(default)]
    pub(crate) http2: bool,
    /// The hosts that a request may name, one or a list. Default: any.
    pub(crate) hosts: Option<OneOrMany<String>>,
    /// Whose tokens are taken.
    #[schemars(length(min = 1))]
    pub(crate) issuers: Vec<FileCallerIssuer>,
    /// What needs no token.
    #[serde(default)]
    pub(crate) exempt: Vec<FileExemption>,
    /// Whether the service gets the token that verified.
    #[serde(default)]
    pub(crate) forward_token: bool,
    /// Connections open at once. Default 1000.
    #[schemars(range(min = 1))]
    pub(crate) max_connections: Option<u32>,
}

/// A listener's certificate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileInboundTls {
    /// A PEM file with the certificate and its chain, relative to this file's folder.
    pub(crate) certificate: String,
    /// A PEM file with the certificate's private key.
    pub(crate) key: String,
}

/// One issuer whose tokens are taken for callers' (OpenID Connect, Kubernetes service accounts).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = {"required": ["jwks", "jwks_file"]}))]
pub(crate) struct FileCallerIssuer {
    /// The `iss` of its tokens, exactly as it stands there.
    pub(crate) issuer: String,
    /// What must be among the `aud` of a token, one or a list of which one is enough.
    pub(crate) audience: OneOrMany<String>,
    /// The URL of its keys (JWKS). Default: found by OpenID Connect discovery below `issuer`.
    pub(crate) jwks: Option<HttpsText>,
    /// A file with its keys (JWKS) instead, relative to this file's folder.
    pub(crate) jwks_file: Option<String>,
    /// Signature algorithms that are taken, one or a list. Default: RS256, ES256 and EdDSA.
    pub(crate) algorithms: Option<OneOrMany<FileAlgorithm>>,
    /// The claim with the caller's name, a text; dots lead into objects. Default `sub`.
    pub(crate) subject_claim: Option<ClaimText>,
    /// A PEM file with the root certificates of its servers. Default: the system's.
    pub(crate) ca: Option<String>,
}

/// Requests that need no token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileExemption {
    /// Methods, one or a list. Default: GET and HEAD.
    pub(crate) methods: Option<OneOrMany<String>>,
    /// Path patterns, one or a list: `/healthz`, `/public/**`.
    pub(crate) paths: OneOrMany<String>,
}
