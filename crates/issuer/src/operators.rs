//! Other issuers' tokens as proof of who an operator is. What the claims allow is decided by whoever asks.

use std::{fmt, sync::Arc};

use outgate_clock::Clock;
use outgate_journey::session::UnixSeconds;
use serde_json::{Map, Value};

use crate::{
    config::{IssuerConfig, Timing},
    error::IssuerError,
    issuer::{IssuerState, KEYS_OUT_OF_DATE, KEYS_UNKNOWN},
    rules::Genuine,
    trust::{Fault, Trust},
};

/// Verifies operators' tokens. Cheap to clone.
#[derive(Clone)]
pub struct OperatorTokens(Arc<Trust<Arc<VerifiedClaims>>>);

/// The claims of a token that verified.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedClaims {
    /// `iss`.
    pub issuer: Arc<str>,
    /// The value of [`IssuerConfig::session_claim`].
    pub subject: Arc<str>,
    /// `jti`, or a name made of the token's hash.
    pub token_id: Arc<str>,
    /// The first second at which the token is no longer good.
    pub expires: UnixSeconds,
    /// All of them.
    pub claims: Map<String, Value>,
}

/// Why an operator's token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimsFault {
    /// Not a token of a trusted issuer.
    #[error("not a valid token: {0}")]
    Invalid(&'static str),
    /// It was good once.
    #[error("expired")]
    Expired,
}

impl ClaimsFault {
    /// Whether it is for want of the issuer's keys, which is no fault of the token's.
    #[must_use]
    pub fn is_for_want_of_keys(&self) -> bool {
        matches!(self, Self::Invalid(why) if [KEYS_UNKNOWN, KEYS_OUT_OF_DATE].contains(why))
    }
}

impl OperatorTokens {
    /// Reads the files of roots and keys, which blocks; asks nobody.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn new(configs: Vec<IssuerConfig>, clock: Arc<dyn Clock>) -> Result<Self, IssuerError> {
        refuse_introspection(&configs)?;
        let trust = Trust::new(configs, clock, Timing::default(), verified)?;
        Ok(Self(Arc::new(trust)))
    }

    /// Issuers after a change of the configuration; keys that are known stay known where their source is the same.
    ///
    /// # Errors
    /// [`IssuerError`]; these here stay in force.
    pub fn replaced(&self, configs: Vec<IssuerConfig>) -> Result<Self, IssuerError> {
        refuse_introspection(&configs)?;
        Ok(Self(Arc::new(self.0.replaced(configs)?)))
    }

    /// Whether nobody is trusted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fetches the keys that are old or missing. Bounded in time; what fails is in [`Self::states`].
    pub async fn refresh(&self) {
        self.0.refresh().await;
    }

    /// How the issuers fare.
    #[must_use]
    pub fn states(&self) -> Vec<IssuerState> {
        self.0.states()
    }

    /// Fetches what [`Self::verify_claims`] will need for this token and does not have. Bounded in time.
    pub async fn prepare(&self, token: &str, now: UnixSeconds) {
        self.0.prepare(token, now).await;
    }

    /// Verifies one token from what is known. No I/O.
    ///
    /// # Errors
    /// [`ClaimsFault`]; never panics, whatever the text.
    pub fn verify_claims(
        &self,
        token: &str,
        now: UnixSeconds,
    ) -> Result<Arc<VerifiedClaims>, ClaimsFault> {
        self.0.verify(token, now).map_err(|fault| match fault {
            Fault::Invalid(why) => ClaimsFault::Invalid(why),
            Fault::Expired(_) => ClaimsFault::Expired,
        })
    }
}

impl fmt::Debug for OperatorTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OperatorTokens")
            .field(&self.states())
            .finish()
    }
}

fn refuse_introspection(configs: &[IssuerConfig]) -> Result<(), IssuerError> {
    match configs.iter().find(|config| config.introspection.is_some()) {
        Some(config) => Err(IssuerError::OperatorIntrospection(config.issuer.clone())),
        None => Ok(()),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the shape that the issuers ask for"
)]
fn verified(genuine: Genuine) -> Result<Arc<VerifiedClaims>, &'static str> {
    Ok(Arc::new(VerifiedClaims {
        issuer: genuine.issuer,
        subject: genuine.subject,
        token_id: genuine.token_id,
        expires: genuine.good.end,
        claims: genuine.claims,
    }))
}
