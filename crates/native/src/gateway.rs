//! A running gateway: what its parts share, how it starts, takes a new policy over, and stops.

mod ca;
mod in_memory;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use outgate_audit::AuditLog;
use outgate_config::{Config, EnvoyConfig};
use outgate_control::sessions::{SessionState, Sessions};
use outgate_credential::{CredentialStore, SourceProblem};
use outgate_journey::{
    policy::{CredentialName, CredentialSource, InjectionForm, PlaneAddress},
    session::UnixSeconds,
};
use outgate_pki::{CaLook, CertificateAuthority, Minter, SuppliedCa};
use outgate_plane::{
    AnomalyObserver, Core, CoreParts, GatewayPlane, Live, Observer, RandomFailed,
    clock::unix_now,
    limits::SessionCounters,
    random_hex,
    resolver::{GatewayResolver, ResolverError},
    tokens::Tokens,
    upstream_tls::{RootsError, UpstreamTls},
};
use outgate_xds::client::SecretClient;
use quick_cache::sync::Cache;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{
    dialled::Capturing,
    feeds::{Feeds, is_session_token},
    listener::{Door, DoorKind, accept},
    sds::Servers,
    server_tls::LEAF_CACHE,
    shared::Shared,
    socket_relay::MOST_PIPES,
    sockets,
};

use self::ca::{GuestSide, guest_side, known_ca, publish};
pub use self::in_memory::{Attribution, AuditPlace, InMemoryGateway, SessionSockets};

/// The issuer and the audience of a gateway's own tokens.
pub const ISSUER: &str = "outgate";
/// See [`ISSUER`].
pub const AUDIENCE: &str = "outgate";
/// Upstreams whose protocol is remembered.
const PROTOCOL_CACHE: usize = 10_000;
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Why a gateway does not start, or does not take a new configuration over.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A listener.
    #[error("{key} {address}: {source}")]
    Listen {
        /// What the file calls it.
        key: &'static str,
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
    #[error(transparent)]
    Random(#[from] RandomFailed),
    /// The environment is a workload's.
    #[error(
        "{0} holds a session token of this gateway, not a key; start the gateway in a shell without `outgate env`"
    )]
    TokenAsCredential(String),
    /// A server of secrets cannot be connected to by the files that are named for it.
    #[error("the server of secrets {address}: {why}")]
    SecretServer {
        /// Which.
        address: String,
        /// Why, in words.
        why: String,
    },
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
    /// Where the CA is, which is made when a destination is bumped, unless leaves come from a minter.
    pub ca: CaPlace,
    /// The sockets of this process's other doors, for operators and for other gateways: no guest is let through to them,
    /// whatever the policy says (C1).
    pub doors: Vec<SocketAddr>,
}

/// Where a gateway's CA is.
pub enum CaPlace {
    /// In this folder, which outlives it.
    Folder(PathBuf),
    /// Nowhere: this process serves no guests, so nothing is terminated and no credential is attached here, whatever the
    /// policy says to those that follow it.
    Nowhere,
    /// In memory; `None` where nothing is bumped, and then nothing can be later: guests that started without a CA do not
    /// trust one that is made afterwards.
    Memory(Option<Box<CertificateAuthority>>),
}

/// The servers of secrets, and the credentials that they tell.
#[derive(Default)]
struct Told {
    servers: Servers,
    feeds: Feeds,
    /// The sockets on which the deployment itself listens: this process's, and those that Envoys had by any configuration
    /// since the start, because one that runs may still be open by an older one.
    own: Vec<SocketAddr>,
}

impl Told {
    fn come_into_force(&mut self, shared: &Shared, servers: Servers) {
        self.servers = servers;
        self.servers.come_into_force();
        let wanted = shared.plane.credentials.told_by_servers();
        self.feeds.follow(&shared.core, &self.servers, &wanted);
    }
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    config: Arc<ArcSwap<Config>>,
    /// What other processes tell; locked for a whole reload, of which there is one at a time.
    told: Mutex<Told>,
    /// `None`: in memory.
    ca: Option<PathBuf>,
    /// Whether guests are served here.
    has_guests: bool,
    authority: ArcSwapOption<CertificateAuthority>,
    /// The CA's files, where the deployment supplies it.
    supplied: Option<SuppliedCa>,
    proxy: Vec<SocketAddr>,
    /// For connections that a packet filter redirects.
    transparent: Vec<SocketAddr>,
}

