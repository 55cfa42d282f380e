//! Stages *authenticate* and *denylist*: decide whose request this is. Only a verified token says so; where the
//! bytes came from on the network, and any other header, say nothing.

use std::{borrow::Cow, fmt, sync::Arc};

use http::{
    HeaderMap, HeaderName,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};

use crate::{
    denial::{Denial, DenyCode},
    policy::{InjectionForm, Rule},
};

/// The id of one sandbox's life; the token's `sub`. 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Parses an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        valid.then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u64);

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenClaims {
    /// `sub`.
    pub session: SessionId,
    /// `jti`: this token, of the session's tokens.
    pub token_id: Arc<str>,
    /// `exp`: the first second at which the token is no longer good.
    pub expires: UnixSeconds,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not a token of a trusted issuer: wrong shape, algorithm, key, signature, issuer, audience or claims.
    #[error("not a valid session token: {0}")]
    Invalid(&'static str),
    /// It was good once: this is what it said.
    #[error("expired")]
    Expired(Arc<TokenClaims>),
}

/// Verifies session tokens: shape, algorithm, `kid`, signature, `iss`, `aud`, `exp`, `nbf`. Implementations cache.
pub trait TokenVerifier {
    /// Verifies one token.
    ///
    /// # Errors
    /// [`TokenFault`]; never panics, whatever the text.
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault>;
}

/// Knows which sessions were ended.
pub trait Denylist {
    /// Whether the session was ended.
    fn is_revoked(&self, session: &SessionId) -> bool;
}

/// Where a token was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenSlot {
    /// `Proxy-Authorization`: attributes, but draws no credential.
    Proxy,
    /// None that the guest chose: the connection arrived on a socket that was opened for one session. Attributes, but
    /// draws no credential.
    Listener,
    /// A header field of the request itself.
    Header(HeaderName),
    /// A query parameter of the request itself.
    Query,
}

/// A candidate for a session token, as the request carries it.
pub struct PresentedToken<'a> {
    /// Where.
    pub slot: TokenSlot,
    /// The candidate.
    pub text: Cow<'a, str>,
}

impl fmt::Debug for PresentedToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedToken({:?}, [redacted])", self.slot)
    }
}

/// Proof of *authenticate*: a token that verified.
#[derive(Debug, Clone)]
pub struct Authenticated {
    claims: Arc<TokenClaims>,
}

/// Proof of *denylist*: an authenticated session that was not ended when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    claims: Arc<TokenClaims>,
}

impl Session {
    /// The session.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.claims.session
    }

    /// The token's claims.
    #[must_use]
    pub const fn claims(&self) -> &Arc<TokenClaims> {
        &self.claims
    }
}

/// Header fields in which clients send API keys. On an injected destination all of them are taken out before the
/// credential goes in, whether they held a session token or not.
pub static CREDENTIAL_HEADERS: [HeaderName; 6] = [
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("private-token"),
];

/// Collects the candidates from `Proxy-Authorization`.
#[must_use]
pub fn presented_to_proxy(headers: &HeaderMap) -> Vec<PresentedToken<'_>> {
    let mut found = Vec::new();
    collect_header(headers, &PROXY_AUTHORIZATION, TokenSlot::Proxy, &mut found);
    found
}

/// Collects the candidates that a request itself carries: the usual credential fields, the fields that the policy
/// names, and the field or parameter into which the rule injects.
#[must_use]
pub fn presented_to_destination<'a>(
    headers: &'a HeaderMap,
    query: Option<&'a str>,
    token_headers: &[HeaderName],
    rule: &Rule,
) -> Vec<PresentedToken<'a>> {
    let mut found = Vec::new();
    let form = rule.injection.as_ref().map(|injection| &injection.form);
    let injected = match form {
        Some(InjectionForm::Header { name, .. }) => Some(name),
        _ => None,
    };
    for name in CREDENTIAL_HEADERS
        .iter()
        .filter(|name| **name != PROXY_AUTHORIZATION)
    {
        collect_header(headers, name, TokenSlot::Header(name.clone()), &mut found);
    }
    for name in token_headers.iter().chain(injected) {
        if !CREDENTIAL_HEADERS.contains(name) {
            collect_header(headers, name, TokenSlot::Header(name.clone()), &mut found);
        }
    }
    if let (Some(InjectionForm::Query { parameter }), Some(query)) = (form, query) {
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            if key == parameter {
                found.push(PresentedToken {
                    slot: TokenSlot::Query,
                    text: Cow::Borrowed(value),
                });
            }
        }
    }
    found
}

