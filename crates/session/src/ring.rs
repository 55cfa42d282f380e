//! The ring of signing keys: one that signs, and for a day the one before it, which only verifies.
//!
//! The folder is the state. Keys are made and removed under a lock on it, so that two processes that start at once end
//! with the same ring. A key that other users can read is refused, not repaired: it may have been copied.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    session::{SessionId, Terms, UnixSeconds},
};
use outgate_state as state;
use serde::Serialize;

use crate::{
    id::random_text,
    key::TokenKey,
    token::{Minted, SessionToken},
    verify::{Keys, Shared, Verifier, VerifyingKey},
};

/// The longest life of a token.
pub const MAX_TTL: Duration = Duration::from_secs(60 * 60);
/// The age at which a key stops signing.
pub const ROTATE_AFTER: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long a key verifies after it stopped signing; longer than any token lives.
pub const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a key or a token could not be had. Ours or the operator's fault, never the client's.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file or folder could not be used; says which and how to mend it.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// A file that should hold a key does not.
    #[error("{path} is no token signing key: {why}; move it away and a fresh key is made", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The next key's file name is taken, by something that is no key.
    #[error("{path} is in the way of a fresh key", path = path.display())]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// A token was asked for that would live too long, or no time at all.
    #[error("a token lives from 1 second to 60 minutes, not {0:?}")]
    TtlOutOfRange(Duration),
    /// The crypto library failed, as it does where the random source is broken.
    #[error("the crypto library failed")]
    Crypto,
}

/// The keys that sign and verify session tokens.
pub struct KeyRing {
    /// `None`: in memory only.
    dir: Option<PathBuf>,
    shared: Arc<Shared>,
    told: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Serialize)]
struct NewClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    jti: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<LimitsText>,
}

impl KeyRing {
    /// Opens the ring in a folder; creates the folder (0700) and a first key (0600) where there is none, and deletes
    /// keys whose overlap is over. `issuer` and `audience` are the `iss` and `aud` of every token.
    ///
    /// # Errors
    /// [`KeyError`]: a key that others can read, or that is no key, is named.
    pub fn open(
        dir: &Path,
        issuer: &str,
        audience: &str,
        now: UnixSeconds,
    ) -> Result<Self, KeyError> {
        state::create_private_dir(dir)?;
        let _lock = state::lock_dir(dir)?;
        let mut keys = load(dir)?;
        if keys.is_empty() {
            keys.push(Arc::new(TokenKey::create(dir, 1, now)?));
        }
        Self::of(Some(dir.to_owned()), keys, issuer, audience, now)
    }

