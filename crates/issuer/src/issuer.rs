//! One issuer, its keys, and when they are fetched.
//!
//! A guest can name any key it likes, so what it names must not decide how often an issuer is asked: at most one fetch
//! is under way, and ten seconds lie between the beginnings of two, whatever came of the first. A fetch runs by itself,
//! so that a guest that hangs up does not end it for the others.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use outgate_https::{Client, Roots, Settings, Url};
use tokio::sync::watch;

use crate::{
    config::{Algorithm, IssuerConfig, KeySource, Timing},
    error::IssuerError,
    jws::Signed,
    keys::KeySet,
    rules::Rules,
    source::{self, Source},
};

/// Between the beginnings of two fetches.
const APART: Duration = Duration::from_secs(10);

/// Why nothing can be verified, whoever presents it.
pub(crate) const KEYS_UNKNOWN: &str = "the issuer's keys are not known";
/// See [`KEYS_UNKNOWN`].
pub(crate) const KEYS_OUT_OF_DATE: &str = "the issuer's keys are out of date";

/// How an issuer fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerState {
    /// Its `iss`.
    pub issuer: Arc<str>,
    /// How many of its keys are usable.
    pub keys: usize,
    /// How long ago they were fetched; `None`: never.
    pub age: Option<Duration>,
    /// Why the last fetch failed, if it did.
    pub fault: Option<String>,
}

/// An issuer whose tokens are taken.
pub(crate) struct Issuer {
    pub(crate) rules: Arc<Rules>,
    config: IssuerConfig,
    source: Source,
    timing: Timing,
    keys: ArcSwapOption<KeySet>,
    fetches: Mutex<Fetches>,
}

#[derive(Default)]
struct Fetches {
    /// When the last one began, on the machine's own clock.
    last: Option<Duration>,
    /// Closed when the one under way ends, however it ends.
    under_way: Option<watch::Receiver<()>>,
    fault: Option<String>,
}

impl Issuer {
    /// Reads files; asks nobody.
    pub(crate) fn new(
        config: IssuerConfig,
        timing: Timing,
        now: Duration,
    ) -> Result<Self, IssuerError> {
        let issuer = config.issuer.clone();
        if !(1..=1024).contains(&issuer.len()) {
            return Err(IssuerError::Name);
        }
        if config.audiences.is_empty() {
            return Err(IssuerError::NoAudience(issuer));
        }
        if config.session_claim.is_empty() {
            return Err(IssuerError::NoClaim(issuer));
        }
        let made = Self {
            rules: Arc::new(Rules::new(&config)),
            source: source_of(&config, timing)?,
            config,
            timing,
            keys: ArcSwapOption::empty(),
            fetches: Mutex::default(),
        };
        made.read_file(now)?;
        Ok(made)
    }

    /// Keys in a file are known from the start, and a file that is no use is the owner's mistake.
    fn read_file(&self, now: Duration) -> Result<(), IssuerError> {
        let Source::File(path) = &self.source else {
            return Ok(());
        };
        let failed = |why: String| IssuerError::File {
            issuer: self.config.issuer.clone(),
            path: path.clone(),
            why,
        };
        let bytes = source::read_file_now(path, source::LONGEST_ANSWER)
            .map_err(|fault| failed(fault.to_string()))?;
        let set = KeySet::read(&bytes, Some(Duration::ZERO), now, None)
            .map_err(|why| failed(why.to_owned()))?;
        if set.len() == 0 {
            return Err(failed("no usable key".to_owned()));
        }
        self.keys.store(Some(Arc::new(set)));
        Ok(())
    }

    /// Takes over what is known of the same keys.
    pub(crate) fn take_over(&self, before: &Self) {
        let (ours, theirs) = (&self.config, &before.config);
        if ours.issuer == theirs.issuer && ours.keys == theirs.keys && ours.ca == theirs.ca {
            let known = self.keys.load();
            if known.is_none() {
                self.keys.store(before.keys.load_full());
            }
        }
    }

    pub(crate) fn is_allowed(&self, algorithm: Algorithm) -> bool {
        if self.config.algorithms.is_empty() {
            return Algorithm::DEFAULT.contains(&algorithm);
        }
        self.config.algorithms.contains(&algorithm)
    }

    /// The keys, if they count.
    pub(crate) fn keys(&self, at: Duration) -> Option<Arc<KeySet>> {
        self.keys.load_full().filter(|keys| keys.is_usable(at))
    }

