//! Who may operate the gateway over the network, and how many sessions there may be. Only where secrets are: they are
//! read by whoever checks them.

use std::{collections::BTreeMap, path::PathBuf};

use outgate_journey::policy::Rate;

use crate::WebUrl;

/// Who may operate the gateway over `listen.operator`, and how many sessions there may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorConfig {
    /// Operators with a secret of their own; no name and no file occurs twice.
    pub tokens: Vec<OperatorToken>,
    /// Identity providers of operators; no issuer occurs twice.
    pub oidc: Vec<OperatorOidc>,
    /// Systems that may revoke by a signed call; no name occurs twice.
    pub webhooks: Vec<RevocationWebhook>,
    /// How many sessions there may be.
    pub quotas: Quotas,
}

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Create and renew sessions, and end them.
    SessionCreate,
    /// List and show sessions.
    SessionRead,
    /// End, deny and kill, and take it back; set limits.
    Revoke,
    /// Read and reload the policy, set quotas, rotate the signing keys.
    Policy,
    /// Read the audit trail.
    AuditRead,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [
        Self::SessionCreate,
        Self::SessionRead,
        Self::Revoke,
        Self::Policy,
        Self::AuditRead,
    ];

    /// The word used in files, tokens, answers and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionCreate => "session:create",
            Self::SessionRead => "session:read",
            Self::Revoke => "revoke",
            Self::Policy => "policy",
            Self::AuditRead => "audit:read",
        }
    }
}

/// One operator with a secret of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorToken {
    /// Its name in records.
    pub name: String,
    /// The file that holds its secret.
    pub file: PathBuf,
    /// What it may do; at least one.
    pub scopes: Vec<Scope>,
    /// The tenant whose sessions it is confined to; `None`: all. With one, neither [`Scope::Policy`] nor
    /// [`Scope::AuditRead`] is among the scopes.
    pub tenant: Option<String>,
}

/// An identity provider of operators (OpenID Connect).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorOidc {
    /// The `iss` of its tokens, an `https` URL.
    pub issuer: String,
    /// What must be among the `aud` of a token.
    pub audience: String,
    /// Where its keys are; `None`: discovery below `issuer`.
    pub jwks: Option<WebUrl>,
    /// A PEM file with the roots of its servers; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The way to the claim with the operator's name in records: `sub`.
    pub name_claim: String,
    /// Who may do what.
    pub scopes: ClaimScopes,
    /// The way to the claim with the tenant whose sessions the operator is confined to; `None`: all tenants.
    pub tenant_claim: Option<String>,
}

/// Which values of a claim may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimScopes {
    /// The way to the claim: `groups`, `realm_access.roles`.
    pub claim: String,
    /// What each value may do; neither the map nor any of its lists is empty.
    pub map: BTreeMap<String, Vec<Scope>>,
}

/// A system that may revoke by a signed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationWebhook {
    /// Its name in the URL and in records.
    pub name: String,
    /// What its signatures are checked with.
    pub key: WebhookKey,
    /// The tenant whose sessions it is confined to; `None`: all.
    pub tenant: Option<String>,
}

/// What a webhook's signatures are checked with, and the file that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookKey {
    /// A shared secret, for HMAC-SHA-256.
    Hmac(PathBuf),
    /// A public key, for Ed25519.
    Ed25519(PathBuf),
}

/// How many sessions there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Live sessions; at least 1.
    pub sessions: u32,
    /// Live sessions of a tenant for which nobody set a number.
    pub sessions_per_tenant: Option<u32>,
    /// Sessions created per window.
    pub creations: Option<Rate>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            sessions: 10_000,
            sessions_per_tenant: None,
            creations: None,
        }
    }
}
