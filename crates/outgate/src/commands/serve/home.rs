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
    operator::{Doors, OperatorThread, SocketFile, bind_unix},
    sessions::Sessions,
};
use outgate_issuer::Issuers;
use outgate_native::{
    gateway::{AUDIENCE, CaPlace, Gateway, ISSUER, Parts},
    state::{StateLock, StatePaths},
};
use outgate_plane::{clock, tokens::Tokens};
use outgate_session::{FollowedKeys, KeyRing};
use outgate_store::{SessionStore, SqliteStore};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    core::{Core, rules},
    fleet, follow,
    inbound::{self, Inbounds},
    issuers::issuer_configs,
    metrics, operator,
    planes::{self, Planes},
    ready::Reloads,
    record::record_sessions,
};
use crate::commands::plane_door::{self, Bound};

/// How long a stop waits for receivers of the trail and for operators.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// A running gateway in its state folder.
pub(super) struct Home {
    core: Arc<Core>,
    stop: CancellationToken,
    operators: Mutex<Option<OperatorThread>>,
    metrics: Vec<SocketAddr>,
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
        let store = Arc::new(open_store(&state).await?);
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
        if document.is_some() {
            // The control plane does not send again what is in force here, so nothing else would bring these.
            tokens.trust(tokens.issuers().replaced(issuer_configs(&config))?);
            sessions.set_rules(rules(&config));
        }
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
        let planes = config.listen.xds.as_ref();
        let planes = planes
            .map(|door| plane_door::bind(door, planes::DOOR))
            .transpose()?;
        let planes_address = planes.as_ref().and_then(Bound::address);
        let metrics = metrics::Bound::open(&config.listen.metrics)?;
        let metrics_addresses = metrics.addresses();
        let inbound = inbound::bind(&config)?;
        let doors = [addresses.0, addresses.1, planes_address]
            .into_iter()
            .flatten()
            .chain(inbound.iter().map(outgate_inbound::Bound::address))
            .chain(metrics_addresses.iter().copied());
        let parts = Parts {
            tokens: tokens.clone(),
            sessions: Arc::clone(&sessions),
            audit: audit.clone(),
            most_records: u64::MAX,
            observer: None,
            on_anomaly: follower.as_ref().map(follow::report_to),
            ca: match config.listen.serves_guests() {
                true => CaPlace::Folder(state.ca()),
                false => CaPlace::Nowhere,
            },
            doors: doors.collect(),
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
            planes: OnceLock::new(),
            inbound: OnceLock::new(),
            follower,
            opened: OnceLock::new(),
            reloads: Reloads::new(document.is_some()),
            addresses,
            document: Mutex::new(document),
            changed: watch::Sender::new(0),
            exporters: Mutex::default(),
        });
        let socket = SocketFile(core.state.operator_socket());
        let operators = core.open_doors(door, control, &stop)?;
        if let Some(bound) = planes {
            let _ = core.planes.set(Planes::open(&core, bound, &stop)?);
        }
        let inbound = Inbounds::open(&core.gateway, inbound)?;
        let _ = core.inbound.set(inbound);
        metrics::serve(&core, metrics, &stop)?;
        core.keep_going(&held, &stop);
        let _ = core.opened.set(());
        Ok(Self {
            core,
            stop,
            metrics: metrics_addresses,
            operators: Mutex::new(Some(operators)),
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

    /// Where counts can be read.
    pub(super) fn metrics(&self) -> &[SocketAddr] {
        &self.metrics
    }

    /// Where data planes connect, if there is a place.
    pub(super) fn planes_place(&self) -> Option<String> {
        Some(self.core.planes.get()?.place().to_owned())
    }

    /// Where callers of the service behind this gateway connect.
    pub(super) fn inbound_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.core
            .inbound
            .get()
            .into_iter()
            .flat_map(Inbounds::addresses)
    }

    /// See [`Core::reload`].
    pub(super) fn reload(&self) -> Result<()> {
        self.core.reload()
    }

    /// See [`Core::refresh_ca`].
    pub(super) fn refresh_ca(&self) -> bool {
        self.core.refresh_ca()
    }

    /// Stops: guests first, then operators, then whoever receives the trail. Every record is on disk when this returns.
    pub(super) async fn stop(&self) -> Result<()> {
        let stopped = self.core.gateway.stop().await;
        if let Some(planes) = self.core.planes.get() {
            planes.close().await;
        }
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
        stopped?;
        Ok(flushed?)
    }
}

/// Opens the database. Where there are signing keys there are tokens, and what was revoked of them stands in it: then it
/// has to be there.
async fn open_store(state: &StatePaths) -> Result<SqliteStore> {
    let keys = std::fs::read_dir(state.keys()).into_iter().flatten();
    let has_keys = keys
        .flatten()
        .any(|entry| entry.path().extension().is_some_and(|it| it == "pem"));
    let path = state.database();
    Ok(match has_keys {
        true => SqliteStore::open_existing(&path).await?,
        false => SqliteStore::open(&path).await?,
    })
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
