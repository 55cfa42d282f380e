//! The operator's door: an HTTP/JSON interface on listeners of its own, which no guest-facing listener leads to.
//!
//! Two ways in: a Unix socket that only the gateway's own user can open (the file is 0600 in a 0700 folder, and the
//! kernel names every peer), and, where it is configured, TLS with a bearer token or an identity provider's. It runs on
//! a thread of its own, so that a flooded data plane cannot starve it, and it keeps room for one more caller and for
//! calls that revoke, so that neither can a flood of its own.
//!
//! One place decides who may call what, and records it (`visit`); handlers only act. What is privileged is on disk in
//! the audit trail before it is acknowledged, and refused where it cannot be written. A revocation acts first: it takes
//! effect whatever the audit trail says, and the answer then says that it could not be recorded.

mod answer;
mod body;
mod call;
mod ceilings;
mod code;
mod door;
mod heads;
mod identity;
mod intake;
mod lane;
mod openapi;
mod problem;
mod query;
mod route;
mod routes;
mod scope;
mod seats;
mod secret_file;
mod settings;
mod socket;
mod spare;
mod text;
mod thread;
mod visit;
mod webhook;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::future::BoxFuture;
use outgate_clock::Clock;
use outgate_journey::{
    record::{AuditEvent, SessionRecord},
    session::{PolicyName, UnixSeconds},
};
use outgate_session::KeyRing;
use tokio::sync::Semaphore;

pub(crate) use self::secret_file::read as read_secret_file;
pub use self::{
    body::{
        About, AuditRecordBody, AuditRecords, Base64Bytes, BodyPart, CreateSession, CreatedSession,
        DataPlane, DenyBody, DenyList, DenyRequest, DenyTargetBody, Health, KillAll, KillSession,
        KillState, PolicyText, Quotas, Readiness, RenewSession, RotatedKey, SessionBody,
        SessionEndBody, SessionList, SessionRequest, SessionRequests, SessionStateBody, SetQuota,
        TenantQuotaBody, WebhookAction, WebhookAnswer, WebhookCall,
    },
    code::{ErrorCode, codes_table},
    openapi::{openapi, routes_table},
    problem::Problem,
    scope::Scope,
    settings::{
        ClaimsVerifier, OidcSettings, OperatorSettings, SettingsError, TokenSettings,
        WebhookKeyFile, WebhookSettings,
    },
    socket::{SocketFile, bind_unix},
    thread::{Doors, OperatorThread, TlsDoor},
};
use self::{
    ceilings::Ceilings,
    lane::{Creations, Lane, Refusals},
    route::Route,
    settings::Loaded,
};
use crate::sessions::Sessions;

/// What the interface works on.
pub struct OperatorParts {
    /// The sessions.
    pub sessions: Arc<Sessions>,
    /// The signing keys.
    pub keys: Arc<KeyRing>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where calls are recorded.
    pub audit: Arc<dyn AuditTrail>,
    /// What was recorded.
    pub records: Arc<dyn AuditReader>,
    /// The gateway around it.
    pub host: Arc<dyn GatewayHost>,
}

/// The audit trail, as the interface needs it.
pub trait AuditTrail: Send + Sync {
    /// Whether a record can be expected to be written.
    fn is_writable(&self) -> bool;

    /// Writes a record. When this is done, it is on disk for good.
    fn commit(&self, event: AuditEvent) -> BoxFuture<'_, Result<(), AuditUnavailable>>;

    /// Takes a record that nobody waits for. Never blocks.
    fn note(&self, event: AuditEvent);
}

/// A record could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit trail cannot be written")]
pub struct AuditUnavailable;

/// The audit trail, to read. Both block on files.
pub trait AuditReader: Send + Sync {
    /// Verifies the trail; the report, as JSON.
    ///
    /// # Errors
    /// Why it cannot be read, for the record. A trail that was tampered with is a report, not an error.
    fn verify(&self) -> Result<serde_json::Value, String>;

    /// At most `limit` records behind `after`, the oldest first: sequence number, and the line as it is on disk.
    ///
    /// # Errors
    /// Why they cannot be read, for the record.
    fn records(&self, after: Option<u64>, limit: usize) -> Result<Vec<(u64, String)>, String>;
}

/// The gateway, as the interface needs it.
pub trait GatewayHost: Send + Sync {
    /// What workloads need to know.
    fn about(&self) -> About;

