//! What is known of the requests and tunnels that Envoys carry, from the first verdict to the record. An exchange is found
//! by an id that Envoy carries from filter to filter: random, shown to no guest, and good for the data plane alone that
//! asked.

mod open;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicBool},
    time::{Duration, Instant},
};

use outgate_credential::CredentialVersion;
use outgate_journey::{
    denial::{Denial, DenyCode},
    gate::{ConnectionPass, PermittedRequest},
    policy::{AllowedDestination, InjectionForm},
    session::Session,
};
use outgate_plane::{
    Live, RandomFailed, budget::Budget, connection::ConnectionUse, random_hex, trail::Trail,
};
use tokio_util::sync::CancellationToken;

pub(crate) use self::open::{Exchanges, MOST_OPEN};

/// How long a tunnel's other log entries are waited for once it has ended.
const SETTLES_WITHIN: Duration = Duration::from_millis(700);
/// How much longer what was said inside a tunnel may take than what was said of the tunnel.
const STRAGGLES_FOR: Duration = Duration::from_secs(2);
/// How long the access log may be late before a record is written without it.
const LOG_WITHIN: Duration = Duration::from_secs(4);
/// How long Envoy may take to ask for the rest of a request's journey.
const RESUMES_WITHIN: Duration = Duration::from_secs(10);
/// How long Envoy may take to begin what it was allowed, and how long it may keep silent about a request in a tunnel: the log
/// has an entry a second of whatever is open.
const BEGINS_WITHIN: Duration = Duration::from_secs(60);

/// A tunnel's own state.
pub(crate) struct Tunnel {
    pub(crate) pass: ConnectionPass,
    /// Whether its bytes are the exchange, rather than requests inside.
    pub(crate) carries_bytes: bool,
    /// Whether a request came out of it.
    pub(crate) carried: AtomicBool,
}

/// A request that asked for another protocol.
pub(crate) struct Upgrade {
    pub(crate) allowed: AllowedDestination,
    pub(crate) session: Option<Session>,
}

/// What a request was admitted with.
pub(crate) struct Admitted {
    /// What must not come back: the attached credential, or the rule's.
    pub(crate) scrub: Option<Arc<CredentialVersion>>,
    /// A credential that only a query can carry.
    pub(crate) query: Option<(Arc<CredentialVersion>, InjectionForm)>,
}

/// One request, or one tunnel.
pub(crate) struct Exchange {
    /// What Envoy carries from filter to filter. Not the request id that the guest is shown.
    pub(crate) id: Arc<str>,
    /// What the guest is shown, and the record says.
    pub(crate) request_id: Arc<str>,
    /// The data plane that asked.
    plane: Arc<str>,
    pub(crate) live: Arc<Live>,
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) upgrade: Option<Upgrade>,
    /// The tunnel that the request came in.
    pub(crate) inside: Option<Arc<Exchange>>,
    /// Whom it is counted for.
    pub(crate) uses: ConnectionUse,
    /// Ends it for a reason of its own.
    pub(crate) over: CancellationToken,
    /// What the requests inside were upgraded to.
    upgrades: Mutex<Vec<Weak<Exchange>>>,
    state: Mutex<State>,
}

/// What changes of an exchange.
pub(crate) struct State {
    /// `None` once it is recorded.
    pub(crate) trail: Option<Trail>,
    /// What waits for the rest of its journey.
    pub(crate) permitted: Option<PermittedRequest>,
    pub(crate) admitted: Option<Arc<Admitted>>,
    pub(crate) budget: Option<Budget>,
    /// How much it announced to send, in bytes: its head and, where it says so, its body.
    pub(crate) announced: u64,
    /// How much of what it sent was charged, in bytes.
    pub(crate) charged: u64,
    /// Why the gateway cut it.
    pub(crate) cut: Option<DenyCode>,
    /// Whether a stream to this control plane holds it.
    held: bool,
    begun: Instant,
    /// When the access log had something of it.
    heard: Option<Instant>,
    /// Nothing more is expected of it after this moment.
    settled: Option<Instant>,
}

