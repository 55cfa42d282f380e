//! How the operator's door says no: a value with a public and a private half, and its answer (RFC 9457).

use std::borrow::Cow;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::code::ErrorCode;

/// An answer that is no success (RFC 9457): `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:outgate:problem:` and the code.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What happened, the same for every answer of the code.
    #[serde(default)]
    pub title: String,
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// What there is to say about this call, for people.
    pub detail: String,
    /// Stable, for programs.
    pub code: String,
    /// Also in the audit record.
    #[serde(default)]
    pub request_id: String,
    /// The call had its effect all the same: it could not be recorded, or not be made to last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_effect: bool,
}

/// A refusal: what the caller may know, and what only the audit trail may.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    /// For the caller; empty: the code's remedy.
    pub(crate) detail: Cow<'static, str>,
    /// For the record. Never what the caller sent: that may hold a secret.
    pub(crate) private: Cow<'static, str>,
    pub(crate) retry_after: Option<u64>,
    pub(crate) in_effect: bool,
    /// The methods of the route, for a 405.
    pub(crate) allow: Option<String>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            detail: Cow::Borrowed(""),
            private: Cow::Borrowed(""),
            retry_after: None,
            in_effect: false,
            allow: None,
        }
    }
}

impl Refusal {
    /// A refusal that tells the caller more than its code does.
    pub(crate) fn saying(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut refusal = Self::from(code);
        refusal.detail = detail.into();
        refusal
    }

    /// Adds what only the record is told.
    pub(crate) fn because(mut self, private: impl Into<Cow<'static, str>>) -> Self {
        self.private = private.into();
        self
    }

    /// Says when to try again, in seconds.
    pub(crate) const fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Says that the call had its effect.
    pub(crate) const fn in_effect(mut self) -> Self {
        self.in_effect = true;
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The answer's body.
    pub(crate) fn problem(&self, request_id: &str) -> Problem {
        let detail = if self.detail.is_empty() {
            self.code.remedy()
        } else {
            &self.detail
        };
        Problem {
            kind: format!("urn:outgate:problem:{}", self.code),
            title: self.code.title().to_owned(),
            status: self.code.status(),
            detail: detail.to_owned(),
            code: self.code.as_str().to_owned(),
            request_id: request_id.to_owned(),
            in_effect: self.in_effect,
        }
    }
}
