//! Decides who asks. The kernel says it of the Unix socket's peer, a bearer token from a file or of an identity provider
//! says it of everybody else. There is no anonymous operator and no shared one: two names for one token are refused, and
//! so is a provider's token that does not say whose it is, or, where tenants are kept apart, of which tenant.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use http::{HeaderMap, header::AUTHORIZATION};
use outgate_journey::record::{Operator, OperatorKind};
use serde_json::Value;

use super::{
    code::ErrorCode,
    problem::Refusal,
    scope::{Scope, Scopes},
    secret_file,
    settings::{OidcSettings, SettingsError, TokenSettings},
    text,
};

/// The shortest token that cannot be guessed, as a text.
const MIN_TOKEN: usize = 32;
/// How long an identity provider's keys may take.
const VERIFY_WITHIN: Duration = Duration::from_secs(5);
/// The longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;

/// Who asks, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) operator: Operator,
    pub(crate) scopes: Scopes,
}

impl Identity {
    /// The Unix socket's peer, whose user is the gateway's.
    pub(crate) fn local(uid: u32) -> Self {
        Self::of(OperatorKind::Local, uid.to_string(), None, Scopes::all())
    }

    /// A verified webhook.
    pub(crate) fn webhook(name: &str, tenant: Option<String>) -> Self {
        let scopes = [Scope::Revoke].into_iter().collect();
        Self::of(OperatorKind::Webhook, name.to_owned(), tenant, scopes)
    }

    fn of(kind: OperatorKind, name: String, tenant: Option<String>, scopes: Scopes) -> Self {
        Self {
            operator: Operator { name, kind, tenant },
            scopes,
        }
    }

    /// The tenant that the identity is bound to.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.operator.tenant.as_deref()
    }

    /// How the registry names who did something: `kind:name`, and `kind:name@tenant` where it is bound to one. Unlike the
    /// name alone, no identity can take on another's.
    pub(crate) fn by(&self) -> String {
        let (kind, name) = (self.operator.kind.as_str(), &self.operator.name);
        match self.tenant() {
            Some(tenant) => format!("{kind}:{name}@{tenant}"),
            None => format!("{kind}:{name}"),
        }
    }

    /// As [`Self::by`], where it decides who may take something back: a name that reads like a bound one's
    /// (`ann@example.org`) ends in a tenant that nobody is of.
    pub(crate) fn imposed_by(&self) -> String {
        let by = self.by();
        let is_unclear = self.tenant().is_none() && by.contains('@');
        if is_unclear { by + "@" } else { by }
    }

    /// Whether what was imposed by `by` ([`Self::imposed_by`]) is this identity's to take back: everything for who is bound to no
    /// tenant, else what its own tenant imposed.
    pub(crate) fn may_take_back(&self, by: &str) -> bool {
        self.tenant().is_none_or(|tenant| {
            let name = by.strip_suffix(tenant);
            name.is_some_and(|name| name.ends_with('@'))
        })
    }
}

/// SHA-256 of a bearer token: what is kept of it.
#[derive(Clone, Copy)]
struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Takes the same time whatever differs.
    fn matches(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

/// Everybody who may call over TCP.
pub(crate) struct Identities {
    tokens: Vec<(TokenDigest, Identity)>,
    oidc: Vec<OidcSettings>,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .tokens
            .iter()
            .map(|(_, identity)| &identity.operator.name);
        f.debug_list().entries(names).finish()
    }
}

impl Identities {
    /// Reads the tokens' files.
    pub(crate) fn read(
        tokens: &[TokenSettings],
        oidc: Vec<OidcSettings>,
    ) -> Result<Self, SettingsError> {
        let mut read: Vec<(TokenDigest, Identity)> = Vec::with_capacity(tokens.len());
        for token in tokens {
            let failed = |why: String| SettingsError {
                place: format!("operator.tokens {}", token.name),
                why,
            };
            let text = secret_file::read(&token.file).map_err(failed)?;
            if text.len() < MIN_TOKEN || text.len() > MAX_TOKEN {
                let file = token.file.display();
                return Err(failed(format!(
                    "{file} must hold {MIN_TOKEN} bytes at least; make one with `openssl rand -hex 32`"
                )));
            }
            if text.bytes().any(|b| !b.is_ascii_graphic()) {
                let file = token.file.display();
                return Err(failed(format!("{file} holds bytes that no header carries")));
            }
            let digest = TokenDigest::of(&text);
            if let Some((_, twin)) = read.iter().find(|(other, _)| other.matches(&digest)) {
                let twin = &twin.operator.name;
                return Err(failed(format!(
                    "holds the token of {twin}; accounts are not shared"
                )));
            }
            let scopes = token.scopes.iter().copied().collect();
            let (name, tenant) = (token.name.clone(), token.tenant.clone());
            read.push((
                digest,
                Identity::of(OperatorKind::Token, name, tenant, scopes),
            ));
        }
        Ok(Self { tokens: read, oidc })
    }

