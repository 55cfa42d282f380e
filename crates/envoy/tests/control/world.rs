//! One test's surroundings: a gateway, its control plane behind a door, and a connection to it such as Envoy has.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_config::Config;
use outgate_control::sessions::{NewSession, Sessions};
use outgate_envoy::{control::ControlPlane, source::EnvoySource};
use outgate_issuer::Issuers;
use outgate_journey::{
    record::DecisionRecord,
    session::{SessionEnd, SessionId, Terms},
};
use outgate_native::gateway::{AUDIENCE, CaPlace, Gateway, ISSUER, Parts};
use outgate_plane::{
    Core,
    clock::{machine, unix_now},
    tokens::Tokens,
};
use outgate_session::{KeyRing, new_session_id};
use outgate_testkit::DnsServer;
use outgate_xds::{Door, Services, XdsService};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::Service;

/// The credentials `k1` and `k2`.
pub(crate) const K1: &str = "k1-live-Q7f3vN0pXz2LrT8wYb5e";
pub(crate) const K2: &str = "k2-live-mH6dJ9sRcV1uKq4gWx3a";
/// Where every name is, but those in [`usual_config`] that are elsewhere.
pub(crate) const UPSTREAM: &str = "93.184.216.34";

/// How long a test waits for what is to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// A session and its token.
#[derive(Clone)]
pub(crate) struct Guest {
    pub(crate) id: SessionId,
    pub(crate) token: String,
    pub(crate) token_id: String,
}

pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) control: ControlPlane,
    pub(crate) source: Arc<EnvoySource>,
    pub(crate) link: Link,
    keys: KeyRing,
    records: Arc<Mutex<Vec<DecisionRecord>>>,
    config: Value,
    _dns: DnsServer,
    _stop: DropGuard,
    folder: Arc<TempDir>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Value)) -> Self {
        Self::start(change, ControlPlane::new).await
    }

    /// Where no more than `most` exchanges are open at once.
    pub(crate) async fn with_room_for(most: usize) -> Self {
        Self::start(|_| {}, |core| ControlPlane::with_room_for(core, most)).await
    }

    async fn start(
        change: impl FnOnce(&mut Value),
        control: impl FnOnce(&Arc<Core>) -> ControlPlane,
    ) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a temp folder"));
        let dns = DnsServer::start([]).await;
        let mut config = usual_config(dns.address());
        change(&mut config);
        write_secret(folder.path(), "k1", K1);
        write_secret(folder.path(), "k2", K2);
        let parsed = parse(&config, folder.path());
        let keys = KeyRing::in_memory(ISSUER, AUDIENCE, unix_now()).expect("a key");
        let records: Arc<Mutex<Vec<DecisionRecord>>> = Arc::default();
        // The folder goes after the trail, whose last records are written when the core goes.
        let (seen, trails_folder) = (Arc::clone(&records), Arc::clone(&folder));
        let parts = Parts {
            tokens: Tokens::new(
                keys.verifier(),
                Issuers::new(Vec::new(), machine()).expect("nobody"),
            ),
            sessions: Arc::new(Sessions::in_memory(machine())),
            audit: AuditLog::open(
                &folder.path().join("audit"),
                AuditOptions {
                    clock: machine(),
                    key: AuditKey::in_memory().expect("a key"),
                    rotation: Rotation::NEVER,
                },
            )
            .expect("a trail"),
            most_records: u64::MAX,
            observer: Some(Box::new(move |record: &DecisionRecord| {
                assert!(trails_folder.path().is_dir());
                seen.lock().expect("no panic holds it").push(record.clone());
            })),
            on_anomaly: None,
            ca: CaPlace::Folder(folder.path().join("ca")),
            doors: Vec::new(),
        };
        std::fs::create_dir(folder.path().join("ca")).expect("space");
        let gateway = Gateway::start(parsed, parts).await.expect("a gateway");
        let control = control(gateway.core());
        let source = EnvoySource::new(gateway.core()).expect("randomness");
        let socket = folder.path().join("xds.sock");
        let door = Door::unix(&socket).expect("a socket");
        let services = Services::new().xds(&XdsService::new(Arc::clone(&source) as _));
        let services = control.offer(services, Arc::new(|| "{}".to_owned()));
        let stop = CancellationToken::new();
        tokio::spawn(door.serve(services, stop.clone()));
        let world = Self {
            link: Link::to(&socket).await,
            gateway,
            control,
            source,
            keys,
            records,
            config,
            _dns: dns,
            _stop: stop.drop_guard(),
            folder,
        };
        world.tell_source();
        world
    }

    fn tell_source(&self) {
        let planes = self.gateway.config().credential_planes.clone();
        let policy = &self.gateway.core().live().policy;
        self.source.set_policy(policy, None, planes).expect("told");
    }

    /// Puts a changed configuration in force.
    pub(crate) fn reload(&self, change: impl FnOnce(&mut Value)) {
        let mut config = self.config.clone();
        change(&mut config);
        let config = parse(&config, self.folder.path());
        self.gateway.take_over(config).expect("a good file");
        self.tell_source();
    }

    /// The credential's file has this from here on; `None`: it is gone.
    pub(crate) fn put_credential(&self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => write_secret(self.folder.path(), name, value),
            None => std::fs::remove_file(self.folder.path().join(name)).expect("was there"),
        }
        self.gateway.refresh_credentials();
    }

    pub(crate) async fn guest(&self) -> Guest {
        self.guest_with(Terms::default()).await
    }

    pub(crate) async fn guest_with(&self, terms: Terms) -> Guest {
        let id = new_session_id();
        let minted = self
            .keys
            .mint(&id, &terms, Duration::from_secs(600), unix_now())
            .expect("a token");
        let new = NewSession {
            id: id.clone(),
            tenant: None,
            labels: BTreeMap::new(),
            container: None,
            terms,
            expires: minted.expires,
            created_by: "a test".to_owned(),
        };
        self.sessions().create(new).await.expect("a session");
        Guest {
            id,
            token: minted.token.expose().to_owned(),
            token_id: minted.token_id,
        }
    }

    /// A token of the guest's session that ran out.
    pub(crate) fn expired(&self, guest: &Guest) -> String {
        let mut now = unix_now();
        now.0 -= 120;
        let minted = self
            .keys
            .mint(&guest.id, &Terms::default(), Duration::from_secs(60), now);
        minted.expect("a token").token.expose().to_owned()
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.gateway.core().plane.sessions
    }

    pub(crate) async fn end(&self, guest: &Guest) {
        let ended = self.sessions().end(&guest.id, SessionEnd::Ended, "a test");
        ended.await.expect("in memory");
    }

    /// Another connection to the door.
    pub(crate) async fn another_link(&self) -> Link {
        Link::to(&self.folder.path().join("xds.sock")).await
    }

    /// What is recorded so far.
    pub(crate) fn records(&self) -> Vec<DecisionRecord> {
        self.records.lock().expect("no panic holds it").clone()
    }

    /// The one record of this id.
    #[track_caller]
    pub(crate) fn record(&self, id: &str) -> DecisionRecord {
        let mut records = self.records();
        let id = crate::ask::recorded(id);
        records.retain(|record| record.request_id == id);
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// The only record of all, after everything that is open was closed.
    #[track_caller]
    pub(crate) fn only_record(&self) -> DecisionRecord {
        let mut records = self.records();
        assert_eq!(records.len(), 1, "{records:#?}");
        records.remove(0)
    }

    /// Time goes on, as far as what is waited for is concerned.
    pub(crate) fn after(&self, time: Duration) {
        self.control.sweep(Instant::now() + time);
    }
}

