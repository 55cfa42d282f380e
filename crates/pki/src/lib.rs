//! The deployment's certificate authority, the leaves that it signs, and the bundle that a sandbox trusts.
//!
//! Only where a destination is bumped is there a CA at all. It can sign leaves and nothing below them (`pathlen:0`),
//! lives in one folder, and is never replaced by a start: what is present is used or refused. A leaf is for exactly
//! one name and lives a day.

mod bundle;
mod ca;
mod error;
mod java;
mod key;
mod minter;

pub use bundle::{
    BUNDLE_FILE, Bundle, CallersRoots, RootSource, SYSTEM_FILES, TRUSTSTORE_FILE, TrustFiles,
    combined_bundle, write_bundle, write_trust,
};
pub use ca::CertificateAuthority;
pub use error::PkiError;
pub use java::java_truststore;
pub use minter::Minter;
