//! Finds a connection to an upstream: a kept one, or a new one through *resolve and deny-set* and *originate*.

use std::sync::Arc;

use futures_util::future::Either;
use hyper::client::conn::{TrySendError, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::Transport,
    gate::resolve_destination,
    policy::AllowedDestination,
    resolve::ResolvedDestination,
};
use outgate_plane::Live;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    body::RequestBody,
    dial::{dial, start_tls},
    pool::{Connected, Found, PoolKey, Sender},
    shared::Shared,
};

mod http1;
pub(crate) use http1::Http1;

/// A connection for one request of `key`.
///
/// # Errors
/// What [`resolve_destination`], [`dial`] and [`start_tls`] give.
pub(crate) async fn obtain(
    shared: &Arc<Shared>,
    live: &Live,
    allowed: &AllowedDestination,
    key: &PoolKey,
) -> Result<Connected, Denial> {
    let _turn = loop {
        match shared.pool.find(key) {
            Found::Connection(connected) => return Ok(connected),
            Found::Dial(turn) => break turn,
            Found::Wait(told) => told.await,
        }
    };
    // On the heap: most requests find a kept connection, and each would have room for dialling one.
    Box::pin(async {
        let resolved = resolve_destination(&shared.plane, &live.policy, allowed.clone()).await?;
        open(shared, live, &resolved, key).await
    })
    .await
}

/// Opens a connection and learns which protocol the upstream chose.
///
/// # Errors
/// What [`dial`] and [`start_tls`] give.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    live: &Live,
    resolved: &ResolvedDestination,
    key: &PoolKey,
) -> Result<Connected, Denial> {
    let destination = resolved.allowed().destination();
    let killing = shared.killing.clone();
    let (stream, peer) = dial(resolved, &live.policy, live.timeouts.connect).await?;
    let broken = |error: hyper::Error| {
        Denial::new(DenyCode::UpstreamProtocol)
            .because(error.to_string())
            .by(&resolved.allowed().rule().id)
    };
    let sender = if destination.transport() == Transport::Plain {
        Sender::Http1(Http1::start(stream, killing).await.map_err(broken)?)
    } else {
        let config = if key.http2 {
            &live.upstream_tls.http2
        } else {
            &live.upstream_tls.http1
        };
        // A connection is moved a few times on its way to its task, and has room for each of them.
        let stream = Box::new(start_tls(stream, resolved, config, live.timeouts.handshake).await?);
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if key.http2 {
            shared
                .speaks_http2
                .insert((destination.host().clone(), destination.port()), is_http2);
        }
        if is_http2 {
            let sender = start_http2(shared, stream).await.map_err(broken)?;
            shared.pool.share(key, sender.clone(), peer);
            Sender::Http2(sender)
        } else {
            Sender::Http1(Http1::start(stream, killing).await.map_err(broken)?)
        }
    };
    Ok(Connected {
        sender,
        peer,
        reused: false,
    })
}

async fn start_http2<T>(
    shared: &Arc<Shared>,
    io: T,
) -> hyper::Result<http2::SendRequest<RequestBody>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(std::time::Duration::from_secs(30))
        .keep_alive_timeout(std::time::Duration::from_secs(20))
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(64 * 1024)
        .handshake(TokioIo::new(io))
        .await?;
    run(shared.killing.clone(), connection);
    Ok(sender)
}

/// Runs a connection in the background until it ends or the gateway's grace period is over.
fn run(
    killing: CancellationToken,
    connection: impl Future<Output = hyper::Result<()>> + Send + 'static,
) {
    // Without a runtime there is nobody who waits for it.
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    runtime.spawn(async move {
        tokio::select! {
            result = connection => note_end(result),
            () = killing.cancelled() => {}
        }
    });
}

fn note_end(result: hyper::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "upstream connection ended");
    }
}

impl Sender {
    /// Sends one request. No async function: its future would keep room for the request beside what sends it.
    pub(crate) fn send(
        &mut self,
        request: http::Request<RequestBody>,
    ) -> impl Future<
        Output = Result<
            http::Response<hyper::body::Incoming>,
            TrySendError<http::Request<RequestBody>>,
        >,
    > {
        match self {
            Self::Http1(connection) => Either::Left(connection.send(request)),
            Self::Http2(sender) => Either::Right(sender.try_send_request(request)),
        }
    }
}