    /// A ring of one key that no file ever holds, for tokens that are worth nothing after this process. It does not
    /// rotate.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub fn in_memory(issuer: &str, audience: &str, now: UnixSeconds) -> Result<Self, KeyError> {
        let key = Arc::new(TokenKey::in_memory(1, now)?);
        Self::of(None, vec![key], issuer, audience, now)
    }

    fn of(
        dir: Option<PathBuf>,
        keys: Vec<Arc<TokenKey>>,
        issuer: &str,
        audience: &str,
        now: UnixSeconds,
    ) -> Result<Self, KeyError> {
        let keys = serving(keys, now)?;
        Ok(Self {
            dir,
            told: OnceLock::new(),
            shared: Arc::new(Shared::new(issuer, audience, keys)),
        })
    }

    /// Mints a token for a session, which says what the session was given.
    ///
    /// # Errors
    /// [`KeyError::TtlOutOfRange`], [`KeyError::Crypto`].
    pub fn mint(
        &self,
        session: &SessionId,
        terms: &Terms,
        ttl: Duration,
        now: UnixSeconds,
    ) -> Result<Minted, KeyError> {
        if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
            return Err(KeyError::TtlOutOfRange(ttl));
        }
        let token_id = random_text("t_").ok_or(KeyError::Crypto)?;
        let expires = UnixSeconds(now.0.saturating_add(ttl.as_secs()));
        let claims = serde_json::to_vec(&NewClaims {
            iss: &self.shared.issuer,
            aud: &self.shared.audience,
            sub: session.as_str(),
            jti: &token_id,
            iat: now.0,
            exp: expires.0,
            policy: terms.policy.as_ref().map(|name| name.as_str()),
            limits: (terms.limits != SessionLimits::default()).then(|| (&terms.limits).into()),
        })
        .map_err(|_| KeyError::Crypto)?;
        let keys = self.shared.keys.load();
        let active = keys.active.as_ref().ok_or(KeyError::Crypto)?;
        let token = SessionToken::new(active.sign(&claims)?);
        Ok(Minted {
            token,
            token_id,
            expires,
        })
    }

    /// Has `told` called after every change of the set of keys. For one listener: the first one stays.
    pub fn on_change(&self, told: impl Fn() + Send + Sync + 'static) {
        let _ = self.told.set(Box::new(told));
    }

    /// Makes a fresh key that signs from here on. The one before verifies for [`OVERLAP`] more.
    ///
    /// # Errors
    /// [`KeyError`]; the ring then goes on as it was.
    pub fn rotate(&self, now: UnixSeconds) -> Result<(), KeyError> {
        self.turn(now, |_| true).map(|_| ())
    }

    /// Rotates if the signing key is older than [`ROTATE_AFTER`], and deletes keys whose overlap is over. Returns
    /// whether it rotated. A clock that stands before the key's creation makes no key old. Cheap when there is nothing
    /// to do.
    ///
    /// # Errors
    /// [`KeyError`]; the ring then goes on as it was.
    pub fn rotate_if_due(&self, now: UnixSeconds) -> Result<bool, KeyError> {
        let due =
            |active: &TokenKey| now.0.saturating_sub(active.created.0) >= ROTATE_AFTER.as_secs();
        let keys = self.shared.keys.load();
        if !keys.active.as_deref().is_some_and(due) && !keys.any_retired(now) {
            return Ok(false);
        }
        drop(keys);
        self.turn(now, due)
    }

    /// Reads the folder again, adds a key if `due` says so of the newest, deletes what is over, and serves the result.
    fn turn(&self, now: UnixSeconds, due: impl Fn(&TokenKey) -> bool) -> Result<bool, KeyError> {
        let Some(dir) = &self.dir else {
            return Ok(false);
        };
        let _lock = state::lock_dir(dir)?;
        let mut keys = load(dir)?;
        let rotates = keys.last().is_none_or(|newest| due(newest));
        if rotates {
            let sequence = keys
                .last()
                .map_or(0, |newest| newest.sequence)
                .saturating_add(1);
            keys.push(Arc::new(TokenKey::create(dir, sequence, now)?));
        }
        let keys = serving(keys, now)?;
        self.shared.keys.store(Arc::new(keys));
        if let Some(told) = self.told.get() {
            told();
        }
        Ok(rotates)
    }

    /// The public keys as a JWK set (RFC 7517 section 5).
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        self.shared.keys.load().jwks().clone()
    }

    /// A verifier that follows this ring through its rotations.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier::new(Arc::clone(&self.shared))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("dir", &self.dir)
            .field("keys", &*self.shared.keys.load())
            .finish()
    }
}

/// All keys of the folder, oldest first.
fn load(dir: &Path) -> Result<Vec<Arc<TokenKey>>, KeyError> {
    let failed = |source| state::StateError::Io {
        doing: "list",
        path: dir.to_owned(),
        source,
    };
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        if let Some(key) = TokenKey::load(&entry.map_err(failed)?.path())? {
            keys.push(Arc::new(key));
        }
    }
    keys.sort_by_key(|key| (key.sequence, key.created));
    Ok(keys)
}

/// What serves: the newest key signs, and each verifies up to the second at which it stops (none for the newest). Those
/// past it are deleted.
fn serving(keys: Vec<Arc<TokenKey>>, now: UnixSeconds) -> Result<Keys, KeyError> {
    let active = keys.last().map(Arc::clone).ok_or(KeyError::Crypto)?;
    let ends: Vec<_> = keys
        .iter()
        .skip(1)
        .map(|next| {
            Some(UnixSeconds(
                next.created.0.saturating_add(OVERLAP.as_secs()),
            ))
        })
        .chain([None])
        .collect();
    let mut kept = Vec::with_capacity(keys.len());
    for (key, ends) in keys.into_iter().zip(ends) {
        let verifying = VerifyingKey {
            key: Arc::clone(&key.public),
            ends,
        };
        if verifying.is_retired(now) {
            key.delete()?;
        } else {
            kept.push(verifying);
        }
    }
    Ok(Keys::new(Some(active), kept))
}