impl Exchange {
    /// What `plane` carries.
    ///
    /// # Errors
    /// Where the operating system has no random numbers.
    pub(crate) fn new(
        plane: &Arc<str>,
        live: &Arc<Live>,
        trail: Trail,
    ) -> Result<Self, RandomFailed> {
        Ok(Self {
            id: random_hex()?.into(),
            request_id: trail.request_id().into(),
            plane: Arc::clone(plane),
            live: Arc::clone(live),
            tunnel: None,
            upgrade: None,
            inside: None,
            upgrades: Mutex::default(),
            uses: ConnectionUse::default(),
            over: CancellationToken::new(),
            state: Mutex::new(State {
                trail: Some(trail),
                permitted: None,
                admitted: None,
                budget: None,
                announced: 0,
                charged: 0,
                cut: None,
                held: false,
                begun: Instant::now(),
                heard: None,
                settled: None,
            }),
        })
    }

    /// The host of a tunnel.
    fn host(&self) -> Option<&str> {
        let tunnel = self.tunnel.as_ref()?;
        Some(tunnel.pass.allowed().destination().host().as_str())
    }

    /// What changes of it; never held across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its connection is counted for: its own, or its tunnel's.
    pub(crate) fn uses(&self) -> &ConnectionUse {
        self.inside
            .as_ref()
            .map_or(&self.uses, |tunnel| &tunnel.uses)
    }

    /// The address that is dialled for it.
    pub(crate) fn upstream(&self) -> Option<SocketAddr> {
        self.state().trail.as_ref()?.upstream()
    }

    /// Whatever its bytes are another protocol's of: itself, or streams inside of it.
    pub(crate) fn upgraded(self: &Arc<Self>) -> Vec<Arc<Self>> {
        let mut inside = self.upgrades.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|stream| stream.strong_count() > 0);
        let inside = inside.iter().filter_map(Weak::upgrade);
        inside.chain(std::iter::once(Arc::clone(self))).collect()
    }

    /// A stream holds it: whoever ends that stream ends the exchange.
    pub(crate) fn hold(&self) {
        self.state().held = true;
    }

    /// The stream that held it is gone, and with it the exchange.
    pub(crate) fn let_go(&self) {
        let mut state = self.state();
        state.held = false;
        state.settled.get_or_insert(Instant::now() + LOG_WITHIN);
    }

    /// The gateway ends it.
    pub(crate) fn cut(&self, code: DenyCode) {
        let mut state = self.state();
        state.cut.get_or_insert(code);
        if let Some(trail) = &mut state.trail {
            trail.cut(code);
        }
        drop(state);
        self.over.cancel();
    }

    /// It is refused before it began, and recorded as that.
    fn deny(&self, denial: &Denial) {
        if let Some(mut trail) = self.state().trail.take() {
            trail.deny(denial);
        }
    }

    /// A request inside asks for another protocol.
    fn note_upgrade(&self, request: &Arc<Self>) {
        let mut inside = self.upgrades.lock().unwrap_or_else(PoisonError::into_inner);
        inside.push(Arc::downgrade(request));
    }

    /// It was refused, and is recorded by this. It stays known for as long as Envoy may still show the refusal around.
    pub(crate) fn refused(&self) {
        let mut state = self.state();
        state.trail = None;
        state.settled = Some(Instant::now() + LOG_WITHIN);
    }

    /// The access log told its end.
    pub(crate) fn settle(&self) {
        let mut state = self.state();
        let at = Instant::now() + SETTLES_WITHIN;
        state.settled = Some(state.settled.map_or(at, |known| known.min(at)));
    }

    /// Whether nobody will say any more of it.
    fn is_over(&self, now: Instant) -> bool {
        let state = self.state();
        if let Some(at) = state.settled {
            return at <= now;
        }
        if state.held {
            return false;
        }
        // Envoy asks for the rest at once, unless the guest took the request back.
        if state.permitted.is_some() {
            return now.duration_since(state.begun) > RESUMES_WITHIN;
        }
        let Some(tunnel) = &self.inside else {
            return now.duration_since(state.begun) > BEGINS_WITHIN;
        };
        // Its last entry was lost. What is no HTTP any more is found by its tunnel as long as that is there.
        let silent_since = state.heard.unwrap_or(state.begun);
        if self.upgrade.is_none() && now.duration_since(silent_since) > BEGINS_WITHIN {
            return true;
        }
        drop(state);
        // A request inside a tunnel lives no longer than the tunnel does; what is said of it may come a little later.
        let settled = tunnel.state().settled;
        settled.is_some_and(|at| at + STRAGGLES_FOR <= now)
    }
}

impl State {
    /// The access log has something of it.
    pub(crate) fn heard(&mut self) {
        self.heard = Some(Instant::now());
    }
}
