//! The deployment's certificate authority, the leaves that it signs, and the bundle that a sandbox trusts.
//!
//! Only where a destination is bumped is there a CA at all. It can sign leaves and nothing below them (`pathlen:0`),
//! lives in one folder, and is never replaced by a start: what is present is used or refused. A leaf is for exactly
//! one name and lives a day.

mod bundle;
mod ca;
mod error;
mod key;
mod minter;

pub use bundle::{Bundle, RootSource, combined_bundle, write_bundle};
pub use ca::CertificateAuthority;
pub use error::PkiError;
pub use minter::Minter;
