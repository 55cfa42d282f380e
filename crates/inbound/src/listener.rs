//! A listener in front of a service: accepts, bounds how many connections there are, and ends TLS. Decides nothing.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use outgate_config::Inbound;
use outgate_issuer::{IssuerError, IssuerState};
use outgate_journey::{
    denial::{Denial, DenyCode},
    record::Entry,
};
use outgate_native::guard::GuardState;
use outgate_plane::{Core, RandomFailed, random_hex, trail::Trail};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    connection::Connection,
    state::{Prepared, State},
};

/// Why a listener cannot be opened, or cannot take a new configuration over.
#[derive(Debug, thiserror::Error)]
pub enum InboundError {
    /// The socket.
    #[error("inbound {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The issuers of callers' tokens.
    #[error("inbound[{index}]: {source}")]
    Issuer {
        /// Which listener.
        index: usize,
        /// Why.
        source: IssuerError,
    },
    /// The operating system has no random numbers.
    #[error(transparent)]
    Random(#[from] RandomFailed),
}

/// A listener's socket, bound and not yet accepting.
pub struct Bound {
    listener: StdListener,
    address: SocketAddr,
}

impl Bound {
    /// Binds the socket.
    ///
    /// # Errors
    /// [`InboundError::Listen`].
    pub fn new(address: SocketAddr) -> Result<Self, InboundError> {
        let failed = |source| InboundError::Listen { address, source };
        let listener = StdListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The socket's own address.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listener that accepts.
pub struct InboundListener {
    index: usize,
    address: SocketAddr,
    core: Arc<Core>,
    current: Arc<ArcSwap<State>>,
    room: Arc<Semaphore>,
    marker: String,
}

impl InboundListener {
    /// Opens a listener, the `index`-th of the file. Blocks on files; needs a runtime.
    ///
    /// # Errors
    /// [`InboundError`].
    pub fn open(
        core: &Arc<Core>,
        bound: Bound,
        index: usize,
        rules: &Inbound,
        tls: Option<&Arc<ServerConfig>>,
    ) -> Result<Arc<Self>, InboundError> {
        let Bound { listener, address } = bound;
        let socket = TcpListener::from_std(listener)
            .map_err(|source| InboundError::Listen { address, source })?;
        let state = Prepared::new(index, rules, tls, None)
            .map_err(|source| InboundError::Issuer { index, source })?
            .into_state(&core.live());
        let opened = Arc::new(Self {
            index,
            address,
            core: Arc::clone(core),
            current: Arc::new(ArcSwap::from_pointee(state)),
            room: Arc::new(Semaphore::new(rules.max_connections)),
            marker: random_hex()?,
        });
        core.tasks.spawn(Arc::clone(&opened).accept(socket));
        Ok(opened)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes what a new configuration needs; blocks on files. Keys that are known stay known where their source is the
    /// same.
    ///
    /// # Errors
    /// [`InboundError`]; then everything goes on as it was.
    pub fn prepare(
        &self,
        rules: &Inbound,
        tls: Option<&Arc<ServerConfig>>,
    ) -> Result<Prepared, InboundError> {
        let (index, before) = (self.index, self.current.load());
        Prepared::new(index, rules, tls, Some(&before))
            .map_err(|source| InboundError::Issuer { index, source })
    }

    /// Judges by it from the next request on.
    pub fn put_in_force(&self, prepared: Prepared) {
        let state = prepared.into_state(&self.core.live());
        self.current.store(Arc::new(state));
    }

    /// Fetches the issuers' keys that are old or missing. Bounded in time.
    pub async fn refresh(&self) {
        let state = self.current.load_full();
        state.tokens.refresh().await;
    }

    /// How the issuers fare.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerState> {
        self.current.load().tokens.states()
    }

    async fn accept(self: Arc<Self>, socket: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.core.stopping.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => self.admit(stream, client),
                Err(error) => {
                    // Out of descriptors or a connection that died in the queue: either passes.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, client: SocketAddr) {
        if !self.core.keeps_records() {
            tracing::error!(
                code = "audit_backlog",
                "connection refused: the audit trail is not being written"
            );
            return;
        }
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            return self.refuse(client, &DenyCode::TooManyConnections.into());
        };
        let listener = Arc::clone(self);
        self.core
            .tasks
            .spawn(async move { listener.serve(stream, client, room).await });
    }

    /// Records a connection that never became a request, and lets it go.
    fn refuse(&self, client: SocketAddr, denial: &Denial) {
        let mut trail = Trail::begin(&self.core, Entry::Listener, client);
        let rule = self.current.load().rule.clone();
        trail.deny(&denial.clone().by(&rule));
    }

    async fn serve(&self, stream: TcpStream, client: SocketAddr, room: OwnedSemaphorePermit) {
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let tls = self.current.load().tls.clone();
        let connection = Arc::new(Connection {
            core: Arc::clone(&self.core),
            current: Arc::clone(&self.current),
            client,
            is_tls: tls.is_some(),
            guard: GuardState::new(self.marker.clone()),
            _room: room,
        });
        let Some(acceptor) = tls else {
            return connection.serve_http1(stream).await;
        };
        let patience = self.core.live().timeouts.handshake;
        let mut peeked = [0];
        let handshake = async {
            // Who connects and says nothing has asked for nothing: a probe of the port.
            if stream.peek(&mut peeked).await? == 0 {
                return Ok(None);
            }
            acceptor.accept(stream).await.map(Some)
        };
        let denial = match tokio::time::timeout(patience, handshake).await {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(stream))) => {
                return if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    connection.serve_http2(stream).await
                } else {
                    connection.serve_http1(stream).await
                };
            }
            Ok(Err(error)) => Denial::new(DenyCode::TlsHandshakeFailed).because(error.to_string()),
            Err(_) => Denial::new(DenyCode::RequestTimeout).because("TLS handshake"),
        };
        self.refuse(client, &denial);
    }
}