impl Gateway {
    /// Starts a gateway. When this returns, its listeners are open.
    ///
    /// # Errors
    /// [`GatewayError`]; then nothing listens.
    pub async fn start(config: Config, mut parts: Parts) -> Result<Self, GatewayError> {
        let (listeners, proxy) = bind("listen.proxy", &config.listen.proxy)?;
        let (captured, transparent) = bind("listen.transparent", &config.listen.transparent)?;
        parts.doors.extend(&transparent);
        let mut gateway = Self::assemble(config, parts, proxy)?;
        gateway.transparent = transparent;
        let door = |kind| Door { kind, own: None };
        gateway.accept(listeners, &door(DoorKind::Proxy));
        let redirected = DoorKind::Transparent(Capturing::ByRedirect);
        gateway.accept(captured, &door(redirected));
        Ok(gateway)
    }

    fn assemble(
        config: Config,
        parts: Parts,
        proxy: Vec<SocketAddr>,
    ) -> Result<Self, GatewayError> {
        let ca = match &parts.ca {
            CaPlace::Folder(folder) => Some(folder.clone()),
            CaPlace::Memory(_) | CaPlace::Nowhere => None,
        };
        let has_guests = !matches!(parts.ca, CaPlace::Nowhere);
        let own = with_envoys(&[proxy.clone(), parts.doors.clone()].concat(), &config);
        let servers = match has_guests {
            true => Servers::of(&config, &Servers::default())?,
            false => Servers::default(),
        };
        let (shared, authority, supplied) = share(&config, parts, &own, &servers)?;
        let mut told = Told {
            own,
            ..Told::default()
        };
        told.come_into_force(&shared, servers);
        shared.spawn_until_stopped(keep_house(Arc::clone(&shared)));
        Ok(Self {
            shared,
            config: Arc::new(ArcSwap::from_pointee(config)),
            told: Mutex::new(told),
            ca,
            has_guests,
            authority: ArcSwapOption::new(authority),
            supplied,
            proxy,
            transparent: Vec::new(),
        })
    }

    fn accept(&self, listeners: Vec<TcpListener>, door: &Door) {
        for listener in listeners {
            let shared = Arc::clone(&self.shared);
            let accepting = accept(shared, listener, door.clone());
            self.shared.tasks.spawn(accepting);
        }
    }

    /// What this plane shares with every other plane of the gateway.
    #[must_use]
    pub fn core(&self) -> &Arc<Core> {
        &self.shared.core
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

    /// The sockets for captured connections.
    #[must_use]
    pub fn transparent(&self) -> &[SocketAddr] {
        &self.transparent
    }

    /// Whether some destination is bumped, so that guests need the CA.
    #[must_use]
    pub fn has_ca(&self) -> bool {
        self.shared.server_tls.load().is_some()
    }

    /// Connections of guests that are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared
            .most_connections
            .saturating_sub(self.shared.room.available_permits())
    }

    /// The CA that signs leaves, where some destination is or was bumped and its key is in this process.
    #[must_use]
    pub fn authority(&self) -> Option<Arc<CertificateAuthority>> {
        self.authority.load_full()
    }

    /// The last second in which the CA of the leaves is good, where there is one.
    #[must_use]
    pub fn ca_not_after(&self) -> Option<UnixSeconds> {
        Some(self.shared.server_tls()?.not_after())
    }

    /// Whether handshakes of bumped destinations can be served, as far as the CA goes: it has not expired, or there are
    /// none. For readiness.
    #[must_use]
    pub fn ca_is_good(&self) -> bool {
        let is_good = |end| unix_now() < end;
        !self.has_guests
            || !self.config.load().needs_ca()
            || self.ca_not_after().is_some_and(is_good)
    }

    /// The files of the CA that the deployment supplies.
    #[must_use]
    pub fn ca_files(&self) -> Vec<PathBuf> {
        let files = self.supplied.iter().map(SuppliedCa::files);
        files
            .flat_map(|files| [files.certificate.clone(), files.key.clone()])
            .collect()
    }

