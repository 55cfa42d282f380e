//! One guest connection that carries HTTP requests: the evidence that all of its requests share, and the loop that
//! serves it until it ends, its session is ended, the policy forbids it or the gateway stops.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgate_journey::{
    denial::Denial,
    destination::Destination,
    gate::{ConnectionPass, count_connection, still_allowed},
    policy::AllowedDestination,
    record::Entry,
    session::{Session, SessionId},
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    body::AnswerBody,
    exchange::exchange,
    guard::{GuardState, GuardTimeouts, Guarded},
    limits::ConnectionSlot,
    shared::{Live, Shared},
};

/// How many pairs of session and destination one connection is counted for at once.
const MAX_COUNTED: usize = 64;
/// How many streams one HTTP/2 connection has open at once.
const MAX_STREAMS: u32 = 256;
/// Decoded size of an HTTP/2 header block, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// How much of an HTTP/2 answer waits for a slow guest, per stream, in bytes.
const MAX_SEND_BUFFER: usize = 256 * 1024;

/// What a connection says about all of its requests.
pub(crate) enum Carries {
    /// Requests in absolute form, each to its own destination.
    Proxied,
    /// Requests inside a tunnel that was opened for one destination.
    Tunnelled {
        /// The tunnel's pass.
        pass: ConnectionPass,
        /// The tunnel's destination, as its requests speak to it.
        destination: Destination,
        /// `bumped` or `tunnelled-plain`.
        entry: Entry,
    },
}

/// One guest connection.
pub(crate) struct Carrier {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: SocketAddr,
    pub(crate) carries: Carries,
    pub(crate) guard: Arc<GuardState>,
    counted: Mutex<Vec<(SessionId, Destination, ConnectionSlot)>>,
}

