//! The data plane under test, behind the few things that a scenario needs of it. Which one runs is chosen by
//! `OUTGATE_CONFORMANCE_PLANE`; a scenario never asks.

mod envoy;
mod native;

use std::{net::SocketAddr, process::ExitStatus, time::Duration};

pub use envoy::Edge;
use native::Native;
use outgate_testkit::{CommandOutput, Gateway, GatewayOptions};
use serde_json::Value;

/// The planes that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The gateway itself.
    Native,
    /// Envoy, with the gateway as its control plane.
    Envoy,
}

impl Kind {
    /// Every plane.
    pub const ALL: [Self; 2] = [Self::Native, Self::Envoy];

    /// As `OUTGATE_CONFORMANCE_PLANE` spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Envoy => "envoy",
        }
    }

    /// The plane of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The plane that `OUTGATE_CONFORMANCE_PLANE` names; native unless told.
    ///
    /// # Panics
    /// If it names none that is known.
    #[must_use]
    pub fn under_test() -> Self {
        let name = std::env::var("OUTGATE_CONFORMANCE_PLANE").unwrap_or_else(|_| "native".into());
        let known = Self::ALL.map(Self::name).join(", ");
        Self::named(&name)
            .unwrap_or_else(|| panic!("OUTGATE_CONFORMANCE_PLANE={name}: the planes are: {known}"))
    }
}

/// A running data plane with one policy file.
pub trait Plane: Send {
    /// The explicit proxy that guests use.
    fn proxy(&self) -> SocketAddr;
    /// The Outgate process that keeps sessions, records, keys and the CA: the native gateway, or Envoy's control plane.
    fn gateway(&self) -> &Gateway;
    /// As [`Plane::gateway`].
    fn gateway_mut(&mut self) -> &mut Gateway;
    /// Replaces the policy file.
    fn write_config(&mut self, config: &Value);
    /// Begins a graceful stop.
    fn begin_stop(&self);
    /// Waits for the end of a graceful stop.
    fn wait(&mut self, limit: Duration) -> ExitStatus;
    /// Whether every process of the plane still runs.
    fn is_running(&mut self) -> bool;
    /// Resident memory of all its processes, in KiB.
    fn resident_kib(&self) -> u64;
    /// Envoy and its control plane, for scenarios about what only they can get wrong.
    fn edge(&mut self) -> Option<&mut Edge>;
    /// Stops every process and starts again on the same state.
    fn restart(self: Box<Self>) -> Box<dyn Plane>;

    /// The CA that signs minted leaves, if there is one.
    fn ca_pem(&self) -> Option<String> {
        self.gateway().ca_pem()
    }

    /// Creates a session with further arguments of `outgate session create`: id and token.
    fn session_create(&self, arguments: &[&str]) -> (String, String) {
        self.gateway().session_create_with(arguments)
    }

    /// Ends a session; when this returns, the end was accepted.
    fn session_end(&self, id: &str) {
        self.gateway().session_end(id);
    }

    /// Runs a command of the operator.
    fn operate(&self, arguments: &[&str]) -> CommandOutput {
        self.gateway().command(arguments)
    }

    /// Every audit record so far, in order.
    fn audit_records(&self) -> Vec<Value> {
        self.gateway().audit_records()
    }

    /// Everything that the plane's processes logged.
    fn logs(&self) -> String {
        self.gateway().stderr()
    }

    /// Replaces the policy file by any text.
    fn write_config_text(&self, text: &str) {
        self.gateway().write_config_text(text);
    }
}

/// Starts the plane under test.
///
/// # Panics
/// If it does not start, or if `OUTGATE_CONFORMANCE_PLANE` names none that is known.
#[must_use]
pub fn start(options: GatewayOptions) -> Box<dyn Plane> {
    match Kind::under_test() {
        Kind::Native => Box::new(Native(Gateway::start(options))),
        Kind::Envoy => Box::new(Edge::start(options)),
    }
}
