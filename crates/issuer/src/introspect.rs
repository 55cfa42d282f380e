//! Asking whether a token that says nothing itself is good (RFC 7662). An answer is believed for a minute at most and
//! never longer than the token's own `exp`; it must name us as audience, as a token would have to.
//!
//! Whatever a guest presents is asked about, so that a guest chooses how often: calls are joined by token, bounded in
//! number, and withheld for a second after one that found the endpoint down. What a token itself can bring about, an
//! answer that makes no sense, is held against that token alone: else one guest could shut the others out. An answer
//! that never came is no answer: the token is refused.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use outgate_clock::Clock;
use outgate_https::{Client, Url};
use outgate_journey::{policy::CredentialSource, session::UnixSeconds};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};
use zeroize::Zeroizing;

use crate::{
    config::{IntrospectionConfig, Timing},
    error::IssuerError,
    id::TokenHash,
    issuer::{self, Issuer},
    json,
    rules::{IssuerClaim, Rules},
    source,
    trust::{Fault, Make, timed},
};

const LONGEST_TRUST: Duration = Duration::from_secs(60);
const KNOWN_TOKENS: usize = 16 * 1024;
/// Apart from the good ones, so that a flood of bad tokens pushes out no good one.
const REFUSED_TOKENS: usize = 16 * 1024;
const CALLS_AT_ONCE: usize = 32;
const CALLS_WAITING: usize = 1024;
const MARGIN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_SECRET: usize = 64 * 1024;
const UNKNOWN: &str = "not known to be active";

/// One issuer's endpoint and what it has said.
pub(crate) struct Introspector<T> {
    rules: Arc<Rules>,
    url: Url,
    client: Client,
    client_id: String,
    client_secret: CredentialSource,
    cache_for: Duration,
    timing: Timing,
    clock: Arc<dyn Clock>,
    make: Make<T>,
    active: Cache<TokenHash, Active<T>>,
    refused: Cache<TokenHash, Refused>,
    calls: Mutex<Calls>,
    permits: Semaphore,
}

#[derive(Clone)]
struct Active<T> {
    value: T,
    good: Range<UnixSeconds>,
    /// On the machine's own clock.
    believed_until: Duration,
}

#[derive(Clone, Copy)]
struct Refused {
    why: &'static str,
    until: Duration,
}

#[derive(Default)]
struct Calls {
    under_way: HashMap<TokenHash, watch::Receiver<()>>,
    failed: Option<Duration>,
}

