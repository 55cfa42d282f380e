//! The two ways in, and what a connection may cost before it has said who it is: a seat that can be given up, two
//! seconds for the TLS handshake, two for a head, 16 KiB of it.

use std::{
    convert::Infallible,
    io,
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outgate_journey::record::{ActionRecord, AuditEvent};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    OperatorApi,
    answer::respond,
    code::ErrorCode,
    problem::Refusal,
    seats::Seats,
    spare::Spare,
    visit::{Peer, Visitor, attend, nobody},
};

/// How long the TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(2);
/// How long a head may take, and how long a connection may wait for its next call.
const HEAD_WITHIN: Duration = Duration::from_secs(2);
const MAX_HEAD: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;
/// Connections on the Unix socket.
const LOCAL_SEATS: usize = 128;
/// Connections on TLS, and of those from one network.
const REMOTE_SEATS: usize = 512;
const REMOTE_SEATS_PER_NETWORK: usize = 128;

/// Binds the socket. A socket file that nobody listens on is replaced; the caller holds the state folder's lock.
///
/// # Errors
/// The path and why.
pub fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(error)),
        _ => {}
    }
    let listener = StdUnixListener::bind(path).map_err(explain)?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|e| explain(e.into()))?;
    Ok(listener)
}

/// Removes the socket file when the gateway ends.
#[derive(Debug)]
pub struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What both doors share.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    pub(crate) api: Arc<OperatorApi>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) local: Arc<Seats>,
    pub(crate) remote: Arc<Seats>,
}

impl Doorkeeper {
    pub(crate) fn new(api: Arc<OperatorApi>, stop: CancellationToken) -> Self {
        Self {
            api,
            tasks: TaskTracker::new(),
            stop,
            local: Seats::new(LOCAL_SEATS, LOCAL_SEATS),
            remote: Seats::new(REMOTE_SEATS, REMOTE_SEATS_PER_NETWORK),
        }
    }

    /// Accepts on the Unix socket until it is told to stop.
    pub(crate) async fn serve_unix(self, listener: UnixListener) {
        let mut spare = Spare::default();
        spare.refill();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.greet_local(stream);
                    spare.refill();
                }
                Err(error) => spare.help(&error).await,
            }
            // Those who are already in come first.
            tokio::task::yield_now().await;
        }
    }

    /// Accepts on TLS until it is told to stop.
    pub(crate) async fn serve_tls(self, listener: TcpListener) {
        let mut spare = Spare::default();
        spare.refill();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    self.greet_remote(stream, from);
                    spare.refill();
                }
                Err(error) => spare.help(&error).await,
            }
            tokio::task::yield_now().await;
        }
    }

    fn greet_local(&self, stream: UnixStream) {
        let own = rustix::process::geteuid().as_raw();
        let peer = stream.peer_cred().map(|peer| peer.uid());
        let Some(seat) = self.local.take(None, self.api.parts.clock.monotonic()) else {
            return;
        };
        match peer {
            Ok(uid) if uid == own => {
                let visitor = Visitor {
                    peer: Peer::Local(uid),
                    seat,
                };
                self.tasks
                    .spawn(self.clone().converse(Arc::new(visitor), stream));
            }
            Ok(uid) => {
                let visitor = Visitor {
                    peer: Peer::Local(uid),
                    seat,
                };
                self.turn_away(&visitor, ErrorCode::PeerNotAllowed, format!("user {uid}"));
            }
            Err(error) => {
                tracing::warn!(%error, "operator socket: whose peer this is cannot be told")
            }
        }
    }

    fn greet_remote(&self, stream: TcpStream, from: std::net::SocketAddr) {
        let now = self.api.parts.clock.monotonic();
        let (Some(seat), Some(tls)) = (
            self.remote.take(Some(from.ip()), now),
            self.api.tls.load_full(),
        ) else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let visitor = Arc::new(Visitor {
            peer: Peer::Remote(from),
            seat,
        });
        let keeper = self.clone();
        self.tasks.spawn(async move {
            let accepting = TlsAcceptor::from(tls).accept(stream);
            let shaken = tokio::select! {
                biased;
                () = visitor.seat.given_up() => return,
                shaken = tokio::time::timeout(HANDSHAKE_WITHIN, accepting) => shaken,
            };
            match shaken {
                Ok(Ok(stream)) => keeper.converse(visitor, stream).await,
                Ok(Err(error)) => tracing::debug!(%error, %from, "operator: TLS handshake failed"),
                Err(_) => tracing::debug!(%from, "operator: TLS handshake took too long"),
            }
        });
    }

    /// Serves a connection until it ends, its seat is given up, or the door closes.
    async fn converse<I>(self, visitor: Arc<Visitor>, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| {
            // On a task of its own: what was accepted is carried out and recorded, even if its caller goes away.
            let call = attend(Arc::clone(&self.api), Arc::clone(&visitor), request);
            let call = self.tasks.spawn(call);
            async move {
                let fault = || {
                    respond(
                        http::StatusCode::INTERNAL_SERVER_ERROR,
                        "",
                        bytes::Bytes::new(),
                    )
                };
                Ok::<_, Infallible>(call.await.unwrap_or_else(|_| fault()))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = visitor.seat.given_up() => return,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            if error.is_parse() {
                self.turn_away(&visitor, ErrorCode::MalformedRequest, error.to_string());
            }
            tracing::debug!(%error, "operator: connection ended");
        }
    }

    /// Records a connection that never became a call.
    fn turn_away(&self, visitor: &Visitor, code: ErrorCode, why: String) {
        let parts = &self.api.parts;
        let refusal = Refusal::from(code);
        if !self
            .api
            .refusals
            .admit(code.as_str(), parts.clock.monotonic())
        {
            return;
        }
        parts.audit.note(AuditEvent::Action(Box::new(ActionRecord {
            request_id: self.api.next_request_id(),
            time_unix_ms: parts.clock.wall_ms(),
            operator: nobody(),
            client: visitor.client(),
            operation: "connect",
            target: None,
            outcome: Err(code.as_str()),
            status: Some(refusal.status().as_u16()),
            detail: why,
        })));
    }

    /// Once a second: gives up who takes too long, and records how many refusals had no record of their own.
    pub(crate) async fn keep_house(self) {
        let mut seconds: u64 = 0;
        let mut every = tokio::time::interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            seconds += 1;
            let parts = &self.api.parts;
            let now = parts.clock.monotonic();
            self.local.sweep(now);
            self.remote.sweep(now);
            if seconds.is_multiple_of(30) {
                self.api.loaded.load().webhooks.sweep(parts.clock.unix());
            }
            if let Some(left_out) = self.api.refusals.left_out() {
                parts.audit.note(AuditEvent::Action(Box::new(ActionRecord {
                    request_id: self.api.next_request_id(),
                    time_unix_ms: parts.clock.wall_ms(),
                    operator: nobody(),
                    client: None,
                    operation: "flood",
                    target: None,
                    outcome: Err("left_out"),
                    status: None,
                    detail: format!("refusals without a record of their own: {left_out}"),
                })));
            }
        }
    }
}
