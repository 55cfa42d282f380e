//! Tokens of issuers that are not ours: OpenID Connect providers, Kubernetes clusters, SPIFFE authorities, and, for
//! tokens that say nothing themselves, whoever answers introspection (RFC 7662).
//!
//! Decides whether a text is a good token of an issuer that the configuration names, and refuses everything else. Which
//! issuer that is, its keys, its algorithms and its URLs come from the configuration; a token chooses among them and
//! can name nothing else: `jku`, `x5u` and the like are never followed. Verifying does no I/O. What it needs is fetched
//! beforehand by `prepare`, at most once in ten seconds for an issuer's keys, whatever is asked.
//!
//! Signatures are checked with aws-lc directly. A JWT library would bring a clock of its own, and time is a parameter
//! here; the tests have such a library check that both agree.

mod claim;
mod config;
mod error;
mod id;
mod introspect;
mod issuer;
mod json;
mod jws;
mod key;
mod keys;
mod operators;
mod policy;
mod rules;
mod sessions;
mod source;
mod trust;

pub use claim::claim;
pub use config::{Algorithm, IntrospectionConfig, IssuerConfig, KeySource, Timing};
pub use error::IssuerError;
pub use issuer::IssuerState;
pub use operators::{ClaimsFault, OperatorTokens, VerifiedClaims};
pub use policy::SessionPolicy;
pub use sessions::Issuers;
