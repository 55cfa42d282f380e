//! What a server gives, and how it stands with a name.

use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret in one version.
pub struct Secret {
    /// What it was asked for by.
    pub name: Arc<str>,
    /// The server's word for this version.
    pub version: Arc<str>,
    /// The secret itself.
    pub value: SecretValue,
}

/// What is wiped when the last who uses it is done.
pub enum SecretValue {
    /// Any bytes, at least one.
    Generic(Zeroizing<Vec<u8>>),
    /// A certificate chain and its key, as PEM; not looked into.
    Certificate {
        /// The leaf first.
        chain_pem: String,
        /// Its private key.
        key_pem: Zeroizing<String>,
    },
}

/// How it stands with a name.
#[derive(Debug, Clone)]
pub enum SecretState {
    /// The server has not said yet.
    Waiting,
    /// It is this.
    Present(Arc<Secret>),
    /// There is none: it never was, was revoked, or has run out.
    Absent,
}

/// Why there is no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretFault {
    /// The server says that there is none.
    #[error("there is no such secret")]
    Absent,
    /// The server cannot be reached.
    #[error("the secret's server cannot be reached: {0}")]
    Unavailable(String),
    /// The server has not answered in time.
    #[error("the secret's server has not answered in time")]
    Timeout,
    /// More secrets are in use than are held.
    #[error("too many secrets are in use")]
    TooMany,
    /// It is empty, a wildcard, or longer than 512 bytes.
    #[error("this is no secret's name")]
    Name,
    /// The server's address, CA or our certificate cannot be used.
    #[error("{0}")]
    Target(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} {:?})", self.name, self.value)
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Generic(_) => "generic",
            Self::Certificate { .. } => "certificate",
        })
    }
}
