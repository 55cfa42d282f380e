//! Answers a name with a leaf or a refusal. The order: judge, remember, mint, record, judge again, hold, hand out.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use outgate_clock::Clock;
use outgate_journey::{
    denial::{Denial, DenyCode, Fault},
    gate::judge_leaf,
    name::HostName,
    policy::Policy,
    session::UnixSeconds,
};
use outgate_pki::{CertificateAuthority, Minter, PkiError};
use outgate_xds::{Change, type_urls};
use tokio::sync::broadcast;

use crate::{Asker, Leaf, Trail, flight::Flights, refusals::Refusals, table::Table};

/// How often what is due is looked for.
const ROUND: Duration = Duration::from_secs(10);
/// How many leaves are announced in a round: the mints that follow are spread, and no receiver falls behind.
const MOST_IN_A_ROUND: usize = 512;

/// What a [`LeafService`] works with.
pub struct LeafParts {
    /// Signs.
    pub minter: Minter,
    /// Which hosts are bumped.
    pub policy: Arc<Policy>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where mints and refusals are recorded.
    pub trail: Arc<dyn Trail>,
    /// Is told which names to ask for again: those whose leaf is due, and those that the policy dropped.
    pub changes: broadcast::Sender<Change>,
    /// How many leaves are held at once; see [`crate::DEFAULT_CAPACITY`].
    pub capacity: usize,
}

/// The source of leaves.
pub struct LeafService {
    minter: ArcSwap<Minter>,
    policy: ArcSwap<Policy>,
    clock: Arc<dyn Clock>,
    trail: Arc<dyn Trail>,
    changes: broadcast::Sender<Change>,
    table: Mutex<Table>,
    flights: Flights<Arc<Leaf>>,
    refusals: Refusals,
}

impl LeafService {
    /// A source that has handed out nothing yet.
    #[must_use]
    pub fn new(parts: LeafParts) -> Arc<Self> {
        Arc::new(Self {
            minter: ArcSwap::from_pointee(parts.minter),
            policy: ArcSwap::new(parts.policy),
            clock: parts.clock,
            trail: parts.trail,
            changes: parts.changes,
            table: Mutex::new(Table::new(parts.capacity)),
            flights: Flights::default(),
            refusals: Refusals::default(),
        })
    }

    /// The leaf for a server name as the guest wrote it. Held until it is due, else minted, once for all who ask at the
    /// same time; the mint is on disk in the audit trail before anybody has the leaf. Needs a tokio runtime.
    ///
    /// # Errors
    /// What [`judge_leaf`] gives; [`DenyCode::AuditUnavailable`] where the mint cannot be recorded and no leaf is held
    /// that is still good; [`DenyCode::CaExpired`] where the CA is past its end, and [`DenyCode::InternalFault`] where it
    /// cannot sign.
    pub async fn leaf(self: &Arc<Self>, asker: &Asker, name: &str) -> Result<Arc<Leaf>, Denial> {
        let host = judge_leaf(&self.policy.load(), name).inspect_err(|denial| {
            self.refusals.note(asker, name, denial, self.record_with());
        })?;
        let now = self.clock.unix();
        let held = self.table().recall(&host, now);
        if let Some(leaf) = held.as_ref().filter(|leaf| now < leaf.due()) {
            return Ok(Arc::clone(leaf));
        }
        let minted = self.flights.join(&host, |lead| {
            let (service, asker, host) = (Arc::clone(self), asker.clone(), host.clone());
            // In a task of its own: who asked first may be gone before the others have their answer.
            tokio::spawn(async move {
                let landing = Landing(&service, &host);
                let minted = service.mint(&asker, &host).await;
                drop(landing);
                lead.tell(minted);
            });
        });
        match (minted.await, held) {
            // It was recorded when it was minted, and clients accept it yet.
            (Err(denial), Some(leaf)) if denial.code().fault() == Fault::Gateway => {
                tracing::warn!(host = %leaf.host(), code = %denial.code(), "a leaf that is due could not be renewed");
                Ok(leaf)
            }
            (minted, _) => minted,
        }
    }

