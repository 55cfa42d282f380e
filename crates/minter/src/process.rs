//! A process that does nothing but mint: it alone holds the CA's key, judges by the same policy file as the data planes
//! do, keeps an audit trail of its own, and is reached through one door.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outgate_audit::{AuditError, AuditKey, AuditLog, AuditOptions, Rotation};
use outgate_clock::Clock;
use outgate_journey::{policy::Policy, session::UnixSeconds};
use outgate_pki::{CaFiles, CaLook, CertificateAuthority, PkiError, SuppliedCa};
use outgate_xds::{Door, Services, XdsService};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{DEFAULT_CAPACITY, LeafParts, LeafSecrets, LeafService, portable_minter};

/// How many changes a data plane may be behind before it asks again for all that it has.
const CHANGES: usize = 1024;
/// How long a stop waits for the last records.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Where a minter keeps what outlives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinterPlaces {
    /// The folder of the CA, which is made if it is missing; of what guests trust alone, where the CA is supplied.
    pub ca: PathBuf,
    /// The CA that the deployment supplies; `None`: one of the minter's own.
    pub supplied: Option<CaFiles>,
    /// The folder of the audit trail.
    pub audit: PathBuf,
    /// The folder of the key that signs the trail's heads.
    pub audit_key: PathBuf,
}

impl MinterPlaces {
    /// The places in a state folder: the CA where every command looks for it, the trail apart from a gateway's, since
    /// one process writes a trail.
    #[must_use]
    pub fn under(state: &Path) -> Self {
        let own = state.join("minter");
        Self {
            ca: state.join("ca"),
            supplied: None,
            audit: own.join("audit"),
            audit_key: own.join("audit-key"),
        }
    }
}

/// Why a minter does not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum MinterError {
    /// The CA cannot be used.
    #[error(transparent)]
    Ca(#[from] PkiError),
    /// The audit trail cannot be used.
    #[error("the minter's audit trail: {0}")]
    Audit(#[from] AuditError),
}

/// A minter, ready to be reached.
#[derive(Debug)]
pub struct MinterProcess {
    ca: PathBuf,
    supplied: Option<SuppliedCa>,
    leaves: LeafSecrets,
    audit: AuditLog,
}

impl MinterProcess {
    /// Opens the CA and the trail. Blocks on files.
    ///
    /// # Errors
    /// [`MinterError`].
    pub fn open(
        places: &MinterPlaces,
        rotation: Rotation,
        policy: Arc<Policy>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, MinterError> {
        let (authority, supplied) = open_ca(places, clock.unix())?;
        let options = AuditOptions {
            clock: Arc::clone(&clock),
            key: AuditKey::load_or_create(&places.audit_key)?,
            rotation,
        };
        let audit = AuditLog::open(&places.audit, options)?;
        let service = LeafService::new(LeafParts {
            minter: portable_minter(authority),
            policy,
            clock,
            trail: Arc::new(audit.clone()),
            changes: broadcast::Sender::new(CHANGES),
            capacity: DEFAULT_CAPACITY,
        });
        let leaves = LeafSecrets::new(service);
        Ok(Self {
            ca: places.ca.clone(),
            supplied,
            leaves,
            audit,
        })
    }

    /// What guests have to trust, in PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        let authority = self.leaves.service().authority();
        authority.certificate_pem().to_owned()
    }

    /// Looks whether the deployment renewed the CA, and signs by the renewed one from here on. Blocks on files.
    pub fn refresh_ca(&self) -> CaLook {
        let Some(supplied) = &self.supplied else {
            return CaLook::Same;
        };
        supplied.look(self.leaves.service().now(), |authority| {
            if let Err(error) = publish(authority, &self.ca) {
                tracing::error!(code = "ca_not_published", %error, "the renewed CA signs, and is not handed out");
            }
            let minter = portable_minter(Arc::clone(authority));
            self.leaves.service().set_minter(minter);
        })
    }

    /// The leaves, to be served beside other secrets.
    #[must_use]
    pub const fn leaves(&self) -> &LeafSecrets {
        &self.leaves
    }

    /// The audit trail.
    #[must_use]
    pub const fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Judges by another policy from here on.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.leaves.service().set_policy(policy);
    }

    /// Serves leaves through this door until it is told to stop and whoever is served is done. Every record is on disk
    /// when this returns.
    ///
    /// # Errors
    /// [`MinterError::Audit`] if the last records are not on disk.
    pub async fn serve(&self, door: Door, stop: CancellationToken) -> Result<(), MinterError> {
        let service = self.leaves.service();
        let secrets = XdsService::new(Arc::new(self.leaves.clone()));
        tokio::select! {
            () = door.serve(Services::new().xds(&secrets), stop) => {}
            () = service.keep_fresh() => {}
        }
        self.close().await
    }

    /// Records what is summed up and not recorded yet, and waits until every record is on disk, at most five seconds.
    /// [`Self::serve`] ends with it; whoever does not wait for that end calls it instead.
    ///
    /// # Errors
    /// [`MinterError::Audit`] if the last records are not on disk.
    pub async fn close(&self) -> Result<(), MinterError> {
        self.leaves.service().finish();
        Ok(self.audit.durable(LAST_WORDS).await?)
    }
}

/// The CA, and where the deployment supplies it, its files.
///
/// # Errors
/// [`PkiError`].
pub fn open_ca(
    places: &MinterPlaces,
    now: UnixSeconds,
) -> Result<(Arc<CertificateAuthority>, Option<SuppliedCa>), PkiError> {
    let Some(files) = &places.supplied else {
        let own = CertificateAuthority::open_or_create(&places.ca, now)?;
        return Ok((Arc::new(own), None));
    };
    let supplied = SuppliedCa::open(files.clone(), now)?;
    let authority = supplied.authority();
    publish(&authority, &places.ca)?;
    Ok((authority, Some(supplied)))
}

/// Puts what guests trust where it is given out from.
fn publish(authority: &CertificateAuthority, folder: &Path) -> Result<(), PkiError> {
    let roots = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    authority.publish(folder, roots.as_deref()).map(drop)
}
