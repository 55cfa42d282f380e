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
use outgate_config::Config;
use outgate_control::sessions::{SessionState, Sessions};
use outgate_credential::CredentialStore;
use outgate_journey::{
    policy::{CredentialName, CredentialSource, InjectionForm},
    session::{TokenFault, TokenVerifier},
};
use outgate_pki::{CertificateAuthority, Minter, RootSource, write_bundle};
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
    shared::{AnomalyObserver, Live, NativePlane, Observer, Shared},
    tokens::Tokens,
    upstream_tls::{RootsError, UpstreamTls},
};

pub use self::in_memory::{Attribution, AuditPlace, InMemoryGateway, SessionSockets};

/// The issuer and the audience of a gateway's own tokens.
pub const ISSUER: &str = "outgate";
/// See [`ISSUER`].
pub const AUDIENCE: &str = "outgate";
/// Leaves that are kept.
const LEAF_CACHE: usize = 10_000;
/// Upstreams whose protocol is remembered.
const PROTOCOL_CACHE: usize = 10_000;
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Why a gateway does not start, or does not take a new configuration over.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A listener.
    #[error("listen.proxy {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The signing keys.
    #[error("session token keys: {0}")]
    Keys(String),
    /// The sessions.
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
    /// The file changes keys that are read at start only.
    #[error("these keys take effect after a restart only: {}", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
}

/// What a gateway is made of besides its configuration.
pub struct Parts {
    /// What verifies tokens.
    pub tokens: Tokens,
    /// Who has standing.
    pub sessions: Arc<Sessions>,
    /// The audit trail.
    pub audit: AuditLog,
    /// After so many records the gateway closes everything.
    pub most_records: u64,
    /// Is shown every record of an exchange.
    pub observer: Option<Observer>,
    /// Is told of every anomaly.
    pub on_anomaly: Option<AnomalyObserver>,
    /// Where the CA is, which is made when a destination is bumped.
    pub ca: CaPlace,
    /// The sockets of this process's other doors, for operators and for other gateways: no guest is let through to them,
    /// whatever the policy says (C1).
    pub doors: Vec<SocketAddr>,
}

/// Where a gateway's CA is.
pub enum CaPlace {
    /// In this folder, which outlives it.
    Folder(PathBuf),
    /// In memory; `None` where nothing is bumped, and then nothing can be later: guests that started without a CA do not
    /// trust one that is made afterwards.
    Memory(Option<Box<CertificateAuthority>>),
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    config: Arc<ArcSwap<Config>>,
    /// One reload at a time.
    reloading: Mutex<()>,
    /// `None`: in memory.
    ca: Option<PathBuf>,
    proxy: Vec<SocketAddr>,
    /// All sockets on which this process listens.
    own: Vec<SocketAddr>,
}

