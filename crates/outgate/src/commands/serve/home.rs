//! A gateway with everything that outlives it: the lock on its state folder, the database, keys, CA and audit trail; and
//! everybody who talks to it besides guests: operators, other gateways, receivers of the trail.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use outgate_audit::{AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_clock::Clock;
use outgate_config::Config;
use outgate_control::{
    operator::{Doors, OperatorApi, OperatorParts, OperatorThread, SocketFile, bind_unix},
    sessions::{SessionRules, Sessions},
};
use outgate_export::Exporter;
use outgate_fleet::{FleetServer, Follower};
use outgate_issuer::Issuers;
use outgate_journey::{
    record::{AuditEvent, AuditSink, Operator, SessionChange, SessionRecord},
    session::{SessionEnd, SessionId, TokenClaims, TokenOrigin},
};
use outgate_native::{
    clock,
    gateway::{AUDIENCE, CaPlace, Gateway, ISSUER, Parts},
    state::{StateLock, StatePaths},
    tokens::Tokens,
};
use outgate_session::{FollowedKeys, KeyRing};
use outgate_store::{SessionStore, SqliteStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    export::start_exporters, fleet, follow, issuers::issuer_configs, operator, tls::server_config,
};

/// How often an issuer's keys are looked at, and the signing key's age.
const EVERY_MINUTE: Duration = Duration::from_secs(60);
/// How long a stop waits for receivers of the trail and for operators.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the parts of a gateway share with each other.
pub(super) struct Core {
    pub(super) gateway: Gateway,
    pub(super) state: StatePaths,
    pub(super) config_file: PathBuf,
    pub(super) keys: Arc<KeyRing>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) audit: AuditLog,
    pub(super) tokens: Tokens,
    pub(super) operator: OnceLock<Arc<OperatorApi>>,
    pub(super) fleet: OnceLock<Arc<FleetServer>>,
    /// The sockets of the doors for operators and for other gateways, where there are any.
    addresses: (Option<SocketAddr>, Option<SocketAddr>),
    /// What the control plane that this gateway follows gave it.
    pub(super) document: Mutex<Option<Arc<str>>>,
    /// Moves with everything that followers of this gateway are told.
    pub(super) changed: watch::Sender<u64>,
    /// One change of the configuration at a time.
    reloading: Mutex<()>,
    exporters: Mutex<Vec<Exporter>>,
}

/// A running gateway in its state folder.
pub(super) struct Home {
    core: Arc<Core>,
    stop: CancellationToken,
    operators: Mutex<Option<OperatorThread>>,
    store: Arc<SqliteStore>,
    _socket: SocketFile,
    _lock: StateLock,
}

