//! A listener, the service behind it, and an issuer whose keys are in a file.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_config::Config;
use outgate_control::sessions::Sessions;
use outgate_credential::CredentialStore;
use outgate_inbound::{Bound, InboundListener};
use outgate_issuer::Issuers;
use outgate_journey::record::DecisionRecord;
use outgate_plane::{
    Core, CoreParts, GatewayPlane, Live,
    clock::{machine, unix_now},
    limits::SessionCounters,
    resolver::GatewayResolver,
    tokens::Tokens,
    upstream_tls::UpstreamTls,
};
use outgate_session::KeyRing;
use outgate_testkit::{Channel, Response, TestCa, h1::H1, io::BoxIo};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    idp::{Signer, jwks},
    service::Service,
};

pub(crate) const ISSUER: &str = "https://idp.test";
pub(crate) const AUDIENCE: &str = "agent";

pub(crate) struct World {
    pub(crate) core: Arc<Core>,
    pub(crate) listener: Arc<InboundListener>,
    pub(crate) service: Service,
    pub(crate) signer: Signer,
    pub(crate) folder: TempDir,
    records: Arc<Mutex<Vec<DecisionRecord>>>,
    roots: RootCertStore,
    is_tls: bool,
}

/// What a test says of its listener; what it does not say is as in [`World::new`].
pub(crate) struct Options {
    pub(crate) is_tls: bool,
    /// Keys of `inbound[0]`.
    pub(crate) keys: Value,
    pub(crate) timeouts: Value,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            is_tls: true,
            keys: json!({}),
            timeouts: json!({}),
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn in_clear(keys: Value) -> Self {
        Self::with(Options {
            is_tls: false,
            keys,
            ..Options::default()
        })
        .await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, signer) = (TestCa::new("the listener's CA"), Signer::p256("1"));
        let (certificate, key) = ca.issue_pem(&["agent.test"]);
        std::fs::write(folder.path().join("keys.json"), jwks([&signer]).to_string()).unwrap();
        std::fs::write(folder.path().join("tls.crt"), &certificate).unwrap();
        std::fs::write(folder.path().join("tls.key"), &key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        let service = Service::start().await;
        let config = config(folder.path(), service.address, &options);
        let records: Arc<Mutex<Vec<DecisionRecord>>> = Arc::default();
        let core = core(&config, folder.path(), &records);
        let tls = options.is_tls.then(|| server_tls(&certificate, &key));
        let bound = Bound::new(config.inbound[0].listen).unwrap();
        let listener =
            InboundListener::open(&core, bound, 0, &config.inbound[0], tls.as_ref()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        Self {
            core,
            listener,
            service,
            signer,
            folder,
            records,
            roots,
            is_tls: options.is_tls,
        }
    }

    pub(crate) fn claims(&self) -> Value {
        let now = unix_now().0;
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "jti": "t-1", "iat": now, "exp": now + 600 })
    }

    pub(crate) fn token(&self) -> String {
        self.signer.token(&self.claims())
    }

    pub(crate) fn token_for(&self, seconds: u64) -> String {
        let mut claims = self.claims();
        claims["exp"] = json!(unix_now().0 + seconds);
        self.signer.token(&claims)
    }

    /// A connection, inside TLS where the listener has it.
    pub(crate) async fn dial(&self, alpn: &str) -> BoxIo {
        let stream = TcpStream::connect(self.listener.address()).await.unwrap();
        if !self.is_tls {
            return Box::new(stream);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        tls.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));
        let name = "agent.test".try_into().unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        Box::new(stream)
    }

    pub(crate) async fn h1(&self) -> H1 {
        H1::new(self.dial("http/1.1").await)
    }

    pub(crate) async fn h2(&self) -> Channel {
        Channel::h2(self.dial("h2").await).await.unwrap()
    }

    /// Sends these bytes on a connection of their own and reads one answer.
    pub(crate) async fn raw(&self, bytes: &str) -> Response {
        let mut h1 = self.h1().await;
        h1.write(bytes.as_bytes()).await.unwrap();
        let method = bytes.split(' ').next().unwrap();
        let answer = h1.read_response(method);
        tokio::time::timeout(Duration::from_secs(10), answer)
            .await
            .expect("an answer")
            .unwrap_or_else(|error| panic!("{bytes:?}: {error}"))
    }

    /// A `GET` with these further lines.
    pub(crate) async fn get(&self, path: &str, lines: &[&str]) -> Response {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: agent.test\r\n{lines}\r\n"
        ))
        .await
    }

    /// The records so far, once there are `count`.
    pub(crate) async fn records(&self, count: usize) -> Vec<DecisionRecord> {
        for _ in 0..500 {
            if self.records.lock().unwrap().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let records = self.records.lock().unwrap().clone();
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    pub(crate) fn reconfigured(&self, options: &Options) -> Config {
        config(self.folder.path(), self.service.address, options)
    }
}

fn config(folder: &Path, service: SocketAddr, options: &Options) -> Config {
    let mut inbound = json!({
        "listen": "127.0.0.1:0", "to": format!("http://{service}"),
        "issuers": [{ "issuer": ISSUER, "audience": AUDIENCE, "jwks_file": "keys.json" }],
        "exempt": [{ "paths": ["/healthz", "/public/**"] }],
    });
    if options.is_tls {
        inbound["tls"] = json!({ "certificate": "tls.crt", "key": "tls.key" });
    } else {
        inbound["plaintext"] = json!(true);
    }
    for (key, value) in options.keys.as_object().unwrap() {
        inbound[key] = value.clone();
    }
    let text = json!({
        "version": 1, "listen": { "proxy": "127.0.0.1:0" }, "resolver": { "servers": ["127.0.0.1:9"] },
        "upstream": { "roots": "bundled" }, "timeouts": options.timeouts, "inbound": [inbound],
    });
    Config::parse("test.json", &text.to_string(), folder).unwrap_or_else(|why| panic!("{why}"))
}

fn core(config: &Config, folder: &Path, records: &Arc<Mutex<Vec<DecisionRecord>>>) -> Arc<Core> {
    let keys = KeyRing::in_memory("outgate", "outgate", unix_now()).unwrap();
    let options = AuditOptions {
        clock: machine(),
        key: AuditKey::in_memory().unwrap(),
        rotation: Rotation::NEVER,
    };
    let issuers = Issuers::new(Vec::new(), machine()).unwrap();
    let plane = GatewayPlane {
        tokens: Tokens::new(keys.verifier(), issuers),
        sessions: Arc::new(Sessions::in_memory(machine())),
        limits: SessionCounters::default(),
        resolver: GatewayResolver::new(&config.resolver).unwrap(),
        credentials: CredentialStore::open(&config.credentials, &[]).0,
        audit: AuditLog::open(&folder.join("audit"), options).unwrap(),
    };
    let seen = Arc::clone(records);
    let parts = CoreParts {
        plane,
        live: Live {
            policy: config.policy.clone(),
            timeouts: config.timeouts,
            upstream_tls: UpstreamTls::new(&config.upstream).unwrap(),
            number: 0,
            ttl: config.sessions.ttl,
        },
        most_records: u64::MAX,
        observer: Some(Box::new(move |record| {
            seen.lock().unwrap().push(record.clone());
        })),
        on_anomaly: None,
    };
    Arc::new(Core::new(parts).unwrap())
}

pub(crate) fn server_tls(certificate: &str, key: &str) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    Arc::new(config)
}

/// What the service says that it was sent.
pub(crate) fn echoed(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

/// The values of a field that the service was sent.
pub(crate) fn sent<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = echo["headers"].as_array().unwrap();
    let is_it = |pair: &&'a Value| pair[0].as_str().unwrap().eq_ignore_ascii_case(name);
    headers
        .iter()
        .filter(is_it)
        .map(|pair| pair[1].as_str().unwrap())
        .collect()
}

/// The stable code of a refusal, which the body and the header agree on.
pub(crate) fn reason(response: &Response) -> String {
    let code = response
        .headers
        .get("x-deny-reason")
        .unwrap_or("none")
        .to_owned();
    if code != "none" && !response.body.is_empty() {
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body["error"]["code"], code);
    }
    code
}
