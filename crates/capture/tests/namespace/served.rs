//! A whole pod: `outgate capture` and `outgate serve` as the programs that they are, with a data plane, and programs of an
//! agent's that know of no proxy. The service is outside.

use std::{
    fs,
    os::unix::fs::chown,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use outgate_testkit::{
    CommandOutput, TestCa,
    envoy::envoy_binary,
    gateway::binary,
    process::{Log, Process},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    ways::PORT,
    world::{AGENT, GATEWAY, Network, OUTSIDE, pod},
};

/// Where connections are redirected to.
pub const TRANSPARENT: u16 = 15001;
/// What the service asks for.
pub const CREDENTIAL: &str = "the-real-key-of-the-service";
/// Nobody has these addresses.
pub const NOWHERE: [&str; 2] = ["192.0.2.1", "[2001:db8:1::1]"];

/// Serves HTTPS (port 443) and plain HTTP (port 80) on every address, and writes down the fields that it is sent.
const SERVICE: &str = r#"
import http.server, socket, ssl, sys, threading
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        for name, value in self.headers.items(): print(f"{name.lower()}={value}", file=sys.stderr, flush=True)
        self.send_response(200); self.send_header("content-length", "3"); self.end_headers(); self.wfile.write(b"yes")
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server, plain = Server(("::", 443), Answer), Server(("::", 80), Answer)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=plain.serve_forever, daemon=True).start()
print("{}", flush=True); server.serve_forever()
"#;

/// Asks for a URL as programs do, and finds every name at one address.
const PYTHON: &str = r#"
import socket, sys, urllib.request
url, address, token = sys.argv[1:]
look_up = socket.getaddrinfo
socket.getaddrinfo = lambda host, port, *_, **__: look_up(address, port, type=socket.SOCK_STREAM)
request = urllib.request.Request(url, headers={"x-api-key": token})
print(urllib.request.urlopen(request, timeout=10).read().decode(), end="")
"#;

/// A pod with a data plane, and the service.
pub struct World {
    pub pod: Network,
    pub outside: Network,
    /// What the service was sent.
    pub seen: Log,
    pub token: String,
    /// What the data plane's processes logged.
    log: Log,
    folder: TempDir,
    /// What the agent may read.
    readable: TempDir,
    processes: Vec<Process>,
}

