//! One scenario's surroundings: a TLS upstream, a plain upstream, DNS, a CA, and the plane under test with a policy
//! that points at them. When a world ends it searches everything the plane wrote for secrets and panics.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use outgate_testkit::{
    Alpn, DnsAnswer, DnsServer, GatewayOptions, Guest, Origin, OriginOptions, Outcome, Req, TestCa,
    Way, certs::roots_from_pem, eventually,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    plane::{self, Plane},
    record,
};

/// The credential of `a.test`.
pub const K1: &str = "k1-live-Q7f3vN0pXz2LrT8wYb5e";
/// The credential of `b.test`.
pub const K2: &str = "k2-live-mH6dJ9sRcV1uKq4gWx3a";

/// Names that the DNS server maps to 127.0.0.1 and the TLS upstream has in its certificate.
pub const NAMES: &[&str] = &[
    "a.test",
    "b.test",
    "n.test",
    "pass.test",
    "basic.test",
    "query.test",
    "rules.test",
    "optional.test",
    "tlsonly.test",
    "x.test",
    "sub.a.test",
    "one.wild.test",
    "two.one.wild.test",
    "wild.test",
    "xwild.test",
    "headers.test",
];

/// What a scenario does to the usual config.
pub type ConfigChange = Box<dyn FnOnce(&mut Value, &Places) + Send>;

/// How a world differs from the usual one.
pub struct Setup {
    /// What the TLS upstream offers.
    pub alpn: Alpn,
    /// Signs the upstreams' certificates; the config trusts it.
    pub ca: TestCa,
    /// Changes the config before the start.
    pub config: ConfigChange,
    /// `RUST_LOG`; everything by default.
    pub log: &'static str,
    /// Whether to search what the plane wrote for secrets at the end.
    pub search: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            alpn: Alpn::Both,
            ca: TestCa::new("the upstreams' CA"),
            config: Box::new(|_, _| {}),
            log: "trace",
            search: true,
        }
    }
}

/// What a config may need to know.
pub struct Places {
    /// The port of the TLS upstream.
    pub tls: u16,
    /// The port of the plain upstream.
    pub plain: u16,
    /// A folder for the scenario's own files; the config's paths may point there.
    pub folder: PathBuf,
}

/// A scenario's surroundings.
pub struct World {
    /// The TLS upstream.
    pub tls: Origin,
    /// The plain upstream.
    pub plain: Origin,
    /// The only resolver that the plane knows.
    pub dns: DnsServer,
    /// The CA of the upstreams.
    pub ca: TestCa,
    /// A folder for the scenario's own files.
    pub folder: TempDir,
    /// The config as it was started.
    pub config: Value,
    plane: Option<Box<dyn Plane>>,
    tokens: Mutex<Vec<String>>,
    search: bool,
}

/// How much had happened at some moment.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    seen: usize,
    records: usize,
}

impl World {
    /// The usual world.
    pub async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    /// The usual world with short time-outs, for scenarios that wait for one.
    pub async fn hurried() -> Self {
        Self::configured(|config, _| hurry(config)).await
    }

    /// The usual world with another config.
    pub async fn configured(change: impl FnOnce(&mut Value, &Places) + Send + 'static) -> Self {
        Self::with(Setup {
            config: Box::new(change),
            ..Setup::default()
        })
        .await
    }