    /// Looks whether the deployment renewed the CA. Another one signs every leaf from here on, those of `others` as well;
    /// what is open goes on. Blocks on files.
    pub fn refresh_ca(&self, others: impl FnOnce(&Arc<CertificateAuthority>)) -> CaLook {
        let Some(supplied) = &self.supplied else {
            return CaLook::Same;
        };
        supplied.look(unix_now(), |authority| {
            let published = self.ca.iter().try_for_each(|it| publish(authority, it));
            if let Err(error) = published {
                tracing::error!(code = "ca_not_published", %error, "the renewed CA signs, and is not handed out");
            }
            if let Some(tls) = self.shared.server_tls() {
                tls.sign_by(Minter::new(Arc::clone(authority), LEAF_CACHE));
            }
            self.authority.store(Some(Arc::clone(authority)));
            others(authority);
        })
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
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = self.config.load().restart_needed(&next);
        if !needed.is_empty() {
            return Err(GatewayError::NeedsRestart(needed));
        }
        let shared = &self.shared;
        let own = with_envoys(&told.own, &next);
        let live = live(&next, &own, shared.live().number + 1)?;
        let servers = match self.has_guests {
            true => Servers::of(&next, &told.servers)?,
            false => Servers::default(),
        };
        refuse_tokens_as_credentials(&next, &shared.plane.tokens)?;
        self.take_ca_over(&next, &servers)?;
        shared.plane.resolver.reconfigure(&next.resolver)?;
        let credentials = &shared.plane.credentials;
        if self.has_guests {
            warn_of(&credentials.reconfigure(&next.credentials, &forms(&next)));
        }
        told.come_into_force(shared, servers);
        told.own = own;
        shared.replace(live);
        shared.pool.clear();
        shared.speaks_http2.clear();
        shared.tell_of_reload();
        self.config.store(Arc::new(next));
        Ok(())
    }

    /// Makes a CA where one is needed for the first time, or looks at the minter's certificate again.
    fn take_ca_over(&self, next: &Config, servers: &Servers) -> Result<(), GatewayError> {
        if !self.has_guests || !next.needs_ca() {
            return Ok(());
        }
        let present = self.shared.server_tls();
        match (present, &next.minter, &self.ca) {
            (Some(tls), Some(minter), folder) => {
                tls.trust(known_ca(&minter.leaf_ca, folder.as_deref())?);
            }
            (Some(_), None, _) => {}
            (None, _, Some(folder)) => {
                let guests = guest_side(next, CaPlace::Folder(folder.clone()), servers)?;
                self.shared.server_tls.store(guests.tls);
                self.authority.store(guests.authority);
            }
            (None, _, None) => {
                return Err(GatewayError::NeedsRestart(vec![
                    "the first bumped destination",
                ]));
            }
        }
        Ok(())
    }

    /// The connection to a server of secrets that the configuration in force names; its certificates are renewed with
    /// every reload. Other planes share it.
    #[must_use]
    pub fn secret_client(&self, address: &PlaneAddress) -> Option<SecretClient> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.servers.client(address).cloned()
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
        if std::env::var(name).is_ok_and(|value| is_session_token(tokens, value.as_bytes())) {
            return Err(GatewayError::TokenAsCredential(name.clone()));
        }
    }
    Ok(())
}

/// Says why credentials have no value, or what is odd about one.
fn warn_of(problems: &[SourceProblem]) {
    for problem in problems {
        tracing::warn!(code = problem.code.as_str(), "{problem}");
    }
}

fn forms(config: &Config) -> Vec<(CredentialName, InjectionForm)> {
    config
        .injections()
        .map(|(name, form)| (name.clone(), form.clone()))
        .collect()
}

