//! Upstreams, gateways in front of them, and probes as a container's runtime starts them.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use outgate_testkit::{
    CommandOutput, DnsAnswer, DnsServer, Origin, OriginOptions, TestCa, gateway::binary,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Upstreams for `a.test`, and what a gateway in front of them needs.
pub(crate) struct Upstreams {
    pub(crate) tls: Origin,
    pub(crate) plain: Origin,
    dns: DnsServer,
    pub(crate) ca: TestCa,
    folder: TempDir,
}

impl Upstreams {
    pub(crate) async fn new() -> Self {
        let ca = TestCa::new("the upstreams' CA");
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        Self {
            tls: Origin::start(&ca, OriginOptions::tls(&["a.test"])).await,
            plain: Origin::start(&ca, OriginOptions::plain()).await,
            dns: DnsServer::start([("a.test", DnsAnswer::address("127.0.0.1"))]).await,
            ca,
            folder,
        }
    }

    /// A gateway that lets everybody out to `a.test`.
    pub(crate) fn config(&self, proxy: &str) -> Value {
        json!({
            "version": 1,
            "listen": { "proxy": proxy },
            "destinations": [{
                "host": "a.test", "ports": [self.tls.port(), self.plain.port()], "plaintext": true,
                "posture": "bump", "token": "optional",
            }],
            "resolver": {
                "servers": [self.dns.address().to_string()], "allow": ["127.0.0.0/8"],
            },
            "upstream": { "roots": "none", "extra_roots": [self.folder.path().join("ca.pem")] },
            "timeouts": { "drain": "6s" },
        })
    }
}

/// Runs `outgate health` as a probe is run: nothing in the environment but where the state is.
pub(crate) fn health(state: &Path, arguments: &[&str]) -> CommandOutput {
    let mut command = Command::new(binary());
    command
        .arg("health")
        .args(arguments)
        .env_clear()
        .env("OUTGATE_STATE_DIR", state);
    CommandOutput::of(&mut command)
}

/// Asks until it ends like this.
pub(crate) fn until(state: &Path, arguments: &[&str], code: i32, says: &str) {
    let begin = Instant::now();
    loop {
        let output = health(state, arguments);
        if output.code == Some(code) && output.stderr.contains(says) {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(15),
            "never {code} with {says:?}: {output:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
