//! The control plane's listener. Lets in who has a certificate of the gateways' CA and a name on the list; bounds how
//! many, for how long, and with how much in flight.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgate_fleet_proto::fleet_server::FleetServer as Service;
use outgate_mutual::{Handshakes, accept, peer_names};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::codegen::Service as _;

use crate::{
    Pace,
    error::FleetError,
    publish::{Publisher, StateSource},
    service::{Gateway, Shared},
    tls::ServerTls,
};

/// Gateways' connections at once.
const CONNECTIONS: usize = 1024;
/// How long what is under way may take to end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Calls at once on one connection: one that follows, and reports.
const CALLS: u32 = 8;
/// The longest request: a full report.
const REQUEST_BYTES: usize = 32 * 1024;
/// What waits to be sent on one stream before the next message is made.
const SEND_BYTES: usize = 64 * 1024;

/// A gateway that follows.
#[derive(Debug, Clone)]
pub struct FollowerView {
    /// Its certificate's name.
    pub gateway: Arc<str>,
    /// Where it connects from.
    pub address: SocketAddr,
    /// The number of the denylist that it was sent.
    pub denylist: u64,
    /// Whether that was the newest.
    pub current: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<BTreeMap<u64, FollowerView>>);

impl Views {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, FollowerView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells gateways what a [`StateSource`] knows.
pub struct FleetServer {
    shared: Arc<Shared>,
    tls: ArcSwap<ServerTls>,
}

impl FleetServer {
    /// A server that lets in every gateway that has a certificate of the CA.
    ///
    /// # Errors
    /// [`FleetError::Unusable`] where the machine gives no random numbers.
    pub fn new(source: Arc<dyn StateSource>, tls: ServerTls) -> Result<Self, FleetError> {
        Self::with_pace(source, tls, Pace::default())
    }

    /// As [`Self::new`], at another pace.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_pace(
        source: Arc<dyn StateSource>,
        tls: ServerTls,
        pace: Pace,
    ) -> Result<Self, FleetError> {
        let mut epoch = [0; 16];
        rand::fill(&mut epoch).map_err(|_| FleetError::Unusable("no random numbers".to_owned()))?;
        let shared = Shared {
            epoch,
            publisher: Arc::new(Publisher::new(source)),
            peers: Arc::default(),
            views: Arc::default(),
            pace,
        };
        Ok(Self {
            shared: Arc::new(shared),
            tls: ArcSwap::from_pointee(tls),
        })
    }

    /// Lets in these gateways alone; `None`: all that have a certificate of the CA. Who follows and is on the list no
    /// longer is cut by its next heartbeat.
    pub fn set_gateways(&self, names: Option<BTreeSet<String>>) {
        self.shared.peers.allow(names);
    }

    /// Uses another certificate or CA, for connections from here on; those that are open end with their streams' life.
    pub fn set_tls(&self, tls: ServerTls) {
        self.tls.store(Arc::new(tls));
    }

    /// Who follows at this moment.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerView> {
        self.shared.views.lock().values().cloned().collect()
    }

    /// Serves until it is stopped.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) {
        let stop = stop.child_token();
        // Also where this future is dropped, nobody is served on.
        let _stop_all = stop.clone().drop_guard();
        let publisher = Arc::clone(&self.shared.publisher).run(stop.clone());
        let tasks = TaskTracker::new();
        tasks.spawn(publisher);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut handshakes = Handshakes::new(stop.clone());
        while let Some(accepted) = accept(&stop, listener.accept()).await {
            let Some((connection, address)) = accepted else {
                continue;
            };
            let tls = Arc::clone(&self.tls.load().0);
            let secured = handshakes.begin(connection, tls, move |error| {
                tracing::info!(%address, %error, "a peer did not show that it is a gateway");
            });
            let (shared, room) = (Arc::clone(&self.shared), Arc::clone(&room));
            let stop = stop.clone();
            tasks.spawn(async move {
                match (secured.await, room.try_acquire_owned()) {
                    (Some(tls), Ok(_permit)) => converse(shared, tls, address, stop).await,
                    (Some(_), Err(_)) => {
                        tracing::warn!(%address, "a gateway was refused: there are too many");
                    }
                    (None, _) => {}
                }
            });
        }
        tasks.close();
        let _ = timeout(FAREWELL * 2, tasks.wait()).await;
    }
}

impl std::fmt::Debug for FleetServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetServer(..)")
    }
}

async fn converse(
    shared: Arc<Shared>,
    tls: TlsStream<TcpStream>,
    address: SocketAddr,
    stop: CancellationToken,
) {
    let names: Arc<[Arc<str>]> = peer_names(tls.get_ref().1, &[]).into();
    // One without a name is told so when it asks.
    let name = names.first().cloned().unwrap_or_default();
    let Some(place) = shared.peers.connect(&name) else {
        tracing::warn!(%address, %name, "a gateway was refused: it has too many connections");
        return;
    };
    let (every, patience) = shared.pace.keep_alive;
    // A connection that is used for stream after stream would outlive its certificate.
    let life = shared.pace.stream_life.saturating_mul(2);
    let gateway = Gateway {
        shared,
        names,
        address,
        place,
        stop: stop.clone(),
    };
    let service = Service::new(gateway).max_decoding_message_size(REQUEST_BYTES);
    let calls = service_fn(move |request: http::Request<Incoming>| service.clone().call(request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(every)
        .keep_alive_timeout(patience)
        .max_concurrent_streams(CALLS)
        .max_header_list_size(8 * 1024)
        .max_send_buf_size(SEND_BYTES)
        .initial_stream_window_size(u32::try_from(REQUEST_BYTES * 2).ok())
        .serve_connection(TokioIo::new(tls), calls);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(life) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(FAREWELL, connection).await;
}
