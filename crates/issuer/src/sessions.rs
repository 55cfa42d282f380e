//! Other issuers' tokens as session tokens.

use std::{fmt, future::Future, sync::Arc};

use outgate_clock::Clock;
use outgate_journey::session::{
    SessionId, Terms, TokenClaims, TokenFault, TokenOrigin, TokenVerifier, UnixSeconds,
};

use crate::{
    config::{IssuerConfig, Timing},
    error::IssuerError,
    id,
    issuer::IssuerState,
    rules::Genuine,
    trust::{Fault, Trust},
};

/// Verifies tokens of the issuers that the owner trusts. Cheap to clone.
///
/// One identity is one session: its id is `x_` and 26 characters, made of the issuer, the session claim, and what its
/// policy is chosen by if each has one of its own. So two issuers cannot speak of the same session, two that have
/// different policies cannot share one, and no id can be mistaken for one of ours.
#[derive(Clone)]
pub struct Issuers(Arc<Trust<Arc<TokenClaims>>>);

impl Issuers {
    /// Reads the files of roots and keys, which blocks; asks nobody.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn new(configs: Vec<IssuerConfig>, clock: Arc<dyn Clock>) -> Result<Self, IssuerError> {
        Self::with_timing(configs, clock, Timing::default())
    }

    /// As [`Self::new`], with other limits to patience.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn with_timing(
        configs: Vec<IssuerConfig>,
        clock: Arc<dyn Clock>,
        timing: Timing,
    ) -> Result<Self, IssuerError> {
        Ok(Self(Arc::new(Trust::new(configs, clock, timing, session)?)))
    }

    /// Issuers after a change of the configuration. Keys that are known stay known where their source is the same, so
    /// that a change does not depend on issuers that are down.
    ///
    /// # Errors
    /// [`IssuerError`]; these here stay in force.
    pub fn replaced(&self, configs: Vec<IssuerConfig>) -> Result<Self, IssuerError> {
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
}

impl TokenVerifier for Issuers {
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
        self.0.verify(token, now).map_err(|fault| match fault {
            Fault::Invalid(why) => TokenFault::Invalid(why),
            Fault::Expired(claims) => TokenFault::Expired(claims),
        })
    }

    fn prepare(&self, token: &str, now: UnixSeconds) -> impl Future<Output = ()> + Send {
        self.0.prepare(token, now)
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuers").field(&self.states()).finish()
    }
}

fn session(genuine: Genuine) -> Result<Arc<TokenClaims>, &'static str> {
    let mut identity = [genuine.issuer.as_bytes(), genuine.subject.as_bytes()].join(&0);
    if let Some(key) = &genuine.confined.key {
        // No subject has the separator in it, so this is none without a key.
        identity.push(0);
        identity.extend(key.as_bytes());
    }
    let id = id::name_of("x_", &id::hash(&identity));
    Ok(Arc::new(TokenClaims {
        session: SessionId::parse(&id).ok_or("no session id")?,
        token_id: genuine.token_id,
        expires: genuine.good.end,
        terms: Terms {
            policy: genuine.confined.policy,
            ..Terms::default()
        },
        origin: TokenOrigin::External {
            issuer: genuine.issuer,
            subject: genuine.subject,
        },
    }))
}
