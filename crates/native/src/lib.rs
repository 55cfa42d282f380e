//! The native data plane: listeners, entries, TLS, upstream pool, relay, drain.
//!
//! An entry ([`listener`], [`connect`], [`exchange`]) gathers evidence and asks the journey; what the journey lets
//! through goes to [`forward`] and [`relay`]. [`trail`] follows every exchange into the audit trail, and [`answer`]
//! is the one place that says no.

mod answer;
pub mod arrival;
mod body;
mod captured;
mod carrier;
pub mod clock;
mod connect;
mod dial;
mod exchange;
mod forward;
pub mod gateway;
mod guard;
mod limits;
mod listener;
mod metered;
#[cfg(target_os = "linux")]
pub mod names;
mod outgoing;
mod pool;
mod prefixed;
mod relay;
pub mod resolver;
mod server_tls;
pub mod shared;
pub mod state;
pub mod tokens;
mod trail;
mod tripwire;
mod tunnel;
mod upgrade;
mod upstream;
pub mod upstream_tls;

/// 32 random hexadecimal digits.
///
/// # Errors
/// Where the operating system has no random numbers.
pub fn random_hex() -> Result<String, gateway::GatewayError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| gateway::GatewayError::Random)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