    /// The text of the configuration in force. Blocks on files.
    ///
    /// # Errors
    /// Why it cannot be shown, for the record.
    fn policy_text(&self) -> Result<String, String>;

    /// Whether sessions may be confined to a policy of this name.
    fn has_policy(&self, name: &PolicyName) -> bool;

    /// Takes the configuration file over, as a whole or not at all. Blocks on files.
    ///
    /// # Errors
    /// Why not, for the operator: without secrets.
    fn reload(&self) -> Result<(), String>;

    /// Whether this gateway issues sessions. One that follows a control plane does not: it ends and denies alone.
    fn issues_sessions(&self) -> bool {
        true
    }

    /// How long a token lives, at most and unless less is asked for.
    fn ttl(&self) -> Duration;

    /// Why the gateway should be given no new work; empty: it should. Never blocks, as it is asked every second.
    fn waits_for(&self) -> Vec<WaitsFor> {
        Vec::new()
    }
}

/// Why a gateway should be given no new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitsFor {
    /// Not every listener is open.
    Listeners,
    /// It was told to stop.
    Stopping,
    /// The audit trail cannot be written, so nothing with a credential is let out.
    Audit,
    /// Some destination is terminated, and there is no CA that could sign for it, or it has expired.
    Ca,
    /// It follows a control plane of which it never had a policy.
    ControlPlane,
}

impl WaitsFor {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listeners => "starting",
            Self::Stopping => "stopping",
            Self::Audit => "audit_unavailable",
            Self::Ca => "ca_unusable",
            Self::ControlPlane => "control_plane_not_heard",
        }
    }
}

/// The interface.
pub struct OperatorApi {
    parts: OperatorParts,
    routes: Vec<Route>,
    loaded: ArcSwap<Loaded>,
    tls: ArcSwapOption<rustls::ServerConfig>,
    lane: Lane,
    creations: Creations,
    ceilings: Ceilings,
    refusals: Refusals,
    /// One verification of the audit trail at a time.
    verifying: Arc<Semaphore>,
    /// Webhooks of before are refused: what was answered to them is not known any more.
    began: UnixSeconds,
    id_prefix: String,
    next_id: AtomicU64,
}

impl fmt::Debug for OperatorApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperatorApi").finish_non_exhaustive()
    }
}

impl OperatorApi {
    /// An interface that is not served yet. Reads the files that the settings name.
    ///
    /// # Errors
    /// [`SettingsError`] names the file and what is wrong with it.
    pub fn new(
        parts: OperatorParts,
        settings: OperatorSettings,
    ) -> Result<Arc<Self>, SettingsError> {
        let loaded = Loaded::read(settings, None)?;
        let began = parts.clock.unix();
        Ok(Arc::new(Self {
            parts,
            routes: route::all(),
            loaded: ArcSwap::from_pointee(loaded),
            tls: ArcSwapOption::empty(),
            lane: Lane::default(),
            creations: Creations::default(),
            ceilings: Ceilings::default(),
            refusals: Refusals::default(),
            verifying: Arc::new(Semaphore::new(1)),
            began,
            id_prefix: random_prefix(),
            next_id: AtomicU64::new(1),
        }))
    }

    /// Takes other settings over, as a whole or not at all, for every call from here on. Reads the files that they
    /// name, so a token that was taken out of its file is refused afterwards.
    ///
    /// # Errors
    /// [`SettingsError`]; then those before stay in force.
    pub fn replace(&self, settings: OperatorSettings) -> Result<(), SettingsError> {
        let before = self.loaded.load();
        let loaded = Loaded::read(settings, Some(&before.webhooks))?;
        self.loaded.store(Arc::new(loaded));
        Ok(())
    }

    /// Presents another certificate from the next connection on.
    pub fn replace_tls(&self, tls: &rustls::ServerConfig) {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        self.tls.store(Some(Arc::new(tls)));
    }

    fn settings(&self) -> arc_swap::Guard<Arc<Loaded>> {
        self.loaded.load()
    }

    fn note_session(&self, record: SessionRecord) {
        self.parts.audit.note(AuditEvent::Session(Box::new(record)));
    }

    fn next_request_id(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.id_prefix)
    }
}

/// Eight characters that tell this process's request ids from those of another.
fn random_prefix() -> String {
    let mut bytes = [0; 4];
    // Ids are no secret: where the random source fails they are merely not unique across restarts.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the document of the interface is kept in the source tree, relative to its root.
#[must_use]
pub fn openapi_path() -> &'static Path {
    Path::new("schema/openapi.json")
}
