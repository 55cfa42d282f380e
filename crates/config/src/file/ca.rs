//! The CA that the deployment supplies.

use schemars::JsonSchema;
use serde::Deserialize;

/// The files of a CA, which are watched and may be renewed in their place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileCa {
    /// A PEM file, relative to this file's folder: first the certificate of the CA that signs, then the intermediates
    /// between it and the root, which are sent behind each leaf. Roots may follow; they are handed out, and not sent.
    pub(crate) certificate: String,
    /// A PEM file with its private key, ECDSA P-256.
    pub(crate) key: String,
}
