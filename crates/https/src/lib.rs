//! Calls that the operator's configuration asks for: to identity providers, log collectors and webhooks. No guest
//! chooses where they go, so the guests' policy and deny-set do not apply; what comes back is not trusted all the same.
//!
//! Refused: anything but `https://` (plain HTTP reaches loopback alone, where a flag says so), a certificate that does
//! not verify against the roots given, an answer that is longer or later than allowed. Not done: redirects, cookies,
//! proxies from the environment, decompression. Each of them would let the far side choose what is called or read.

mod client;
mod error;
mod roots;
mod url;

pub use client::{Client, Response, Settings};
pub use error::{HttpsError, SetupError};
pub use roots::Roots;
pub use url::{Url, UrlError};
