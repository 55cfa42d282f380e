//! What can go wrong with a CA: always ours or the operator's to mend, never a client's fault.

use std::path::PathBuf;

use outgate_journey::session::UnixSeconds;
use outgate_state::StateError;

use crate::supplied::CaRefused;

/// Why there is no CA, no leaf or no bundle. Never holds key material.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder could not be used; says which and how to mend it.
    #[error(transparent)]
    State(#[from] StateError),
    /// Half of a pair is there. A fresh half would not fit it, and a fresh pair would cut off every client that trusts
    /// the present one.
    #[error(
        "{missing} is missing, but {present} is there; put it back, or move {present} away to get a fresh CA",
        missing = missing.display(), present = present.display()
    )]
    HalfPair {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        missing: PathBuf,
    },
    /// The certificate cannot be used to sign leaves.
    #[error("{path} is not usable as a CA certificate: {why}", path = path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key file holds no key that can be used.
    #[error("{path} is not a P-256 private key in PEM form", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are both fine, but not a pair.
    #[error("{key} is not the private key of {certificate}", key = key.display(), certificate = certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The CA is past its end.
    #[error("the CA expired (at unix time {})", not_after.0)]
    Expired {
        /// Its `notAfter`.
        not_after: UnixSeconds,
    },
    /// `SSL_CERT_FILE` names a file without a certificate in it.
    #[error("SSL_CERT_FILE names {path}, which holds no certificate that can be read", path = path.display())]
    Roots {
        /// The file.
        path: PathBuf,
    },
    /// The key of a CA lies where only certificates may be.
    #[error(
        "{key} is there, but leaves come from a minter, which alone holds a CA's key; move ca.key and ca.crt to the minter's \
         state folder, or away", key = key.display()
    )]
    OwnKey {
        /// The key's file.
        key: PathBuf,
    },
    /// The key of a CA that was made here lies beside the certificate of one that the deployment supplies.
    #[error(
        "{key} is there, the key of a CA that this gateway made, but `ca` in the configuration names another CA; move \
         ca.key and ca.crt away", key = key.display()
    )]
    MadeHere {
        /// The key's file.
        key: PathBuf,
    },
    /// The CA that the deployment supplies.
    #[error(transparent)]
    Supplied(#[from] CaRefused),
    /// A leaf that another process sent is not served.
    #[error("the leaf that came is refused: {0}")]
    Leaf(&'static str),
    /// The crypto library failed, as it does where the random source is broken.
    #[error("the crypto library failed")]
    Crypto,
    /// A certificate could not be encoded, as for a clock that no certificate can express.
    #[error("a certificate could not be built")]
    Encoding,
}
