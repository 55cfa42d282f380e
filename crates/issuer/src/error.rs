//! Why issuers cannot be set up. What goes wrong later is no error: the token is refused.

use std::path::PathBuf;

use outgate_https::{SetupError, UrlError};

/// What is wrong with the configuration of an issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Neither empty nor longer than 1 KiB.
    #[error("an issuer's name is empty or too long")]
    Name,
    /// Which keys were good would depend on the order of the file.
    #[error("issuer {0} occurs twice")]
    Twice(String),
    /// Whoever the tokens are for, they would be taken.
    #[error("issuer {0} has no audience")]
    NoAudience(String),
    /// The claim has no name.
    #[error("issuer {0} has an empty session claim")]
    NoClaim(String),
    /// A URL that cannot be called, or an issuer that is no URL below which to discover keys.
    #[error("issuer {issuer}: {what}: {why}")]
    Url {
        /// Which.
        issuer: String,
        /// Which of its URLs.
        what: &'static str,
        /// Why.
        why: UrlError,
    },
    /// `http://`.
    #[error("issuer {issuer}: {what} does not begin with https://")]
    Plaintext {
        /// Which.
        issuer: String,
        /// Which of its URLs.
        what: &'static str,
    },
    /// A file of keys that is no use.
    #[error("issuer {issuer}: {path}: {why}")]
    File {
        /// Which.
        issuer: String,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The roots.
    #[error("issuer {issuer}: {source}")]
    Client {
        /// Which.
        issuer: String,
        /// Why.
        source: SetupError,
    },
    /// A token that is no JWT does not say whose it is, and showing it to several would give it away.
    #[error("issuers {0} and {1} both have introspection; at most one may")]
    SeveralIntrospections(String, String),
    /// An operator is known by a signed token.
    #[error("issuer {0}: operators are not introspected")]
    OperatorIntrospection(String),
}
