//! What an exporter is told: where to, as what, with which secrets. Refuses a name that is no file name. Secrets are
//! named here, never held.

use std::{fmt, path::PathBuf, time::Duration};

use http::HeaderName;
use outgate_https::{Url, UrlError};
use outgate_journey::policy::CredentialSource;
use thiserror::Error;

/// The name of an exporter, and of its cursor file: 1 to 64 of `[A-Za-z0-9_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExporterName(String);

impl ExporterName {
    /// Takes a name.
    ///
    /// # Errors
    /// [`ExportError::Name`].
    pub fn new(name: &str) -> Result<Self, ExportError> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=64).contains(&name.len()) && name.bytes().all(is_fit) {
            Ok(Self(name.to_owned()))
        } else {
            Err(ExportError::Name)
        }
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExporterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One exporter.
#[derive(Debug, Clone)]
pub struct ExportConfig {
    /// Its name, unique in the gateway.
    pub name: ExporterName,
    /// Where to: `https://`, or `http://` to a loopback address. For OTLP with its path, as a rule `/v1/logs`.
    pub url: Url,
    /// In which form.
    pub target: Target,
    /// Header fields of every request. Files are read before every attempt, so a changed one counts at once.
    pub headers: Vec<(HeaderName, CredentialSource)>,
    /// A PEM file of the roots that the receiver's certificate must lead to; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Sizes and times.
    pub tuning: Tuning,
}

impl ExportConfig {
    /// An exporter with nothing but the needful.
    ///
    /// # Errors
    /// [`ExportError`]: the name or the URL.
    pub fn new(name: &str, url: &str, target: Target) -> Result<Self, ExportError> {
        Ok(Self {
            name: ExporterName::new(name)?,
            url: Url::parse(url)?,
            target,
            headers: Vec::new(),
            ca: None,
            tuning: Tuning::default(),
        })
    }
}

/// The form that records are sent in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// OTLP/HTTP logs, JSON encoding.
    Otlp,
    /// JSON, signed as Standard Webhooks 1.0 asks.
    Webhook {
        /// The key: `whsec_` and base64, or plain text; at least 24 bytes. With several lines, each is a key and
        /// signs: the way to change keys without a gap.
        secret_file: PathBuf,
    },
}

/// Sizes and times of an exporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Records of one request, at most.
    pub max_records: usize,
    /// Bytes of their lines, at most; a longer record goes alone.
    pub max_bytes: usize,
    /// How often the trail is looked at while it stands still.
    pub poll: Duration,
    /// How long one request may take.
    pub timeout: Duration,
    /// The first wait after a failure; it doubles.
    pub first_retry: Duration,
    /// And no wait is longer.
    pub longest_retry: Duration,
    /// The wait after what only an operator can mend.
    pub slow_retry: Duration,
    /// How long a record may wait before the exporter counts as behind.
    pub behind_after: Duration,
    /// How long a stop may take to send what is pending.
    pub stop_within: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            max_records: 512,
            max_bytes: 1024 * 1024,
            poll: Duration::from_millis(200),
            timeout: Duration::from_secs(15),
            first_retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(60),
            slow_retry: Duration::from_secs(60),
            behind_after: Duration::from_secs(30),
            stop_within: Duration::from_secs(2),
        }
    }
}

/// Why an exporter is not started. What the receiver does wrong is no such reason.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Not a name.
    #[error("an exporter's name is 1 to 64 of A-Z a-z 0-9 _ -")]
    Name,
    /// Not a URL to send to.
    #[error("the exporter's url: {0}")]
    Url(#[from] UrlError),
    /// The folder of cursors cannot be used.
    #[error(transparent)]
    Folder(#[from] outgate_state::StateError),
    /// No thread could be started.
    #[error("cannot start the exporter's thread: {0}")]
    Thread(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_name_and_nothing_else() {
        for name in ["siem", "A-b_9", &"n".repeat(64)] {
            assert!(ExporterName::new(name).is_ok(), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "a b",
            "a.b",
            "é",
            &"n".repeat(65),
        ] {
            assert!(ExporterName::new(name).is_err(), "{name}");
        }
    }
}