    /// A world.
    pub async fn with(setup: Setup) -> Self {
        let ca = setup.ca;
        let tls = Origin::start(&ca, OriginOptions::tls(NAMES).alpn(setup.alpn)).await;
        let plain = Origin::start(&ca, OriginOptions::plain()).await;
        let dns = DnsServer::start(
            NAMES
                .iter()
                .map(|name| (*name, DnsAnswer::address("127.0.0.1"))),
        )
        .await;
        let folder = TempDir::with_prefix("outgate-scenario").expect("a temp folder");
        fs::write(folder.path().join("upstream-ca.pem"), ca.pem()).expect("space");
        let places = Places {
            tls: tls.port(),
            plain: plain.port(),
            folder: folder.path().to_owned(),
        };
        let mut config = usual_config(&places, &dns);
        (setup.config)(&mut config, &places);
        let options = GatewayOptions::new(config.clone())
            .env("K1", K1)
            .env("K2", K2)
            .log(setup.log);
        Self {
            plane: Some(plane::start(options)),
            tls,
            plain,
            dns,
            ca,
            folder,
            config,
            tokens: Mutex::new(Vec::new()),
            search: setup.search,
        }
    }

    /// The plane under test.
    #[must_use]
    pub fn plane(&self) -> &dyn Plane {
        self.plane.as_deref().expect("a plane")
    }

    /// The plane under test.
    pub fn plane_mut(&mut self) -> &mut dyn Plane {
        self.plane.as_deref_mut().expect("a plane")
    }

    /// Stops every process of the plane and starts it again on the same state.
    pub fn restart(&mut self) {
        self.plane = self.plane.take().map(Plane::restart);
    }

    /// Creates a session: id and token. The token is among what the end of the world searches for.
    #[must_use]
    pub fn session(&self) -> (String, String) {
        self.session_with(&[])
    }

    /// Creates a session with further arguments of `outgate session create`.
    #[must_use]
    pub fn session_with(&self, arguments: &[&str]) -> (String, String) {
        let (id, token) = self.plane().session_create(arguments);
        self.tokens
            .lock()
            .expect("no panic holds it")
            .push(token.clone());
        (id, token)
    }

