//! The keys of an issuer at one moment.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::{config::Algorithm, json, key::Key};

/// How long keys are good for that cannot be fetched afresh.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long keys are used without another look, at most and at least, and where the server says nothing.
const FRESH_AT_MOST: Duration = Duration::from_secs(60 * 60);
const FRESH_AT_LEAST: Duration = Duration::from_secs(60);
const FRESH_USUALLY: Duration = Duration::from_secs(10 * 60);
/// More than any issuer has; each costs a look at every token.
const MOST_KEYS: usize = 128;

static GENERATION: AtomicU64 = AtomicU64::new(1);

/// A set of keys and when it was fetched.
#[derive(Clone)]
pub(crate) struct KeySet {
    keys: Arc<[Key]>,
    document: Arc<Value>,
    /// Moves whenever the keys do: what was verified under other keys counts no longer.
    pub(crate) generation: u64,
    fetched: Duration,
    fresh: Duration,
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 section 5), fetched at `at` of the machine's own clock. Keys that are the same as
    /// `before` keep their generation.
    pub(crate) fn read(
        bytes: &[u8],
        lifetime: Option<Duration>,
        at: Duration,
        before: Option<&Self>,
    ) -> Result<Self, &'static str> {
        let document = json::object(bytes).ok_or("not a JSON object without repeated names")?;
        let listed = match document.get("keys") {
            Some(Value::Array(listed)) => listed,
            _ => return Err("no list of keys"),
        };
        if listed.len() > MOST_KEYS {
            return Err("more than 128 keys");
        }
        let document = Value::Array(listed.clone());
        let fresh = lifetime.map_or(FRESH_USUALLY, |asked| {
            asked.clamp(FRESH_AT_LEAST, FRESH_AT_MOST)
        });
        if let Some(before) = before.filter(|before| *before.document == document) {
            return Ok(Self {
                fetched: at,
                fresh,
                ..before.clone()
            });
        }
        Ok(Self {
            keys: listed.iter().filter_map(Key::from_jwk).collect(),
            document: Arc::new(document),
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            fetched: at,
            fresh,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn age(&self, at: Duration) -> Duration {
        at.saturating_sub(self.fetched)
    }

    /// Whether it counts at all.
    pub(crate) fn is_usable(&self, at: Duration) -> bool {
        self.age(at) <= KEPT
    }

    /// Whether it need not be fetched yet.
    pub(crate) fn is_fresh(&self, at: Duration) -> bool {
        self.age(at) < self.fresh
    }

    /// Whether it is so old that fetching it is worth waiting for.
    pub(crate) fn is_overdue(&self, at: Duration) -> bool {
        self.age(at) >= FRESH_AT_MOST
    }

    /// Whether there is a key for what a token names.
    pub(crate) fn knows(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.meant(kid, algorithm).is_some()
    }

    /// Whether the signature is by a key that the token may mean.
    pub(crate) fn verifies(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), &'static str> {
        let meant = self.meant(kid, algorithm).ok_or("unknown key")?;
        let is_good = meant
            .iter()
            .any(|key| key.verifies(algorithm, message, signature));
        if is_good {
            Ok(())
        } else {
            Err("bad signature")
        }
    }

    /// The keys that a token may mean; never an empty list. Without a name, only a key that is alone in fitting.
    fn meant(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Vec<&Key>> {
        let fitting: Vec<_> = self
            .keys
            .iter()
            .filter(|key| key.is_meant(kid, algorithm))
            .collect();
        match fitting.len() {
            0 => None,
            1 => Some(fitting),
            // RFC 7517 section 4.5 lets keys share a name.
            _ => kid.map(|_| fitting),
        }
    }
}
