//! What every exchange of a gateway shares, on whichever plane.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use outgate_audit::AuditLog;
use outgate_config::Timeouts;
use outgate_control::sessions::{Bodies, Sessions};
use outgate_credential::CredentialStore;
use outgate_journey::{
    gate::Plane,
    policy::Policy,
    record::{AnomalyRecord, AuditEvent, AuditSink, DecisionRecord},
    session::UnixSeconds,
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::unix_now, counts::Counts, limits::SessionCounters, resolver::GatewayResolver,
    tokens::Tokens, upstream_tls::UpstreamTls,
};

/// How many records may wait for the audit store before nothing more is served.
const AUDIT_BACKLOG: usize = 65_536;

/// Of a 64-bit number.
const MOST_HEX_DIGITS: usize = 16;

/// What a new policy replaces as one.
pub struct Live {
    /// The policy.
    pub policy: Policy,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// TLS towards upstreams.
    pub upstream_tls: UpstreamTls,
    /// Counts the policies since start.
    pub number: u64,
    /// The longest life of a new token.
    pub ttl: Duration,
}

/// The journey's needs, as this process meets them.
pub struct GatewayPlane {
    /// Verifies tokens.
    pub tokens: Tokens,
    /// Knows who has standing.
    pub sessions: Arc<Sessions>,
    /// Counts.
    pub limits: SessionCounters,
    /// Resolves names.
    pub resolver: GatewayResolver,
    /// Holds credentials.
    pub credentials: CredentialStore,
    /// Keeps records.
    pub audit: AuditLog,
}

impl Plane for GatewayPlane {
    type Tokens = Tokens;
    type Denylist = Sessions;
    type Limits = SessionCounters;
    type Resolver = GatewayResolver;
    type Credentials = CredentialStore;
    type Audit = AuditLog;

    fn tokens(&self) -> &Tokens {
        &self.tokens
    }
    fn denylist(&self) -> &Sessions {
        &self.sessions
    }
    fn limits(&self) -> &SessionCounters {
        &self.limits
    }
    fn resolver(&self) -> &GatewayResolver {
        &self.resolver
    }
    fn credentials(&self) -> &CredentialStore {
        &self.credentials
    }
    fn audit(&self) -> &AuditLog {
        &self.audit
    }
    fn now(&self) -> UnixSeconds {
        unix_now()
    }
}

/// Is shown every record, on the thread that made it: it must be quick.
pub type Observer = Box<dyn Fn(&DecisionRecord) + Send + Sync>;

/// Is told of every anomaly, on the thread that saw it: it must be quick.
pub type AnomalyObserver = Box<dyn Fn(&AnomalyRecord) + Send + Sync>;

/// What a core is made of.
pub struct CoreParts {
    /// The journey's needs.
    pub plane: GatewayPlane,
    /// The policy to start with.
    pub live: Live,
    /// After so many records everything is closed.
    pub most_records: u64,
    /// Is shown every record of an exchange.
    pub observer: Option<Observer>,
    /// Is told of every anomaly.
    pub on_anomaly: Option<AnomalyObserver>,
}

/// What every exchange shares.
pub struct Core {
    /// The journey's needs.
    pub plane: GatewayPlane,
    /// The policy of the moment.
    pub current: ArcSwap<Live>,
    /// Counts the policies, and tells live connections of a new one.
    pub reloads: watch::Sender<u64>,
    /// What goes on in the background.
    pub tasks: TaskTracker,
    /// No new connections; exchanges may finish.
    pub stopping: CancellationToken,
    /// The grace period is over.
    pub killing: CancellationToken,
    /// What happened so far.
    pub counts: Counts,
    /// How many more records may be written.
    records_left: AtomicU64,
    observer: Option<Observer>,
    pub(crate) on_anomaly: Option<AnomalyObserver>,
    next_id: AtomicU64,
    id_prefix: String,
}

impl Core {
    /// A core of these parts.
    ///
    /// # Errors
    /// [`RandomFailed`].
    pub fn new(parts: CoreParts) -> Result<Self, RandomFailed> {
        Ok(Self {
            plane: parts.plane,
            current: ArcSwap::from_pointee(parts.live),
            reloads: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            killing: CancellationToken::new(),
            counts: Counts::default(),
            records_left: AtomicU64::new(parts.most_records),
            observer: parts.observer,
            on_anomaly: parts.on_anomaly,
            next_id: AtomicU64::new(1),
            id_prefix: random_hex()?.split_off(24),
        })
    }

    /// Writes the record of an exchange. After the last one there is no way out any more: what cannot be recorded is not
    /// served, and a guest must not fill the disk with records of what it is refused.
    ///
    /// The session view has what the trail has; the beginnings of bodies it has alone.
    pub fn record(&self, record: Box<DecisionRecord>, bodies: Option<Bodies>) {
        if let Some(observer) = &self.observer {
            observer(&record);
        }
        self.counts.note(&record);
        // The trail and the view have the same one: neither changes it.
        let record: Arc<DecisionRecord> = Arc::from(record);
        self.plane.sessions.note_request(&record, bodies);
        self.plane.audit.record(AuditEvent::Decision(record));
        if self.records_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::error!(
                code = "audit_budget",
                "the audit trail is as long as it may be: everything is closed"
            );
            self.stopping.cancel();
            self.killing.cancel();
        }
    }

    /// Does something in the background, until it is done or the gateway stops.
    pub fn spawn_until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stopping = self.stopping.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = stopping.cancelled() => {}
            }
        });
    }

    /// Whether the audit store keeps up. Records that cannot be written are kept, so what makes records has to stop
    /// before memory does.
    pub fn keeps_records(&self) -> bool {
        self.plane.audit.pending() <= AUDIT_BACKLOG
    }

    /// The policy of this moment.
    pub fn live(&self) -> Arc<Live> {
        self.current.load_full()
    }

    /// Puts a policy in force.
    pub fn replace(&self, live: Live) {
        self.current.store(Arc::new(live));
    }

    /// Tells whoever waits for it that there is another policy.
    pub fn tell_of_reload(&self) {
        self.reloads.send_modify(|count| *count += 1);
    }

    /// An id that no other exchange of the deployment has.
    pub fn next_request_id(&self) -> String {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut id = String::with_capacity(self.id_prefix.len() + 1 + MOST_HEX_DIGITS);
        id.push_str(&self.id_prefix);
        // Writing to a string does not fail.
        let _ = write!(id, "-{number:x}");
        id
    }
}

/// The operating system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomFailed;

/// 32 random hexadecimal digits.
///
/// # Errors
/// [`RandomFailed`].
pub fn random_hex() -> Result<String, RandomFailed> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RandomFailed)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
