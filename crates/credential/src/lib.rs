//! The only crate that holds plaintext secrets: sources, leases, forms, scrubbing.
//!
//! A [`CredentialStore`] reads secrets from their sources, or is told them, and leases immutable [`CredentialVersion`]s. A version is
//! attached to a request on the leg that the gateway originates, and its [`Scrubber`] takes it out of whatever comes
//! back. Nothing here prints, serialises or logs a secret, and what this crate allocates for one is wiped on drop.
//!
//! What cannot be wiped, because its memory belongs to others: the `HeaderValue` or `Uri` that carries the secret
//! upstream, network buffers, the history that a decoder keeps of a body, and the first four bytes of each spelling
//! in the search tables.
//!
//! What scrubbing cannot see: transformations other than the listed spellings (reversal, encryption, MIME line
//! breaks inside base64), two encodings on top of each other, and a secret that is asked for in pieces over several
//! range requests.

mod attach;
mod body;
mod candidates;
mod decode;
mod escaping;
mod flow;
mod response;
mod scrub;
mod secret;
mod source;
mod spelling;
mod store;
mod stream;
mod told;
mod values;
mod version;

pub use body::{BoxError, ScrubBody};
pub use flow::{BodyFault, ScrubFlow};
pub use response::{Unscrubbable, request_accept_encoding, scrub_head, scrub_response};
pub use scrub::Scrubber;
pub use secret::Secret;
pub use source::{SourceCode, SourceProblem, value_in_file};
pub use store::{Change, ChangeKind, CredentialStore};
pub use stream::{Pieces, ScrubStream};
pub use told::{Contact, Told};
pub use version::CredentialVersion;
