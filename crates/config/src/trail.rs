//! How the audit trail is kept and where its records are sent.

use std::{path::PathBuf, time::Duration};

use http::HeaderName;
use outgate_journey::policy::CredentialSource;

use crate::WebUrl;

/// How the audit trail is kept, and where its records are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditConfig {
    /// When a file is closed and the next one begun.
    pub rotate: Rotation,
    /// Where records are sent to as well; no name occurs twice.
    pub export: Vec<Export>,
}

/// When a file of the trail is closed and the next one begun, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes, 1 MiB to 1 TiB.
    pub size: u64,
    /// Since its first record, 1 minute to 30 days.
    pub age: Duration,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            size: 1 << 30,
            age: Duration::from_secs(24 * 3600),
        }
    }
}

/// A place that records are sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name: 1 to 64 of `[A-Za-z0-9_-]`.
    pub name: String,
    /// What it is.
    pub target: ExportTarget,
    /// A PEM file with its roots; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// What a place for records is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportTarget {
    /// An OpenTelemetry collector that takes logs over HTTP.
    Otlp {
        /// Where it takes them: `https://collector.example.org/v1/logs`.
        url: WebUrl,
        /// Header fields for it, and where their values come from; no field occurs twice.
        headers: Vec<(HeaderName, CredentialSource)>,
    },
    /// A receiver of signed batches (Standard Webhooks).
    Webhook {
        /// Where it takes them.
        url: WebUrl,
        /// The file with the secret that batches are signed with.
        secret_file: PathBuf,
    },
}