impl Home {
    /// Starts everything. What was revoked before is known before the first listener opens.
    ///
    /// # Errors
    /// What stands in the way, in words; then nothing listens.
    pub(super) async fn open(
        config: Config,
        config_file: PathBuf,
        state: StatePaths,
    ) -> Result<Self> {
        let lock = state.open()?;
        let machine = clock::machine();
        let store = Arc::new(SqliteStore::open(&state.database()).await?);
        warn_of_setback(&*store);
        machine.not_before(store.clock_floor());
        let sessions = Sessions::open(
            Arc::clone(&store) as Arc<dyn SessionStore>,
            rules(&config),
            machine.clone(),
        );
        let sessions = Arc::new(sessions.await?);
        let keys = Arc::new(KeyRing::open(
            &state.keys(),
            ISSUER,
            AUDIENCE,
            machine.unix(),
        )?);
        let audit = open_trail(&config, &state)?;
        record_sessions(&sessions, &audit);
        let stop = CancellationToken::new();

        let own = FollowedKeys::new(ISSUER, AUDIENCE);
        let issuers = Issuers::new(issuer_configs(&config), clock::machine())?;
        let tokens = match &config.control {
            Some(_) => Tokens::new(own.verifier(), issuers),
            None => Tokens::new(keys.verifier(), issuers),
        };
        // The last state is read before the first listener opens, and with it what was revoked.
        let held = Arc::new(follow::Held::new(own, Arc::clone(&sessions)));
        let follower = follow::follower(&config, &state, Arc::clone(&held))?;
        follow::judge_freshness(&config, follower.as_ref(), &sessions);
        let (config, document) = match &follower {
            Some(follower) => held.restore(follower, config, &config_file),
            None => (config, None),
        };
        let door = operator_doors(&config, &state)?;
        let control = fleet::door(&config)?.zip(fleet::listener(&config)?);
        let addresses = (
            door.tls
                .as_ref()
                .and_then(|door| door.listener.local_addr().ok()),
            control
                .as_ref()
                .and_then(|(_, listener)| listener.local_addr().ok()),
        );
        let parts = Parts {
            tokens: tokens.clone(),
            sessions: Arc::clone(&sessions),
            audit: audit.clone(),
            most_records: u64::MAX,
            observer: None,
            on_anomaly: follower.as_ref().map(follow::report_to),
            ca: CaPlace::Folder(state.ca()),
            doors: addresses.0.into_iter().chain(addresses.1).collect(),
        };
        let gateway = Gateway::start(config, parts).await?;
        let core = Arc::new(Core {
            gateway,
            state,
            config_file,
            keys,
            sessions,
            audit,
            tokens,
            operator: OnceLock::new(),
            fleet: OnceLock::new(),
            addresses,
            document: Mutex::new(document),
            changed: watch::Sender::new(0),
            reloading: Mutex::new(()),
            exporters: Mutex::default(),
        });
        let socket = SocketFile(core.state.operator_socket());
        let operators = core.open_doors(door, control, &stop)?;
        core.keep_going(follower, &held, &stop);
        Ok(Self {
            core,
            stop,
            operators: Mutex::new(Some(operators)),
            store,
            _socket: socket,
            _lock: lock,
        })
    }

    /// The data plane.
    pub(super) fn gateway(&self) -> &Gateway {
        &self.core.gateway
    }

    /// The configuration file.
    pub(super) fn config_file(&self) -> &Path {
        &self.core.config_file
    }

    /// The address of the operator's HTTPS door, if it has one.
    pub(super) fn operator_address(&self) -> Option<SocketAddr> {
        self.core.addresses.0
    }

    /// The address of the door for gateways that follow this one, if it has one.
    pub(super) fn control_address(&self) -> Option<SocketAddr> {
        self.core.addresses.1
    }

    /// See [`Core::reload`].
    pub(super) fn reload(&self) -> Result<()> {
        self.core.reload()
    }

    /// Stops: guests first, then operators, then whoever receives the trail. Every record is on disk when this returns.
    pub(super) async fn stop(&self) -> Result<()> {
        let stopped = self.core.gateway.stop().await;
        self.stop.cancel();
        let operators = self
            .operators
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(operators) = operators {
            let _ = tokio::task::spawn_blocking(move || operators.join()).await;
        }
        let flushed = self.core.audit.durable(LAST_WORDS).await;
        for exporter in self.core.take_exporters() {
            exporter.stop();
            exporter.stopped().await;
        }
        self.core.sessions.close().await?;
        drop(Arc::clone(&self.store));
        stopped?;
        Ok(flushed?)
    }
}

impl Core {
    /// Reads the configuration file again and takes it over as a whole, or not at all. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with it; then everything goes on as it was.
    pub(super) fn reload(&self) -> Result<()> {
        let document = self.document().clone();
        let next = match document {
            Some(document) => Config::load_following(&self.config_file, &document)?,
            None => Config::load(&self.config_file)?,
        };
        self.take_over(next)
    }