impl Gateway {
    /// Starts a gateway. When this returns, its listeners are open.
    ///
    /// # Errors
    /// [`GatewayError`]; then nothing listens.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, GatewayError> {
        let (listeners, proxy) = bind(&config.listen.proxy).await?;
        let gateway = Self::assemble(config, parts, proxy)?;
        let door = Door {
            kind: DoorKind::Proxy,
            own: None,
        };
        gateway.accept(listeners, &door);
        Ok(gateway)
    }

    fn assemble(
        config: Config,
        parts: Parts,
        proxy: Vec<SocketAddr>,
    ) -> Result<Self, GatewayError> {
        let ca = match &parts.ca {
            CaPlace::Folder(folder) => Some(folder.clone()),
            CaPlace::Memory(_) => None,
        };
        let own = [proxy.clone(), parts.doors.clone()].concat();
        let shared = share(&config, parts, &own)?;
        shared.spawn_until_stopped(keep_house(Arc::clone(&shared)));
        Ok(Self {
            shared,
            config: Arc::new(ArcSwap::from_pointee(config)),
            reloading: Mutex::new(()),
            ca,
            proxy,
            own,
        })
    }

    fn accept(&self, listeners: Vec<TcpListener>, door: &Door) {
        for listener in listeners {
            let shared = Arc::clone(&self.shared);
            let accepting = accept(shared, listener, door.clone());
            self.shared.tasks.spawn(accepting);
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
    pub fn take_over(&self, next: Config) -> Result<(), GatewayError> {
        let _one = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let needed = self.config.load().restart_needed(&next);
        if !needed.is_empty() {
            return Err(GatewayError::NeedsRestart(needed));
        }
        let shared = &self.shared;
        let live = live(&next, &self.own, shared.live().number + 1)?;
        if next.needs_ca() && shared.server_tls.load().is_none() {
            let Some(folder) = &self.ca else {
                return Err(GatewayError::NeedsRestart(vec![
                    "the first bumped destination",
                ]));
            };
            shared.server_tls.store(Some(Arc::new(open_ca(folder)?)));
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

    /// Does something in the background, until it is done or the gateway stops.
    pub fn spawn_until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.spawn_until_stopped(work);
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
        let flushed = shared.plane.audit.durable(FLUSH_WITHIN).await;
        flushed.map_err(|error| GatewayError::Audit(error.to_string()))
    }
}

/// A gateway that is started in a workload's environment finds session tokens where it looks for keys. Sending one
/// upstream as a credential would give it away.
fn refuse_tokens_as_credentials(config: &Config, tokens: &Tokens) -> Result<(), GatewayError> {
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

fn live(config: &Config, own: &[SocketAddr], number: u64) -> Result<Live, RootsError> {
    Ok(Live {
        policy: config.policy.clone().for_listeners(own.into()),
        timeouts: config.timeouts,
        upstream_tls: UpstreamTls::new(&config.upstream)?,
        number,
        ttl: config.sessions.ttl,
    })
}

fn share(config: &Config, parts: Parts, own: &[SocketAddr]) -> Result<Arc<Shared>, GatewayError> {
    refuse_tokens_as_credentials(config, &parts.tokens)?;
    let (credentials, problems) = CredentialStore::open(&config.credentials, &forms(config));
    problems
        .iter()
        .for_each(|problem| tracing::warn!("{problem}"));
    let server_tls = match parts.ca {
        CaPlace::Folder(folder) => config.needs_ca().then(|| open_ca(&folder)).transpose()?,
        CaPlace::Memory(authority) => authority.map(minting).transpose()?,
    };
    let plane = NativePlane {
        tokens: parts.tokens,
        sessions: parts.sessions,
        limits: SessionCounters::new(),
        resolver: GatewayResolver::new(&config.resolver)?,
        credentials,
        audit: parts.audit,
    };
    Ok(Arc::new(Shared {
        plane,
        current: ArcSwap::from_pointee(live(config, own, 0)?),
        reloads: watch::Sender::new(0),
        server_tls: ArcSwapOption::new(server_tls.map(Arc::new)),
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
        on_anomaly: parts.on_anomaly,
        marker: random_hex()?,
        next_id: AtomicU64::new(1),
        id_prefix: random_hex()?.split_off(24),
    }))
}

fn minting(authority: Box<CertificateAuthority>) -> Result<ServerTls, GatewayError> {
    ServerTls::new(Minter::new(Arc::from(authority), LEAF_CACHE))
        .map_err(|error| GatewayError::Ca(error.to_string()))
}

fn open_ca(folder: &Path) -> Result<ServerTls, GatewayError> {
    let failed = |error: &dyn std::fmt::Display| GatewayError::Ca(error.to_string());
    let authority =
        CertificateAuthority::open_or_create(folder, unix_now()).map_err(|e| failed(&e))?;
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundle = write_bundle(folder, authority.certificate_pem(), named.as_deref())
        .map_err(|e| failed(&e))?;
    if bundle.roots == RootSource::Nowhere {
        tracing::warn!(
            "the system has no root certificates: with the bundle, workloads verify bumped destinations only"
        );
    }
    minting(Box::new(authority))
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
async fn keep_house(shared: Arc<Shared>) {
    let mut often = tokio::time::interval(Duration::from_secs(10));
    let mut hourly = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            _ = often.tick() => shared.pool.sweep(|session| {
                let view = shared.plane.sessions.view(session);
                view.is_some_and(|view| view.state != SessionState::Live)
            }),
            _ = hourly.tick() => shared.plane.limits.sweep(),
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

    fn gateway(folder: &Path) -> Gateway {
        let config = Config::parse("test.yaml", EMPTY, folder).unwrap();
        let audit = AuditPlace {
            folder: folder.join("audit"),
            most_records: u64::MAX,
        };
        InMemoryGateway::start(config, audit, &[], Box::new(|_| {}))
            .unwrap()
            .into_gateway()
    }

    #[tokio::test]
    async fn a_panic_ends_its_task_alone_and_is_recorded_as_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(folder.path());
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
}
