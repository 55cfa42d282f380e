//! One attempt, and what its outcome means. Refuses to take an answer for an acknowledgement that a receiver of this
//! kind would not give.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use outgate_https::{Client, HttpsError, Response, Roots, Settings, Url};

use crate::{
    answer::{self, Answer},
    batch::Batch,
    config::{ExportConfig, Target},
    fault::{ExportCode, Fault, Retry},
    otlp,
    retry::asked_for,
    secret::{Opened, Secrets, Stamp},
    trail::TrailFault,
    webhook,
};

/// Answers are a few hundred bytes.
const LONGEST_ANSWER: usize = 256 * 1024;
/// A receiver's own words, in a log line.
const MOST_WORDS: usize = 300;

/// A batch in the receiver's form; the same at every attempt.
#[derive(Debug)]
pub(crate) struct Parcel {
    id: String,
    body: Bytes,
}

/// What a receiver that took the batch said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Records that it refused for good, all the same.
    pub(crate) rejected: u64,
    /// Its words.
    pub(crate) words: Option<String>,
}

/// The way to one receiver.
pub(crate) struct Sender {
    url: Url,
    is_webhook: bool,
    settings: Settings,
    secrets: Secrets,
    /// `None` before the first attempt, and when roots have to be read again.
    client: Option<Client>,
    /// The files at the last attempt.
    tried: Stamp,
}

impl Sender {
    pub(crate) fn new(config: &ExportConfig) -> Self {
        let roots = config
            .ca
            .clone()
            .map_or_else(Roots::default, |path| Roots::Pem(vec![path]));
        Self {
            url: config.url.clone(),
            is_webhook: config.target != Target::Otlp,
            settings: Settings {
                roots,
                total: config.tuning.timeout,
                connect: config.tuning.timeout.min(Duration::from_secs(5)),
                max_response_bytes: LONGEST_ANSWER,
                plaintext_loopback: true,
            },
            secrets: Secrets::new(config),
            client: None,
            tried: Stamp::new(),
        }
    }

    pub(crate) const fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Whether a batch has an id by which the receiver knows it again.
    pub(crate) const fn names_batches(&self) -> bool {
        self.is_webhook
    }

    /// Whether a file was changed since the last attempt read it.
    pub(crate) fn has_new_files(&self) -> bool {
        self.secrets.stamp() != self.tried
    }

    pub(crate) fn pack(&self, log_id: &str, batch: &Batch) -> Result<Parcel, TrailFault> {
        let body = if self.is_webhook {
            webhook::encode(log_id, batch)
        } else {
            otlp::encode(log_id, batch)?
        };
        Ok(Parcel {
            id: webhook::id(log_id, batch),
            body: Bytes::from(body),
        })
    }

    /// Sends once. Cancelling it leaves open whether the receiver got it.
    pub(crate) async fn attempt(
        &mut self,
        parcel: &Parcel,
        wall_ms: u64,
    ) -> Result<Accepted, Fault> {
        // Before they are read: a change in between is then seen.
        self.tried = self.secrets.stamp();
        let opened = self.secrets.open()?;
        let headers = self.headers(&opened, parcel, wall_ms)?;
        let client = match &self.client {
            Some(client) => client,
            None => {
                self.client
                    .insert(Client::new(&self.settings).map_err(|why| {
                        Fault::new(ExportCode::Secret, Retry::Slowly, why.to_string())
                    })?)
            }
        };
        match client.post(&self.url, headers, parcel.body.clone()).await {
            Ok(response) => self.judge(&response, &opened, wall_ms),
            Err(error) => {
                // The roots may have been replaced since they were read.
                if matches!(error, HttpsError::Tls { .. }) {
                    self.client = None;
                }
                Err(fault_of(&error))
            }
        }
    }

    /// Ours last: configuration does not replace what the protocol needs.
    fn headers(&self, opened: &Opened, parcel: &Parcel, wall_ms: u64) -> Result<HeaderMap, Fault> {
        let mut headers = opened.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.is_webhook {
            let now = wall_ms / 1000;
            webhook::sign(&mut headers, &opened.keys, &parcel.id, now, &parcel.body)
                .map_err(|_| Fault::new(ExportCode::Secret, Retry::Slowly, "cannot be signed"))?;
        }
        Ok(headers)
    }

    fn judge(&self, response: &Response, opened: &Opened, wall_ms: u64) -> Result<Accepted, Fault> {
        if response.status.is_success() {
            return self.judge_success(response, opened);
        }
        let words = answer::words_of_error(&response.body).and_then(|words| shown(&words, opened));
        let (host, status) = (self.url.host(), response.status.as_u16());
        let detail = match words {
            Some(words) => format!("{host} answered {status}: {words}"),
            None => format!("{host} answered {status}"),
        };
        let (code, retry) = verdict(response.status);
        let asked = asked_for(&response.headers, wall_ms);
        let retry = match (retry, asked) {
            (Retry::Backoff, Some(asked)) => Retry::After(asked),
            _ => retry,
        };
        Err(Fault::new(code, retry, detail))
    }