    /// What the control plane gave, if this gateway follows one.
    pub(super) fn document(&self) -> std::sync::MutexGuard<'_, Option<Arc<str>>> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a configuration over as a whole, or not at all. Blocks on files.
    ///
    /// # Errors
    /// What stands in the way; then everything goes on as it was.
    pub(super) fn take_over(&self, next: Config) -> Result<()> {
        let _one = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = self.gateway.config();
        let issuers = self.tokens.issuers().replaced(issuer_configs(&next))?;
        let tls = next
            .listen
            .operator
            .as_ref()
            .map(|door| server_config(&door.tls))
            .transpose()?;
        let control = fleet::door(&next)?;
        if let Some(operator) = self.operator.get() {
            operator.replace(operator::settings(&next)?)?;
        }
        if let Err(error) = self.gateway.take_over(next.clone()) {
            if let Some(operator) = self.operator.get() {
                operator.replace(operator::settings(&before)?)?;
            }
            return Err(error.into());
        }
        if let (Some(operator), Some(tls)) = (self.operator.get(), tls) {
            operator.replace_tls(&tls);
        }
        if let (Some(server), Some(door)) = (self.fleet.get(), control) {
            server.set_tls(door.tls);
            server.set_gateways(door.gateways);
        }
        self.tokens.trust(issuers);
        self.sessions.set_rules(rules(&next));
        if before.audit.export != next.audit.export {
            self.take_exporters().iter().for_each(Exporter::stop);
            self.export(&next)?;
        }
        self.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    fn open_doors(
        self: &Arc<Self>,
        doors: Doors,
        control: Option<(fleet::Door, std::net::TcpListener)>,
        stop: &CancellationToken,
    ) -> Result<OperatorThread> {
        let config = self.gateway.config();
        let parts = OperatorParts {
            sessions: Arc::clone(&self.sessions),
            keys: Arc::clone(&self.keys),
            clock: clock::machine(),
            audit: Arc::new(operator::Trail(self.audit.clone())),
            records: Arc::new(operator::Reader(operator::audit_folder(
                &config,
                &self.state,
            ))),
            host: Arc::new(operator::Host(Arc::clone(self))),
        };
        let api = OperatorApi::new(parts, operator::settings(&config)?)?;
        let _ = self.operator.set(Arc::clone(&api));
        let thread = api
            .start(doors, stop.clone())
            .context("the operator's door cannot be opened")?;
        if let Some((door, listener)) = control {
            let server = fleet::server(self, door)?;
            let _ = self.fleet.set(Arc::clone(&server));
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let stop = stop.clone();
            tokio::spawn(async move { server.serve(listener, stop).await });
        }
        self.export(&config)?;
        Ok(thread)
    }

    fn export(&self, config: &Config) -> Result<()> {
        let folder = operator::audit_folder(config, &self.state);
        let started = start_exporters(config, &self.state.export(), &folder)?;
        *self
            .exporters
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = started;
        Ok(())
    }

    fn take_exporters(&self) -> Vec<Exporter> {
        let mut exporters = self
            .exporters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut exporters)
    }

    /// Starts what goes on in the background.
    fn keep_going(
        self: &Arc<Self>,
        follower: Option<Arc<Follower>>,
        held: &Arc<follow::Held>,
        stop: &CancellationToken,
    ) {
        held.belongs_to(self);
        if let Some(follower) = follower {
            let stop = stop.clone();
            tokio::spawn(async move { follower.follow(stop).await });
        }
        let told = Arc::downgrade(self);
        self.keys.on_change(move || {
            if let Some(core) = told.upgrade() {
                core.changed.send_modify(|version| *version += 1);
            }
        });
        let core = Arc::clone(self);
        self.gateway.spawn_until_stopped(async move {
            let mut changes = core.sessions.changes();
            while changes.changed().await.is_ok() {
                core.changed.send_modify(|version| *version += 1);
            }
        });
        let core = Arc::clone(self);
        self.gateway
            .spawn_until_stopped(async move { core.sessions.keep_time().await });
        let core = Arc::clone(self);
        self.gateway.spawn_until_stopped(async move {
            let mut minutes = tokio::time::interval(EVERY_MINUTE);
            loop {
                minutes.tick().await;
                core.tokens.issuers().refresh().await;
                let keys = Arc::clone(&core.keys);
                let rotated =
                    tokio::task::spawn_blocking(move || keys.rotate_if_due(clock::unix_now()));
                if let Ok(Err(error)) = rotated.await {
                    tracing::error!(%error, "the session token key is due for rotation and could not be rotated");
                }
            }
        });
    }
}

