//! A control plane that serves no guests, and gateways that wait for it.

use std::{fs, path::Path};

use outgate_testkit::{Gateway, GatewayOptions, TestCa, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::{health, until};

struct Fleet {
    folder: TempDir,
    port: u16,
}

impl Fleet {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let ca = TestCa::new("the fleet's CA");
        fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        for (name, names) in [("control", "localhost"), ("gw", "gw-1")] {
            let (certificate, key) = ca.issue_pem(&[names]);
            fs::write(folder.path().join(format!("{name}.crt")), certificate).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), key).unwrap();
        }
        let port = free_port();
        Self { folder, port }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn control(&self) -> Value {
        json!({
            "version": 1,
            "listen": { "control": {
                "address": format!("127.0.0.1:{}", self.port), "certificate": self.at("control.crt"),
                "key": self.at("control.key"), "client_ca": self.at("ca.pem"), "gateways": ["gw-1"],
            } },
            "credentials": { "k1": { "from": { "file": "/nowhere/key" } } },
            "destinations": [
                { "host": "a.test", "inject": { "credential": "k1", "header": "x-api-key" } },
            ],
        })
    }

    fn follower(&self) -> Value {
        json!({
            "version": 1,
            "listen": { "proxy": "127.0.0.1:0" },
            "credentials": { "k1": { "from": { "file": "/nowhere/key" } } },
            "control": {
                "url": format!("https://localhost:{}", self.port), "ca": self.at("ca.pem"),
                "certificate": self.at("gw.crt"), "key": self.at("gw.key"), "max_staleness": "2s",
            },
        })
    }
}

fn start(config: Value) -> Gateway {
    Gateway::start(GatewayOptions::new(config).log("info"))
}

fn has_ca(state: &Path) -> bool {
    state.join("ca").exists()
}

#[test]
fn a_control_plane_without_a_proxy_makes_no_ca_and_opens_no_credential() {
    let fleet = Fleet::new();
    let mut gateway = start(fleet.control());
    assert_eq!(gateway.ready()["proxy"], json!([]));
    assert_eq!(gateway.ready()["ca"], Value::Null);
    assert_eq!(health(&gateway.state(), &["--ready"]).code, Some(0));
    assert!(!has_ca(&gateway.state()));
    let log = gateway.stderr();
    assert!(
        !log.contains("credential") && !log.contains("WARN"),
        "{log}"
    );
    let mut more = fleet.control();
    more["destinations"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "host": "b.test", "posture": "bump" }));
    gateway.write_config(&more);
    let reloaded = gateway.command(&["session", "create"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    gateway.hang_up();
    let begin = std::time::Instant::now();
    while !gateway.stderr().contains("configuration taken over") {
        assert!(begin.elapsed().as_secs() < 10, "{}", gateway.stderr());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let log = gateway.stderr();
    assert!(!has_ca(&gateway.state()) && !log.contains("WARN"), "{log}");
    assert_eq!(health(&gateway.state(), &["--ready"]).code, Some(0));
}

#[test]
fn a_follower_is_ready_once_it_has_a_policy_and_stays_so_without_its_control_plane() {
    let fleet = Fleet::new();
    let follower = start(fleet.follower());
    let state = follower.state();
    let waiting = health(&state, &["--ready"]);
    assert_eq!(
        (waiting.code, &*waiting.stderr),
        (Some(1), "not_ready: control_plane_not_heard\n")
    );
    assert_eq!(health(&state, &[]).code, Some(0));
    let mut control = start(fleet.control());
    until(&state, &["--ready"], 0, "ready");
    control.kill();
    // Longer than its denylist may be old.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(health(&state, &["--ready"]).code, Some(0));
    // What was verified before is as good after a restart.
    let follower = follower.restart();
    assert_eq!(health(&follower.state(), &["--ready"]).code, Some(0));
}
