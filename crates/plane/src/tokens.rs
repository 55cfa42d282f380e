//! Every token that speaks for a session here: the gateway's own (or those of the control plane that it follows), and
//! those of issuers that the owner trusts.

use std::sync::Arc;

use arc_swap::ArcSwap;
use outgate_issuer::Issuers;
use outgate_journey::session::{TokenClaims, TokenFault, TokenVerifier, UnixSeconds};
use outgate_session::Verifier;

/// Verifies them. Cheap to clone; clones follow the same issuers.
#[derive(Clone)]
pub struct Tokens {
    own: Verifier,
    issuers: Arc<ArcSwap<Issuers>>,
}

impl Tokens {
    /// The tokens of one ring and of these issuers.
    #[must_use]
    pub fn new(own: Verifier, issuers: Issuers) -> Self {
        Self {
            own,
            issuers: Arc::new(ArcSwap::from_pointee(issuers)),
        }
    }

    /// The issuers of this moment.
    #[must_use]
    pub fn issuers(&self) -> Arc<Issuers> {
        self.issuers.load_full()
    }

    /// Trusts other issuers from here on.
    pub fn trust(&self, issuers: Issuers) {
        self.issuers.store(Arc::new(issuers));
    }
}

impl TokenVerifier for Tokens {
    fn verify(&self, token: &str, now: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
        match self.own.verify(token, now) {
            Err(TokenFault::Invalid(why)) => {
                let issuers = self.issuers.load();
                if issuers.is_empty() {
                    return Err(TokenFault::Invalid(why));
                }
                issuers.verify(token, now)
            }
            other => other,
        }
    }

    async fn prepare(&self, token: &str, now: UnixSeconds) {
        let issuers = self.issuers.load_full();
        if !issuers.is_empty() && matches!(self.own.verify(token, now), Err(TokenFault::Invalid(_)))
        {
            issuers.prepare(token, now).await;
        }
    }
}
