//! A running gateway: what its parts share, how it starts, takes a new policy over, and stops.

mod in_memory;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use outgate_audit::AuditLog;
use outgate_config::{Config, Problems};
use outgate_control::{
    operator::{self, About, Operator, SocketFile},
    sessions::Sessions,
};
use outgate_credential::CredentialStore;
use outgate_journey::{
    policy::{CredentialName, CredentialSource, InjectionForm},
    session::{Denylist, TokenFault, TokenVerifier},
};
use outgate_pki::{CertificateAuthority, Minter, RootSource, write_bundle};
use outgate_session::{KeyRing, Verifier};
use quick_cache::sync::Cache;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::unix_now,
    limits::SessionCounters,
    listener::{Door, DoorKind, accept},
    random_hex,
    resolver::{GatewayResolver, ResolverError},
    server_tls::ServerTls,
    shared::{Live, NativePlane, Observer, Shared},
    state::{StateError, StateLock, StatePaths},
    upstream_tls::{RootsError, UpstreamTls},
};

pub use self::in_memory::{Attribution, AuditPlace, SessionSockets};

/// The issuer and the audience of this gateway's own tokens.
const ISSUER: &str = "outgate";
const AUDIENCE: &str = "outgate";
/// Leaves that are kept.
const LEAF_CACHE: usize = 10_000;
/// Upstreams whose protocol is remembered.
const PROTOCOL_CACHE: usize = 10_000;
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Why a gateway does not start, or does not take a new configuration over.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// A listener.
    #[error("listen.proxy {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operator's socket.
    #[error("operator socket {0}")]
    Operator(std::io::Error),
    /// The signing keys.
    #[error("session token keys: {0}")]
    Keys(String),
    /// The sessions' journal.
    #[error("sessions: {0}")]
    Sessions(String),
    /// The audit trail.
    #[error("audit: {0}")]
    Audit(String),
    /// The CA.
    #[error("CA: {0}")]
    Ca(String),
    /// The resolver.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The upstream roots.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The operating system has no random numbers.
    #[error("the system's random source failed")]
    Random,
    /// The environment is a workload's.
    #[error(
        "{0} holds a session token of this gateway, not a key; start the gateway in a shell without `outgate env`"
    )]
    TokenAsCredential(String),
    /// The file is broken.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The file changes keys that are read at start only.
    #[error("these keys take effect after a restart only: {}", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    config: Arc<ArcSwap<Config>>,
    keys: Arc<KeyRing>,
    /// One reload at a time.
    reloading: Mutex<()>,
    home: Home,
    proxy: Vec<SocketAddr>,
}

/// Where a gateway keeps what it knows.
enum Home {
    /// In a folder, which outlives it.
    Folder {
        state: StatePaths,
        _socket: SocketFile,
        _lock: StateLock,
    },
    /// In memory: keys, CA and sessions end with it.
    Memory {
        /// The CA's certificate, in PEM.
        ca: Option<String>,
    },
}

impl Gateway {
    /// Starts a gateway. When this returns, its listeners are open, and its denylist was loaded before they were.
    ///
    /// # Errors
    /// [`GatewayError`]; then nothing listens.
    pub async fn start(config: Config, state: StatePaths) -> Result<Self, GatewayError> {
        let lock = state.open()?;
        let now = unix_now();
        let keys = KeyRing::open(&state.keys(), ISSUER, AUDIENCE, now)
            .map_err(|error| GatewayError::Keys(error.to_string()))?;
        let sessions = Sessions::open(&state.sessions(), now)
            .map_err(|error| GatewayError::Sessions(error.to_string()))?;
        let audit_dir = config.audit_dir.clone().unwrap_or_else(|| state.audit());
        let (listeners, proxy) = bind(&config.listen.proxy).await?;
        let socket = state.operator_socket();
        let parts = Parts {
            keys: Arc::new(keys),
            sessions: Arc::new(sessions),
            audit: audit_dir,
            most_records: u64::MAX,
            observer: None,
            server_tls: config.needs_ca().then(|| open_ca(&state)).transpose()?,
        };
        let (keys, sessions) = (Arc::clone(&parts.keys), Arc::clone(&parts.sessions));
        let shared = share(&config, parts, &proxy)?;
        let door = operator::bind(&socket).map_err(GatewayError::Operator)?;
        let config = Arc::new(ArcSwap::from_pointee(config));
        let ttl_of = Arc::clone(&shared);
        let about_of = (
            Arc::clone(&shared),
            Arc::clone(&config),
            state.clone(),
            proxy.clone(),
        );
        let operator = Arc::new(Operator {
            sessions,
            keys: Arc::clone(&keys),
            ttl: Box::new(move || ttl_of.live().ttl),
            about: Box::new(move || {
                about(&about_of.0, &about_of.1.load(), &about_of.2, &about_of.3)
            }),
            now: unix_now,
        });
        shared.spawn_until_stopped(operator.serve(door));
        let home = Home::Folder {
            state,
            _socket: SocketFile(socket),
            _lock: lock,
        };
        let gateway = Self::assemble(shared, config, keys, home, proxy);
        let door = Door {
            kind: DoorKind::Proxy,
            own: None,
        };
        gateway.accept(listeners, &door);
        Ok(gateway)
    }