impl Carrier {
    pub(crate) fn new(shared: &Arc<Shared>, client: SocketAddr, carries: Carries) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            client,
            carries,
            guard: GuardState::new(shared.marker.clone()),
            counted: Mutex::default(),
        })
    }

    pub(crate) fn entry(&self) -> Entry {
        match &self.carries {
            Carries::Proxied => Entry::AbsoluteForm,
            Carries::Tunnelled { entry, .. } => *entry,
        }
    }

    /// Keeps a slot that was counted before the connection carried requests.
    pub(crate) fn keep_slot(
        &self,
        session: &Session,
        destination: &Destination,
        slot: ConnectionSlot,
    ) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.push((session.id().clone(), destination.clone(), slot));
    }

    /// Counts this connection for a session and destination, the first time that they are seen on it.
    pub(crate) fn count(
        &self,
        live: &Live,
        session: &Session,
        allowed: &AllowedDestination,
    ) -> Result<(), Denial> {
        let destination = allowed.destination();
        let is_counted = |counted: &Vec<(SessionId, Destination, _)>| {
            counted.iter().any(|(id, known, _)| {
                id == session.id()
                    && known.host() == destination.host()
                    && known.port() == destination.port()
            })
        };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if is_counted(&counted) {
            return Ok(());
        }
        // One connection may name any number of destinations; the oldest are counted anew if they come back.
        if counted.len() >= MAX_COUNTED {
            counted.remove(0);
        }
        let slot = count_connection(&self.shared.plane, &live.policy, session, allowed)?;
        counted.push((session.id().clone(), destination.clone(), slot));
        Ok(())
    }

    /// Serves HTTP/1.1 until the connection ends.
    pub(crate) async fn serve_http1<T>(self: &Arc<Self>, io: T, prefix: BytesMut)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let timeouts = self.shared.live().timeouts;
        let wait = GuardTimeouts {
            head: timeouts.head,
            idle: timeouts.idle,
        };
        let io = TokioIo::new(Guarded::new(io, prefix, Arc::clone(&self.guard), wait));
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .max_headers(outgate_wire::http1::MAX_FIELDS)
                .max_buf_size(outgate_wire::http1::MAX_HEAD * 2)
                .preserve_header_case(true)
                .auto_date_header(false)
                .header_read_timeout(None)
                .serve_connection(io, self.service())
                .with_upgrades()
        );
        let mut ending = self.ending();
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result { tracing::debug!(%error, "guest connection ended"); }
                    return;
                }
                end = ending.next() => match end {
                    End::Gracefully => connection.as_mut().graceful_shutdown(),
                    End::AtOnce => return,
                }
            }
        }
    }

    /// Serves HTTP/2 until the connection ends.
    pub(crate) async fn serve_http2<T>(self: &Arc<Self>, io: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let idle = self.shared.live().timeouts.idle;
        let mut connection = std::pin::pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(30))
                .keep_alive_timeout(Duration::from_secs(20))
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEADER_LIST)
                .max_send_buf_size(MAX_SEND_BUFFER)
                .initial_stream_window_size(256 * 1024)
                .initial_connection_window_size(1024 * 1024)
                .auto_date_header(false)
                .serve_connection(TokioIo::new(io), self.service())
        );
        let mut ending = self.ending();
        let mut check_idle = tokio::time::interval(idle.max(Duration::from_millis(100)));
        check_idle.tick().await;
        let mut was_idle = false;
        loop {
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result { tracing::debug!(%error, "guest connection ended"); }
                    return;
                }
                end = ending.next() => match end {
                    End::Gracefully => connection.as_mut().graceful_shutdown(),
                    End::AtOnce => return,
                },
                _ = check_idle.tick() => {
                    if std::mem::replace(&mut was_idle, self.guard.is_idle()) && was_idle {
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }

    fn service(
        self: &Arc<Self>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<AnswerBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let carrier = Arc::clone(self);
        service_fn(move |request| {
            let carrier = Arc::clone(&carrier);
            async move { Ok(exchange(&carrier, request).await) }
        })
    }

    fn ending(&self) -> Ending<'_> {
        Ending {
            carrier: self,
            reloads: self.shared.reloads.subscribe(),
            is_graceful: false,
        }
    }

    /// Whether a policy that came later still carries this connection.
    fn is_still_allowed(&self) -> Result<(), Denial> {
        match &self.carries {
            // Each request is judged by the policy of its moment.
            Carries::Proxied => Ok(()),
            Carries::Tunnelled { pass, .. } => {
                still_allowed(&self.shared.live().policy, pass.allowed())
            }
        }
    }

    async fn session_ended(&self) {
        match &self.carries {
            Carries::Tunnelled { pass, .. } => {
                if let Some(session) = pass.session() {
                    return self
                        .shared
                        .plane
                        .sessions
                        .cut_signal(session.id())
                        .cancelled()
                        .await;
                }
                std::future::pending().await
            }
            Carries::Proxied => std::future::pending().await,
        }
    }
}

/// How a connection is ended from outside.
enum End {
    /// Exchanges finish, no new ones begin.
    Gracefully,
    /// Now.
    AtOnce,
}

struct Ending<'a> {
    carrier: &'a Carrier,
    reloads: tokio::sync::watch::Receiver<u64>,
    is_graceful: bool,
}

impl Ending<'_> {
    async fn next(&mut self) -> End {
        let shared = &self.carrier.shared;
        loop {
            tokio::select! {
                () = self.carrier.session_ended() => return End::AtOnce,
                () = shared.killing.cancelled() => return End::AtOnce,
                () = shared.stopping.cancelled(), if !self.is_graceful => {
                    self.is_graceful = true;
                    return End::Gracefully;
                }
                changed = self.reloads.changed() => {
                    if changed.is_err() {
                        return End::AtOnce;
                    }
                    if let Err(denial) = self.carrier.is_still_allowed() {
                        tracing::info!(code = %denial.code(), why = denial.detail(), "closing a connection");
                        return End::AtOnce;
                    }
                }
            }
        }
    }
}
