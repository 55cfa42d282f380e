//! What the configuration says about operators, as plain data, and what it is read into. A set of settings is taken
//! over as a whole or not at all: a token's file that cannot be read must not lock its owner out by half a reload.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use outgate_journey::policy::Rate;

use super::{identity::Identities, scope::Scope, webhook::Webhooks};

/// Who may call, and how often.
#[derive(Debug, Clone, Default)]
pub struct OperatorSettings {
    /// Bearer tokens in files.
    pub tokens: Vec<TokenSettings>,
    /// Identity providers, asked in this order.
    pub oidc: Vec<OidcSettings>,
    /// Callers that sign.
    pub webhooks: Vec<WebhookSettings>,
    /// Sessions created, of each tenant, and of all callers without one together.
    pub creations: Option<Rate>,
    /// `iss` of this gateway's tokens.
    pub issuer: String,
    /// Where this interface is reached, for `/.well-known/openid-configuration`; without a slash at the end.
    pub public_url: Option<String>,
}

/// An operator's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSettings {
    /// The operator's name, in records.
    pub name: String,
    /// The file that holds the token: at least 32 bytes, readable by nobody else.
    pub file: PathBuf,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Whose sessions; `None`: everybody's.
    pub tenant: Option<String>,
}

/// An identity provider, and what its claims mean.
#[derive(Clone)]
pub struct OidcSettings {
    /// The provider's name, in messages.
    pub name: String,
    /// Verifies signature, issuer, audience and times.
    pub verifier: Arc<dyn ClaimsVerifier>,
    /// The claim that names the operator.
    pub name_claim: String,
    /// The claim that holds groups or scopes: a text, with blanks between them, or a list.
    pub scopes_claim: String,
    /// What each of its values may do; values that are not here may do nothing.
    pub scopes: BTreeMap<String, Vec<Scope>>,
    /// The claim that holds the tenant. A token without it is refused.
    pub tenant_claim: Option<String>,
}

impl fmt::Debug for OidcSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcSettings")
            .field("name", &self.name)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// Verifies the tokens of one identity provider.
pub trait ClaimsVerifier: Send + Sync {
    /// The claims of a token that is good; why it is not, without quoting it.
    fn verify_claims<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<serde_json::Value, String>>;
}

/// A caller of `/v1/webhooks/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The last part of its path, and its name in records.
    pub name: String,
    /// How it signs.
    pub key: WebhookKeyFile,
    /// Whose sessions it may end; `None`: everybody's.
    pub tenant: Option<String>,
}

/// The file by which a webhook's signatures are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookKeyFile {
    /// HMAC-SHA-256: `whsec_` (or nothing) and the base64 of 24 to 64 bytes; readable by nobody else.
    Secret(PathBuf),
    /// Ed25519: `whpk_` and the base64 of the public key, or its PEM form.
    Public(PathBuf),
}

/// Why settings are not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {why}")]
pub struct SettingsError {
    /// `operator.tokens ci`, …
    pub place: String,
    /// For people; never what a file holds.
    pub why: String,
}

/// Settings with what their files hold.
pub(crate) struct Loaded {
    pub(crate) identities: Identities,
    pub(crate) webhooks: Webhooks,
    pub(crate) creations: Option<Rate>,
    pub(crate) issuer: String,
    pub(crate) public_url: Option<String>,
}

impl Loaded {
    /// Reads the files. Webhooks that stay keep what they remember of calls.
    pub(crate) fn read(
        settings: OperatorSettings,
        before: Option<&Webhooks>,
    ) -> Result<Self, SettingsError> {
        Ok(Self {
            identities: Identities::read(&settings.tokens, settings.oidc)?,
            webhooks: Webhooks::read(&settings.webhooks, before)?,
            creations: settings.creations,
            issuer: settings.issuer,
            public_url: settings.public_url,
        })
    }
}
