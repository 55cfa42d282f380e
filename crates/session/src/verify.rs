//! Decides whether a text is a good session token. Everything about it is refused that this issuer would not have
//! written: another algorithm, a header that brings its own key or asks for extensions, padding, a fourth segment.
//!
//! The order is the argument: nothing that the text says is looked at before its signature is known to be good,
//! except which of our keys it names. "Expired" is said last, so only of a token that was once good.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use arc_swap::ArcSwap;
use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    session::{
        PolicyName, SessionId, Terms, TokenClaims, TokenFault, TokenOrigin, TokenVerifier,
        UnixSeconds,
    },
};
use quick_cache::sync::Cache;
use serde::Deserialize;

use crate::{
    key::{PublicKey, TokenKey},
    ring::MAX_TTL,
};

/// Longer than any token that this crate mints, and a bound on the work that a guest can ask for.
const MAX_LENGTH: usize = 4096;
/// How far ahead the clock of another data plane may be.
const LEEWAY: u64 = 30;
const CACHED_TOKENS: usize = 16 * 1024;

/// What the ring and its verifiers share.
pub(crate) struct Shared {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) keys: ArcSwap<Keys>,
}

impl Shared {
    pub(crate) fn new(issuer: &str, audience: &str, keys: Keys) -> Self {
        Self {
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            keys: ArcSwap::from_pointee(keys),
        }
    }
}

/// The keys of one moment, with the tokens that verified under them. The cache belongs to the keys, so that a
/// verification which began before a rotation cannot put its result into the cache of after.
pub(crate) struct Keys {
    /// What signs; a gateway that follows another one has nothing that does.
    pub(crate) active: Option<Arc<TokenKey>>,
    by_kid: HashMap<Arc<str>, VerifyingKey>,
    /// The newest first.
    jwks: serde_json::Value,
    cache: Cache<[u8; 32], Verified>,
}

/// A key, and the second at which it stops verifying.
pub(crate) struct VerifyingKey {
    pub(crate) key: Arc<PublicKey>,
    pub(crate) ends: Option<UnixSeconds>,
}

impl VerifyingKey {
    pub(crate) fn is_retired(&self, now: UnixSeconds) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// A token that verified, and when that holds without another look at it.
#[derive(Clone)]
struct Verified {
    claims: Arc<TokenClaims>,
    good: Range<UnixSeconds>,
}

impl Keys {
    /// From keys, oldest first.
    pub(crate) fn new(active: Option<Arc<TokenKey>>, keys: Vec<VerifyingKey>) -> Self {
        let jwks: Vec<_> = keys.iter().rev().map(|key| key.key.jwk()).collect();
        Self {
            active,
            jwks: serde_json::json!({ "keys": jwks }),
            by_kid: keys
                .into_iter()
                .map(|key| (Arc::clone(&key.key.kid), key))
                .collect(),
            cache: Cache::new(CACHED_TOKENS),
        }
    }

    pub(crate) fn any_retired(&self, now: UnixSeconds) -> bool {
        self.by_kid.values().any(|key| key.is_retired(now))
    }

    pub(crate) const fn jwks(&self) -> &serde_json::Value {
        &self.jwks
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_kid.keys()).finish()
    }
}

/// Verifies the tokens of one ring. Cheap to clone; remembers good tokens by their SHA-256, never bad ones.
#[derive(Clone)]
pub struct Verifier(Arc<Shared>);

impl Verifier {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    fn verify_afresh(
        &self,
        keys: &Keys,
        token: &str,
        now: UnixSeconds,
    ) -> Result<Verified, TokenFault> {
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or(TokenFault::Invalid("not a JWT"))?;
        let (header, claims) = signed
            .split_once('.')
            .ok_or(TokenFault::Invalid("not a JWT"))?;
        let header = decode(header)?;
        let header: Header<'_> = parse(&header, "unacceptable header")?;
        let signer = header.signer(keys, now)?;
        if !signer.key.verifies(signed.as_bytes(), &decode(signature)?) {
            return Err(TokenFault::Invalid("bad signature"));
        }
        let claims: Claims = parse(&decode(claims)?, "unacceptable claims")?;
        claims.judge(&self.0, signer.ends, now)
    }
}

