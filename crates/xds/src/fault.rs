//! Why a door does not open. For the operator; no secret is in it.

use std::{io, path::PathBuf};

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorFault {
    /// Another process answers there.
    #[error("{}: another process listens there", .0.display())]
    InUse(PathBuf),
    /// It would be overwritten.
    #[error("{}: there is something that is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The folder is missing, or it may not be written.
    #[error("{}: {}", .0.display(), .1)]
    Socket(PathBuf, #[source] io::Error),
    /// The listener cannot be used.
    #[error("the listener cannot be used: {0}")]
    Listener(#[source] io::Error),
    /// A PEM file has no certificate.
    #[error("there is no certificate in the {0}")]
    NoCertificate(&'static str),
    /// A PEM file has no private key.
    #[error("there is no private key in the key file")]
    NoKey,
    /// The certificate, key or CA cannot be used.
    #[error("{0}")]
    Unusable(String),
}
