//! A running interface, and callers of it. Every answer is checked against the interface's document.

use std::{
    collections::BTreeMap, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use outgate_clock::FakeClock;
use outgate_control::{
    client::{Endpoint, OperatorClient},
    operator::{
        Doors, OidcSettings, OperatorApi, OperatorParts, OperatorSettings, OperatorThread, Scope,
        TlsDoor, TokenSettings, WebhookKeyFile, WebhookSettings, bind_unix,
    },
    sessions::{NewSession, SessionRules, SessionView, Sessions},
};
use outgate_journey::{
    record::ActionRecord,
    session::{SessionId, Terms, UnixSeconds},
};
use outgate_session::KeyRing;
use outgate_testkit::certs::{CertificateKind, TestCa, roots_from_pem};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName, sign::SingleCertAndKey};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::{
    document::Document,
    parts::{FlakyStore, Host, Provider, Trail, shared},
};

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

/// A connection over either door.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Who calls, and over which door.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// The Unix socket.
    Local,
    /// TLS, with the token of this name.
    Token(&'static str),
    /// TLS, with this token.
    Bearer(String),
    /// TLS, without a credential.
    Nobody,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {:?}", self.status, self.body))
    }

    /// The code of a problem.
    pub(crate) fn code(&self) -> String {
        let content_type = self
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok());
        assert_eq!(content_type, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

pub(crate) struct World {
    pub(crate) api: Arc<OperatorApi>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) trail: Arc<Trail>,
    pub(crate) store: Arc<FlakyStore>,
    pub(crate) host: Arc<Host>,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) address: SocketAddr,
    pub(crate) ca: TestCa,
    document: Document,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    thread: Option<OperatorThread>,
}

/// The tokens that there are: name, scopes, tenant.
fn accounts() -> Vec<(&'static str, Vec<Scope>, Option<&'static str>)> {
    let all = || Scope::ALL.to_vec();
    let mut accounts = vec![
        ("all", all(), None),
        ("all-a", all(), Some("team-a")),
        ("all-b", all(), Some("team-b")),
        ("none", vec![], None),
    ];
    for (name, scope) in ["create", "read", "revoke", "policy", "audit"]
        .iter()
        .zip(Scope::ALL)
    {
        accounts.push((name, vec![*scope], None));
    }
    accounts
}

