//! The two ways in, and what a connection may cost before it has said who it is: a seat that can be given up, two
//! seconds for the TLS handshake, two for a head, 16 KiB of it. Who only knocks costs less: nothing is set up for a
//! connection that is gone when its turn comes, nor any TLS before its first byte.

use std::{
    convert::Infallible,
    io,
    net::{TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    sync::Arc,
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use outgate_journey::record::{ActionRecord, AuditEvent};
use rustix::{io::Errno, net::RecvFlags};
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
    heads::{Fault, Judged},
    problem::Refusal,
    seats::{Seats, Standing},
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
/// Connections that are taken in before those that are in have their turn again, and those that are looked at for it.
const TAKEN_IN: usize = 64;
const LOOKED_AT: usize = 512;

/// What came of a connection when its turn came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstByte {
    Here,
    NotYet,
    /// The other end is gone.
    Never,
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

    /// Accepts on TLS until it is told to stop; `queue` is the listener's own. Those that wait are taken in by the dozen, and nothing is spent on those
    /// that are gone: the queue behind a flood is short, and whoever knocks in vain has a second's wait from its system.
    pub(crate) async fn serve_tls(self, listener: TcpListener, queue: StdTcpListener) {
        let mut spare = Spare::default();
        spare.refill();
        loop {
            let mut accepted = tokio::select! {
                accepted = listener.accept() => {
                    accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from)))
                }
                () = self.stop.cancelled() => return,
            };
            let (mut looked_at, mut taken_in) = (0, 0);
            loop {
                match accepted {
                    Ok((stream, from)) => {
                        taken_in += usize::from(self.greet_remote(stream, from));
                        spare.refill();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        spare.help(&error).await;
                        break;
                    }
                }
                looked_at += 1;
                if looked_at == LOOKED_AT || taken_in == TAKEN_IN {
                    break;
                }
                // Past the reactor: what is gone already is not worth its registration.
                accepted = queue.accept();
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

    /// Whether the connection was taken in.
    fn greet_remote(&self, stream: StdTcpStream, from: std::net::SocketAddr) -> bool {
        let first = Self::first_byte(&stream);
        if first == FirstByte::Never {
            return false;
        }
        let now = self.api.parts.clock.monotonic();
        let seat = self.remote.take(Some(from.ip()), now);
        let (Some(seat), Some(tls)) = (seat, self.api.tls.load_full()) else {
            return false;
        };
        let stream = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream));
        let Ok(stream) = stream else {
            return false;
        };
        if first == FirstByte::Here {
            seat.set(Standing::Speaking, now);
        }
        let visitor = Arc::new(Visitor {
            peer: Peer::Remote(from),
            seat,
        });
        let keeper = self.clone();
        self.tasks.spawn(async move {
            let accepting = async {
                if first == FirstByte::NotYet {
                    if stream.peek(&mut [0]).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    let now = keeper.api.parts.clock.monotonic();
                    visitor.seat.set(Standing::Speaking, now);
                }
                let _ = stream.set_nodelay(true);
                TlsAcceptor::from(tls).accept(stream).await
            };
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
        true
    }

    fn first_byte(stream: &StdTcpStream) -> FirstByte {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(stream, &mut [0], flags) {
            Ok((0, _)) => FirstByte::Never,
            Ok(_) => FirstByte::Here,
            Err(Errno::AGAIN | Errno::INTR) => FirstByte::NotYet,
            Err(_) => FirstByte::Never,
        }
    }

    /// Serves a connection until it ends, its seat is given up, or the door closes.
    async fn converse<I>(self, visitor: Arc<Visitor>, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let fault = Fault::default();
        let stream = Judged::new(stream, fault.clone());
        let service = service_fn(|request| {
            // On a task of its own: what was accepted is carried out and recorded, even if its caller goes away.
            let (api, visitor) = (Arc::clone(&self.api), Arc::clone(&visitor));
            let call = attend(api, visitor, fault.found(), request);
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
