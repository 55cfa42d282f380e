//! A real gateway and a real Envoy by the configuration that the gateway renders.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use outgate_testkit::{
    Gateway, GatewayOptions, TestCa, envoy::envoy_binary, free_port, gateway::binary,
};
use serde_json::{Value, json};

use super::{machine::pin, messages::HOST};

/// The cluster that every question goes to; the one that the configuration comes from stays.
const CONTROL: &str = "outgate";
const START: Duration = Duration::from_secs(30);

/// The gateway's surroundings, which stay the same while the policy changes.
pub(crate) struct Places {
    /// The upstream's port.
    pub(crate) upstream: u16,
    pub(crate) proxy: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Where the upstreams' CA and the credential are.
    pub(crate) folder: tempfile::TempDir,
}

impl Places {
    pub(crate) fn new(upstream: u16, ca: &TestCa) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        std::fs::write(folder.path().join("key"), "a-credential-of-some-length").unwrap();
        let local = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self {
            upstream,
            proxy: local(),
            admin: local(),
            folder,
        }
    }

    /// A policy of so many bumped hosts, each with a credential and a rule, of which one is the upstream's.
    pub(crate) fn config(&self, hosts: usize, scrub: bool) -> Value {
        let name = |at: usize| if at == 0 { HOST.to_owned() } else { other(at) };
        let destination = |at: usize| {
            json!({
                "host": name(at),
                "ports": [self.upstream],
                "inject": { "credential": "key", "header": "x-api-key" },
                "allow": [{ "methods": ["GET", "POST"], "paths": ["/v1/**"] }],
                "limits": { "requests": "1000000/s" },
            })
        };
        let addresses: serde_json::Map<_, _> = (0..hosts)
            .map(|at| (name(at), json!("127.0.0.1")))
            .collect();
        json!({
            "version": 1,
            "listen": { "xds": { "socket": "xds.sock" } },
            "envoy": { "proxy": self.proxy, "admin": { "address": self.admin }, "scrub": scrub },
            "credentials": { "key": { "from": { "file": self.folder.path().join("key") } } },
            "destinations": (0..hosts).map(destination).collect::<Vec<_>>(),
            "sessions": { "limits": { "requests": "1000000/s", "bytes_out": "1000000GiB" } },
            "resolver": { "servers": ["127.0.0.1:9"], "hosts": addresses, "allow": ["127.0.0.0/8"] },
            "upstream": { "roots": "none", "extra_roots": [self.folder.path().join("ca.pem")] },
        })
    }

    pub(crate) fn gateway(&self, hosts: usize, scrub: bool) -> Gateway {
        Gateway::start(GatewayOptions::new(self.config(hosts, scrub)).log("warn"))
    }

    /// What Envoy's administration interface has at a path; empty while it is not there.
    pub(crate) fn ask(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.admin) else {
            return String::new();
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        let mut text = String::new();
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut text);
        text
    }

    /// The sum of the counters whose names begin and end like this.
    pub(crate) fn count(&self, starts: &str, ends: &str) -> u64 {
        let text = self.ask("/stats");
        let counters = text.lines().filter_map(|line| line.split_once(": "));
        counters
            .filter(|(name, _)| name.starts_with(starts) && name.ends_with(ends))
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .sum()
    }
}

/// The name of a destination that has no upstream.
pub(crate) fn other(at: usize) -> String {
    format!("h{at}.example.org")
}

/// A process of this benchmark's own; killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Starts it on one processor.
    pub(crate) fn start(mut command: Command, core: usize) -> Self {
        let start = move || {
            pin(core);
            command.spawn().unwrap()
        };
        Self(std::thread::spawn(start).join().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An Envoy of one worker on one processor, which asks the gateway, or else who listens on `asks`.
pub(crate) fn envoy(
    gateway: &Gateway,
    places: &Places,
    asks: Option<&Path>,
    core: usize,
) -> Running {
    let printed = Command::new(binary())
        .args(["envoy", "bootstrap", "--config"])
        .arg(gateway.config_file())
        .output()
        .unwrap();
    let mut bootstrap: Value = serde_json::from_slice(&printed.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&printed.stderr)));
    if let Some(socket) = asks {
        divert(&mut bootstrap, socket);
    }
    let file = gateway.folder().join("envoy.json");
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let log = std::fs::File::create(gateway.folder().join("envoy.log")).unwrap();
    let mut command = Command::new(envoy_binary());
    command
        .arg("-c")
        .arg(&file)
        .args(["--disable-hot-restart", "--concurrency", "1"])
        .args(["--log-level", "warning", "--reject-unknown-dynamic-fields"])
        .current_dir(gateway.folder())
        .stdout(Stdio::null())
        .stderr(log);
    let running = Running::start(command, core);
    let begun = Instant::now();
    while TcpStream::connect(places.proxy).is_err() {
        let log = gateway.folder().join("envoy.log");
        assert!(
            begun.elapsed() < START,
            "Envoy does not serve: {}",
            std::fs::read_to_string(log).unwrap()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

fn divert(bootstrap: &mut Value, socket: &Path) {
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array_mut()
        .unwrap();
    let control = clusters
        .iter_mut()
        .find(|it| it["name"] == CONTROL)
        .unwrap();
    let endpoint = &mut control["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    endpoint["address"] = json!({ "pipe": { "path": socket } });
}
