//! Which upstream credential a rule attaches, and how. Names and forms; never the secret.

use std::{fmt, sync::Arc};

use http::HeaderName;

/// The name of an upstream credential in the configuration; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CredentialName(Arc<str>);

impl CredentialName {
    /// A credential's name.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where an upstream credential comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialSource {
    /// An environment variable of the gateway, read once at start.
    Env(String),
    /// A file, watched. One trailing line break is not part of the value.
    File(std::path::PathBuf),
}

/// How an upstream credential is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// Which credential.
    pub credential: CredentialName,
    /// Where it goes.
    pub form: InjectionForm,
    /// Whether the rule lets the credential leave without TLS.
    pub over_plaintext: bool,
}

/// Where a credential goes in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InjectionForm {
    /// A header field whose value is `prefix`, the credential, `suffix`.
    Header {
        /// The field.
        name: HeaderName,
        /// Text before the credential.
        prefix: String,
        /// Text after it.
        suffix: String,
    },
    /// `Authorization: Basic` (RFC 7617) with this user name and the credential as the password.
    Basic {
        /// The user name; no colon.
        username: String,
    },
    /// A query parameter.
    Query {
        /// The parameter's name, as it stands in the URL.
        parameter: String,
    },
}
