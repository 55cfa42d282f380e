//! Those whose tokens are taken for session tokens, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    destination::FileSource,
    form::{ClaimText, DurationText, HttpsText, NameText, OneOrMany},
};

/// One issuer of tokens that are taken for session tokens (OpenID Connect, Kubernetes service accounts).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("not" = {"anyOf": [
    {"required": ["jwks", "jwks_file"]}, {"required": ["policy", "policies"]}
]}))]
pub(crate) struct FileIssuer {
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
    /// The claim that tells sessions apart; dots lead into objects. Default `sub`.
    pub(crate) session_claim: Option<ClaimText>,
    /// How long ago a token may have been issued, 1m to 24h. Default 24h.
    pub(crate) max_age: Option<DurationText>,
    /// A PEM file with the root certificates of its servers. Default: the system's.
    pub(crate) ca: Option<String>,
    /// The policy, by its name under `policies`, that its sessions are confined to.
    pub(crate) policy: Option<NameText>,
    /// A policy for each identity instead, by what its token claims. A token that no entry is for is refused.
    pub(crate) policies: Option<FileClaimPolicies>,
    /// Where tokens are asked about that are no JWT (RFC 7662).
    pub(crate) introspection: Option<FileIntrospection>,
}

/// Which policy an identity has.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileClaimPolicies {
    /// The claim, or a list of claims whose values are joined with `/`; dots lead into objects.
    pub(crate) claim: OneOrMany<ClaimText>,
    /// A policy's name under `policies` for each value, or for the values joined, as in `team-a/agent`.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) map: BTreeMap<String, NameText>,
}

/// Token introspection (RFC 7662).
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileIntrospection {
    /// The introspection endpoint.
    pub(crate) url: HttpsText,
    /// The gateway's user name there.
    pub(crate) client_id: String,
    /// Where the gateway's password there comes from.
    pub(crate) client_secret: FileSource,
    /// How long an answer is good for, 1s to 60s. Default 30s. A revocation counts at once.
    pub(crate) cache: Option<DurationText>,
    /// A PEM file with the root certificates of the endpoint. Default: those of the issuer.
    pub(crate) ca: Option<String>,
}

/// A signature algorithm with a public key (RFC 7518, RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum FileAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// RSASSA-PSS with SHA-384.
    #[serde(rename = "PS384")]
    Ps384,
    /// RSASSA-PSS with SHA-512.
    #[serde(rename = "PS512")]
    Ps512,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA with P-384 and SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}
