//! The issuers together: which of them a token is of, and what is remembered about good ones.

use std::{ops::Range, sync::Arc};

use futures_util::future::join_all;
use outgate_clock::Clock;
use outgate_journey::session::UnixSeconds;
use quick_cache::sync::Cache;

use crate::{
    config::{IssuerConfig, Timing},
    error::IssuerError,
    id::{self, TokenHash},
    introspect::Introspector,
    issuer::{Issuer, IssuerState},
    jws::{self, Shape, Signed},
    rules::{Genuine, IssuerClaim},
};

const KNOWN_TOKENS: usize = 16 * 1024;

/// Why a token is refused.
pub(crate) enum Fault<T> {
    Invalid(&'static str),
    Expired(T),
}

/// What the user of the issuers makes of claims.
pub(crate) type Make<T> = fn(Genuine) -> Result<T, &'static str>;

/// Issuers that are trusted, and what their tokens are made into.
pub(crate) struct Trust<T> {
    issuers: Vec<Arc<Issuer>>,
    introspector: Option<Arc<Introspector<T>>>,
    verified: Cache<TokenHash, Verified<T>>,
    clock: Arc<dyn Clock>,
    timing: Timing,
    make: Make<T>,
}

/// A token that verified, under which keys, and when that holds.
#[derive(Clone)]
struct Verified<T> {
    issuer: Arc<Issuer>,
    generation: u64,
    good: Range<UnixSeconds>,
    value: T,
}

impl<T: Clone + Send + Sync + 'static> Trust<T> {
    pub(crate) fn new(
        configs: Vec<IssuerConfig>,
        clock: Arc<dyn Clock>,
        timing: Timing,
        make: Make<T>,
    ) -> Result<Self, IssuerError> {
        let mut made = Self {
            issuers: Vec::new(),
            introspector: None,
            verified: Cache::new(KNOWN_TOKENS),
            clock,
            timing,
            make,
        };
        for config in configs {
            made.add(config)?;
        }
        Ok(made)
    }

    fn add(&mut self, mut config: IssuerConfig) -> Result<(), IssuerError> {
        if self.find(&config.issuer).is_some() {
            return Err(IssuerError::Twice(config.issuer));
        }
        let introspection = config.introspection.take();
        let issuer = Issuer::new(config, self.timing, self.clock.monotonic())?;
        if let Some(config) = introspection {
            let clock = Arc::clone(&self.clock);
            let asked = Introspector::new(&issuer, config, self.timing, clock, self.make)?;
            if let Some(other) = self.introspector.replace(Arc::new(asked)) {
                return Err(IssuerError::SeveralIntrospections(
                    other.issuer().to_owned(),
                    issuer.rules.issuer.to_string(),
                ));
            }
        }
        self.issuers.push(Arc::new(issuer));
        Ok(())
    }

    /// Others in the place of these, which keep what is known of the same keys.
    pub(crate) fn replaced(&self, configs: Vec<IssuerConfig>) -> Result<Self, IssuerError> {
        let made = Self::new(configs, Arc::clone(&self.clock), self.timing, self.make)?;
        for issuer in &made.issuers {
            if let Some(before) = self.find(&issuer.rules.issuer) {
                issuer.take_over(before);
            }
        }
        Ok(made)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    pub(crate) fn states(&self) -> Vec<IssuerState> {
        let at = self.clock.monotonic();
        self.issuers.iter().map(|one| one.state(at)).collect()
    }

    pub(crate) async fn refresh(&self) {
        let at = self.clock.monotonic();
        join_all(self.issuers.iter().map(|issuer| issuer.refresh(at))).await;
    }

    /// Fetches what `verify` needs.
    pub(crate) async fn prepare(&self, token: &str, now: UnixSeconds) {
        if self.issuers.is_empty() || token.len() > jws::LONGEST {
            return;
        }
        let hash = id::hash(token.as_bytes());
        let at = self.clock.monotonic();
        if let Some(known) = self.remembered(&hash, now)
            && known.issuer.keys(at).is_some_and(|keys| keys.is_fresh(at))
        {
            return;
        }
        match jws::read(token) {
            Shape::Signed(signed) => {
                if let Some(issuer) = self.claimed(&signed) {
                    issuer.prepare(&signed, at).await;
                }
            }
            Shape::Opaque => {
                if let Some(introspector) = &self.introspector {
                    introspector.prepare(token, hash).await;
                }
            }
            Shape::Malformed(_) => {}
        }
    }

    /// Verifies from what is known. No I/O.
    pub(crate) fn verify(&self, token: &str, now: UnixSeconds) -> Result<T, Fault<T>> {
        if token.len() > jws::LONGEST {
            return Err(Fault::Invalid("too long"));
        }
        let hash = id::hash(token.as_bytes());
        // Outside its time a remembered token is judged afresh, which also says what is wrong with it.
        if let Some(known) = self.remembered(&hash, now) {
            return Ok(known.value);
        }
        match jws::read(token) {
            Shape::Signed(signed) => self.verify_signed(*signed, hash, now),
            Shape::Opaque => match &self.introspector {
                Some(introspector) => introspector.verify(&hash, now),
                None => Err(Fault::Invalid("not a JWT")),
            },
            Shape::Malformed(why) => Err(Fault::Invalid(why)),
        }
    }

    /// A token that verified under keys that are still the issuer's.
    fn remembered(&self, hash: &TokenHash, now: UnixSeconds) -> Option<Verified<T>> {
        let known = self.verified.get(hash)?;
        let keys = known.issuer.keys(self.clock.monotonic())?;
        (keys.generation == known.generation && known.good.contains(&now)).then_some(known)
    }

    fn verify_signed(
        &self,
        signed: Signed<'_>,
        hash: TokenHash,
        now: UnixSeconds,
    ) -> Result<T, Fault<T>> {
        let issuer = self
            .claimed(&signed)
            .ok_or(Fault::Invalid("unknown issuer"))?;
        let generation = issuer
            .verify_signature(&signed, self.clock.monotonic())
            .map_err(Fault::Invalid)?;
        let genuine = issuer
            .rules
            .judge(signed.claims, &hash, IssuerClaim::Required)
            .map_err(Fault::Invalid)?;
        let good = genuine.good.clone();
        let made = (self.make)(genuine).map_err(Fault::Invalid)?;
        let value = timed(made, &good, now)?;
        let verified = Verified {
            issuer: Arc::clone(issuer),
            generation,
            good,
            value: value.clone(),
        };
        self.verified.insert(hash, verified);
        Ok(value)
    }

    /// Whose the token says it is. Only that issuer's keys can prove it.
    fn claimed(&self, signed: &Signed<'_>) -> Option<&Arc<Issuer>> {
        self.find(signed.claimed_issuer()?)
    }

    fn find(&self, name: &str) -> Option<&Arc<Issuer>> {
        self.issuers
            .iter()
            .find(|known| *known.rules.issuer == *name)
    }
}

/// The value, if this is its time. "Expired" is said of what was good once, so last.
pub(crate) fn timed<T>(
    value: T,
    good: &Range<UnixSeconds>,
    now: UnixSeconds,
) -> Result<T, Fault<T>> {
    if now < good.start {
        Err(Fault::Invalid("not valid yet"))
    } else if now >= good.end {
        Err(Fault::Expired(value))
    } else {
        Ok(value)
    }
}
