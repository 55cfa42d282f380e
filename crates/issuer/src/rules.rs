//! Judging claims that are known to be the issuer's. Names are compared byte for byte, as RFC 7519 says: an issuer with
//! a slash at its end is another issuer.

use std::{ops::Range, sync::Arc};

use outgate_journey::session::UnixSeconds;
use serde_json::{Map, Value};

use crate::{
    claim::claim,
    config::IssuerConfig,
    id::{self, TokenHash},
    policy::{Confined, SessionPolicy},
};

/// How far ahead an issuer's clock may be.
const LEEWAY: u64 = 30;
const LONGEST_SUBJECT: usize = 1024;
const LONGEST_TOKEN_ID: usize = 128;

/// What must be true of an issuer's tokens.
pub(crate) struct Rules {
    pub(crate) issuer: Arc<str>,
    audiences: Vec<String>,
    session_claim: String,
    max_age: Option<u64>,
    policy: SessionPolicy,
}

/// Whether claims must say whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IssuerClaim {
    /// In a token.
    Required,
    /// In an answer of the issuer's own endpoint (RFC 7662 section 2.2); one that is there must be right.
    Optional,
}

/// Claims that are good but for the time.
pub(crate) struct Genuine {
    pub(crate) issuer: Arc<str>,
    pub(crate) subject: Arc<str>,
    pub(crate) token_id: Arc<str>,
    /// From when, until when.
    pub(crate) good: Range<UnixSeconds>,
    pub(crate) confined: Confined,
    pub(crate) claims: Map<String, Value>,
}

impl Rules {
    pub(crate) fn new(config: &IssuerConfig) -> Self {
        Self {
            issuer: config.issuer.as_str().into(),
            audiences: config.audiences.clone(),
            session_claim: config.session_claim.clone(),
            max_age: config.max_age.map(|age| age.as_secs()),
            policy: config.policy.clone(),
        }
    }

    /// Judges everything but the time.
    pub(crate) fn judge(
        &self,
        claims: Map<String, Value>,
        token: &TokenHash,
        naming: IssuerClaim,
    ) -> Result<Genuine, &'static str> {
        match claims.get("iss") {
            None if naming == IssuerClaim::Optional => {}
            Some(Value::String(issuer)) if **issuer == *self.issuer => {}
            _ => return Err("wrong issuer"),
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err("wrong audience");
        }
        let good = self.period(&claims)?;
        let subject = match claim(&claims, &self.session_claim) {
            Some(Value::String(subject)) => subject.as_str(),
            _ => return Err("no session claim, or no text in it"),
        };
        let is_subject =
            (1..=LONGEST_SUBJECT).contains(&subject.len()) && !subject.contains(char::is_control);
        if !is_subject {
            return Err("the session claim is empty, too long or not printable");
        }
        Ok(Genuine {
            issuer: Arc::clone(&self.issuer),
            subject: subject.into(),
            token_id: token_id(&claims, token),
            good,
            confined: self.policy.judge(&claims)?,
            claims,
        })
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let is_ours = |name: &Value| name.as_str().is_some_and(|name| self.is_audience(name));
        match audience {
            Some(one @ Value::String(_)) => is_ours(one),
            Some(Value::Array(many)) => {
                many.iter().all(Value::is_string) && many.iter().any(is_ours)
            }
            _ => false,
        }
    }

    fn is_audience(&self, name: &str) -> bool {
        self.audiences.iter().any(|ours| ours == name)
    }

    fn period(&self, claims: &Map<String, Value>) -> Result<Range<UnixSeconds>, &'static str> {
        let time = |name: &str, fault| match claims.get(name) {
            None => Ok(None),
            Some(value) => numeric_date(value).map(Some).ok_or(fault),
        };
        let exp = time("exp", "exp is no time")?.ok_or("no exp")?;
        let nbf = time("nbf", "nbf is no time")?;
        let iat = time("iat", "iat is no time")?;
        let until = match self.max_age {
            None => exp,
            Some(age) => exp.min(iat.ok_or("no iat")?.saturating_add(age)),
        };
        let from = nbf.max(iat).unwrap_or(0).saturating_sub(LEEWAY);
        Ok(UnixSeconds(from)..UnixSeconds(until))
    }
}

/// Seconds since 1970, whole or not (RFC 7519 section 2). The part of a second is cut off.
fn numeric_date(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let seconds = std::time::Duration::try_from_secs_f64(value.as_f64()?).ok()?;
        Some(seconds.as_secs())
    })
}

/// `jti`, where it can stand in a record as it is; else a name for the token itself.
fn token_id(claims: &Map<String, Value>, token: &TokenHash) -> Arc<str> {
    let is_plain = |id: &&str| {
        (1..=LONGEST_TOKEN_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    claims
        .get("jti")
        .and_then(Value::as_str)
        .filter(is_plain)
        .map_or_else(|| id::name_of("t_", token).into(), Into::into)
}
