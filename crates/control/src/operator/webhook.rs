//! Decides whether a call to `/v1/webhooks/{name}` is its sender's and of this moment, as Standard Webhooks
//! (standardwebhooks.com) has it: a signature over id, timestamp and body, by HMAC-SHA-256 (`v1`) or Ed25519 (`v1a`).
//!
//! A name that nobody configured, a missing field and a bad signature are one answer: who cannot sign learns nothing.
//! The timestamp must be within five minutes of the guarded clock, and after this process began: what was received
//! before is not remembered across a restart, so it is too old instead. An id is acted on once; its repeat, within the
//! time in which it would be accepted, gets the first answer again. What a message dated ahead of our clock could do a
//! second time behind a restart is what it did the first time: revoke.

mod key;
mod once;
mod seen;

use std::{collections::HashMap, sync::Arc};

use http::HeaderMap;
use outgate_journey::session::UnixSeconds;

use self::key::WebhookKey;
pub(crate) use self::{
    once::once,
    seen::{Remembered, Seen},
};
use super::{
    code::ErrorCode,
    problem::Refusal,
    settings::{SettingsError, WebhookSettings},
};

/// How far a timestamp may be off, in seconds.
pub(crate) const TOLERANCE: u64 = 5 * 60;
const MAX_ID: usize = 256;

/// The configured webhooks.
pub(crate) struct Webhooks(HashMap<String, Webhook>);

struct Webhook {
    settings: WebhookSettings,
    key: WebhookKey,
    seen: Arc<Seen>,
}

/// A call that its sender signed, at this moment.
pub(crate) struct Verified {
    pub(crate) name: String,
    pub(crate) tenant: Option<String>,
    /// `webhook-id`.
    pub(crate) id: String,
    /// `webhook-timestamp`.
    pub(crate) at: u64,
    pub(crate) seen: Arc<Seen>,
}

impl Webhooks {
    /// Reads the keys' files. A webhook that was there before keeps its memory of calls.
    pub(crate) fn read(
        settings: &[WebhookSettings],
        before: Option<&Self>,
    ) -> Result<Self, SettingsError> {
        let mut webhooks = HashMap::new();
        for webhook in settings {
            let key = WebhookKey::read(&webhook.key).map_err(|why| SettingsError {
                place: format!("operator.webhooks {}", webhook.name),
                why,
            })?;
            let seen = before
                .and_then(|before| before.0.get(&webhook.name))
                .map(|known| Arc::clone(&known.seen));
            let webhook = Webhook {
                settings: webhook.clone(),
                key,
                seen: seen.unwrap_or_default(),
            };
            webhooks.insert(webhook.settings.name.clone(), webhook);
        }
        Ok(Self(webhooks))
    }

    /// Forgets calls whose repeat would not be accepted.
    pub(crate) fn sweep(&self, now: UnixSeconds) {
        self.0.values().for_each(|webhook| webhook.seen.sweep(now));
    }

    /// Judges a call; `began` is when this process did.
    pub(crate) fn verify(
        &self,
        name: &str,
        headers: &HeaderMap,
        body: &[u8],
        now: UnixSeconds,
        began: UnixSeconds,
    ) -> Result<Verified, Refusal> {
        let unverified =
            |why: &'static str| Refusal::from(ErrorCode::WebhookUnverified).because(why);
        let webhook = self
            .0
            .get(name)
            .ok_or_else(|| unverified("no such webhook"))?;
        let id = field(headers, "webhook-id").ok_or_else(|| unverified("no webhook-id"))?;
        let printable = id.bytes().all(|b| b.is_ascii_graphic());
        if id.is_empty() || id.len() > MAX_ID || !printable {
            return Err(unverified("unfit webhook-id"));
        }
        let timestamp =
            field(headers, "webhook-timestamp").ok_or_else(|| unverified("no timestamp"))?;
        let at = seconds(timestamp).ok_or_else(|| unverified("unfit timestamp"))?;
        let signatures =
            field(headers, "webhook-signature").ok_or_else(|| unverified("no signature"))?;
        let mut signed = Vec::with_capacity(id.len() + timestamp.len() + body.len() + 2);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            signed.extend_from_slice(part);
        }
        // A sender that changes its key signs with both for a while.
        if !signatures
            .split(' ')
            .any(|one| webhook.key.verifies(one, &signed))
        {
            return Err(unverified("bad signature"));
        }
        // Judged after the signature, so that only the sender is told of its clock.
        if at.abs_diff(now.0) > TOLERANCE || at <= began.0 {
            return Err(Refusal::from(ErrorCode::WebhookOutdated)
                .because(format!("timestamp {at}, clock {}", now.0)));
        }
        Ok(Verified {
            name: name.to_owned(),
            tenant: webhook.settings.tenant.clone(),
            id: id.to_owned(),
            at,
            seen: Arc::clone(&webhook.seen),
        })
    }
}

/// The field's only value.
fn field<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Decimal seconds: one spelling, because the signature is over the text.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}
