//! The data plane under test, behind the few things that a scenario needs of it. Which one runs is chosen by
//! `OUTGATE_CONFORMANCE_PLANE`; a scenario never asks.

use std::{net::SocketAddr, process::ExitStatus, time::Duration};

use outgate_testkit::{CommandOutput, Gateway, GatewayOptions};
use serde_json::Value;

/// A running data plane with one policy file.
pub trait Plane: Send {
    /// The explicit proxy that guests use.
    fn proxy(&self) -> SocketAddr;
    /// The CA that signs minted leaves, if there is one.
    fn ca_pem(&self) -> Option<String>;
    /// Creates a session with further arguments of `outgate session create`: id and token.
    fn session_create(&self, arguments: &[&str]) -> (String, String);
    /// Ends a session; when this returns, the end was accepted.
    fn session_end(&self, id: &str);
    /// Runs a command of the operator.
    fn operate(&self, arguments: &[&str]) -> CommandOutput;
    /// Every audit record so far, in order.
    fn audit_records(&self) -> Vec<Value>;
    /// Everything that the plane's processes logged.
    fn logs(&self) -> String;
    /// Replaces the policy file.
    fn write_config(&mut self, config: &Value);
    /// Replaces the policy file by any text.
    fn write_config_text(&self, text: &str);
    /// Begins a graceful stop.
    fn begin_stop(&self);
    /// Waits for the end of a graceful stop.
    fn wait(&mut self, limit: Duration) -> ExitStatus;
    /// Whether every process of the plane still runs.
    fn is_running(&mut self) -> bool;
    /// Resident memory of all its processes, in KiB.
    fn resident_kib(&self) -> u64;
    /// The native gateway, for scenarios about its own files and commands.
    fn native(&self) -> Option<&Gateway>;
    /// Stops every process and starts again on the same state.
    fn restart(self: Box<Self>) -> Box<dyn Plane>;
}

/// Starts the plane under test.
///
/// # Panics
/// If it does not start, or if `OUTGATE_CONFORMANCE_PLANE` names none that is known.
#[must_use]
pub fn start(options: GatewayOptions) -> Box<dyn Plane> {
    let name = std::env::var("OUTGATE_CONFORMANCE_PLANE").unwrap_or_else(|_| "native".into());
    match name.as_str() {
        "native" => Box::new(Native(Gateway::start(options))),
        other => panic!("OUTGATE_CONFORMANCE_PLANE={other}: the planes are: native"),
    }
}

struct Native(Gateway);

impl Plane for Native {
    fn proxy(&self) -> SocketAddr {
        self.0.proxy()
    }

    fn ca_pem(&self) -> Option<String> {
        self.0.ca_pem()
    }

    fn session_create(&self, arguments: &[&str]) -> (String, String) {
        self.0.session_create_with(arguments)
    }

    fn session_end(&self, id: &str) {
        self.0.session_end(id);
    }

    fn operate(&self, arguments: &[&str]) -> CommandOutput {
        self.0.command(arguments)
    }

    fn audit_records(&self) -> Vec<Value> {
        self.0.audit_records()
    }

    fn logs(&self) -> String {
        self.0.stderr()
    }

    fn write_config(&mut self, config: &Value) {
        self.0.write_config(config);
    }

    fn write_config_text(&self, text: &str) {
        self.0.write_config_text(text);
    }

    fn begin_stop(&self) {
        self.0.begin_stop();
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.0.wait(limit)
    }

    fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    fn resident_kib(&self) -> u64 {
        self.0.resident_kib()
    }

    fn native(&self) -> Option<&Gateway> {
        Some(&self.0)
    }

    fn restart(self: Box<Self>) -> Box<dyn Plane> {
        Box::new(Self(self.0.restart()))
    }
}
