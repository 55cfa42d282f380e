//! Why a call failed, in words that say what to do.

use std::{io, path::PathBuf};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error(
        "no gateway answers on {path} ({source}); start `outgate serve`, or give its state folder with --state-dir"
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The gateway at a URL cannot be reached, or is not whom it should be.
    #[error("{url}: {why}")]
    Unreachable {
        /// As it was given.
        url: String,
        /// Why.
        why: String,
    },
    /// The gateway said no.
    #[error("{detail} [{code}]{}", if *.in_effect { " (it is in effect)" } else { "" })]
    Refused {
        /// Stable.
        code: String,
        /// For people.
        detail: String,
        /// The HTTP status.
        status: u16,
        /// The call had its effect all the same.
        in_effect: bool,
        /// The one in the audit record.
        request_id: String,
    },
    /// The URL, the token's file or the CA's file cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The gateway did not answer as it should.
    #[error("the gateway's answer could not be read: {0}")]
    Broken(String),
}

impl ClientError {
    /// A stable word for it: the gateway's own code, or `not_running`, `unreachable`, `unusable` or `broken`.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::NotRunning { .. } => "not_running",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { code, .. } => code,
            Self::Unusable(_) => "unusable",
            Self::Broken(_) => "broken",
        }
    }
}
