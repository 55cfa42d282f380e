//! The deployment's certificate authority, the leaves that it signs, and the bundle that a sandbox trusts.
//!
//! Only where a destination is bumped is there a CA at all. It can sign leaves and nothing below them (`pathlen:0`),
//! lives in one folder, and is never replaced by a start: what is present is used or refused. Where the deployment
//! supplies it, its files are followed and none is made. A leaf is for exactly one name and lives a day, in this process
//! or, with a key of its own, in another.

mod bundle;
mod ca;
mod certificate;
mod error;
mod java;
mod key;
mod minter;
mod portable;
mod supplied;

pub use bundle::{
    BUNDLE_FILE, Bundle, CallersRoots, RootSource, SYSTEM_FILES, TRUSTSTORE_FILE, TrustFiles,
    combined_bundle, write_bundle, write_trust,
};
pub use ca::CertificateAuthority;
pub use certificate::{CaCertificate, ReceivedLeaf};
pub use error::PkiError;
pub use java::java_truststore;
pub use minter::{Minter, leaves_minted};
pub use portable::PortableLeaf;
pub use supplied::{CaFiles, CaFlaw, CaLook, CaRefused, SuppliedCa};