    async fn mint(&self, asker: &Asker, host: &HostName) -> Result<Arc<Leaf>, Denial> {
        let now = self.clock.unix();
        // Minted between this asker's look and its turn.
        if let Some(leaf) = self.fresh(host, now) {
            return Ok(leaf);
        }
        loop {
            let minter = self.minter.load_full();
            let leaf = self.mint_by(&minter, asker, host, now).await?;
            let mut table = self.table();
            // Under the table's lock: a policy that comes later finds the leaf there, one that came before is seen here.
            judge_leaf(&self.policy.load(), host.as_str())?;
            // The same holds for another CA, whose leaf it has to be: those who ask were told already to ask again.
            if Arc::ptr_eq(&minter, &self.minter.load()) {
                table.hold(Arc::clone(&leaf));
                return Ok(leaf);
            }
        }
    }

    async fn mint_by(
        &self,
        minter: &Minter,
        asker: &Asker,
        host: &HostName,
        now: UnixSeconds,
    ) -> Result<Arc<Leaf>, Denial> {
        if !self.trail.is_writable() {
            return Err(DenyCode::AuditUnavailable.into());
        }
        let pem = minter.portable(host, now).map_err(|error| {
            tracing::error!(%error, "no leaf can be minted");
            let code = match error {
                PkiError::Expired { .. } => DenyCode::CaExpired,
                _ => DenyCode::InternalFault,
            };
            Denial::new(code).because(error.to_string())
        })?;
        let leaf = Arc::new(Leaf::new(host.clone(), pem, now));
        let record = asker.minted(&leaf, &*self.clock);
        let committed = self.trail.commit(record).await;
        committed.map_err(|_| Denial::new(DenyCode::AuditUnavailable))?;
        Ok(leaf)
    }

    fn fresh(&self, host: &HostName, now: UnixSeconds) -> Option<Arc<Leaf>> {
        let held = self.table().recall(host, now);
        held.filter(|leaf| now < leaf.due())
    }

    /// Judges by another policy from here on. The leaves of hosts that it drops are forgotten, and everybody is told to
    /// ask again: for those, and for what it brought.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.policy.store(policy);
        let policy = self.policy.load_full();
        let dropped = self
            .table()
            .drop_unless(|host| judge_leaf(&policy, host.as_str()).is_ok());
        if !dropped.is_empty() {
            tracing::info!(
                hosts = dropped.len(),
                "leaves withdrawn: the policy has their hosts no more"
            );
        }
        // Nobody listening is no fault: a data plane that connects later asks for all that it has.
        let _ = self.changes.send(Change::Type(type_urls::SECRET));
    }

    /// Signs by another CA from here on. Every leaf of the one before is forgotten, and everybody is told to ask again;
    /// who still uses one goes on with it until then.
    pub fn set_minter(&self, minter: Minter) {
        self.minter.store(Arc::new(minter));
        let replaced = self.table().drop_unless(|_| false);
        tracing::info!(
            hosts = replaced.len(),
            "leaves are minted anew, by another CA"
        );
        let _ = self.changes.send(Change::Type(type_urls::SECRET));
    }

    /// Announces what is due: whoever still uses such a leaf asks for it, which mints another one. What nobody asks for
    /// is not renewed.
    pub fn look(&self) {
        let due = self.table().due(self.clock.unix(), MOST_IN_A_ROUND);
        for host in due {
            let change = Change::One(type_urls::SECRET, host.as_str().into());
            let _ = self.changes.send(change);
        }
        let (trail, clock) = self.record_with();
        self.refusals.sum_up(trail, clock);
    }

    /// Looks every ten seconds, until it is dropped.
    pub async fn keep_fresh(&self) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            self.look();
        }
    }

    /// Records what is summed up and not recorded yet. To be called when nobody asks any more.
    pub fn finish(&self) {
        let (trail, clock) = self.record_with();
        self.refusals.close(trail, clock);
    }

    /// Hears which names to ask for again.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The CA that signs.
    #[must_use]
    pub fn authority(&self) -> Arc<CertificateAuthority> {
        Arc::clone(self.minter.load().authority())
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock.unix()
    }

    /// How many leaves are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.table().len()
    }

    fn record_with(&self) -> (&dyn Trail, &dyn Clock) {
        (&*self.trail, &*self.clock)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LeafService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LeafService({:?}, {} leaves)",
            self.minter.load(),
            self.held()
        )
    }
}

/// Ends the mint however it ends: a name whose mint panicked can be asked for again.
struct Landing<'a>(&'a LeafService, &'a HostName);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.0.flights.land(self.1);
    }
}