impl World {
    /// The gateway carries the bytes itself.
    pub fn native() -> Self {
        let both = |port: u16| json!([format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
        let listen = json!({ "proxy": both(18080), "transparent": both(TRANSPARENT) });
        Self::start(json!({ "listen": listen }))
    }

    /// Envoy carries them, and the gateway decides.
    pub fn on_envoy() -> Self {
        let places = [
            format!("127.0.0.1:{TRANSPARENT}"),
            format!("[::1]:{TRANSPARENT}"),
        ];
        let mut world = Self::start(json!({
            "listen": { "xds": { "socket": "xds.sock" } },
            "envoy": { "transparent": places },
        }));
        let mut command = outgate(&world.folder, &["envoy", "run", "--json", "--envoy"]);
        command.arg(envoy_binary());
        let envoy = start(&world.pod, command, &world.log);
        world.processes.push(envoy);
        world
    }

    fn start(listening: Value) -> Self {
        let (pod, outside) = pod();
        let (folder, readable) = folders(&listening);
        let (seen, log) = (Log::default(), Log::default());
        let mut service = Command::new("/usr/bin/python3");
        service.args(["-c", SERVICE]);
        service.args(["service.pem", "service.key"].map(|name| folder.path().join(name)));
        let service = start(&outside, service, &seen);
        let gateway = start(&pod, outgate(&folder, &["serve", "--json"]), &log);
        let mut world = Self {
            pod,
            outside,
            seen,
            token: String::new(),
            log,
            folder,
            readable,
            processes: vec![service, gateway],
        };
        let ca = fs::read(world.folder.path().join("state/ca/ca.crt")).unwrap();
        fs::write(world.readable.path().join("ca.crt"), ca).unwrap();
        let created = world.run(outgate(&world.folder, &["session", "create", "--json"]));
        let created: Value = serde_json::from_str(&created.stdout).expect("a session");
        created["token"]
            .as_str()
            .unwrap()
            .clone_into(&mut world.token);
        world
    }

    /// Runs a program in the pod.
    pub fn run(&self, mut command: Command) -> CommandOutput {
        self.pod.run(move || CommandOutput::of(&mut command))
    }

    /// `outgate capture`, as root with one right and nothing else.
    pub fn capture(&self) {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all"]);
        command.arg("--no-new-privs").arg(binary());
        command.args(["capture", "--drop", "--except-user=65532"]);
        command.arg(format!("--redirect={TRANSPARENT}")).env_clear();
        let output = self.run(command);
        assert_eq!(output.code, Some(0), "{output:?}");
    }

    /// Real curl, as the agent, without any variable: to `host`, which is at `address` as far as it knows.
    pub fn curl(&self, host: &str, address: &str, port: u16) -> CommandOutput {
        self.curl_url(
            &format!("https://{host}:{port}/v1"),
            &[
                "--resolve",
                &format!("{host}:{port}:{address}"),
                "--header",
                &format!("x-api-key: {}", self.token),
            ],
        )
    }

    /// The same, with these words and no token.
    pub fn curl_url(&self, url: &str, words: &[&str]) -> CommandOutput {
        let mut command = as_user(AGENT);
        command.args(["curl", "--silent", "--show-error", "--max-time", "10"]);
        command.arg("--cacert").arg(self.trusted());
        command.args(words).arg(url).env_clear();
        self.run(command)
    }

    /// Real Python, as the agent, with the token, and with the CA as its only variable.
    pub fn python(&self, url: &str, address: &str) -> CommandOutput {
        let mut command = as_user(AGENT);
        command.args(["/usr/bin/python3", "-c", PYTHON, url]);
        command
            .arg(address.trim_matches(['[', ']']))
            .arg(&self.token);
        command.env_clear().env("SSL_CERT_FILE", self.trusted());
        self.run(command)
    }

    /// What signed the service's certificate.
    pub fn service_ca(&self) -> PathBuf {
        self.readable.path().join("service-ca.crt")
    }

    fn trusted(&self) -> PathBuf {
        self.readable.path().join("ca.crt")
    }

    /// Every record of this entry with all of these texts.
    pub fn records(&self, entry: &str, texts: &[&str]) -> Vec<Value> {
        let text = self.trail();
        let says_all = |line: &&str| texts.iter().all(|text| line.contains(text));
        let lines = text.lines().filter(says_all);
        let records = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records
            .filter(|line| line["record"]["unmapped"]["entry"] == entry)
            .collect()
    }

    /// Waits for that many of them: a connection's record is written when it ends.
    pub fn recorded(&self, count: usize, entry: &str, texts: &[&str]) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.records(entry, texts).len() != count {
            let (all, log) = (self.trail(), self.log.text());
            assert!(
                Instant::now() < until,
                "{count} {entry} {texts:?}: {all}\n{log}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn trail(&self) -> String {
        let path = self.folder.path().join("state/audit/audit.jsonl");
        fs::read_to_string(path).unwrap_or_default()
    }
}

/// The gateway's folder with every file that it is given, and the agent's.
fn folders(listening: &Value) -> (TempDir, TempDir) {
    let folder = TempDir::with_prefix("outgate-capture").unwrap();
    let readable = TempDir::with_prefix("outgate-agent").unwrap();
    let ca = TestCa::new("the service's");
    let (certificate, key) = ca.issue_pem(&["api.test", "passing.test", "open.test"]);
    let files = [
        ("service.pem", certificate),
        ("service.key", key),
        ("roots.pem", ca.pem().to_owned()),
        ("credential", CREDENTIAL.to_owned()),
        ("outgate.yaml", config(listening).to_string()),
    ];
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
        chown(folder.path().join(name), Some(GATEWAY), Some(GATEWAY)).unwrap();
    }
    fs::write(readable.path().join("service-ca.crt"), ca.pem()).unwrap();
    chown(folder.path(), Some(GATEWAY), Some(GATEWAY)).unwrap();
    chown(readable.path(), Some(AGENT), Some(AGENT)).unwrap();
    (folder, readable)
}

fn config(listening: &Value) -> Value {
    let hosts = ["api", "plain", "passing", "open", "speaks"];
    let hosts: serde_json::Map<_, _> = hosts
        .into_iter()
        .map(|host| (format!("{host}.test"), json!(OUTSIDE)))
        .collect();
    let mut config = json!({
        "version": 1,
        "resolver": { "hosts": hosts, "allow": ["198.51.100.0/24", "2001:db8::/32"] },
        "upstream": { "roots": "none", "extra_roots": ["roots.pem"] },
        "credentials": { "key": { "from": { "file": "credential" } } },
        "destinations": [
            { "host": "api.test", "posture": "bump", "inject": { "credential": "key", "header": "x-api-key" } },
            {
                "host": "plain.test", "ports": [80], "plaintext": true, "posture": "bump",
                "inject": { "credential": "key", "header": "x-api-key", "over_plaintext": true },
            },
            { "host": "passing.test", "posture": "pass-through" },
            { "host": "open.test", "posture": "pass-through", "token": "optional" },
            { "host": "speaks.test", "ports": [PORT], "posture": "pass-through", "protocol": "opaque", "token": "optional" },
        ],
    });
    for (key, value) in listening.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

/// A command without any right, as this user.
pub fn as_user(user: u32) -> Command {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={user}"), format!("--regid={user}")]);
    command.args(["--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]);
    command.arg("--no-new-privs");
    command
}

/// A command of the gateway's, as the gateway's user.
fn outgate(folder: &TempDir, words: &[&str]) -> Command {
    let mut command = as_user(GATEWAY);
    command.arg(binary()).args(words).env_clear();
    command.env("OUTGATE_CONFIG", folder.path().join("outgate.yaml"));
    command.env("OUTGATE_STATE_DIR", folder.path().join("state"));
    command
}

fn start(network: &Network, mut command: Command, log: &Log) -> Process {
    let log = log.clone();
    let started = network.run(move || Process::start(&mut command, &log));
    started.unwrap_or_else(|output| panic!("{output:?}")).0
}
