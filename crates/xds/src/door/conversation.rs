//! One connection's calls, over HTTP/2: who has called, how many calls at once, how large what is said may be, and when it
//! ends. All bounds of a connection stand here.
//!
//! A call of a bare method ([`Services::method`]) is answered where it is read, without a task of its own, as long as it
//! waits for nothing; everything else has one. So a connection's answers are made one after the other, and no more than
//! [`TOGETHER`] before others have their turn.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, RecvStream,
    server::{Builder, Connection, SendResponse},
};
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body};

use super::{
    bare::{self, STREAM_WINDOW},
    stream::{self, Incoming},
};
use crate::{
    Client,
    services::{Found, Services},
};

/// How long until the first call has to come.
const FIRST_CALL: Duration = Duration::from_secs(30);
/// How long what is under way may take to end when the door closes.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);
/// How long it may take when only the connection ends: a call may carry the answer to a model's long thought.
const LAST_CALLS: Duration = Duration::from_secs(15 * 60);
/// How often a peer is asked whether it is there, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// Calls at once on one connection.
const CALLS: u32 = 10_000;
/// Calls that the peer took back before they were looked at; one that gives up on many at once is no attacker.
const TAKEN_BACK: usize = 4096;
/// Calls that this side ended for a fault of the peer's, in all: then the connection ends.
const FAULTS: usize = 1024;
/// A call's fields, in bytes.
const HEAD_BYTES: u32 = 64 * 1024;
/// What waits to be sent on one stream before the next message is made.
const SEND_BYTES: usize = 64 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// Calls that are taken before the first of them is answered: their answers leave in one piece.
const AT_ONCE: usize = 8;
/// Calls that are answered before whatever else this thread has to do.
const TOGETHER: usize = 64;

/// One connection's calls.
pub(super) struct Conversation {
    client: Client,
    services: Arc<Services>,
    stop: CancellationToken,
    /// Whatever ends the connection, its streams hear of it.
    _all: DropGuard,
}

impl Conversation {
    /// With the peer of this name, until `stop` says that the door closes.
    pub(super) fn new(name: Arc<str>, services: Arc<Services>, stop: CancellationToken) -> Self {
        let closing = stop.child_token();
        Self {
            _all: closing.clone().drop_guard(),
            client: Client::accepted(name, closing),
            services,
            stop,
        }
    }

    /// Answers calls until the peer leaves, the door closes, or the time is up; at once no more when it is `struck`.
    pub(super) async fn hold<S>(
        self,
        stream: S,
        struck: impl Future<Output = ()>,
        life: Option<Duration>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self {
            client,
            services,
            stop,
            _all,
        } = self;
        let closing = client.closing().clone();
        let mut struck = pin!(struck);
        let opened = tokio::select! {
            opened = timeout(FIRST_CALL, protocol().handshake(stream)) => opened,
            () = struck.as_mut() => return,
            () = stop.cancelled() => return,
        };
        let Ok(Ok(mut connection)) = opened else {
            return;
        };
        let Some(pings) = connection.ping_pong() else {
            return;
        };
        let first = Notify::new();
        let mut calls = Calls {
            connection,
            client,
            services,
            taken: Vec::with_capacity(AT_ONCE),
            first: Some(&first),
        };
        let mut gone = pin!(gone(pings));
        let time_up = async {
            if timeout(FIRST_CALL, first.notified()).await.is_err() {
                return;
            }
            match life {
                Some(life) => sleep(life).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = calls.answer() => return,
            () = struck.as_mut() => return,
            () = gone.as_mut() => return,
            () = stop.cancelled() => {}
            () = time_up => {}
        }
        closing.cancel();
        calls.connection.graceful_shutdown();
        let hurry = async {
            stop.cancelled().await;
            sleep(FAREWELL).await;
        };
        tokio::select! {
            () = calls.answer() => {}
            () = struck => {}
            () = gone => {}
            () = hurry => {}
            () = sleep(LAST_CALLS) => {}
        }
    }
}

/// What is heard on a connection.
struct Calls<'a, S> {
    connection: Connection<S, Bytes>,
    client: Client,
    services: Arc<Services>,
    /// What was taken, and is not looked at yet.
    taken: Vec<(Request<RecvStream>, SendResponse<Bytes>)>,
    /// Hears of the first call.
    first: Option<&'a Notify>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Calls<'_, S> {
    /// Until the connection is over.
    async fn answer(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TOGETHER / AT_ONCE {
            let taking = self.take(context);
            let are_there = !self.taken.is_empty();
            let mut taken = std::mem::take(&mut self.taken);
            for (request, respond) in taken.drain(..) {
                self.begin(request, respond, context);
            }
            self.taken = taken;
            match taking {
                Poll::Ready(false) => return Poll::Ready(()),
                // What was answered meanwhile is sent by looking once more.
                Poll::Pending if !are_there => return Poll::Pending,
                _ => {}
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes the calls that have come, as many as fit; not ready where no more have. `false`: the connection is over.
    fn take(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while self.taken.len() < AT_ONCE {
            match pin!(self.connection.accept()).poll(context) {
                Poll::Ready(Some(Ok(call))) => self.taken.push(call),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(true)
    }

    fn begin(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        context: &mut Context<'_>,
    ) {
        if let Some(first) = self.first.take() {
            first.notify_one();
        }
        match self.services.find(request.uri().path()) {
            Found::Method(method) => {
                let answering = method(request, &self.client.name);
                bare::begin(answering, respond, context);
            }
            Found::Service(call) => {
                let mut request = request.map(|body| Body::new(Incoming::new(body)));
                request.extensions_mut().insert(self.client.clone());
                tokio::spawn(stream::answer(call(request), respond));
            }
            Found::Nothing => {
                let status = Status::unimplemented("there is no such service here");
                bare::send(Err(status), respond);
            }
        }
    }
}

/// Until the peer does not say any more that it is there.
async fn gone(mut pings: PingPong) {
    loop {
        sleep(KEEP_ALIVE.0).await;
        match timeout(KEEP_ALIVE.1, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            _ => return,
        }
    }
}

fn protocol() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(CALLS)
        .max_pending_accept_reset_streams(TAKEN_BACK)
        .max_local_error_reset_streams(Some(FAULTS))
        .max_header_list_size(HEAD_BYTES)
        .max_send_buffer_size(SEND_BYTES)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}