fn collect_header<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    slot: TokenSlot,
    found: &mut Vec<PresentedToken<'a>>,
) {
    for value in headers.get_all(name) {
        let text = value.to_str().unwrap_or("");
        if let Some(text) = token_in_field(text) {
            found.push(PresentedToken {
                slot: slot.clone(),
                text,
            });
        }
    }
}

/// The token in a field's value: after `Bearer` or `token`, the password (or, without one, the user name) of
/// `Basic`, else the value itself. Scheme names are case-insensitive (RFC 9110 section 11.1).
fn token_in_field(value: &str) -> Option<Cow<'_, str>> {
    let value = value.trim_matches([' ', '\t']);
    let Some((scheme, rest)) = value.split_once(' ') else {
        return (!value.is_empty()).then_some(Cow::Borrowed(value));
    };
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") {
        return Some(Cow::Borrowed(rest));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let text = basic_pair(value)?;
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        // `https://TOKEN@host` and GitHub's `TOKEN:x-oauth-basic` put the token in the user name.
        let token = if password.is_empty() || password == "x-oauth-basic" {
            user
        } else {
            password
        };
        return Some(Cow::Owned(token.to_owned()));
    }
    Some(Cow::Borrowed(value))
}

/// `user:password` of a field's value that is `Basic` (RFC 7617).
pub(crate) fn basic_pair(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim_matches([' ', '\t']).split_once([' ', '\t'])?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    let decoded = is_basic.then(|| decode_base64(rest.trim_matches([' ', '\t'])))??;
    String::from_utf8(decoded).ok()
}

/// Base64 with the standard alphabet, padding optional (RFC 4648 section 4).
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(out)
}

/// Stage *authenticate*. `Ok(None)` where no token is presented; one of them must be good, and all that are genuine
/// must be of one session.
///
/// # Errors
/// [`DenyCode::TokenInvalid`], [`DenyCode::TokenExpired`] or [`DenyCode::SessionMismatch`].
pub fn authenticate(
    verifier: &impl TokenVerifier,
    presented: &[PresentedToken<'_>],
    now: UnixSeconds,
) -> Result<Option<Authenticated>, Denial> {
    let (mut good, mut expired) = (None::<Arc<TokenClaims>>, None::<Arc<TokenClaims>>);
    let mut invalid = None;
    for token in presented {
        let (found, claims) = match verifier.verify(&token.text, now) {
            Ok(claims) => (&mut good, claims),
            Err(TokenFault::Expired(claims)) => (&mut expired, claims),
            // A key that the guest brought along beside its token is no token: it is replaced later, never merged.
            // Alone, it is refused.
            Err(TokenFault::Invalid(why)) => {
                invalid = invalid.or(Some(why));
                continue;
            }
        };
        found.get_or_insert_with(|| Arc::clone(&claims));
        let differs = |known: &Arc<TokenClaims>| known.session != claims.session;
        if good.iter().chain(&expired).any(differs) {
            return Err(DenyCode::SessionMismatch.into());
        }
    }
    // An expired token says more than an invalid one.
    match (good, expired, invalid) {
        (Some(claims), _, _) => Ok(Some(Authenticated { claims })),
        (None, Some(claims), _) => Err(Denial::new(DenyCode::TokenExpired).of(&claims.session)),
        (None, None, Some(why)) => Err(Denial::new(DenyCode::TokenInvalid).because(why)),
        (None, None, None) => Ok(None),
    }
}

/// Stage *denylist*.
///
/// # Errors
/// [`DenyCode::SessionRevoked`].
pub fn check_denylist(
    denylist: &impl Denylist,
    authenticated: Authenticated,
) -> Result<Session, Denial> {
    if denylist.is_revoked(&authenticated.claims.session) {
        return Err(Denial::new(DenyCode::SessionRevoked).of(&authenticated.claims.session));
    }
    Ok(Session {
        claims: authenticated.claims,
    })
}
