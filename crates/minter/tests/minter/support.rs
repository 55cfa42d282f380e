//! A service with a CA of its own, a clock that stands still, and a trail that can be blocked or broken.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use outgate_clock::{Clock, FakeClock};
use outgate_journey::{
    address::DenySet,
    denial::DenyCode,
    inject::AuditGate,
    name::HostPattern,
    policy::{
        DestinationLimits, Policy, Port, Posture, RequestRules, Rule, RuleId, SessionLimits,
        TokenDemand, TunnelProtocol,
    },
    record::{ActionRecord, AuditEvent, AuditSink},
    session::UnixSeconds,
};
use outgate_minter::{
    Asker, BoxFuture, Leaf, LeafParts, LeafService, Trail, Unwritable, portable_minter,
};
use outgate_pki::{CertificateAuthority, Minter};
use outgate_xds::Change;
use tokio::sync::{Semaphore, broadcast};

pub(crate) const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
pub(crate) const HOUR: u64 = 3600;

pub(crate) fn rule(host: &str, posture: Posture) -> Rule {
    Rule {
        id: RuleId::new(format!("rule {host}")),
        host: HostPattern::parse(host).unwrap(),
        ports: vec![Port::HTTPS],
        posture,
        protocol: TunnelProtocol::Tls,
        plaintext: false,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: RequestRules::default(),
        injection: None,
        limits: DestinationLimits::default(),
        addresses: Default::default(),
    }
}

pub(crate) fn policy(rules: Vec<Rule>) -> Arc<Policy> {
    let policy = Policy::new(rules, DenySet::default(), SessionLimits::default(), vec![]);
    Arc::new(policy)
}

/// Bumps these.
pub(crate) fn bumping(hosts: &[&str]) -> Arc<Policy> {
    policy(hosts.iter().map(|it| rule(it, Posture::Bump)).collect())
}

/// A trail in memory.
pub(crate) struct Book {
    records: Mutex<Vec<ActionRecord>>,
    pub(crate) closed: AtomicBool,
    pub(crate) broken: AtomicBool,
    /// A record is on disk when it has a permit.
    pub(crate) disk: Arc<Semaphore>,
}

impl Book {
    pub(crate) fn records(&self) -> Vec<ActionRecord> {
        self.records.lock().unwrap().clone()
    }

    /// The hosts that were minted for, in order.
    pub(crate) fn mints(&self) -> Vec<String> {
        let records = self.records();
        let minted = records.into_iter().filter(|it| it.outcome.is_ok());
        minted.map(|it| it.target.unwrap()).collect()
    }
}

impl AuditSink for Book {
    fn record(&self, event: AuditEvent) {
        let AuditEvent::Action(record) = event else {
            panic!("another kind of record");
        };
        assert_eq!(record.operation, "leaf.mint");
        self.records.lock().unwrap().push(*record);
    }
}

impl AuditGate for Book {
    fn is_writable(&self) -> bool {
        !self.closed.load(Ordering::SeqCst)
    }
}

impl Trail for Book {
    fn commit(&self, event: AuditEvent) -> BoxFuture<'static, Result<(), Unwritable>> {
        self.record(event);
        let (disk, broken) = (Arc::clone(&self.disk), self.broken.load(Ordering::SeqCst));
        Box::pin(async move {
            drop(disk.acquire().await);
            if broken { Err(Unwritable) } else { Ok(()) }
        })
    }
}

pub(crate) struct World {
    pub(crate) service: Arc<LeafService>,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) book: Arc<Book>,
    pub(crate) changes: broadcast::Receiver<Change>,
}

impl World {
    pub(crate) fn new(policy: Arc<Policy>) -> Self {
        Self::holding(policy, 1000)
    }

    pub(crate) fn holding(policy: Arc<Policy>, capacity: usize) -> Self {
        let clock = Arc::new(FakeClock::at(NOW));
        let book = Arc::new(Book::new());
        let service = LeafService::new(LeafParts {
            minter: minter(),
            policy,
            clock: clock.clone(),
            trail: book.clone(),
            changes: broadcast::Sender::new(4096),
            capacity,
        });
        let changes = service.changes();
        Self {
            service,
            clock,
            book,
            changes,
        }
    }

    pub(crate) async fn leaf(&self, name: &str) -> Result<Arc<Leaf>, DenyCode> {
        let asker = Asker::plane("envoy-1");
        let leaf = self.service.leaf(&asker, name).await;
        leaf.map_err(|denial| denial.code())
    }

    /// Lets time pass, by the hour, and looks for what is due each time.
    pub(crate) fn pass(&self, hours: u64) {
        for _ in 0..hours {
            self.clock.advance(Duration::from_secs(HOUR));
            self.service.look();
        }
    }

    /// The names that were announced since the last call.
    pub(crate) fn announced(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(change) = self.changes.try_recv() {
            names.push(match change {
                Change::One(_, name) => name.to_string(),
                other => format!("{other:?}"),
            });
        }
        names
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock.unix()
    }
}

impl Book {
    pub(crate) fn new() -> Self {
        Self {
            records: Mutex::default(),
            closed: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            disk: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }
}

pub(crate) fn minter() -> Minter {
    portable_minter(Arc::new(CertificateAuthority::in_memory(NOW).unwrap()))
}
