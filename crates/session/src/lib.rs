//! Session tokens: JWTs (RFC 7519) that say which sandbox a request comes from and are worth nothing outside the
//! gateway.
//!
//! One algorithm, Ed25519 (RFC 8037), and one issuer, so there is nothing to negotiate: a header names a key that
//! this ring holds or the token is refused. At most an hour old, at most 4096 bytes long. Time is always a parameter.

mod followed;
mod id;
mod key;
mod ring;
mod token;
mod verify;

pub use followed::FollowedKeys;
pub use id::new_session_id;
pub use ring::{KeyError, KeyRing, MAX_TTL, OVERLAP, ROTATE_AFTER};
pub use token::{Minted, SessionToken};
pub use verify::Verifier;