fn rules(config: &Config) -> SessionRules {
    SessionRules {
        idle: Some(config.sessions.idle),
        lifetime: config.sessions.lifetime,
        sessions_per_tenant: config.operator.quotas.sessions_per_tenant,
        sessions: Some(config.operator.quotas.sessions),
    }
}

/// Opens the audit trail, with the key that signs its heads.
fn open_trail(config: &Config, state: &StatePaths) -> Result<AuditLog> {
    let options = AuditOptions {
        clock: clock::machine(),
        key: AuditKey::load_or_create(&state.audit_key())?,
        rotation: Rotation {
            size: Some(config.audit.rotate.size),
            age: Some(config.audit.rotate.age),
        },
    };
    let folder = operator::audit_folder(config, state);
    AuditLog::open(&folder, options).with_context(|| "the audit trail cannot be opened")
}

fn warn_of_setback(store: &dyn SessionStore) {
    let (floor, now) = (store.clock_floor(), clock::unix_now());
    if floor > now {
        tracing::warn!(
            code = "clock_behind",
            behind_seconds = floor.0 - now.0,
            "the wall clock stands before the time at which this gateway was last running: it goes on from there"
        );
    }
}

/// Records what the clocks end, and identities that are seen for the first time. What operators do is recorded where
/// they do it.
fn record_sessions(sessions: &Sessions, audit: &AuditLog) {
    let trail = audit.clone();
    sessions.on_end(move |session, end| {
        trail.record(session_event(session, SessionChange::Ended(end), None));
    });
    let trail = audit.clone();
    sessions.on_begin(move |claims| {
        trail.record(session_event(
            &claims.session,
            SessionChange::Began,
            Some(claims),
        ));
    });
}

/// What became of a session without an operator's doing.
fn session_event(
    session: &SessionId,
    change: SessionChange,
    claims: Option<&TokenClaims>,
) -> AuditEvent {
    let external = claims.and_then(|claims| match &claims.origin {
        TokenOrigin::External { issuer, subject } => Some((issuer, subject)),
        TokenOrigin::Own => None,
    });
    AuditEvent::Session(Box::new(SessionRecord {
        time_unix_ms: clock::machine().wall_ms(),
        session: session.clone(),
        change,
        token_id: claims.map(|claims| Arc::clone(&claims.token_id)),
        expires: claims.map(|claims| claims.expires),
        issuer: external.map(|(issuer, _)| Arc::clone(issuer)),
        subject: external.map(|(_, subject)| Arc::clone(subject)),
        policy: claims.and_then(|claims| Some(claims.terms.policy.as_ref()?.to_string())),
        by: Operator::itself(),
    }))
}

/// Ends a session for what another gateway saw it do.
pub(super) fn end_for_anomaly(core: &Arc<Core>, session: SessionId, by: String) {
    let end = SessionEnd::Tripwire;
    core.audit
        .record(session_event(&session, SessionChange::Ended(end), None));
    let core = Arc::clone(core);
    let ending = async move {
        if let Err(error) = core.sessions.end(&session, end, &by).await {
            tracing::error!(%error, %session, "the session is cut, and its end is not on disk yet");
        }
    };
    tokio::spawn(ending);
}

fn operator_doors(config: &Config, state: &StatePaths) -> Result<Doors> {
    let unix = bind_unix(&state.operator_socket()).context("the operator's socket")?;
    let tls = config
        .listen
        .operator
        .as_ref()
        .map(operator::tls_door)
        .transpose()?;
    Ok(Doors {
        unix: Some(unix),
        tls,
    })
}
