//! The door for data planes that are not this process: Envoys, which get their configuration, their leaves, their credentials
//! and a verdict for each request here, and whoever else speaks SDS.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Result, anyhow};
use outgate_config::Config;
use outgate_envoy::{
    control::ControlPlane,
    source::{Configuration, EnvoySource, Leaves},
};
use outgate_journey::policy::{CredentialName, PlaneAddress, Policy};
use outgate_minter::{LeafParts, LeafSecrets, LeafService, portable_minter};
use outgate_native::gateway::Gateway;
use outgate_pki::CertificateAuthority;
use outgate_plane::clock;
use outgate_xds::{Services, TlsDoor, XdsService};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::core::Core;
use crate::commands::{
    envoy::Settings,
    plane_door::{self, Bound, Renewed},
};

/// The door's place in the configuration file.
pub(super) const DOOR: &str = "listen.xds";

/// How long a stop waits for data planes to say how what they carried ended.
const LAST_LOGS: Duration = Duration::from_secs(2);

/// The door's other side, while it is open.
pub(super) struct Planes {
    control: ControlPlane,
    source: Arc<EnvoySource>,
    tls: Option<TlsDoor>,
    place: String,
    leaves: Mutex<Option<Arc<LeafService>>>,
    door: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

/// What a configuration needs here, read and made.
pub(super) struct Prepared {
    door: Option<Renewed>,
    minter: Option<PlaneAddress>,
    needs_ca: bool,
    configuration: Configuration,
    planes: BTreeMap<CredentialName, Vec<String>>,
}

impl Planes {
    /// Opens the door.
    ///
    /// # Errors
    /// What stands in the way.
    pub(super) fn open(
        core: &Arc<Core>,
        bound: Bound,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>> {
        let (door, tls, place) = bound.open(DOOR)?;
        let shared = core.gateway.core();
        let control = ControlPlane::new(shared);
        let planes = Arc::new(Self {
            source: EnvoySource::of(shared, &control)?,
            control,
            tls,
            place,
            leaves: Mutex::default(),
            door: Mutex::default(),
            stop: stop.clone(),
        });
        let ready = Self::prepare(&core.gateway.config())?;
        planes.put_in_force(&core.gateway, ready);
        let told = Arc::downgrade(&planes);
        shared.plane.credentials.on_change(move |changes| {
            if let Some(planes) = told.upgrade() {
                for change in changes {
                    planes.source.credential_changed(&change.name);
                }
            }
        });
        let keys = Arc::clone(&core.keys);
        let services = Services::new().xds(&XdsService::new(Arc::clone(&planes.source) as _));
        let services = planes
            .control
            .offer(services, Arc::new(move || keys.jwks().to_string()));
        let door = tokio::spawn(door.serve(services, stop.clone()));
        *planes.door.lock().unwrap_or_else(PoisonError::into_inner) = Some(door);
        let house = planes.control.clone();
        shared.spawn_until_stopped(async move { house.keep_house().await });
        Ok(planes)
    }

    /// Where data planes connect.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The data planes that are or were connected.
    pub(super) fn nodes(&self) -> Vec<outgate_envoy::nodes::DataPlane> {
        self.source.nodes().list()
    }

    /// Reads and makes everything that a configuration needs here; nothing changes by it. Blocks on files.
    ///
    /// # Errors
    /// What cannot be read or rendered.
    pub(super) fn prepare(config: &Config) -> Result<Prepared> {
        let door = config.listen.xds.as_ref();
        let door = door.map(|door| plane_door::renew(door, DOOR)).transpose()?;
        let settings = config
            .envoy
            .is_some()
            .then(|| Settings::of(config, Path::new("the configuration")))
            .transpose()?;
        let options = settings.as_ref().map(Settings::options);
        let configuration = Configuration::of(&config.policy, options.as_ref())
            .map_err(|why| anyhow!("Envoy's configuration: {why}"))?;
        Ok(Prepared {
            door,
            minter: config.minter.as_ref().map(|it| it.address.clone()),
            needs_ca: config.needs_ca(),
            configuration,
            planes: config.credential_planes.clone(),
        })
    }

    /// Puts it in force, behind the policy that it was made of. Cannot fail: a right that the policy took back must not
    /// stay in force here. What withdraws comes first.
    pub(super) fn put_in_force(&self, gateway: &Gateway, ready: Prepared) {
        if let (Some(tls), Some(door)) = (&self.tls, ready.door) {
            door.put_in_force(tls);
        }
        self.source.put_in_force(ready.configuration, ready.planes);
        let policy = Arc::new(gateway.core().live().policy.clone());
        if let Some(service) = &*self.leaves() {
            service.set_policy(policy);
            return;
        }
        if gateway.authority().is_some() {
            self.mint(gateway, policy);
        } else if let Some(address) = ready.minter.filter(|_| ready.needs_ca)
            && let Some(client) = gateway.secret_client(&address)
        {
            self.source.set_leaves(Leaves::Minter(client));
        }
    }

    /// Has leaves made here from now on.
    fn mint(&self, gateway: &Gateway, policy: Arc<Policy>) {
        // Locked before the CA is looked at: one that comes in meanwhile finds the service there, and signs by it.
        let mut leaves = self.leaves();
        let Some(authority) = gateway.authority() else {
            return;
        };
        let service = LeafService::new(LeafParts {
            minter: portable_minter(authority),
            policy,
            clock: clock::machine(),
            trail: Arc::new(gateway.core().plane.audit.clone()),
            changes: self.source.changes().clone(),
            capacity: outgate_minter::DEFAULT_CAPACITY,
        });
        self.source
            .set_leaves(Leaves::Own(LeafSecrets::new(Arc::clone(&service))));
        let fresh = Arc::clone(&service);
        gateway
            .core()
            .spawn_until_stopped(async move { fresh.keep_fresh().await });
        *leaves = Some(service);
    }

    /// Another CA signs from here on.
    pub(super) fn sign_by(&self, authority: Arc<CertificateAuthority>) {
        if let Some(service) = &*self.leaves() {
            service.set_minter(portable_minter(authority));
        }
    }

    fn leaves(&self) -> MutexGuard<'_, Option<Arc<LeafService>>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the door, and writes what is still to be recorded once everybody has left or had the time to: then nobody
    /// will say any more how it ended.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let door = self
            .door
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(door) = door {
            let _ = tokio::time::timeout(LAST_LOGS, door).await;
        }
        if let Some(service) = &*self.leaves() {
            service.finish();
        }
        self.control.close();
    }
}
