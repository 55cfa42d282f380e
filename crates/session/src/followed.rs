//! The keys of another gateway, the control plane that this one follows: they verify its tokens, and sign nothing here.

use std::{fmt, sync::Arc};

use crate::{
    key::PublicKey,
    verify::{Keys, Shared, Verifier, VerifyingKey},
};

/// The most keys that a set may have: far more than a ring that rotates every few weeks ever holds at once.
const MAX_KEYS: usize = 64;

/// Public keys that are replaced as a set. Before the first set, every token is refused.
#[derive(Clone)]
pub struct FollowedKeys(Arc<Shared>);

impl FollowedKeys {
    /// No keys yet. `issuer` and `audience` are the `iss` and `aud` that tokens must have.
    #[must_use]
    pub fn new(issuer: &str, audience: &str) -> Self {
        let none = Keys::new(None, Vec::new());
        Self(Arc::new(Shared::new(issuer, audience, none)))
    }

    /// Takes a JWK set (RFC 7517 section 5) over, newest key first. Tokens of keys that are not in it are refused from
    /// here on.
    ///
    /// # Errors
    /// What is wrong with the set; then the keys from before stay.
    pub fn replace(&self, jwks: &serde_json::Value) -> Result<(), &'static str> {
        let keys = jwks
            .get("keys")
            .and_then(serde_json::Value::as_array)
            .ok_or("not a JWK set")?;
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err("a JWK set without keys, or with more than 64");
        }
        let verifying = keys.iter().rev().map(|jwk| {
            let key = Arc::new(PublicKey::from_jwk(jwk)?);
            Some(VerifyingKey { key, ends: None })
        });
        let verifying: Option<Vec<_>> = verifying.collect();
        let verifying = verifying.ok_or("a key that is no Ed25519 key under its own thumbprint")?;
        self.0.keys.store(Arc::new(Keys::new(None, verifying)));
        Ok(())
    }

    /// A verifier that follows the set.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::new(Arc::clone(&self.0))
    }
}

impl fmt::Debug for FollowedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FollowedKeys")
            .field(&*self.0.keys.load())
            .finish()
    }
}
