//! What is wrong with how a gateway or a control plane is set up, and with what a gateway kept.

use std::path::PathBuf;

use outgate_state::StateError;

/// A connection cannot be set up as it is configured. The operator's to mend; never names a key.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Not `https://host:port`.
    #[error("the control plane's address has to be https://HOST:PORT")]
    Address,
    /// No certificate could be read.
    #[error("the {0} has no certificate in PEM form")]
    NoCertificate(&'static str),
    /// No private key could be read.
    #[error("the key file has no private key in PEM form")]
    NoKey,
    /// The TLS library refuses them.
    #[error("the certificate or the key cannot be used: {0}")]
    Unusable(String),
}

/// What was kept is not used.
#[derive(Debug, thiserror::Error)]
pub enum LastStateError {
    /// It cannot be read, or others could have changed it.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is torn, or was changed by something else than a gateway.
    #[error("{path} is not as it was written and is not used: {why}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// In what way.
        why: &'static str,
    },
    /// It is what another control plane said.
    #[error("{0} is of another control plane and is not used")]
    Foreign(PathBuf),
}
