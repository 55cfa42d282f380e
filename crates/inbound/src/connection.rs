//! One caller's connection, and the loop that serves it until it ends or the gateway stops.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use outgate_native::{
    answer::AnswerBody,
    guard::{GuardState, GuardTimeouts, Guarded},
    server::{self, End, Ending, StallCheck},
};
use outgate_plane::Core;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::OwnedSemaphorePermit,
};

use crate::{body::ServiceBody, exchange::exchange, state::State};

/// One caller's connection.
pub(crate) struct Connection {
    pub(crate) core: Arc<Core>,
    pub(crate) current: Arc<ArcSwap<State>>,
    pub(crate) client: SocketAddr,
    pub(crate) is_tls: bool,
    pub(crate) guard: Arc<GuardState>,
    /// Its place among the connections that may be open; a WebSocket keeps it.
    pub(crate) _room: OwnedSemaphorePermit,
}

impl Connection {
    /// What is in force at this moment.
    pub(crate) fn state(&self) -> Arc<State> {
        self.current.load_full()
    }

    /// Serves HTTP/1.1 until the connection ends.
    pub(crate) async fn serve_http1<T>(self: &Arc<Self>, io: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let wait = GuardTimeouts::from(&self.core.live().timeouts);
        let io = Guarded::new(io, BytesMut::new(), Arc::clone(&self.guard), wait);
        server::serve_http1(io, self.service(), self.ends()).await;
    }

    /// Serves HTTP/2 until the connection ends.
    pub(crate) async fn serve_http2<T>(self: &Arc<Self>, io: T)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let idle = self.core.live().timeouts.idle;
        server::serve_http2(io, idle, &self.guard, self.service(), self.ends()).await;
    }

    fn service(
        self: &Arc<Self>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<AnswerBody<ServiceBody>>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let connection = Arc::clone(self);
        service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move { Ok(exchange(&connection, request).await) }
        })
    }

    fn ends(&self) -> Ends<'_> {
        Ends {
            core: &self.core,
            is_stopping: false,
            stall: StallCheck::new(&self.guard, &self.core.live().timeouts),
        }
    }
}

/// What ends a caller's connection from outside.
struct Ends<'a> {
    core: &'a Core,
    is_stopping: bool,
    stall: StallCheck,
}

impl Ending for Ends<'_> {
    async fn next(&mut self) -> End {
        tokio::select! {
            () = self.core.killing.cancelled() => End::AtOnce,
            () = self.stall.found() => End::AtOnce,
            () = self.core.stopping.cancelled(), if !self.is_stopping => {
                self.is_stopping = true;
                End::Finish
            }
        }
    }
}