impl TokenVerifier for Verifier {
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
        if token.len() > MAX_LENGTH {
            return Err(TokenFault::Invalid("too long"));
        }
        let keys = self.0.keys.load();
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        // Outside its time a remembered token is judged afresh, which also says what is wrong with it.
        if let Some(hit) = keys.cache.get(&hash).filter(|hit| hit.good.contains(&now)) {
            return Ok(hit.claims);
        }
        let verified = self.verify_afresh(&keys, token, now)?;
        let claims = Arc::clone(&verified.claims);
        keys.cache.insert(hash, verified);
        Ok(claims)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifier")
            .field(&*self.0.keys.load())
            .finish()
    }
}

/// Exactly the members that this issuer writes. `jku`, `jwk`, `x5u`, `x5c` and `crit` are refused with all others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    typ: Option<&'a str>,
    kid: &'a str,
}

impl Header<'_> {
    fn signer<'k>(&self, keys: &'k Keys, now: UnixSeconds) -> Result<&'k VerifyingKey, TokenFault> {
        if self.alg != "EdDSA" {
            return Err(TokenFault::Invalid("wrong algorithm"));
        }
        if self.typ.is_some_and(|typ| typ != "JWT") {
            return Err(TokenFault::Invalid("wrong type"));
        }
        // A look-up in a map: the text is never a path, a URL or a query.
        let key = keys
            .by_kid
            .get(self.kid)
            .ok_or(TokenFault::Invalid("unknown key"))?;
        if key.is_retired(now) {
            return Err(TokenFault::Invalid("signed by a retired key"));
        }
        Ok(key)
    }
}

/// The claims that count. Further ones are ignored: only we can have signed them. A repeated one is refused.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    jti: String,
    iat: u64,
    exp: u64,
    nbf: Option<u64>,
    policy: Option<String>,
    limits: Option<LimitsText>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    fn judge(
        self,
        shared: &Shared,
        key_ends: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> Result<Verified, TokenFault> {
        if self.iss != shared.issuer {
            return Err(TokenFault::Invalid("wrong issuer"));
        }
        let ours = match &self.aud {
            Audience::One(one) => *one == shared.audience,
            Audience::Many(many) => many.contains(&shared.audience),
        };
        if !ours {
            return Err(TokenFault::Invalid("wrong audience"));
        }
        let session =
            SessionId::parse(&self.sub).ok_or(TokenFault::Invalid("sub is no session id"))?;
        // Token ids are written like session ids.
        if SessionId::parse(&self.jti).is_none() {
            return Err(TokenFault::Invalid("jti is no token id"));
        }
        if !(1..=MAX_TTL.as_secs()).contains(&self.exp.saturating_sub(self.iat)) {
            return Err(TokenFault::Invalid(
                "lives longer than an hour, or not at all",
            ));
        }
        let from = self.iat.max(self.nbf.unwrap_or(0)).saturating_sub(LEEWAY);
        if now.0 < from {
            return Err(TokenFault::Invalid("not valid yet"));
        }
        let expires = UnixSeconds(self.exp);
        let claims = Arc::new(TokenClaims {
            session,
            terms: terms(self.policy.as_deref(), self.limits.as_ref())?,
            token_id: self.jti.into(),
            expires,
            origin: TokenOrigin::Own,
        });
        if now >= expires {
            return Err(TokenFault::Expired(claims));
        }
        let until = key_ends.map_or(expires, |ends| ends.min(expires));
        Ok(Verified {
            claims,
            good: UnixSeconds(from)..until,
        })
    }
}

/// Terms that cannot be read are not taken for none.
fn terms(policy: Option<&str>, limits: Option<&LimitsText>) -> Result<Terms, TokenFault> {
    let policy = policy
        .map(|name| PolicyName::parse(name).ok_or(TokenFault::Invalid("policy is no name")))
        .transpose()?;
    let limits = limits
        .map(SessionLimits::try_from)
        .transpose()
        .map_err(|_| TokenFault::Invalid("unreadable limits"))?
        .unwrap_or_default();
    Ok(Terms { policy, limits })
}

/// Base64url as RFC 7515 writes it: no padding, no white space, no stray bits at the end. One text, one meaning.
fn decode(segment: &str) -> Result<Vec<u8>, TokenFault> {
    URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| TokenFault::Invalid("not base64url"))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8], fault: &'static str) -> Result<T, TokenFault> {
    // Without the brace, an array of the members' values would do as well.
    if json.first() != Some(&b'{') {
        return Err(TokenFault::Invalid(fault));
    }
    serde_json::from_slice(json).map_err(|_| TokenFault::Invalid(fault))
}