    /// Whether this is the token of one of the file's operators.
    pub(crate) fn is_token(&self, text: &str) -> bool {
        text.len() >= MIN_TOKEN && {
            let digest = TokenDigest::of(text);
            self.tokens.iter().any(|(own, _)| own.matches(&digest))
        }
    }

    /// Who presents this head.
    pub(crate) async fn authenticate(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let token = bearer(headers)?;
        let digest = TokenDigest::of(token);
        // Every entry is compared, so that the time says nothing about which one came close.
        let known = self.tokens.iter().fold(None, |found, (own, identity)| {
            if own.matches(&digest) {
                Some(identity)
            } else {
                found
            }
        });
        if let Some(identity) = known {
            return Ok(identity.clone());
        }
        // Only what has the shape of a JWT is worth a provider's time.
        let mut why = "no operator's token".to_owned();
        if token.bytes().filter(|b| *b == b'.').count() == 2 {
            for provider in &self.oidc {
                let verifying = provider.verifier.verify_claims(token);
                match tokio::time::timeout(VERIFY_WITHIN, verifying).await {
                    Ok(Ok(claims)) => {
                        let mut identity = identify(provider, &claims)?;
                        // Two providers may call two people by one name.
                        if self.oidc.len() > 1 {
                            let name = &identity.operator.name;
                            identity.operator.name = format!("{}#{name}", provider.name);
                        }
                        return Ok(identity);
                    }
                    Ok(Err(fault)) => why = format!("{}: {fault}", provider.name),
                    Err(_) => why = format!("{}: does not answer", provider.name),
                }
            }
        }
        Err(Refusal::from(ErrorCode::CredentialInvalid).because(why))
    }
}

/// The one bearer token of a head (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let invalid = |why: &'static str| Refusal::from(ErrorCode::CredentialInvalid).because(why);
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(ErrorCode::CredentialMissing)?;
    if values.next().is_some() {
        return Err(invalid("two Authorization fields"));
    }
    let value = value.to_str().map_err(|_| invalid("not text"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(invalid("not a bearer token"));
    }
    let token = token.trim_matches(' ');
    if token.is_empty() || token.len() > MAX_TOKEN {
        return Err(invalid("empty or too long"));
    }
    Ok(token)
}

/// Reads an identity out of verified claims.
fn identify(provider: &OidcSettings, claims: &Value) -> Result<Identity, Refusal> {
    let unusable = |what: &str| {
        let why = format!("{}: the {what} claim is missing or unfit", provider.name);
        Refusal::from(ErrorCode::CredentialInvalid).because(why)
    };
    let name = claim(claims, &provider.name_claim)
        .and_then(Value::as_str)
        .filter(|name| text::is_name(name))
        .ok_or_else(|| unusable("name"))?;
    let tenant = match &provider.tenant_claim {
        // Without its tenant the identity would be everybody's operator.
        Some(path) => Some(
            claim(claims, path)
                .and_then(Value::as_str)
                .filter(|tenant| text::is_tenant(tenant))
                .ok_or_else(|| unusable("tenant"))?
                .to_owned(),
        ),
        None => None,
    };
    let granted = claim(claims, &provider.scopes_claim)
        .map(words)
        .unwrap_or_default();
    let scopes = granted
        .iter()
        .filter_map(|word| provider.scopes.get(*word))
        .flatten()
        .copied()
        .collect();
    Ok(Identity::of(
        OperatorKind::Oidc,
        name.to_owned(),
        tenant,
        scopes,
    ))
}

/// A claim. Dots lead into objects; a name that has a dot in it is found too, the longest one first.
fn claim<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.rmatch_indices('.').find_map(|(dot, _)| {
        let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
        claim(claims.get(name)?, rest)
    })
}

fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