    /// Checks the signature. `Ok`: the generation of the keys that it is good under.
    pub(crate) fn verify_signature(
        &self,
        token: &Signed<'_>,
        at: Duration,
    ) -> Result<u64, &'static str> {
        let algorithm = token
            .algorithm
            .filter(|algorithm| self.is_allowed(*algorithm))
            .ok_or("wrong algorithm")?;
        let keys = self.keys.load_full().ok_or(KEYS_UNKNOWN)?;
        if !keys.is_usable(at) {
            return Err(KEYS_OUT_OF_DATE);
        }
        keys.verifies(
            token.kid.as_deref(),
            algorithm,
            token.message,
            &token.signature,
        )?;
        Ok(keys.generation)
    }

    /// Fetches keys where a token needs it: in the background where they are merely old, waited for where they are
    /// missing.
    pub(crate) async fn prepare(self: &Arc<Self>, token: &Signed<'_>, at: Duration) {
        let Some(algorithm) = token.algorithm.filter(|alg| self.is_allowed(*alg)) else {
            return;
        };
        let known = self
            .keys(at)
            .filter(|keys| keys.knows(token.kid.as_deref(), algorithm));
        let is_waited_for = match &known {
            Some(keys) if keys.is_fresh(at) => return,
            // An issuer that is down is waited for once, not by every request of its bad day.
            Some(keys) => keys.is_overdue(at) && self.fetches().fault.is_none(),
            None => true,
        };
        if let Some(end) = self.fetch(at).filter(|_| is_waited_for) {
            self.wait(end).await;
        }
    }

    /// Fetches keys that are old or missing, and waits.
    pub(crate) async fn refresh(self: &Arc<Self>, at: Duration) {
        if self.keys(at).is_some_and(|keys| keys.is_fresh(at)) {
            return;
        }
        if let Some(end) = self.fetch(at) {
            self.wait(end).await;
        }
    }

    async fn wait(&self, mut end: watch::Receiver<()>) {
        // Nothing is ever sent: the sender goes when the fetch does.
        let _ = tokio::time::timeout(self.timing.wait, end.changed()).await;
    }

    /// Begins a fetch, or joins the one under way; `None` where it is too soon for another.
    fn fetch(self: &Arc<Self>, at: Duration) -> Option<watch::Receiver<()>> {
        let mut fetches = self.fetches();
        if let Some(end) = fetches
            .under_way
            .as_ref()
            .filter(|end| end.has_changed().is_ok())
        {
            return Some(end.clone());
        }
        if fetches
            .last
            .is_some_and(|last| at.saturating_sub(last) < APART)
        {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (sender, end) = watch::channel(());
        fetches.last = Some(at);
        fetches.under_way = Some(end.clone());
        let issuer = Arc::clone(self);
        runtime.spawn(async move {
            let fetched = issuer.source.fetch().await;
            issuer.settle(fetched, at);
            drop(sender);
        });
        Some(end)
    }

    fn settle(&self, fetched: Result<source::Fetched, String>, at: Duration) {
        let before = self.keys.load_full();
        let read = fetched.and_then(|fetched| {
            KeySet::read(&fetched.bytes, fetched.lifetime, at, before.as_deref())
                .map_err(|why| format!("the keys: {why}"))
        });
        let issuer = &self.config.issuer;
        let fault = match read {
            Ok(keys) => {
                if before.is_none_or(|before| before.generation != keys.generation) {
                    tracing::info!(%issuer, keys = keys.len(), "the issuer's keys are known");
                }
                self.keys.store(Some(Arc::new(keys)));
                None
            }
            Err(fault) => {
                tracing::warn!(%issuer, %fault, "the issuer's keys could not be fetched");
                Some(fault)
            }
        };
        self.fetches().fault = fault;
    }

    pub(crate) fn state(&self, at: Duration) -> IssuerState {
        let keys = self.keys.load_full();
        IssuerState {
            issuer: Arc::clone(&self.rules.issuer),
            keys: keys.as_ref().map_or(0, |keys| keys.len()),
            age: keys.map(|keys| keys.age(at)),
            fault: self.fetches().fault.clone(),
        }
    }

    fn fetches(&self) -> MutexGuard<'_, Fetches> {
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn source_of(config: &IssuerConfig, timing: Timing) -> Result<Source, IssuerError> {
    let issuer = &config.issuer;
    let client = || client(issuer, config.ca.as_ref(), timing);
    Ok(match &config.keys {
        KeySource::JwksFile(path) => Source::File(path.clone()),
        KeySource::JwksUrl(keys) => Source::Url {
            keys: https_url(issuer, "the URL of its keys", keys)?,
            client: client()?,
        },
        KeySource::Discovery => {
            let base = issuer.strip_suffix('/').unwrap_or(issuer);
            // Below a query there is nothing.
            if issuer.contains('?') {
                return Err(IssuerError::Url {
                    issuer: issuer.clone(),
                    what: "the issuer",
                    why: outgate_https::UrlError::Malformed,
                });
            }
            let metadata = format!("{base}/.well-known/openid-configuration");
            Source::Discovery {
                metadata: https_url(issuer, "the issuer", &metadata)?,
                issuer: issuer.clone(),
                client: client()?,
            }
        }
    })
}

/// A URL that may be called.
pub(crate) fn https_url(issuer: &str, what: &'static str, text: &str) -> Result<Url, IssuerError> {
    let url = Url::parse(text).map_err(|why| IssuerError::Url {
        issuer: issuer.to_owned(),
        what,
        why,
    })?;
    if !url.is_https() {
        return Err(IssuerError::Plaintext {
            issuer: issuer.to_owned(),
            what,
        });
    }
    Ok(url)
}

/// A client that trusts the given roots.
pub(crate) fn client(
    issuer: &str,
    ca: Option<&std::path::PathBuf>,
    timing: Timing,
) -> Result<Client, IssuerError> {
    let settings = Settings {
        roots: ca.map_or(Roots::System, |path| Roots::Pem(vec![path.clone()])),
        connect: timing.call,
        total: timing.call,
        max_response_bytes: source::LONGEST_ANSWER,
        plaintext_loopback: false,
    };
    Client::new(&settings).map_err(|source| IssuerError::Client {
        issuer: issuer.to_owned(),
        source,
    })
}
