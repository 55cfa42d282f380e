//! Leaves for data planes that end TLS in another process: Envoys, and gateways that do not hold the CA's key.
//!
//! A data plane asks for the secret that a handshake's server name names. [`LeafService`] decides: the policy of the
//! moment must bump that host (the journey judges it), the mint must be on record before the leaf is handed out, and a
//! thousand handshakes for one name mint once. Refused are addresses, wildcards, names in a spelling that is not the
//! canonical one, and everything outside the policy. What was handed out is renewed before it ends, for as long as
//! somebody uses it, and withdrawn when the policy drops its host.
//!
//! [`LeafSecrets`] serves this over SDS, [`MinterProcess`] is a process that does nothing else, and [`write_leaves`]
//! mints ahead, as files, where a policy's hosts can be counted.

use std::sync::Arc;

use outgate_pki::{CertificateAuthority, Minter};

mod asker;
mod files;
mod flight;
mod leaf;
mod process;
mod refusals;
mod secrets;
mod service;
mod table;
mod trail;

pub use asker::Asker;
pub use files::{LeafFiles, LeafFilesError, Wildcards, Written, leaf_file_name, write_leaves};
pub use leaf::Leaf;
pub use process::{MinterError, MinterPlaces, MinterProcess, open_ca};
pub use secrets::{LeafSecrets, is_leaf_name};
pub use service::{LeafParts, LeafService};
pub use trail::{BoxFuture, Trail, Unwritable};

/// How many leaves are held at once, unless another number is given. A leaf takes about 1,250 bytes.
pub const DEFAULT_CAPACITY: usize = 10_000;

/// Signs leaves for other processes alone. It remembers none of them: a [`LeafService`] does, or the files that they are
/// written to.
#[must_use]
pub fn portable_minter(authority: Arc<CertificateAuthority>) -> Minter {
    Minter::new(authority, 0)
}
