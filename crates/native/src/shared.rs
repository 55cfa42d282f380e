//! What every connection of a gateway shares: the journey's needs as this process meets them, the policy of the
//! moment, and the signals that end things.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use outgate_audit::AuditLog;
use outgate_config::Timeouts;
use outgate_control::sessions::Sessions;
use outgate_credential::CredentialStore;
use outgate_journey::{
    gate::Plane,
    name::HostName,
    policy::{Policy, Port},
    record::{AnomalyRecord, DecisionRecord},
    session::UnixSeconds,
};
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::unix_now, limits::SessionCounters, pool::Pool, resolver::GatewayResolver,
    server_tls::ServerTls, tokens::Tokens, upstream_tls::UpstreamTls,
};

/// How many records may wait for the audit store before nothing more is served.
const AUDIT_BACKLOG: usize = 65_536;

/// What a new policy replaces as one.
pub(crate) struct Live {
    pub(crate) policy: Policy,
    pub(crate) timeouts: Timeouts,
    pub(crate) upstream_tls: UpstreamTls,
    /// Counts the policies since start.
    pub(crate) number: u64,
    /// The longest life of a new token.
    pub(crate) ttl: Duration,
}

/// The journey's needs, as this process meets them.
pub(crate) struct NativePlane {
    pub(crate) tokens: Tokens,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) limits: SessionCounters,
    pub(crate) resolver: GatewayResolver,
    pub(crate) credentials: CredentialStore,
    pub(crate) audit: AuditLog,
}

impl Plane for NativePlane {
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

/// What every connection shares.
pub(crate) struct Shared {
    pub(crate) plane: NativePlane,
    pub(crate) current: ArcSwap<Live>,
    /// Counts the policies, and tells live connections of a new one.
    pub(crate) reloads: watch::Sender<u64>,
    /// There is one only where some destination is bumped.
    pub(crate) server_tls: ArcSwapOption<ServerTls>,
    pub(crate) speaks_http2: Cache<(HostName, Port), bool>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    /// No new connections; exchanges may finish.
    pub(crate) stopping: CancellationToken,
    /// The grace period is over.
    pub(crate) killing: CancellationToken,
    /// How many more records may be written.
    pub(crate) records_left: AtomicU64,
    /// Is shown every record.
    pub(crate) observer: Option<Observer>,
    /// Is told of every anomaly.
    pub(crate) on_anomaly: Option<AnomalyObserver>,
    /// What no guest can guess: marks the requests that the guard makes.
    pub(crate) marker: String,
    pub(crate) next_id: AtomicU64,
    pub(crate) id_prefix: String,
}

impl Shared {
    /// Counts a record. After the last one there is no way out any more: what cannot be recorded is not served, and a
    /// guest must not fill the disk with records of what it is refused.
    pub(crate) fn count_record(&self) {
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
    pub(crate) fn spawn_until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
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
    pub(crate) fn keeps_records(&self) -> bool {
        self.plane.audit.pending() <= AUDIT_BACKLOG
    }

    /// The policy of this moment.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.current.load_full()
    }

    pub(crate) fn server_tls(&self) -> Option<Arc<ServerTls>> {
        self.server_tls.load_full()
    }

    pub(crate) fn next_request_id(&self) -> String {
        format!(
            "{}-{:x}",
            self.id_prefix,
            self.next_id.fetch_add(1, Ordering::Relaxed)
        )
    }
}
