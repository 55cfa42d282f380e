//! Who may operate the gateway over the network, as written. Only where secrets are: never a secret.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::{ClaimText, HttpsText, NameText, OneOrMany, RateText, TenantText};

/// Who may operate the gateway over `listen.operator`, and how much there may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileOperator {
    /// Operators that present a secret of their own.
    #[serde(default)]
    pub(crate) tokens: Vec<FileOperatorToken>,
    /// Identity providers whose tokens operators present.
    #[serde(default)]
    pub(crate) oidc: Vec<FileOidc>,
    /// Systems that may revoke by a signed call.
    #[serde(default)]
    pub(crate) webhooks: Vec<FileWebhook>,
    /// How many sessions there may be.
    pub(crate) quotas: Option<FileQuotas>,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum FileScope {
    /// Create and renew sessions, and end them.
    #[serde(rename = "session:create")]
    SessionCreate,
    /// List and show sessions.
    #[serde(rename = "session:read")]
    SessionRead,
    /// End, deny and kill, and take it back; set limits.
    #[serde(rename = "revoke")]
    Revoke,
    /// Read and reload the policy, set quotas, rotate the signing keys.
    #[serde(rename = "policy")]
    Policy,
    /// Read the audit trail.
    #[serde(rename = "audit:read")]
    AuditRead,
}

/// One operator, or one system that acts as one, with a secret of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileOperatorToken {
    /// Its name in records. One name, one operator: secrets are not shared.
    pub(crate) name: NameText,
    /// The file that holds its secret, at least 32 bytes, relative to this file's folder.
    pub(crate) file: String,
    /// What it may do, one or a list.
    pub(crate) scopes: OneOrMany<FileScope>,
    /// The tenant whose sessions it is confined to. Default: all.
    pub(crate) tenant: Option<TenantText>,
}

/// An identity provider of operators (OpenID Connect).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileOidc {
    /// The `iss` of its tokens, an `https://` URL.
    pub(crate) issuer: HttpsText,
    /// What must be among the `aud` of a token.
    pub(crate) audience: String,
    /// The URL of its keys (JWKS). Default: found by discovery below `issuer`.
    pub(crate) jwks: Option<HttpsText>,
    /// A PEM file with the root certificates of its servers, relative to this file's folder. Default: the system's.
    pub(crate) ca: Option<String>,
    /// The claim with the operator's name in records; dots lead into objects. Default `sub`.
    pub(crate) name_claim: Option<ClaimText>,
    /// Which values of which claim may do what.
    pub(crate) scopes: FileClaimScopes,
    /// The claim with the tenant whose sessions the operator is confined to. Default: all tenants.
    pub(crate) tenant_claim: Option<ClaimText>,
}

/// Which values of a claim may do what. A value that is not here may do nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileClaimScopes {
    /// The claim, a text or a list of texts; dots lead into objects: `groups`.
    pub(crate) claim: ClaimText,
    /// What each of its values may do, one or a list.
    #[schemars(extend("minProperties" = 1))]
    pub(crate) map: BTreeMap<String, OneOrMany<FileScope>>,
}

/// A system that may revoke by a signed call (Standard Webhooks): exactly one of `secret_file` and `public_key_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["secret_file"]}, {"required": ["public_key_file"]}]))]
pub(crate) struct FileWebhook {
    /// Its name, the last part of the URL that it calls.
    pub(crate) name: NameText,
    /// The file with the secret that it signs with (HMAC-SHA-256), relative to this file's folder.
    pub(crate) secret_file: Option<String>,
    /// The file with the public key of its signatures (Ed25519).
    pub(crate) public_key_file: Option<String>,
    /// The tenant whose sessions it is confined to. Default: all.
    pub(crate) tenant: Option<TenantText>,
}

/// How many sessions there may be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileQuotas {
    /// Live sessions. Default 10000.
    #[schemars(range(min = 1))]
    pub(crate) sessions: Option<u32>,
    /// Live sessions of one tenant for which the operator set no number. Default: no limit.
    #[schemars(range(min = 1))]
    pub(crate) sessions_per_tenant: Option<u32>,
    /// Sessions created per window. Default: no limit.
    pub(crate) creations: Option<RateText>,
}
