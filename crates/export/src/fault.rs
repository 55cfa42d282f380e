//! Why a batch was not delivered, and what follows from it.

use std::{fmt, time::Duration};

/// What went wrong, in one word that stays the same: for logs, status and alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExportCode {
    /// No connection to the receiver.
    Unreachable,
    /// The receiver did not prove who it is.
    Tls,
    /// No answer in time.
    Timeout,
    /// The receiver failed: 5xx.
    Unavailable,
    /// The receiver wants fewer requests: 429.
    Throttled,
    /// The receiver does not take our credential: 401, 403.
    Unauthorized,
    /// The receiver refuses the request: another 4xx.
    Refused,
    /// The request, or one record, is larger than the receiver takes: 413.
    TooLarge,
    /// The receiver sends us elsewhere: 3xx.
    Redirected,
    /// An answer that no receiver of this kind gives.
    UnexpectedAnswer,
    /// A secret or the file of roots cannot be used.
    Secret,
    /// The audit trail cannot be read.
    Trail,
}

impl ExportCode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "export_unreachable",
            Self::Tls => "export_tls",
            Self::Timeout => "export_timeout",
            Self::Unavailable => "export_unavailable",
            Self::Throttled => "export_throttled",
            Self::Unauthorized => "export_unauthorized",
            Self::Refused => "export_refused",
            Self::TooLarge => "export_too_large",
            Self::Redirected => "export_redirected",
            Self::UnexpectedAnswer => "export_unexpected_answer",
            Self::Secret => "export_secret",
            Self::Trail => "export_trail",
        }
    }
}

impl fmt::Display for ExportCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// When it makes sense to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It may pass by itself.
    Backoff,
    /// The receiver said when.
    After(Duration),
    /// Somebody has to mend it.
    Slowly,
    /// With fewer records: one of them may be what is refused. With one record, slowly.
    Narrower,
}

/// One failure. `detail` is for operators, and holds neither secrets nor the URL's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: ExportCode,
    pub(crate) detail: String,
    pub(crate) retry: Retry,
}

impl Fault {
    pub(crate) fn new(code: ExportCode, retry: Retry, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry,
        }
    }

    /// Whether a changed secret could be what mends it.
    pub(crate) const fn is_about_secrets(&self) -> bool {
        matches!(self.code, ExportCode::Unauthorized | ExportCode::Secret)
    }
}