    fn judge_success(&self, response: &Response, opened: &Opened) -> Result<Accepted, Fault> {
        if self.is_webhook {
            return Ok(Accepted::default());
        }
        match answer::read_answer(&response.body) {
            Answer::Complete { advice } => Ok(Accepted {
                rejected: 0,
                words: advice.and_then(|words| shown(&words, opened)),
            }),
            Answer::Partial { rejected, why } => Ok(Accepted {
                rejected,
                words: shown(&why, opened),
            }),
            Answer::Foreign => Err(Fault::new(
                ExportCode::UnexpectedAnswer,
                Retry::Slowly,
                format!(
                    "{} answered {} with something that no OTLP/HTTP receiver answers in JSON",
                    self.url.host(),
                    response.status.as_u16()
                ),
            )),
        }
    }
}

/// What a status other than 2xx means. OTLP asks to drop what a 4xx refused; audit records are kept and tried again.
fn verdict(status: StatusCode) -> (ExportCode, Retry) {
    match status.as_u16() {
        300..=399 => (ExportCode::Redirected, Retry::Slowly),
        401 | 403 => (ExportCode::Unauthorized, Retry::Slowly),
        408 => (ExportCode::Timeout, Retry::Backoff),
        400 | 422 => (ExportCode::Refused, Retry::Narrower),
        413 => (ExportCode::TooLarge, Retry::Narrower),
        429 => (ExportCode::Throttled, Retry::Backoff),
        402..=499 => (ExportCode::Refused, Retry::Slowly),
        500..=599 => (ExportCode::Unavailable, Retry::Backoff),
        _ => (ExportCode::UnexpectedAnswer, Retry::Slowly),
    }
}

fn fault_of(error: &HttpsError) -> Fault {
    let (code, retry) = match error {
        HttpsError::Connect { .. } | HttpsError::Protocol { .. } => {
            (ExportCode::Unreachable, Retry::Backoff)
        }
        HttpsError::Tls { .. } => (ExportCode::Tls, Retry::Backoff),
        HttpsError::Timeout { .. } => (ExportCode::Timeout, Retry::Backoff),
        HttpsError::TooLarge { .. } => (ExportCode::UnexpectedAnswer, Retry::Slowly),
        HttpsError::Plaintext { .. } | HttpsError::Request { .. } => {
            (ExportCode::Refused, Retry::Slowly)
        }
    };
    Fault::new(code, retry, error.to_string())
}

/// A receiver's words as they may stand in a log: short, on one line, and without our own secrets.
fn shown(words: &str, opened: &Opened) -> Option<String> {
    if words.trim().is_empty() {
        return None;
    }
    if opened.is_in(words) {
        return Some("(its words repeat a secret)".to_owned());
    }
    let is_plain = |c: char| c == ' ' || (!c.is_control() && !c.is_whitespace());
    let plain = words.chars().map(|c| if is_plain(c) { c } else { ' ' });
    Some(plain.take(MOST_WORDS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_says_what_to_do_next() {
        for (status, code, retry) in [
            (301, ExportCode::Redirected, Retry::Slowly),
            (307, ExportCode::Redirected, Retry::Slowly),
            (400, ExportCode::Refused, Retry::Narrower),
            (401, ExportCode::Unauthorized, Retry::Slowly),
            (403, ExportCode::Unauthorized, Retry::Slowly),
            (404, ExportCode::Refused, Retry::Slowly),
            (408, ExportCode::Timeout, Retry::Backoff),
            (410, ExportCode::Refused, Retry::Slowly),
            (413, ExportCode::TooLarge, Retry::Narrower),
            (415, ExportCode::Refused, Retry::Slowly),
            (422, ExportCode::Refused, Retry::Narrower),
            (429, ExportCode::Throttled, Retry::Backoff),
            (500, ExportCode::Unavailable, Retry::Backoff),
            (503, ExportCode::Unavailable, Retry::Backoff),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(verdict(status), (code, retry), "{status}");
        }
    }

    #[test]
    fn a_receivers_words_are_short_plain_and_hold_no_secret_of_ours() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
        let opened = Opened {
            headers,
            keys: Vec::new(),
        };
        for (words, wanted) in [
            ("", None),
            (" \n", None),
            ("too\nold\u{1b}[31m", Some("too old [31m")),
            ("not hunter2", Some("(its words repeat a secret)")),
            (&"x".repeat(999), Some(&*"x".repeat(300))),
        ] {
            assert_eq!(shown(words, &opened).as_deref(), wanted, "{words}");
        }
    }
}
