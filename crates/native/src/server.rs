//! Serves HTTP on one connection of a client, with the same bounds for every way in.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Version, header::HOST, request::Parts, uri::Authority};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http2, service::Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgate_config::Timeouts;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Interval},
};

use crate::{
    answer::{AnswerBody, BoxError},
    guard::{GuardState, Guarded},
    metered::Metered,
};

mod http1;
use http1::Http1;

/// How many streams one HTTP/2 connection has open at once.
const MAX_STREAMS: u32 = 256;
/// Decoded size of an HTTP/2 header block, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// How much of an HTTP/2 answer waits for a slow client, per stream, in bytes.
const MAX_SEND_BUFFER: usize = 256 * 1024;

const DISCARD_BYTES: usize = 1024 * 1024;
const DISCARD_WITHIN: Duration = Duration::from_millis(500);

/// How a connection is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Exchanges finish, no new ones begin.
    Finish,
    /// Now.
    AtOnce,
}

/// What ends a connection from outside.
pub trait Ending {
    /// Waits for the next end; a connection that was told to finish can still be ended at once. Dropped and called again
    /// while it waits, it misses nothing.
    fn next(&mut self) -> impl Future<Output = End> + Send;
}

/// Serves HTTP/1.1 until the connection ends.
pub async fn serve_http1<T, S, B>(io: Guarded<T>, service: S, mut ending: impl Ending)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<AnswerBody<B>>, Error = Infallible>,
    B: Body<Data = Bytes, Error = BoxError> + 'static,
{
    let mut connection = Http1::new(io, service);
    loop {
        tokio::select! {
            () = poll_fn(|cx| connection.poll(cx)) => return,
            end = ending.next() => match end {
                End::Finish => connection.finish(),
                End::AtOnce => return,
            }
        }
    }
}

/// Serves HTTP/2 until the connection ends, or nothing was asked for over `idle`.
pub async fn serve_http2<T, S, B>(
    io: T,
    idle: Duration,
    guard: &GuardState,
    service: S,
    mut ending: impl Ending,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<AnswerBody<B>>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
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
            .serve_connection(TokioIo::new(Metered::new(io)), service)
    );
    let mut check_idle = tokio::time::interval(idle.max(Duration::from_millis(100)));
    check_idle.tick().await;
    let mut was_idle = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => return note_end(result),
            end = ending.next() => match end {
                End::Finish => connection.as_mut().graceful_shutdown(),
                End::AtOnce => return,
            },
            _ = check_idle.tick() => {
                if std::mem::replace(&mut was_idle, guard.is_idle()) && was_idle {
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

fn note_end(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a client's connection ended");
    }
}

/// Looks for connections whose exchanges go on without one of them moving: the client takes nothing.
pub struct StallCheck {
    guard: Arc<GuardState>,
    looks: Interval,
    /// What the exchanges had let on when it was looked at last; `None` while there was none.
    progress: Option<u64>,
}

impl StallCheck {
    /// Looks less often than any exchange may take to let the next byte on, whichever side it waits for.
    pub fn new(guard: &Arc<GuardState>, timeouts: &Timeouts) -> Self {
        let period = timeouts.idle.max(timeouts.response) + Duration::from_secs(1);
        Self {
            guard: Arc::clone(guard),
            looks: tokio::time::interval_at(Instant::now() + period, period),
            progress: None,
        }
    }

    /// Waits for a stall. Dropped and called again while it waits, it misses nothing.
    pub async fn found(&mut self) {
        loop {
            self.looks.tick().await;
            let now = (!self.guard.is_idle()).then(|| self.guard.progress());
            let before = std::mem::replace(&mut self.progress, now);
            if now.is_some() && now == before {
                return;
            }
        }
    }
}

/// Reads what a refused request still brings, within bounds. Over HTTP/1.1, closing on unread bytes would reset the
/// connection, and the client would see that instead of the reason. Over HTTP/2, clients exist that take an answer which
/// comes before their whole body for a fault (curl 7.88); a body without a length there may be a stream that waits for
/// the answer, and is not waited for.
pub async fn discard(mut body: Incoming, version: Version) {
    let fits = |length| length <= DISCARD_BYTES as u64;
    if version >= Version::HTTP_2 && !body.size_hint().exact().is_some_and(fits) {
        return;
    }
    let mut left = DISCARD_BYTES;
    let reading = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_WITHIN, reading).await;
}

/// The host as written, for the record of a request that may go no further.
pub fn named_host(parts: &Parts) -> Option<&str> {
    let written = parts.headers.get(HOST);
    let authority = parts.uri.authority().map(Authority::as_str);
    authority.or_else(|| written.and_then(|value| value.to_str().ok()))
}
