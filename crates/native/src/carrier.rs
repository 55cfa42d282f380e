//! One guest connection that carries HTTP requests: the evidence that all of its requests share, and the loop that
//! serves it until it ends, its session is ended, the policy forbids it or the gateway stops.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use outgate_journey::{
    denial::Denial,
    destination::Destination,
    gate::{ConnectionPass, still_allowed},
    record::Entry,
};
use outgate_plane::connection::ConnectionUse;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{Instant, Interval},
};

use crate::{
    answer::AnswerBody,
    arrival::Arrival,
    body::UpstreamBody,
    exchange::exchange,
    guard::{GuardState, GuardTimeouts, Guarded},
    server::{self, End, Ending, StallCheck},
    shared::Shared,
};

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
    /// Whom it is counted for, and whose end is its own.
    pub(crate) uses: ConnectionUse,
}

impl Carrier {
    pub(crate) fn new(shared: &Arc<Shared>, arrival: Arrival, carries: Carries) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            arrival,
            carries,
            guard: GuardState::new(shared.marker.clone()),
            uses: ConnectionUse::default(),
        })
    }

    pub(crate) fn entry(&self) -> Entry {
        match &self.carries {
            Carries::Proxied => Entry::AbsoluteForm,
            Carries::Captured(_) => Entry::TransparentPlain,
            Carries::Tunnelled { entry, .. } => *entry,
        }
    }

    /// Serves HTTP/1.1 until the connection ends.
    pub(crate) async fn serve_http1<T>(self: &Arc<Self>, io: T, prefix: BytesMut)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wait = GuardTimeouts::from(&self.shared.live().timeouts);
        let io = Guarded::new(io, prefix, Arc::clone(&self.guard), wait);
        // Closed at once, it would be reset under a request that is on its way: each answer says by itself that it is the
        // last one.
        let ending = self.ends(OnStop::LastCall);
        server::serve_http1(io, self.service(), ending).await;
    }

    /// Serves HTTP/2 until the connection ends.
    pub(crate) async fn serve_http2<T>(self: &Arc<Self>, io: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let idle = self.shared.live().timeouts.idle;
        let ending = self.ends(OnStop::Finish);
        server::serve_http2(io, idle, &self.guard, self.service(), ending).await;
    }

    fn service(
        self: &Arc<Self>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<AnswerBody<UpstreamBody>>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let carrier = Arc::clone(self);
        service_fn(move |request| {
            let carrier = Arc::clone(&carrier);
            // On the heap: an idle connection has no room for an exchange.
            Box::pin(async move { Ok(exchange(&carrier, request).await) })
        })
    }

    fn ends(&self, on_stop: OnStop) -> Ends<'_> {
        let mut reloads = self.shared.reloads.subscribe();
        // A policy that came since the tunnel was judged is not told again: judged once more at the start.
        reloads.mark_changed();
        Ends {
            carrier: self,
            reloads,
            on_stop: Some(on_stop),
            last_call: None,
            stall: StallCheck::new(&self.guard, &self.shared.live().timeouts),
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
}

/// What a connection does when the gateway is told to stop.
enum OnStop {
    /// Finishes.
    Finish,
    /// Finishes once nothing was asked for during the last call.
    LastCall,
}

/// What ends a guest's connection from outside.
struct Ends<'a> {
    carrier: &'a Carrier,
    reloads: watch::Receiver<u64>,
    /// Until the gateway stops.
    on_stop: Option<OnStop>,
    /// While there is one: how it goes.
    last_call: Option<LastCall>,
    stall: StallCheck,
}

/// Looks whether the connection is used, from the stop of the gateway on.
struct LastCall {
    looks: Interval,
    wait: Duration,
    idle_since: Option<Instant>,
}

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl LastCall {
    fn begin(wait: Duration) -> Self {
        Self {
            looks: tokio::time::interval(LOOK_EVERY),
            wait,
            idle_since: None,
        }
    }

    /// Waits until the connection has been idle for the whole of it.
    async fn is_over(&mut self, guard: &GuardState) {
        loop {
            let now = self.looks.tick().await;
            if !guard.is_idle() {
                self.idle_since = None;
            } else if now.duration_since(*self.idle_since.get_or_insert(now)) >= self.wait {
                return;
            }
        }
    }
}

async fn over(call: Option<&mut LastCall>, guard: &GuardState) {
    match call {
        Some(call) => call.is_over(guard).await,
        None => std::future::pending().await,
    }
}

impl Ending for Ends<'_> {
    async fn next(&mut self) -> End {
        let shared = &self.carrier.shared;
        loop {
            tokio::select! {
                // In this order, as it is asked at each wake of the connection.
                biased;
                _ = self.carrier.uses.session_ended() => return End::AtOnce,
                () = shared.killing.cancelled() => return End::AtOnce,
                () = self.stall.found() => return End::AtOnce,
                () = over(self.last_call.as_mut(), &self.carrier.guard) => {
                    self.last_call = None;
                    return End::Finish;
                }
                () = shared.stopping.cancelled(), if self.on_stop.is_some() => {
                    if let Some(OnStop::Finish) = self.on_stop.take() {
                        return End::Finish;
                    }
                    self.last_call = Some(LastCall::begin(shared.last_call()));
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