fn write_secret(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    // In one step, as an operator does it.
    let (path, next) = (folder.join(name), folder.join(format!(".{name}")));
    std::fs::write(&next, text).expect("space");
    std::fs::set_permissions(&next, PermissionsExt::from_mode(0o600)).expect("own file");
    std::fs::rename(next, path).expect("own file");
}

fn parse(config: &Value, folder: &Path) -> Config {
    Config::parse("test.json", &config.to_string(), folder)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn usual_config(dns: SocketAddr) -> Value {
    let k1 = |form: &str| json!({ "credential": "k1", "header": form });
    let both = json!([443, 80]);
    let mut config = json!({
        "version": 1,
        "listen": { "xds": { "socket": "xds.sock" } },
        "credentials": { "k1": { "from": { "file": "k1" } }, "k2": { "from": { "file": "k2" } } },
        "destinations": [
            { "host": "key.test", "inject": k1("x-api-key") },
            { "host": "bearer.test", "inject": k1("authorization") },
            { "host": "basic.test", "inject": { "credential": "k2", "basic": "robot" } },
            { "host": "query.test", "inject": { "credential": "k2", "query": "key" } },
            { "host": "pass.test" },
            { "host": "bare.test", "posture": "bump" },
            { "host": "both.test", "ports": both, "plaintext": true, "posture": "bump" },
            { "host": "passplain.test", "ports": both, "plaintext": true },
            { "host": "plainonly.test", "ports": [80], "plaintext": true, "posture": "pass-through",
              "allow": [{ "methods": ["GET"], "paths": ["/**"] }] },
            { "host": "opaque.test", "ports": [5432], "protocol": "opaque" },
            { "host": "optional.test", "ports": both, "plaintext": true, "token": "optional",
              "inject": { "credential": "k1", "header": "x-api-key", "over_plaintext": true } },
            { "host": "freepass.test", "token": "optional" },
            { "host": "rules.test", "ports": both, "plaintext": true, "posture": "bump",
              "allow": [{ "methods": ["GET"], "paths": ["/v1/**"] }] },
            { "host": "limited.test", "posture": "bump", "limits": { "requests": "1/hour" } },
            { "host": "closed.test", "posture": "deny-all" },
            { "host": "inside.test" },
            { "host": "nowhere.test" },
        ],
        "sessions": { "limits": { "bytes_out": "4KiB" } },
        "resolver": { "servers": [dns.to_string()], "hosts": { "inside.test": "10.0.0.7" } },
        "upstream": { "roots": "bundled" },
    });
    for name in [
        "key",
        "bearer",
        "basic",
        "query",
        "pass",
        "bare",
        "both",
        "passplain",
        "plainonly",
        "opaque",
        "optional",
        "freepass",
        "rules",
        "limited",
        "closed",
    ] {
        config["resolver"]["hosts"][format!("{name}.test")] = UPSTREAM.into();
    }
    config
}

/// A connection to the door.
#[derive(Clone)]
pub(crate) struct Link(http2::SendRequest<tonic::body::Body>);

impl Link {
    async fn to(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.expect("it listens");
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        Self(requests)
    }

    pub(crate) fn origin() -> Uri {
        Uri::from_static("http://localhost")
    }
}

impl Service<http::Request<tonic::body::Body>> for Link {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
