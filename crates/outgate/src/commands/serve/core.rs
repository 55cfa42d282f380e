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
use outgate_config::{Config, SessionView};
use outgate_control::{
    operator::{Doors, OperatorApi, OperatorParts, OperatorThread},
    sessions::{SessionRules, Sessions, ViewRules},
};
use outgate_export::Exporter;
use outgate_fleet::{FleetServer, Follower};
use outgate_native::{gateway::Gateway, state::StatePaths};
use outgate_pki::CaLook;
use outgate_plane::{clock, tokens::Tokens};
use outgate_session::KeyRing;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    export::start_exporters, fleet, follow, inbound::Inbounds, issuers::issuer_configs, operator,
    planes::Planes, ready::Reloads, tls::server_config,
};
use crate::commands::files::read;

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
    /// The door for Envoys, where there is one.
    pub(super) planes: OnceLock<Arc<Planes>>,
    /// The listeners in front of a service.
    pub(super) inbound: OnceLock<Inbounds>,
    /// What follows the control plane, where this gateway has one.
    pub(super) follower: Option<Arc<Follower>>,
    /// Set once every listener is open.
    pub(super) opened: OnceLock<()>,
    /// What became of configurations and policies so far.
    pub(super) reloads: Reloads,
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
        let reloaded = self.read_again();
        self.reloads.note(&reloaded);
        reloaded
    }

    fn read_again(&self) -> Result<()> {
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
        let next = Config::load_following(&self.config_file, text).map_err(anyhow::Error::from);
        let taken_over = next.and_then(|next| self.take_over(next));
        self.reloads.note(&taken_over);
        taken_over?;
        *document = Some(Arc::clone(text));
        self.reloads.note_document();
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
        let planes = match self.planes.get() {
            Some(planes) => Some((planes, Planes::prepare(&next)?)),
            None => None,
        };
        let inbound = match self.inbound.get() {
            Some(inbound) => Some((inbound, inbound.prepare(&next)?)),
            None => None,
        };
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
        if let Some((planes, ready)) = planes {
            planes.put_in_force(&self.gateway, ready);
        }
        if let Some((inbound, ready)) = inbound {
            inbound.put_in_force(ready);
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

    /// Takes a renewed CA over, where the deployment supplies it: for this process's own handshakes and for other data
    /// planes. Whether its files are settled; else a look within a second is worth it. Blocks on files.
    pub(super) fn refresh_ca(&self) -> bool {
        let look = self.gateway.refresh_ca(|authority| {
            if let Some(planes) = self.planes.get() {
                planes.sign_by(Arc::clone(authority));
            }
        });
        !matches!(look, CaLook::Unsettled)
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
        view: view_rules(&config.sessions.view),
    }
}

fn view_rules(view: &SessionView) -> ViewRules {
    let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    ViewRules {
        requests: number(view.requests),
        bodies: number(view.bodies),
        memory: number(view.memory),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use outgate_config::Config;
    use outgate_native::state::StatePaths;

    use crate::commands::serve::home::Home;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reload_that_the_door_for_data_planes_cannot_follow_changes_nothing_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let signed = rcgen::generate_simple_self_signed(vec!["door.test".to_owned()]).unwrap();
        let key = signed.signing_key.serialize_pem();
        write(at("door.pem"), signed.cert.pem()).unwrap();
        write(at("door.key"), &key).unwrap();
        let says = |clients: &str, host: &str| {
            let text = format!(
                "version: 1\nlisten:\n  xds: {{ address: \"127.0.0.1:0\", certificate: door.pem, key: door.key, \
                 client_ca: door.pem, clients: [{clients}] }}\n\
                 destinations: [{{ host: {host} }}]\nupstream: {{ roots: bundled }}\n\
                 resolver: {{ servers: [\"127.0.0.1:9\"] }}\n"
            );
            write(at("outgate.yaml"), text).unwrap();
        };
        says("envoy-1, envoy-2", "a.test");
        let config = Config::load(&at("outgate.yaml")).unwrap();
        let home = Home::open(config, at("outgate.yaml"), StatePaths::new(at("state")))
            .await
            .unwrap();
        let in_force = || {
            let config = home.gateway().config();
            let clients = config.listen.xds.as_ref().unwrap().clients.len();
            (clients, home.gateway().core().live().number)
        };
        assert_eq!(in_force(), (2, 0));
        says("envoy-1", "b.test");
        write(at("door.key"), "not a key").unwrap();
        let refused = tokio::task::block_in_place(|| home.reload()).unwrap_err();
        assert!(format!("{refused:#}").contains("listen.xds"), "{refused:#}");
        assert_eq!(in_force(), (2, 0));
        write(at("door.key"), &key).unwrap();
        tokio::task::block_in_place(|| home.reload()).unwrap();
        assert_eq!(in_force(), (1, 1));
        home.stop().await.unwrap();
    }
}