pub(crate) const HMAC_SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut OperatorSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = shared(FakeClock::at(NOW));
        let store = shared(FlakyStore::default());
        let rules = SessionRules {
            sessions: Some(1000),
            sessions_per_tenant: Some(100),
            ..SessionRules::default()
        };
        let sessions = Sessions::open(Arc::clone(&store) as _, rules, Arc::clone(&clock) as _);
        let sessions = shared(sessions.await.unwrap());
        let keys = KeyRing::open(&dir.path().join("keys"), "outgate", "outgate", NOW);
        let keys = shared(keys.unwrap());
        let (trail, host) = (shared(Trail::default()), shared(Host::default()));
        let parts = OperatorParts {
            sessions: Arc::clone(&sessions),
            keys: Arc::clone(&keys),
            clock: Arc::clone(&clock) as _,
            audit: Arc::clone(&trail) as _,
            records: Arc::clone(&trail) as _,
            host: Arc::clone(&host) as _,
        };
        let mut settings = settings(&dir);
        change(&mut settings);
        let api = OperatorApi::new(parts, settings).unwrap();
        let ca = TestCa::new("operators' test CA");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let doors = Doors {
            unix: Some(bind_unix(&dir.path().join("operator.sock")).unwrap()),
            tls: Some(TlsDoor {
                listener,
                config: server_tls(&ca),
            }),
        };
        let stop = CancellationToken::new();
        let thread = api.start(doors, stop.clone()).unwrap();
        Self {
            api,
            sessions,
            keys,
            trail,
            store,
            host,
            clock,
            address,
            ca,
            document: Document::current(),
            dir,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("operator.sock")
    }

    /// Settings as they were at the start.
    pub(crate) fn settings(&self) -> OperatorSettings {
        settings(&self.dir)
    }

    pub(crate) fn token_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.token"))
    }

    /// A caller as the command line has it.
    pub(crate) fn client(&self, token: &str) -> OperatorClient {
        let ca_file = self.dir.path().join("ca.pem");
        std::fs::write(&ca_file, self.ca.pem()).unwrap();
        OperatorClient::at(Endpoint::Https {
            url: format!("https://localhost:{}", self.address.port()),
            bearer_file: self.token_file(token),
            ca_file: Some(ca_file),
        })
    }

    pub(crate) fn local_client(&self) -> OperatorClient {
        OperatorClient::new(&self.socket())
    }

    /// A session of a tenant, made without a call.
    pub(crate) async fn session(&self, id: &str, tenant: Option<&str>) -> SessionView {
        let new = NewSession {
            id: SessionId::parse(id).unwrap(),
            tenant: tenant.map(str::to_owned),
            labels: BTreeMap::new(),
            container: None,
            terms: Terms::default(),
            expires: UnixSeconds(NOW.0 + 1800),
            created_by: "test".to_owned(),
        };
        self.sessions.create(new).await.unwrap()
    }

    pub(crate) fn is_live(&self, id: &str) -> bool {
        let view = self.sessions.view(&SessionId::parse(id).unwrap()).unwrap();
        view.end.is_none()
    }

    /// Whatever a call can change, as text.
    pub(crate) fn state(&self) -> String {
        format!(
            "{:?} {:?} {:?} {:?} {} {:?}",
            self.sessions.list(None),
            self.sessions.denied(|_| true),
            self.sessions.kill_switch(),
            self.sessions.quotas(),
            self.keys.jwks(),
            self.host.reloads,
        )
    }

    /// A connection to the TLS door.
    pub(crate) async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots_from_pem([self.ca.pem()]))
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        connector.connect(name, stream).await.unwrap()
    }

    /// One call on a connection of its own.
    pub(crate) async fn call(
        &self,
        who: &Who,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        match who {
            Who::Token(name) => request = request.header("authorization", bearer(name)),
            Who::Bearer(token) => {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            Who::Local | Who::Nobody => {}
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body)))
            .unwrap();
        let answer = match who {
            Who::Local => send(UnixStream::connect(self.socket()).await.unwrap(), request).await,
            _ => send(self.connect().await, request).await,
        };
        self.document.check_answer(
            &Method::from_bytes(method.as_bytes()).unwrap(),
            path,
            &answer,
        );
        answer
    }

    /// A call that must be refused like this, change nothing, and leave one record that says so.
    pub(crate) async fn refused(
        &self,
        who: &Who,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
        code: &str,
    ) -> ActionRecord {
        let (state, records) = (self.state(), self.trail.actions().len());
        let answer = self.call(who, method, path, fields, body).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        assert_eq!(
            answer.code(),
            code,
            "{method} {path} {shown} by {who:?}: {:?}",
            answer.json()
        );
        assert_eq!(self.state(), state, "{method} {path} changed something");
        let mut records = self.trail.actions().split_off(records);
        assert_eq!(records.len(), 1, "{method} {path}: {records:#?}");
        let record = records.remove(0);
        assert_eq!(record.outcome, Err(leak(code)));
        assert_eq!(record.status, Some(answer.status));
        assert_eq!(answer.json()["request_id"], record.request_id);
        record
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// The token of an account.
pub(crate) fn token_of(name: &str) -> String {
    format!("{name:_<40}")
}

fn bearer(name: &str) -> String {
    format!("Bearer {}", token_of(name))
}

pub(crate) fn secret_file(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn settings(dir: &tempfile::TempDir) -> OperatorSettings {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let tokens = accounts().into_iter().map(|(name, scopes, tenant)| {
        let path = dir.path().join(format!("{name}.token"));
        TokenSettings {
            name: name.to_owned(),
            file: secret_file(path, &token_of(name)),
            scopes,
            tenant: tenant.map(str::to_owned),
        }
    });
    let secret = format!("whsec_{}", STANDARD.encode(HMAC_SECRET));
    let secret = secret_file(dir.path().join("soar.secret"), &secret);
    let webhook = |name: &str, tenant: Option<&str>| WebhookSettings {
        name: name.to_owned(),
        key: WebhookKeyFile::Secret(secret.clone()),
        tenant: tenant.map(str::to_owned),
    };
    OperatorSettings {
        tokens: tokens.collect(),
        oidc: vec![OidcSettings {
            name: "idp".to_owned(),
            verifier: shared(Provider),
            name_claim: "sub".to_owned(),
            scopes_claim: "groups".to_owned(),
            scopes: BTreeMap::from([("secops".to_owned(), vec![Scope::Revoke])]),
            tenant_claim: None,
        }],
        webhooks: vec![webhook("soar", None), webhook("soar-a", Some("team-a"))],
        creations: None,
        issuer: "outgate".to_owned(),
        public_url: Some("https://gw.example.org:9443".to_owned()),
    }
}

pub(crate) fn server_tls(ca: &TestCa) -> Arc<ServerConfig> {
    let certificate = ca.issue(CertificateKind::Good, &["localhost".to_owned()]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)));
    Arc::new(config)
}

async fn send<I>(stream: I, request: Request<Full<Bytes>>) -> Answer
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    driver.abort();
    assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "{body:?}");
    assert_eq!(head.headers["cache-control"], "no-store");
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
    }
}
