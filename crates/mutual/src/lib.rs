//! Mutual TLS between processes of one operator: a control plane and the gateways that follow it, a gateway and the
//! data planes that ask it, a data plane and its server of secrets. Decides who a peer is: its certificate is of one
//! pinned CA, and it is called what that certificate calls it. The web's roots have no part in it.
//!
//! Nothing is resumed: a resumed connection would be let in by what its certificate was worth earlier. What differs is
//! the caller's to say: which versions of TLS, which names nobody may have, who is on the list, and an error's words.

mod config;
mod handshake;
mod link;
mod names;
#[cfg(test)]
mod testing;

pub use config::{ALPN, Pem, TlsFault, client_config, server_config};
pub use handshake::{Handshakes, accept};
pub use link::{Link, LinkSettings, connect, in_time, with_causes};
pub use names::{Allowed, canonical_name, peer_names};