    /// Runs a command of the operator that must work.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn operate(&self, arguments: &[&str]) -> String {
        let output = self.plane().operate(arguments);
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        output.stdout
    }

    /// A guest without a token that trusts the plane's CA and the upstreams' CA.
    #[must_use]
    pub fn guest(&self) -> Guest {
        let minted = self.plane().ca_pem();
        let roots = roots_from_pem(minted.as_deref().into_iter().chain([self.ca.pem()]));
        Guest::new(self.plane().proxy(), roots)
    }

    /// A GET for `host` on the port that this way in speaks to.
    #[must_use]
    pub fn get(&self, way: Way, host: &str, path: &str) -> Req {
        Req::get(host, self.port(way), path)
    }

    /// The port of the upstream that this way in speaks to.
    #[must_use]
    pub fn port(&self, way: Way) -> u16 {
        self.origin(way).port()
    }

    /// The upstream that this way in speaks to.
    #[must_use]
    pub fn origin(&self, way: Way) -> &Origin {
        if way == Way::AbsoluteForm {
            &self.plain
        } else {
            &self.tls
        }
    }

    /// Requests that reached any upstream.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.tls.count() + self.plain.count()
    }

    /// This moment.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            seen: self.seen(),
            records: self.plane().audit_records().len(),
        }
    }

    /// Panics unless the outcome is a denial with this code, no upstream saw a request since `mark`, and an audit
    /// record since `mark` names the reason (and the request id that the answer carried).
    #[track_caller]
    pub fn assert_denied(&self, mark: Mark, outcome: &Outcome, code: &str, context: &str) {
        assert_eq!(
            outcome.reason(),
            Some(code),
            "{context}: another reason; {outcome:?}"
        );
        let response = outcome.response().expect("an answer");
        let status = documented_status(code);
        // A proxy's own challenge is another one.
        let is_challenge = (status, response.status) == (401, 407);
        assert!(
            response.status == status || is_challenge,
            "{context}: {code} is {status}; {outcome:?}"
        );
        let body = response.json();
        if !response.body.is_empty() {
            assert_eq!(
                body["error"]["code"], code,
                "{context}: the body disagrees: {body}"
            );
            for key in ["message", "remedy", "request_id"] {
                assert!(
                    body["error"][key].is_string(),
                    "{context}: no {key}: {body}"
                );
            }
        }
        let id = body["error"]["request_id"].as_str();
        self.until_recorded(mark, &format!("{code} for {id:?}: {context}"), |record| {
            record::names(record, code) && id.is_none_or(|id| record::names(record, id))
        });
        self.assert_nothing_sent(mark, context);
    }

    /// Panics unless an audit record since `mark` names the reason; gives every such record.
    #[track_caller]
    pub fn assert_audited(&self, mark: Mark, code: &str, context: &str) -> Vec<Value> {
        let what = format!("{code}: {context}");
        self.until_recorded(mark, &what, |record| record::names(record, code))
    }

    /// Every audit record since `mark` that `wanted` accepts, as soon as there is one.
    ///
    /// # Panics
    /// If there is none within three seconds.
    #[track_caller]
    pub fn until_recorded(
        &self,
        mark: Mark,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let begin = std::time::Instant::now();
        loop {
            let mut records = self.records_since(mark);
            if records.iter().any(&wanted) {
                records.retain(&wanted);
                return records;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(3),
                "no audit record of {what}: {records:#?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Audit records since `mark`.
    #[must_use]
    pub fn records_since(&self, mark: Mark) -> Vec<Value> {
        let mut records = self.plane().audit_records();
        records.drain(..mark.records.min(records.len()));
        records
    }

    /// Panics if any upstream saw a request since `mark`.
    #[track_caller]
    pub fn assert_nothing_sent(&self, mark: Mark, context: &str) {
        assert_eq!(
            self.seen(),
            mark.seen,
            "{context}: an upstream saw a request"
        );
    }

    /// Panics if any upstream ever saw `secret`, in any spelling.
    #[track_caller]
    pub fn assert_no_upstream_saw(&self, secret: &str) {
        for seen in self.tls.seen().iter().chain(&self.plain.seen()) {
            assert!(!seen.mentions(secret), "an upstream saw it: {seen:?}");
        }
    }

    /// Waits until the log says `text`.
    ///
    /// # Panics
    /// If it does not within five seconds.
    pub async fn until_logged(&self, text: &str) {
        let found = eventually(Duration::from_secs(5), || {
            self.plane().logs().contains(text).then_some(())
        });
        assert!(found.await.is_some(), "the log never said {text:?}");
    }

    fn search_for_secrets(&self) {
        let Some(plane) = &self.plane else { return };
        let logs = plane.logs();
        assert!(
            !logs.contains("panicked at"),
            "the plane panicked: {}",
            around(&logs, "panicked at")
        );
        if !self.search {
            return;
        }
        let mut secrets = self.tokens.lock().expect("no panic holds it").clone();
        secrets.extend([K1.to_owned(), K2.to_owned()]);
        let mut written = vec![(PathBuf::from("the log"), logs.into_bytes())];
        read_files(&plane.gateway().state(), &mut written);
        for (path, bytes) in &written {
            for secret in &secrets {
                // A token is recognised by its signature alone, too.
                let tail = secret.rsplit('.').next().unwrap_or(secret);
                for text in [secret.as_str(), tail] {
                    assert!(
                        !contains(bytes, text.as_bytes()),
                        "{} holds a secret: {}",
                        path.display(),
                        around(&String::from_utf8_lossy(bytes), text)
                    );
                }
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(plane) = &self.plane {
                let logs = plane.logs();
                let from = logs.len().saturating_sub(6000);
                let tail = String::from_utf8_lossy(&logs.as_bytes()[from..]).into_owned();
                eprintln!("--- the plane's log ends with:\n{tail}");
            }
        } else {
            self.search_for_secrets();
        }
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn around(text: &str, needle: &str) -> String {
    let at = text.find(needle).unwrap_or(0);
    let (from, to) = (at.saturating_sub(300), (at + 300).min(text.len()));
    String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
}

fn read_files(folder: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_files(&path, into);
        } else if let Ok(bytes) = fs::read(&path) {
            into.push((path, bytes));
        }
    }
}

/// The policy of the usual world.
fn usual_config(places: &Places, dns: &DnsServer) -> Value {
    let both = json!([places.tls, places.plain]);
    let tls = json!([places.tls]);
    json!({
        "version": 1,
        "listen": { "proxy": "127.0.0.1:0" },
        "credentials": {
            "k1": { "from": { "env": "K1" } },
            "k2": { "from": { "env": "K2" } },
        },
        "destinations": [
            { "host": "a.test", "ports": both, "plaintext": true,
              "inject": { "credential": "k1", "header": "x-api-key", "over_plaintext": true } },
            { "host": "b.test", "ports": both, "plaintext": true,
              "inject": { "credential": "k2", "header": "authorization" } },
            { "host": "n.test", "ports": both, "plaintext": true, "posture": "bump" },
            { "host": "pass.test", "ports": tls },
            { "host": "basic.test", "ports": tls,
              "inject": { "credential": "k1", "basic": "robot" } },
            { "host": "query.test", "ports": tls,
              "inject": { "credential": "k1", "query": "key" } },
            { "host": "optional.test", "ports": both, "plaintext": true, "token": "optional",
              "inject": { "credential": "k1", "header": "x-api-key", "over_plaintext": true } },
            { "host": "tlsonly.test", "ports": both, "posture": "bump" },
            { "host": "rules.test", "ports": both, "plaintext": true,
              "inject": { "credential": "k1", "header": "x-api-key", "over_plaintext": true },
              "allow": [
                  { "methods": ["GET", "POST"], "paths": ["/v1/**"] },
                  { "methods": ["PUT"], "paths": ["/v1/files/*"] },
              ],
              "deny": [{ "paths": ["/v1/admin/**"] }] },
            { "host": "headers.test", "ports": both, "plaintext": true, "posture": "bump",
              "allow": [{ "headers": { "x-mode": ["a", "b"] } }] },
            { "host": "*.wild.test", "ports": both, "plaintext": true,
              "inject": { "credential": "k2", "header": "x-api-key", "over_plaintext": true } },
        ],
        "resolver": { "servers": [dns.address().to_string()], "allow": ["127.0.0.0/8"] },
        "upstream": {
            "roots": "none",
            "extra_roots": [places.folder.join("upstream-ca.pem")],
        },
        // Far over what anything here takes: a machine that is shared may stop for seconds. See [`hurry`].
        "timeouts": { "head": "10s", "handshake": "10s", "connect": "10s", "response": "20s", "drain": "3s" },
    })
}

/// Shortens the time-outs, for scenarios that wait for one.
pub fn hurry(config: &mut Value) {
    for (key, limit) in [
        ("head", "2s"),
        ("handshake", "2s"),
        ("connect", "2s"),
        ("response", "5s"),
    ] {
        config["timeouts"][key] = json!(limit);
    }
}

/// The destination with this host in a config.
///
/// # Panics
/// If there is none.
pub fn destination<'a>(config: &'a mut Value, host: &str) -> &'a mut Value {
    config["destinations"]
        .as_array_mut()
        .and_then(|list| list.iter_mut().find(|rule| rule["host"] == host))
        .expect("a destination with this host")
}

/// Adds a destination to a config.
///
/// # Panics
/// If the config has no list of destinations.
pub fn add_destination(config: &mut Value, rule: Value) {
    let list = config["destinations"].as_array_mut();
    list.expect("a list").push(rule);
}

/// The status that the list of reasons has for one.
fn documented_status(code: &str) -> u16 {
    let rows = include_str!("../../docs/denials.md").lines();
    let row = rows.filter_map(|row| row.strip_prefix(&format!("| `{code}` | ")));
    row.filter_map(|row| row.split(' ').next()?.parse().ok())
        .next()
        .unwrap_or_else(|| panic!("{code} is not in docs/denials.md"))
}
