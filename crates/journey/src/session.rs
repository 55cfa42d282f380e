//! Stages *authenticate* and *denylist*: decide whose request this is. Only a verified token says so; where the
//! bytes came from on the network, and any other header, say nothing.

mod presented;
mod standing;

use std::{fmt, sync::Arc};

use crate::{
    denial::{Denial, DenyCode},
    policy::SessionLimits,
};

pub(crate) use presented::basic_pair;
pub use presented::{
    CREDENTIAL_HEADERS, PresentedToken, TokenSlot, presented_to_destination, presented_to_proxy,
};
pub use standing::{Denylist, PolicyName, SessionEnd, Terms};

/// The id of one sandbox's life; the token's `sub`. 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// Parses an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        is_plain_name(text).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text is 1 to 64 of `[A-Za-z0-9_-]`: safe in a path, a log and a shell.
fn is_plain_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
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
    /// What the session was given.
    pub terms: Terms,
    /// Who says so.
    pub origin: TokenOrigin,
}

/// Who issued a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOrigin {
    /// This gateway, or the control plane that it follows.
    Own,
    /// An issuer that the owner trusts (S1).
    External {
        /// Its `iss`, or the introspection endpoint's name for it.
        issuer: Arc<str>,
        /// What it calls the session.
        subject: Arc<str>,
    },
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

    /// Fetches what [`Self::verify`] will need for this token and does not have: an issuer's keys, an introspection
    /// answer. Bounded in time; what could not be had makes `verify` refuse.
    fn prepare(&self, _token: &str, _now: UnixSeconds) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Proof of *authenticate*: a token that verified.
#[derive(Debug, Clone)]
pub struct Authenticated {
    claims: Arc<TokenClaims>,
}

/// Proof of *denylist*: an authenticated session that had its standing when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    claims: Arc<TokenClaims>,
    limits: Option<Arc<SessionLimits>>,
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

    /// What the operator has limited it to since it was created.
    #[must_use]
    pub fn limits(&self) -> Option<&SessionLimits> {
        self.limits.as_deref()
    }
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
/// [`SessionEnd::code`] of what ended it.
pub fn check_denylist(
    denylist: &impl Denylist,
    authenticated: Authenticated,
) -> Result<Session, Denial> {
    let claims = authenticated.claims;
    match denylist.standing(&claims) {
        Ok(limits) => Ok(Session { claims, limits }),
        Err(end) => Err(Denial::new(end.code())
            .because(end.as_str())
            .of(&claims.session)),
    }
}

/// Asks again for a session that had its standing before.
///
/// # Errors
/// As [`check_denylist`].
pub fn recheck_denylist(denylist: &impl Denylist, session: &Session) -> Result<Session, Denial> {
    let claims = Arc::clone(&session.claims);
    check_denylist(denylist, Authenticated { claims })
}
