//! How long a kill takes, from the operator's command to the session being cut and the record being on disk: on an idle
//! gateway, under a flood of creations, and under a flood of connections that say nothing. The store and the audit trail
//! are real, on the disk that the temporary folder is on.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark"
)]

use std::{
    os::unix::fs::PermissionsExt,
    sync::{Arc, atomic::AtomicBool, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_clock::{Clock, GuardedClock};
use outgate_control::{
    client::{Endpoint, OperatorClient},
    operator::{
        About, AuditReader, AuditTrail, AuditUnavailable, CreateSession, Doors, GatewayHost,
        OperatorApi, OperatorParts, OperatorSettings, Scope, TlsDoor, TokenSettings, bind_unix,
    },
    sessions::{SessionRules, Sessions, SqliteStore},
};
use outgate_journey::{
    inject::AuditGate,
    record::{AuditEvent, AuditSink},
    session::{PolicyName, UnixSeconds},
};
use outgate_session::KeyRing;
use outgate_testkit::certs::{CertificateKind, TestCa};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const KILLS: usize = 200;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Trail(AuditLog);

impl AuditTrail for Trail {
    fn is_writable(&self) -> bool {
        AuditGate::is_writable(&self.0)
    }

    fn commit(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>> {
        let committed = self.0.commit(event, Duration::from_secs(5));
        Box::pin(async move { committed.await.map_err(|_| AuditUnavailable) })
    }

    fn note(&self, event: AuditEvent) {
        self.0.record(event);
    }
}

impl AuditReader for Trail {
    fn verify(&self) -> Result<serde_json::Value, String> {
        Err(String::new())
    }

    fn records(&self, _: Option<u64>, _: usize) -> Result<Vec<(u64, String)>, String> {
        Err(String::new())
    }
}

struct Host;

impl GatewayHost for Host {
    fn about(&self) -> About {
        About {
            proxy: Vec::new(),
            ca: None,
            bundle: None,
            token_variables: Vec::new(),
            data_planes: Vec::new(),
        }
    }

    fn policy_text(&self) -> Result<String, String> {
        Ok(String::new())
    }

    fn has_policy(&self, _: &PolicyName) -> bool {
        false
    }

    fn reload(&self) -> Result<(), String> {
        Ok(())
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(1800)
    }
}

struct Gateway {
    local: OperatorClient,
    remote: OperatorClient,
    address: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

async fn gateway() -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("outgate.db"))
        .await
        .unwrap();
    let clock: Arc<dyn Clock> = Arc::new(GuardedClock::new(UnixSeconds(0)));
    let rules = SessionRules::default();
    let sessions = Sessions::open(Arc::new(store), rules, Arc::clone(&clock))
        .await
        .unwrap();
    let keys = KeyRing::open(&dir.path().join("keys"), "outgate", "outgate", clock.unix()).unwrap();
    let options = AuditOptions {
        clock: Arc::clone(&clock),
        key: AuditKey::in_memory().unwrap(),
        rotation: Rotation::NEVER,
    };
    let trail = Arc::new(Trail(
        AuditLog::open(&dir.path().join("audit"), options).unwrap(),
    ));
    let file = dir.path().join("token");
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let settings = OperatorSettings {
        tokens: vec![TokenSettings {
            name: "bench".to_owned(),
            file: file.clone(),
            scopes: Scope::ALL.to_vec(),
            tenant: None,
        }],
        ..OperatorSettings::default()
    };
    let parts = OperatorParts {
        sessions: Arc::new(sessions),
        keys: Arc::new(keys),
        clock,
        audit: Arc::clone(&trail) as _,
        records: trail,
        host: Arc::new(Host),
    };
    let api = OperatorApi::new(parts, settings).unwrap();
    let ca = TestCa::new("benchmark CA");
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, ca.pem()).unwrap();
    let certificate = ca.issue(CertificateKind::Good, &["localhost".to_owned()]);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certificate)));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = dir.path().join("operator.sock");
    let doors = Doors {
        unix: Some(bind_unix(&socket).unwrap()),
        tls: Some(TlsDoor {
            listener,
            config: Arc::new(config),
        }),
    };
    api.start(doors, CancellationToken::new()).unwrap();
    let remote = Endpoint::Https {
        url: format!("https://localhost:{}", address.port()),
        bearer_file: file,
        ca_file: Some(ca_file),
    };
    Gateway {
        local: OperatorClient::new(&socket),
        remote: OperatorClient::at(remote),
        address,
        _dir: dir,
    }
}

async fn measure(what: &str, gateway: &Gateway, victims: &mut Vec<String>) {
    for (door, client) in [("socket", &gateway.local), ("TLS", &gateway.remote)] {
        let mut times = Vec::with_capacity(KILLS);
        let (mut refused, mut word) = (0, String::new());
        for id in victims.drain(..KILLS) {
            let began = Instant::now();
            if let Err(error) = client.kill(&id, Some("benchmark")).await {
                refused += 1;
                word = error.to_string();
            }
            times.push(began.elapsed());
        }
        times.sort_unstable();
        let at = |percent: usize| times[(KILLS - 1) * percent / 100];
        println!(
            "{what:<28} {door:<7} p50 {:>10.2?}  p90 {:>10.2?}  p99 {:>10.2?}  most {:>10.2?}  failed {refused} {word}",
            at(50),
            at(90),
            at(99),
            at(100)
        );
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let gateway = gateway().await;
    let mut victims = Vec::new();
    for _ in 0..KILLS * 6 {
        let created = gateway
            .local
            .create(&CreateSession::default())
            .await
            .unwrap();
        victims.push(created.id);
    }
    measure("idle", &gateway, &mut victims).await;

    let on = Arc::new(AtomicBool::new(true));
    let mut flood = Vec::new();
    for number in 0..64 {
        let client = if number % 4 == 0 {
            &gateway.remote
        } else {
            &gateway.local
        };
        let (client, on) = (client.clone(), Arc::clone(&on));
        flood.push(tokio::spawn(async move {
            let mut made = 0u64;
            while on.load(Relaxed) {
                made += u64::from(client.create(&CreateSession::default()).await.is_ok());
            }
            made
        }));
    }
    let began = Instant::now();
    measure("64 callers create sessions", &gateway, &mut victims).await;
    on.store(false, Relaxed);
    let mut made = 0;
    for one in flood {
        made += one.await.unwrap();
    }
    println!(
        "  (meanwhile {:.0} sessions a second were created)",
        made as f64 / began.elapsed().as_secs_f64()
    );

    on.store(true, Relaxed);
    let mut flood = Vec::new();
    for _ in 0..8 {
        let (on, address) = (Arc::clone(&on), gateway.address);
        flood.push(tokio::spawn(async move {
            let mut held = std::collections::VecDeque::new();
            let mut opened = 0u64;
            while on.load(Relaxed) {
                if let Ok(stream) = TcpStream::connect(address).await {
                    held.push_back(stream);
                    opened += 1;
                }
                if held.len() > 100 {
                    held.pop_front();
                }
            }
            opened
        }));
    }
    let began = Instant::now();
    measure("connections that say nothing", &gateway, &mut victims).await;
    on.store(false, Relaxed);
    let mut opened = 0;
    for one in flood {
        opened += one.await.unwrap();
    }
    println!(
        "  (meanwhile {:.0} connections a second were opened)",
        opened as f64 / began.elapsed().as_secs_f64()
    );
}