impl<T: Clone + Send + Sync + 'static> Introspector<T> {
    pub(crate) fn new(
        issuer: &Issuer,
        config: IntrospectionConfig,
        timing: Timing,
        clock: Arc<dyn Clock>,
        make: Make<T>,
    ) -> Result<Self, IssuerError> {
        let rules = Arc::clone(&issuer.rules);
        Ok(Self {
            url: issuer::https_url(&rules.issuer, "its introspection", &config.url)?,
            client: issuer::client(&rules.issuer, config.ca.as_ref(), timing)?,
            client_id: config.client_id,
            client_secret: config.client_secret,
            cache_for: config.cache_for.min(LONGEST_TRUST),
            rules,
            timing,
            clock,
            make,
            active: Cache::new(KNOWN_TOKENS),
            refused: Cache::new(REFUSED_TOKENS),
            calls: Mutex::default(),
            permits: Semaphore::new(CALLS_AT_ONCE),
        })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.rules.issuer
    }

    /// What is known about a token.
    pub(crate) fn verify(&self, token: &TokenHash, now: UnixSeconds) -> Result<T, Fault<T>> {
        let at = self.clock.monotonic();
        if let Some(known) = self.believed(token, at) {
            return timed(known.value, &known.good, now);
        }
        let refused = self.refused.get(token).filter(|said| at < said.until);
        let why = refused.map_or(UNKNOWN, |said| said.why);
        Err(Fault::Invalid(why))
    }

    fn believed(&self, token: &TokenHash, at: Duration) -> Option<Active<T>> {
        let known = self.active.get(token);
        known.filter(|known| at < known.believed_until)
    }

    /// Asks about a token, unless the answer is known.
    pub(crate) async fn prepare(self: &Arc<Self>, token: &str, hash: TokenHash) {
        let at = self.clock.monotonic();
        // An answer that is about to lapse would be gone by the time that it is used.
        let soon = at.saturating_add(MARGIN.min(self.cache_for / 4));
        let is_refused = || self.refused.get(&hash).is_some_and(|said| at < said.until);
        if self.believed(&hash, soon).is_some() || is_refused() {
            return;
        }
        if let Some(mut end) = self.ask(token, hash, at) {
            // Nothing is ever sent: the sender goes when the call does.
            let _ = tokio::time::timeout(self.timing.wait, end.changed()).await;
        }
    }

    /// Begins a call, or joins the one under way about the same token.
    fn ask(
        self: &Arc<Self>,
        token: &str,
        hash: TokenHash,
        at: Duration,
    ) -> Option<watch::Receiver<()>> {
        let mut calls = self.calls();
        if let Some(end) = calls.under_way.get(&hash) {
            return Some(end.clone());
        }
        let is_paused = calls
            .failed
            .is_some_and(|failed| at.saturating_sub(failed) < PAUSE);
        if is_paused || calls.under_way.len() >= CALLS_WAITING {
            return None;
        }
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (sender, end) = watch::channel(());
        calls.under_way.insert(hash, end.clone());
        let call = Call {
            asked: Arc::clone(self),
            hash,
            _sender: sender,
        };
        // A runtime that is ending drops the call at once, which takes the lock again.
        drop(calls);
        let token = Zeroizing::new(token.to_owned());
        runtime.spawn(async move {
            let limit = call.asked.timing.wait;
            // Calls that others have queued up do not mean that the endpoint is down.
            if let Ok(answer) = tokio::time::timeout(limit, call.asked.call(&token)).await {
                call.asked.settle(&hash, answer, at);
            }
        });
        Some(end)
    }

    /// The answer to a question about a token.
    async fn call(&self, token: &str) -> Result<Map<String, Value>, CallFault> {
        let _permit = self.permits.acquire().await.map_err(|_| down("closed"))?;
        let secret = read_secret(&self.client_secret).await.map_err(down)?;
        let mut headers = HeaderMap::new();
        let basic = basic(&self.client_id, &secret).map_err(down)?;
        headers.insert(AUTHORIZATION, basic);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let form = format!("token={}", form_encoded(token));
        let answer = self
            .client
            .post(&self.url, headers, form.into())
            .await
            .map_err(|fault| down(fault.to_string()))?;
        let status = answer.status;
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(down(format!("answered {}", status.as_u16())));
        }
        json::object(&answer.body)
            .filter(|_| status == StatusCode::OK)
            .filter(|object| object.get("active").is_some_and(Value::is_boolean))
            .ok_or(CallFault::NoAnswer(status))
    }

    fn settle(
        &self,
        hash: &TokenHash,
        answer: Result<Map<String, Value>, CallFault>,
        at: Duration,
    ) {
        let issuer = &self.rules.issuer;
        let judged = match answer {
            Ok(claims) if claims.get("active") == Some(&Value::Bool(true)) => {
                self.rules.judge(claims, hash, IssuerClaim::Optional)
            }
            Ok(_) => Err("not active"),
            Err(CallFault::NoAnswer(status)) => {
                // A guest can bring this about as often as it likes.
                tracing::debug!(%issuer, %status, "not an introspection response");
                let until = self.clock.monotonic().saturating_add(PAUSE);
                let why = UNKNOWN;
                return self.refused.insert(*hash, Refused { why, until });
            }
            Err(CallFault::Down(fault)) => {
                tracing::warn!(%issuer, %fault, "tokens cannot be introspected");
                self.calls().failed = Some(self.clock.monotonic());
                return;
            }
        };
        let until = at.saturating_add(self.cache_for);
        let made = judged.and_then(|genuine| {
            let good = genuine.good.clone();
            (self.make)(genuine).map(|value| Active {
                value,
                good,
                believed_until: until,
            })
        });
        match made {
            Ok(active) => self.active.insert(*hash, active),
            Err(why) => self.refused.insert(*hash, Refused { why, until }),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call brought nothing.
enum CallFault {
    /// Whoever asked would have got nothing.
    Down(String),
    /// What came is no answer.
    NoAnswer(StatusCode),
}

fn down(why: impl Into<String>) -> CallFault {
    CallFault::Down(why.into())
}

/// A call under way. However it ends, nobody goes on waiting for it.
struct Call<T> {
    asked: Arc<Introspector<T>>,
    hash: TokenHash,
    _sender: watch::Sender<()>,
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        let calls = self.asked.calls.lock();
        let mut calls = calls.unwrap_or_else(PoisonError::into_inner);
        calls.under_way.remove(&self.hash);
    }
}

/// RFC 6749 section 2.3.1: the name and the secret are form-encoded before they are joined.
fn basic(id: &str, secret: &str) -> Result<HeaderValue, String> {
    let secret = Zeroizing::new(form_encoded(secret));
    let pair = Zeroizing::new(format!("{}:{}", form_encoded(id), *secret));
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the secret cannot be sent")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Read each time, so that a secret that was changed counts without a restart.
async fn read_secret(source: &CredentialSource) -> Result<Zeroizing<String>, String> {
    let bytes = match source {
        CredentialSource::Env(variable) => std::env::var_os(variable)
            .map(std::ffi::OsString::into_encoded_bytes)
            .ok_or("the client secret's variable is not set")?,
        CredentialSource::File(path) => source::read_file(path.clone(), LONGEST_SECRET)
            .await
            .map_err(|fault| format!("the client secret: {fault}"))?,
        CredentialSource::Sds(_) => {
            return Err("the client secret comes from a variable or a file".to_owned());
        }
    };
    let mut bytes = Zeroizing::new(bytes);
    // One line break at the end is the editor's.
    let kept = bytes
        .strip_suffix(b"\r\n")
        .or_else(|| bytes.strip_suffix(b"\n"))
        .unwrap_or(&bytes)
        .len();
    bytes.truncate(kept);
    if bytes.is_empty() {
        return Err("the client secret is empty".to_owned());
    }
    std::str::from_utf8(&bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| "the client secret is not text".to_owned())
}

/// `application/x-www-form-urlencoded`; a space may be `%20` as well.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for nibble in [byte >> 4, byte & 15] {
                let digit = char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                encoded.push(digit.to_ascii_uppercase());
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_value_ends_nowhere_before_its_end() {
        assert_eq!(form_encoded("aZ09-._~"), "aZ09-._~");
        assert_eq!(
            form_encoded("a&b=c+d/e %ü\n"),
            "a%26b%3Dc%2Bd%2Fe%20%25%C3%BC%0A"
        );
    }

    #[test]
    fn a_secret_is_sent_as_rfc_6749_says_and_shown_nowhere() {
        let value = basic("out:gate", "p@ss word").unwrap();
        let sent = STANDARD
            .decode(value.to_str().unwrap().strip_prefix("Basic ").unwrap())
            .unwrap();
        assert_eq!(sent, b"out%3Agate:p%40ss%20word");
        assert_eq!(format!("{value:?}"), "Sensitive");
    }
}