    fn assemble(
        shared: Arc<Shared>,
        config: Arc<ArcSwap<Config>>,
        keys: Arc<KeyRing>,
        home: Home,
        proxy: Vec<SocketAddr>,
    ) -> Self {
        shared.spawn_until_stopped(keep_house(Arc::clone(&shared), Arc::clone(&keys)));
        Self {
            shared,
            config,
            keys,
            reloading: Mutex::new(()),
            home,
            proxy,
        }
    }

    fn accept(&self, listeners: Vec<TcpListener>, door: &Door) {
        for listener in listeners {
            let shared = Arc::clone(&self.shared);
            let accepting = accept(shared, listener, door.clone());
            self.shared.tasks.spawn(accepting);
        }
    }

    /// The CA's certificate, in PEM, of a gateway that keeps it in memory.
    #[must_use]
    pub fn ca_in_memory(&self) -> Option<&str> {
        match &self.home {
            Home::Memory { ca } => ca.as_deref(),
            Home::Folder { .. } => None,
        }
    }

    /// The audit trail's file.
    #[must_use]
    pub fn audit_file(&self) -> &Path {
        self.shared.plane.audit.path()
    }

    /// The sockets of the explicit proxy.
    #[must_use]
    pub fn proxy(&self) -> &[SocketAddr] {
        &self.proxy
    }

    /// The state folder, if it has one.
    #[must_use]
    pub const fn state(&self) -> Option<&StatePaths> {
        match &self.home {
            Home::Folder { state, .. } => Some(state),
            Home::Memory { .. } => None,
        }
    }