/// These sockets, and those that the file gives to Envoys.
fn with_envoys(own: &[SocketAddr], config: &Config) -> Vec<SocketAddr> {
    let mut all = own.to_vec();
    for socket in config.envoy.iter().flat_map(EnvoyConfig::sockets) {
        if !all.contains(&socket) {
            all.push(socket);
        }
    }
    all
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

type SharedWithCa = (
    Arc<Shared>,
    Option<Arc<CertificateAuthority>>,
    Option<SuppliedCa>,
);

fn share(
    config: &Config,
    parts: Parts,
    own: &[SocketAddr],
    servers: &Servers,
) -> Result<SharedWithCa, GatewayError> {
    refuse_tokens_as_credentials(config, &parts.tokens)?;
    let (credentials, problems) = match parts.ca {
        CaPlace::Nowhere => CredentialStore::open(&BTreeMap::new(), &[]),
        _ => CredentialStore::open(&config.credentials, &forms(config)),
    };
    warn_of(&problems);
    let GuestSide {
        tls,
        authority,
        supplied,
    } = guest_side(config, parts.ca, servers)?;
    let plane = GatewayPlane {
        tokens: parts.tokens,
        sessions: parts.sessions,
        limits: SessionCounters::default(),
        resolver: GatewayResolver::new(&config.resolver)?,
        credentials,
        audit: parts.audit,
    };
    let core = Core::new(CoreParts {
        plane,
        live: live(config, own, 0)?,
        most_records: parts.most_records,
        observer: parts.observer,
        on_anomaly: parts.on_anomaly,
    })?;
    let most_connections = config.listen.max_connections.min(Semaphore::MAX_PERMITS);
    let shared = Shared {
        core: Arc::new(core),
        server_tls: ArcSwapOption::new(tls),
        speaks_http2: Cache::new(PROTOCOL_CACHE),
        pool: Arc::default(),
        room: Arc::new(Semaphore::new(most_connections)),
        pipes: Arc::new(Semaphore::new(MOST_PIPES)),
        most_connections,
        marker: random_hex()?,
    };
    Ok((Arc::new(shared), authority, supplied))
}

fn bind(
    key: &'static str,
    addresses: &[SocketAddr],
) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), GatewayError> {
    let opened = sockets::open(addresses).map_err(|failed| GatewayError::Listen {
        key,
        address: failed.address,
        source: failed.source,
    })?;
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for (address, listener) in addresses.iter().zip(opened) {
        let failed = |source| GatewayError::Listen {
            key,
            address: *address,
            source,
        };
        bound.push(listener.local_addr().map_err(failed)?);
        listeners.push(TcpListener::from_std(listener).map_err(failed)?);
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
    use crate::arrival::Arrival;

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
            let _trail = arrival.begin_trail(&shared, Entry::AbsoluteForm);
            panic!("on purpose");
        });
        assert!(panicked.await.unwrap_err().is_panic());
        gateway.stop().await.unwrap();
        let trail = std::fs::read_to_string(gateway.audit_file()).unwrap();
        assert!(trail.contains("internal_fault"), "{trail}");
    }

    #[tokio::test]
    async fn the_ca_is_given_on_where_there_is_one_and_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let start = |posture: &str| {
            let text = format!(
                "version: 1\nposture: {posture}\ndestinations: [{{ host: a.test }}]\nupstream: {{ roots: bundled }}\n"
            );
            let config = Config::parse("test.yaml", &text, folder.path()).unwrap();
            let audit = AuditPlace {
                folder: folder.path().join(posture),
                most_records: u64::MAX,
            };
            InMemoryGateway::start(config, audit, &[], Box::new(|_| {})).unwrap()
        };
        let passing = start("pass-through");
        assert!(passing.authority().is_none() && passing.ca_certificate().is_none());
        let bumping = start("bump");
        let (one, other) = (bumping.authority().unwrap(), bumping.authority().unwrap());
        assert_eq!(Some(one.certificate_pem()), bumping.ca_certificate());
        assert!(Arc::ptr_eq(&one, &other));
    }

    #[tokio::test]
    async fn a_socket_that_a_reload_gives_to_an_envoy_is_no_destination_from_then_on() {
        use outgate_journey::address::AddressExceptions;
        let folder = tempfile::tempdir().unwrap();
        let file = |port: u16| {
            let text = format!(
                "version: 1\nlisten: {{ proxy: 127.0.0.1:0, xds: {{ socket: x }} }}\nupstream: {{ roots: bundled }}\n\
                 resolver: {{ servers: [\"127.0.0.1:9\"], allow: [127.0.0.0/8] }}\n\
                 envoy: {{ proxy: 127.0.0.1:0, admin: {{ address: \"127.0.0.1:{port}\" }} }}\n"
            );
            Config::parse("test.yaml", &text, folder.path()).unwrap()
        };
        let audit = AuditPlace {
            folder: folder.path().join("audit"),
            most_records: u64::MAX,
        };
        let gateway = InMemoryGateway::start(file(9901), audit, &[], Box::new(|_| {}))
            .unwrap()
            .into_gateway();
        let is_let_through = |port: u16| {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let live = gateway.core().live();
            let judged = live.policy.deny_set();
            judged.judge(address, &AddressExceptions::default()).is_ok()
        };
        assert!(!is_let_through(9901) && is_let_through(9902));
        gateway.take_over(file(9902)).unwrap();
        // The Envoy of before may run on.
        assert!(!is_let_through(9901) && !is_let_through(9902));
        assert!(is_let_through(9903));
    }
}
