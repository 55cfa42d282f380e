//! What one gateway is answered. Its identity is its certificate's, never what a message says; the stream is made when
//! the gateway's connection has room for it, so that a slow one holds a number and a message, whatever happens.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, stream};
use outgate_fleet_proto as pb;
use pb::state::Part;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    Pace,
    convert::anomaly_from_proto,
    document::{Outgoing, PolicyDocument},
    peers::{Peers, Place},
    publish::{Published, Publisher},
    random,
    server::{FollowerView, Views},
};

/// The most anomalies in one report.
pub(crate) const ANOMALIES: usize = 64;

/// What all of a control plane's connections share.
pub(crate) struct Shared {
    pub(crate) epoch: [u8; 16],
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) views: Arc<Views>,
    pub(crate) pace: Pace,
}

/// One gateway's connection.
pub(crate) struct Gateway {
    pub(crate) shared: Arc<Shared>,
    /// All that its certificate calls it.
    pub(crate) names: Arc<[Arc<str>]>,
    pub(crate) address: SocketAddr,
    pub(crate) place: Place,
    pub(crate) stop: CancellationToken,
}

type States = Pin<Box<dyn Stream<Item = Result<pb::State, Status>> + Send>>;

#[tonic::async_trait]
impl pb::fleet_server::Fleet for Gateway {
    type FollowStream = States;