    /// Whether some destination is bumped, so that guests need the CA.
    #[must_use]
    pub fn has_ca(&self) -> bool {
        self.shared.server_tls.load().is_some()
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Takes a new configuration over as a whole, or not at all. Live connections are judged by it from their next
    /// request on, and tunnels that it forbids are closed. Blocks on files.
    ///
    /// # Errors
    /// [`GatewayError`]; then the old policy goes on serving.
    pub fn reload(&self, path: &Path) -> Result<(), GatewayError> {
        let next = Config::load(path)?;
        let _one = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let needed = self.config.load().restart_needed(&next);
        if !needed.is_empty() {
            return Err(GatewayError::NeedsRestart(needed));
        }
        let shared = &self.shared;
        let live = live(&next, &self.proxy, shared.live().number + 1)?;
        if next.needs_ca() && shared.server_tls.load().is_none() {
            // Guests that started without a CA do not trust one that is made later, unless they are told of it.
            let state = self
                .state()
                .ok_or_else(|| GatewayError::NeedsRestart(vec!["the first bumped destination"]))?;
            shared.server_tls.store(Some(Arc::new(open_ca(state)?)));
        }
        refuse_tokens_as_credentials(&next, &shared.plane.tokens)?;
        shared.plane.resolver.reconfigure(&next.resolver)?;
        for problem in shared
            .plane
            .credentials
            .reconfigure(&next.credentials, &forms(&next))
        {
            tracing::warn!("{problem}");
        }
        shared.current.store(Arc::new(live));
        shared.pool.clear();
        shared.speaks_http2.clear();
        shared.reloads.send_modify(|count| *count += 1);
        self.config.store(Arc::new(next));
        Ok(())
    }

    /// Reads the credentials' files again. Blocks on files.
    pub fn refresh_credentials(&self) {
        for change in self.shared.plane.credentials.refresh() {
            tracing::info!(credential = %change.name, change = ?change.kind, "credential changed");
        }
    }

    /// The files of the credentials that are in force.
    #[must_use]
    pub fn credential_files(&self) -> Vec<PathBuf> {
        self.shared.plane.credentials.watched_files()
    }

    /// Stops: no new connections, a grace period for what is open, then its end. Every record is on disk when this
    /// returns.
    ///
    /// # Errors
    /// If records could not be written.
    pub async fn stop(&self) -> Result<(), GatewayError> {
        let shared = &self.shared;
        let grace = shared.live().timeouts.drain;
        shared.stopping.cancel();
        shared.tasks.close();
        if tokio::time::timeout(grace, shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::info!(
                open = shared.tasks.len(),
                "grace period over: closing what is open"
            );
            shared.killing.cancel();
            let _ = tokio::time::timeout(Duration::from_secs(2), shared.tasks.wait()).await;
        }
        shared.killing.cancel();
        let audit = shared.plane.audit.clone();
        let flushed = tokio::task::spawn_blocking(move || audit.flush(FLUSH_WITHIN)).await;
        match flushed {
            Ok(result) => result.map_err(|error| GatewayError::Audit(error.to_string())),
            Err(error) => Err(GatewayError::Audit(error.to_string())),
        }
    }
}

fn about(shared: &Shared, config: &Config, state: &StatePaths, proxy: &[SocketAddr]) -> About {
    let has_ca = shared.server_tls.load().is_some();
    let variables = config
        .credentials
        .values()
        .filter_map(|source| match source {
            CredentialSource::Env(name) => Some(name.clone()),
            CredentialSource::File(_) => None,
        });
    About {
        proxy: proxy.to_owned(),
        ca: has_ca.then(|| state.ca_certificate()),
        bundle: has_ca.then(|| state.bundle()),
        token_variables: variables.collect(),
    }
}

/// A gateway that is started in a workload's environment finds session tokens where it looks for keys. Sending one
/// upstream as a credential would give it away.
fn refuse_tokens_as_credentials(config: &Config, tokens: &Verifier) -> Result<(), GatewayError> {
    for source in config.credentials.values() {
        let CredentialSource::Env(name) = source else {
            continue;
        };
        let is_token = std::env::var(name).is_ok_and(|value| {
            matches!(
                tokens.verify(&value, unix_now()),
                Ok(_) | Err(TokenFault::Expired(_))
            )
        });
        if is_token {
            return Err(GatewayError::TokenAsCredential(name.clone()));
        }
    }
    Ok(())
}

fn forms(config: &Config) -> Vec<(CredentialName, InjectionForm)> {
    config
        .injections()
        .map(|(name, form)| (name.clone(), form.clone()))
        .collect()
}

fn live(config: &Config, proxy: &[SocketAddr], number: u64) -> Result<Live, RootsError> {
    Ok(Live {
        policy: config.policy.clone().for_listeners(proxy.into()),
        timeouts: config.timeouts,
        upstream_tls: UpstreamTls::new(&config.upstream)?,
        number,
        ttl: config.sessions.ttl,
    })
}

/// What a gateway is made of besides its configuration.
struct Parts {
    keys: Arc<KeyRing>,
    sessions: Arc<Sessions>,
    audit: PathBuf,
    most_records: u64,
    observer: Option<Observer>,
    server_tls: Option<ServerTls>,
}

fn share(config: &Config, parts: Parts, proxy: &[SocketAddr]) -> Result<Arc<Shared>, GatewayError> {
    let audit =
        AuditLog::open(&parts.audit).map_err(|error| GatewayError::Audit(error.to_string()))?;
    refuse_tokens_as_credentials(config, &parts.keys.verifier())?;
    let (credentials, problems) = CredentialStore::open(&config.credentials, &forms(config));
    problems
        .iter()
        .for_each(|problem| tracing::warn!("{problem}"));
    let plane = NativePlane {
        tokens: parts.keys.verifier(),
        sessions: parts.sessions,
        limits: SessionCounters::new(),
        resolver: GatewayResolver::new(&config.resolver)?,
        credentials,
        audit,
    };
    Ok(Arc::new(Shared {
        plane,
        current: ArcSwap::from_pointee(live(config, proxy, 0)?),
        reloads: watch::Sender::new(0),
        server_tls: ArcSwapOption::new(parts.server_tls.map(Arc::new)),
        speaks_http2: Cache::new(PROTOCOL_CACHE),
        pool: Arc::default(),
        room: Arc::new(Semaphore::new(
            config.listen.max_connections.min(Semaphore::MAX_PERMITS),
        )),
        tasks: TaskTracker::new(),
        stopping: CancellationToken::new(),
        killing: CancellationToken::new(),
        records_left: AtomicU64::new(parts.most_records),
        observer: parts.observer,
        marker: random_hex()?,
        next_id: AtomicU64::new(1),
        id_prefix: random_hex()?.split_off(24),
    }))
}

fn minting(authority: CertificateAuthority) -> Result<ServerTls, GatewayError> {
    ServerTls::new(Minter::new(Arc::new(authority), LEAF_CACHE))
        .map_err(|error| GatewayError::Ca(error.to_string()))
}

fn open_ca(state: &StatePaths) -> Result<ServerTls, GatewayError> {
    let failed = |error: &dyn std::fmt::Display| GatewayError::Ca(error.to_string());
    let authority =
        CertificateAuthority::open_or_create(&state.ca(), unix_now()).map_err(|e| failed(&e))?;
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = write_bundle(&state.ca(), authority.certificate_pem(), named.as_deref())
        .map_err(|e| failed(&e))?;
    if bundle.roots == RootSource::Nowhere {
        tracing::warn!(
            "the system has no root certificates: with the bundle, workloads verify bumped destinations only"
        );
    }
    minting(authority)
}

async fn bind(
    addresses: &[SocketAddr],
) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), GatewayError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let failed = |source| GatewayError::Listen {
            address: *address,
            source,
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        bound.push(listener.local_addr().map_err(failed)?);
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

/// What is done once in a while.
async fn keep_house(shared: Arc<Shared>, keys: Arc<KeyRing>) {
    let mut often = tokio::time::interval(Duration::from_secs(10));
    let mut hourly = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            _ = often.tick() => shared.pool.sweep(|session| shared.plane.sessions.is_revoked(session)),
            _ = hourly.tick() => {
                shared.plane.sessions.sweep(unix_now());
                shared.plane.limits.sweep();
                let keys = Arc::clone(&keys);
                let rotated = tokio::task::spawn_blocking(move || keys.rotate_if_due(unix_now())).await;
                if let Ok(Err(error)) = rotated {
                    tracing::error!(%error, "the session token key is due for rotation and could not be rotated");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use outgate_journey::record::Entry;

    use super::*;
    use crate::{arrival::Arrival, trail::Trail};

    const EMPTY: &str = "version: 1\nlisten: { proxy: 127.0.0.1:0 }\nresolver: { servers: [\"127.0.0.1:9\"] }\n\
                         upstream: { roots: bundled }\n";

    async fn gateway(folder: &Path) -> Gateway {
        let config = Config::parse("test.yaml", EMPTY, folder).unwrap();
        Gateway::start(config, StatePaths::new(folder.join("state")))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_alone_and_is_recorded_as_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(folder.path()).await;
        let shared = Arc::clone(&gateway.shared);
        let arrival = Arrival {
            client: "127.0.0.1:1".parse().unwrap(),
            own: None,
        };
        let panicked = tokio::spawn(async move {
            let _trail = Trail::begin(&shared, Entry::AbsoluteForm, &arrival);
            panic!("on purpose");
        });
        assert!(panicked.await.unwrap_err().is_panic());
        gateway.stop().await.unwrap();
        let trail = std::fs::read_to_string(gateway.audit_file()).unwrap();
        assert!(trail.contains("internal_fault"), "{trail}");
    }

    #[tokio::test]
    async fn without_a_bumped_destination_there_is_no_ca() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(folder.path()).await;
        assert!(!gateway.has_ca());
        assert!(!gateway.state().unwrap().ca().exists());
        gateway.stop().await.unwrap();
    }
}
