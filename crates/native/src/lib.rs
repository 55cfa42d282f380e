//! The native data plane: listeners, entries, TLS, upstream pool, relay, drain.
//!
//! An entry ([`listener`], [`connect`], [`exchange`]) gathers evidence and asks the journey; what the journey lets
//! through goes to [`forward`] and [`relay`]. What other planes need as well, the record of an exchange and the answer to
//! a refused one among it, is in `outgate_plane`.

mod ahead;
pub mod answer;
pub mod arrival;
mod body;
mod captured;
mod carrier;
mod connect;
mod dial;
mod dialled;
mod exchange;
mod feeds;
mod forward;
pub mod gateway;
pub mod guard;
mod listener;
pub mod metered;
#[cfg(target_os = "linux")]
pub mod names;
mod opened;
mod outgoing;
mod pool;
mod relay;
mod sds;
pub mod server;
mod server_tls;
mod shared;
mod socket_relay;
pub mod sockets;
pub mod state;
mod tunnel;
mod upgrade;
mod upstream;