    async fn follow(
        &self,
        request: Request<pb::FollowRequest>,
    ) -> Result<Response<States>, Status> {
        let started = Instant::now();
        let name = self.admitted()?;
        let outbound = Outbound::new(self, &name, request.get_ref(), started);
        let states = stream::unfold(Some(outbound), |outbound| async {
            let mut outbound = outbound?;
            match outbound.next().await {
                Ok(Some(state)) => Some((Ok(state), Some(outbound))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn report(
        &self,
        request: Request<pb::ReportRequest>,
    ) -> Result<Response<pb::ReportReply>, Status> {
        let name = self.admitted()?;
        if !self.place.may_report() {
            return Err(Status::resource_exhausted("too many reports"));
        }
        let request = request.into_inner();
        if request.anomalies.len() > ANOMALIES {
            return Err(Status::invalid_argument("too many anomalies in one report"));
        }
        // All of them are read before the first is taken.
        let anomalies = request
            .anomalies
            .iter()
            .map(anomaly_from_proto)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|malformed| Status::invalid_argument(malformed.0))?;
        for anomaly in anomalies {
            self.shared.publisher.source.report(&name, anomaly);
        }
        if request.lost > 0 {
            tracing::warn!(gateway = %name, lost = request.lost, "a gateway could not report all anomalies");
        }
        Ok(Response::new(pb::ReportReply {}))
    }
}

impl Gateway {
    fn admitted(&self) -> Result<Arc<str>, Status> {
        self.shared.peers.admit(&self.names).ok_or_else(unlisted)
    }
}

fn unlisted() -> Status {
    Status::permission_denied(
        "the control plane's list of gateways has no name of this certificate",
    )
}

/// One stream: what the gateway has, and what it is sent next.
struct Outbound {
    shared: Arc<Shared>,
    names: Arc<[Arc<str>]>,
    stop: CancellationToken,
    started: Instant,
    /// Between three quarters and the whole of the pace's, so that those who came together do not come back together.
    life: Duration,
    next_beat: Instant,
    moved: watch::Receiver<u64>,
    view: View,
    /// The numbers of what it has.
    policy: u64,
    keys: u64,
    denylist: u64,
    /// It has had the whole denylist, from which on documents take their turn with it.
    caught_up: bool,
    denylist_had_its_turn: bool,
    sending: Option<(Document, Outgoing)>,
}

#[derive(Clone, Copy)]
enum Document {
    Policy,
    Keys,
}

impl Outbound {
    fn new(
        gateway: &Gateway,
        name: &Arc<str>,
        request: &pb::FollowRequest,
        started: Instant,
    ) -> Self {
        let shared = Arc::clone(&gateway.shared);
        // Numbers of another epoch say nothing.
        let same = request.epoch == shared.epoch;
        let had = |number: u64| if same { number } else { 0 };
        Self {
            moved: shared.publisher.moved(),
            view: View::open(&shared.views, name, gateway.address),
            names: Arc::clone(&gateway.names),
            stop: gateway.stop.clone(),
            started,
            life: shared.pace.stream_life.mul_f64(0.75 + random() / 4.0),
            next_beat: started,
            policy: had(request.policy),
            keys: had(request.keys),
            denylist: had(request.denylist),
            caught_up: false,
            denylist_had_its_turn: false,
            sending: None,
            shared,
        }
    }

    /// The next message, when there is one. `None`: the stream has lived long enough, or the control plane stops.
    async fn next(&mut self) -> Result<Option<pb::State>, Status> {
        loop {
            if self.stop.is_cancelled() || self.started.elapsed() >= self.life {
                return Ok(None);
            }
            if self.shared.peers.admit(&self.names).is_none() {
                return Err(unlisted());
            }
            self.moved.borrow_and_update();
            if let Some(state) = self.state() {
                self.next_beat = Instant::now() + self.shared.pace.heartbeat;
                return Ok(Some(state));
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                _ = self.moved.changed() => {}
                () = tokio::time::sleep_until(self.next_beat.into()) => {}
            }
        }
    }

    /// What is due at this moment; a heartbeat, if only that is.
    fn state(&mut self) -> Option<pb::State> {
        let shared = Arc::clone(&self.shared);
        let now = Instant::now();
        let published = shared.publisher.read();
        // Read before anything was ever read from the source: nothing to say, not even an empty denylist.
        let current = shared.publisher.current_at(&published, now);
        let part = current.and_then(|_| self.part(&published));
        if part.is_none() && now < self.next_beat {
            return None;
        }
        let as_of = current
            .and_then(|at| at.checked_duration_since(self.started))
            .and_then(|as_of| u64::try_from(as_of.as_millis()).ok());
        let head = published.ledger.head();
        self.view.note(self.denylist, self.denylist == head);
        Some(pb::State {
            epoch: shared.epoch.to_vec(),
            denylist_head: head,
            current_as_of_ms: as_of,
            part,
        })
    }

    /// The denylist goes first, whole, so that nothing is let through before it is known whom to refuse; then keys,
    /// then policy. After that a revocation overtakes documents, which take their turn after it.
    fn part(&mut self, published: &Published) -> Option<Part> {
        if !(self.caught_up && self.denylist_had_its_turn)
            && let Some(part) = self.denylist_part(published)
        {
            self.denylist_had_its_turn = true;
            return Some(part);
        }
        self.caught_up = true;
        self.denylist_had_its_turn = false;
        self.document_part(published)
            .or_else(|| self.denylist_part(published))
    }

    fn denylist_part(&mut self, published: &Published) -> Option<Part> {
        let ledger = &published.ledger;
        // A number from beyond the end is nobody's.
        if ledger.has_forgotten(self.denylist) || self.denylist > ledger.head() {
            self.denylist = 0;
        }
        let restart = self.denylist == 0;
        let part = ledger.after(self.denylist)?;
        self.denylist = part.reaches;
        Some(Part::Denylist(pb::DenylistPart {
            restart,
            reaches: part.reaches,
            changes: part.changes,
        }))
    }

    fn document_part(&mut self, published: &Published) -> Option<Part> {
        if self.sending.is_none() {
            let due = |document: &Option<PolicyDocument>, had: u64| {
                document
                    .as_ref()
                    .filter(|document| document.number != had)
                    .map(|document| Outgoing::new(document.clone()))
            };
            self.sending = due(&published.keys, self.keys)
                .map(|keys| (Document::Keys, keys))
                .or_else(|| {
                    due(&published.policy, self.policy).map(|policy| (Document::Policy, policy))
                });
        }
        let (document, outgoing) = self.sending.as_mut()?;
        let (document, number) = (*document, outgoing.number());
        let (piece, last) = outgoing.next();
        if last {
            self.sending = None;
        }
        Some(match document {
            Document::Policy => {
                self.policy = number;
                Part::Policy(piece)
            }
            Document::Keys => {
                self.keys = number;
                Part::Keys(piece)
            }
        })
    }
}

/// What the operator is shown of one stream, for as long as it is there.
struct View {
    views: Arc<Views>,
    id: u64,
}

impl View {
    fn open(views: &Arc<Views>, gateway: &Arc<str>, address: SocketAddr) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        views.lock().insert(
            id,
            FollowerView {
                gateway: Arc::clone(gateway),
                address,
                denylist: 0,
                current: false,
            },
        );
        Self {
            views: Arc::clone(views),
            id,
        }
    }

    fn note(&self, denylist: u64, current: bool) {
        if let Some(view) = self.views.lock().get_mut(&self.id) {
            (view.denylist, view.current) = (denylist, current);
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.views.lock().remove(&self.id);
    }
}
