//! What the parts of a running gateway share, how they take a new configuration over together, and what goes on in the
//! background.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use outgate_audit::AuditLog;
use outgate_config::Config;
use outgate_control::{
    operator::{Doors, OperatorApi, OperatorParts, OperatorThread},
    sessions::{SessionRules, Sessions},
};
use outgate_export::Exporter;
use outgate_fleet::{FleetServer, Follower};
use outgate_native::{clock, gateway::Gateway, state::StatePaths, tokens::Tokens};
use outgate_session::KeyRing;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    export::start_exporters,
    fleet, follow,
    issuers::issuer_configs,
    operator,
    tls::{read, server_config},
};

/// How often an issuer's keys are looked at, and the signing key's age.
const EVERY_MINUTE: Duration = Duration::from_secs(60);
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
    /// What follows the control plane, where this gateway has one.
    pub(super) follower: Option<Arc<Follower>>,
    /// The sockets of the doors for operators and for other gateways, where there are any.
    pub(super) addresses: (Option<SocketAddr>, Option<SocketAddr>),
    /// What the control plane that this gateway follows gave it. Locked for the whole of a change of the configuration, so
    /// that there is one at a time and an older document cannot come into force behind a newer one.
    pub(super) document: Mutex<Option<Arc<str>>>,
    /// Moves with everything that followers of this gateway are told.
    pub(super) changed: watch::Sender<u64>,
    pub(super) exporters: Mutex<Vec<Exporter>>,
}

impl Core {
    /// Reads the configuration file again and takes it over as a whole, or not at all. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with it; then everything goes on as it was.
    pub(super) fn reload(&self) -> Result<()> {
        let document = self.document();
        let next = match &*document {
            Some(document) => Config::load_following(&self.config_file, document)?,
            None => Config::load(&self.config_file)?,
        };
        self.take_over(next)
    }

    /// Takes a control plane's policy over, with this gateway's own file, as a whole or not at all. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with it here; then everything goes on as it was.
    pub(super) fn take_document(&self, text: &Arc<str>) -> Result<()> {
        let mut document = self.document();
        self.take_over(Config::load_following(&self.config_file, text)?)?;
        *document = Some(Arc::clone(text));
        Ok(())
    }

    /// What the control plane gave, if this gateway follows one.
    fn document(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.document.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a configuration over as a whole, or not at all. Blocks on files.
    ///
    /// # Errors
    /// What stands in the way; then everything goes on as it was.
    fn take_over(&self, next: Config) -> Result<()> {
        let before = self.gateway.config();
        let issuers = self.tokens.issuers().replaced(issuer_configs(&next))?;
        let tls = next
            .listen
            .operator
            .as_ref()
            .map(|door| server_config(&door.tls))
            .transpose()?;
        let control = fleet::door(&next)?;
        if let (Some(follower), Some(control)) = (&self.follower, &next.control) {
            follower.set_identity(&read(&control.tls.certificate)?, &read(&control.tls.key)?)?;
        }
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
            self.stop_exporters();
            self.export(&next)?;
        }
        self.changed.send_modify(|version| *version += 1);
        Ok(())
    }

    pub(super) fn open_doors(
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

    /// Stops the exporters and waits for them: those that follow go on from the same marks.
    fn stop_exporters(&self) {
        let exporters = self.take_exporters();
        exporters.iter().for_each(Exporter::stop);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.block_on(async {
                for exporter in exporters {
                    exporter.stopped().await;
                }
            });
        }
    }

    pub(super) fn take_exporters(&self) -> Vec<Exporter> {
        let mut exporters = self
            .exporters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut exporters)
    }

    /// Starts what goes on in the background.
    pub(super) fn keep_going(self: &Arc<Self>, held: &Arc<follow::Held>, stop: &CancellationToken) {
        held.belongs_to(self);
        if let Some(follower) = self.follower.clone() {
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

/// How long sessions live and how many there may be, by the file.
pub(super) fn rules(config: &Config) -> SessionRules {
    SessionRules {
        idle: Some(config.sessions.idle),
        lifetime: config.sessions.lifetime,
        sessions_per_tenant: config.operator.quotas.sessions_per_tenant,
        sessions: Some(config.operator.quotas.sessions),
    }
}
