//! One guest connection that carries HTTP requests: the evidence that all of its requests share, and the loop that
//! serves it until it ends, its session is ended, the policy forbids it or the gateway stops.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::future::select_all;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgate_config::Timeouts;
use outgate_control::sessions::Activity;
use outgate_journey::{
    denial::Denial,
    destination::Destination,
    gate::{ConnectionPass, count_connection, still_allowed},
    policy::AllowedDestination,
    record::Entry,
    session::{Session, SessionId},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, Interval},
};

use crate::{
    arrival::Arrival,
    body::AnswerBody,
    exchange::exchange,
    guard::{GuardState, GuardTimeouts, Guarded},
    limits::ConnectionSlot,
    metered::Metered,
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
    /// Requests in clear on a captured connection to this address, each to the host that its `Host` names.
    Captured(SocketAddr),
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
    pub(crate) arrival: Arrival,
    pub(crate) carries: Carries,
    pub(crate) guard: Arc<GuardState>,
    counted: Mutex<Vec<(SessionId, Destination, ConnectionSlot)>>,
    /// The sessions that were seen on it, each with the signal that ends it.
    sessions: watch::Sender<Vec<Arc<Activity>>>,
}

impl Carrier {
    pub(crate) fn new(shared: &Arc<Shared>, arrival: Arrival, carries: Carries) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            arrival,
            carries,
            guard: GuardState::new(shared.marker.clone()),
            counted: Mutex::default(),
            sessions: watch::Sender::default(),
        })
    }

    pub(crate) fn entry(&self) -> Entry {
        match &self.carries {
            Carries::Proxied => Entry::AbsoluteForm,
            Carries::Captured(_) => Entry::TransparentPlain,
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
        self.follow(session);
    }

    /// Ends the connection with the session, also while the guest takes nothing and no body is asked for its bytes.
    fn follow(&self, session: &Session) {
        let activity = self.shared.plane.sessions.activity(session.claims());
        self.sessions.send_if_modified(|known| {
            let is_new = !known.iter().any(|other| Arc::ptr_eq(other, &activity));
            if is_new {
                known.push(activity);
            }
            is_new
        });
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
        self.follow(session);
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
                .serve_connection(TokioIo::new(Metered::new(io)), self.service())
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
            stall: stall_check(&self.shared.live().timeouts),
            progress: None,
        }
    }

    /// Whether a policy that came later still carries this connection.
    fn is_still_allowed(&self) -> Result<(), Denial> {
        match &self.carries {
            // Each request is judged by the policy of its moment.
            Carries::Proxied | Carries::Captured(_) => Ok(()),
            Carries::Tunnelled { pass, .. } => {
                let live = self.shared.live();
                still_allowed(&live.policy, pass.allowed(), pass.session(), None)
            }
        }
    }

    /// Waits until any session that was seen on the connection is ended.
    async fn session_ended(&self) {
        let mut sessions = self.sessions.subscribe();
        loop {
            let seen = sessions.borrow_and_update().clone();
            let any = seen.iter().map(|it| Box::pin(it.cut().cancelled()));
            tokio::select! {
                () = first_of(any) => return,
                changed = sessions.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }
}

async fn first_of<F: Future<Output = ()> + Unpin>(futures: impl Iterator<Item = F>) {
    let futures: Vec<F> = futures.collect();
    if futures.is_empty() {
        std::future::pending().await
    } else {
        select_all(futures).await;
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
    reloads: watch::Receiver<u64>,
    is_graceful: bool,
    stall: Interval,
    /// What the exchanges had let on when it was looked at last; `None` while there was none.
    progress: Option<u64>,
}

/// Longer than any exchange may take to let the next byte on, whichever side it waits for.
fn stall_check(timeouts: &Timeouts) -> Interval {
    let period = timeouts.idle.max(timeouts.response) + Duration::from_secs(1);
    tokio::time::interval_at(Instant::now() + period, period)
}

impl Ending<'_> {
    /// Whether exchanges go on and none of them has moved since the last look: the guest takes nothing.
    fn is_stalled(&mut self) -> bool {
        let guard = &self.carrier.guard;
        let now = (!guard.is_idle()).then(|| guard.progress());
        let before = std::mem::replace(&mut self.progress, now);
        now.is_some() && now == before
    }

    async fn next(&mut self) -> End {
        let shared = &self.carrier.shared;
        loop {
            tokio::select! {
                () = self.carrier.session_ended() => return End::AtOnce,
                () = shared.killing.cancelled() => return End::AtOnce,
                _ = self.stall.tick() => if self.is_stalled() {
                    return End::AtOnce;
                },
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
