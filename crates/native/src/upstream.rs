//! Finds a connection to an upstream: a kept one, or a new one through *resolve and deny-set* and *originate*.

use std::sync::Arc;

use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outgate_journey::{
    denial::{Denial, DenyCode},
    destination::Transport,
    gate::resolve_destination,
    policy::AllowedDestination,
    resolve::ResolvedDestination,
};
use outgate_plane::Live;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    body::RequestBody,
    dial::{dial, start_tls},
    pool::{Connected, Found, PoolKey, Sender},
    shared::Shared,
};

/// The largest answer head, in bytes.
const MAX_ANSWER_HEAD: usize = 256 * 1024;

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
    let (stream, peer) = dial(resolved, &live.policy, live.timeouts.connect).await?;
    let broken = |error: hyper::Error| {
        Denial::new(DenyCode::UpstreamProtocol)
            .because(error.to_string())
            .by(&resolved.allowed().rule().id)
    };
    let sender = if destination.transport() == Transport::Plain {
        start_http1(shared, stream).await.map_err(broken)?
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
            start_http1(shared, stream).await.map_err(broken)?
        }
    };
    Ok(Connected {
        sender,
        peer,
        reused: false,
    })
}

async fn start_http1<T>(shared: &Arc<Shared>, io: T) -> hyper::Result<Sender>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(MAX_ANSWER_HEAD)
        .handshake(TokioIo::new(io))
        .await?;
    drive(shared, connection.with_upgrades());
    Ok(Sender::Http1(sender))
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
    drive(shared, connection);
    Ok(sender)
}

/// Runs a connection in the background until it ends or the gateway's grace period is over.
fn drive(shared: &Shared, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
    let killing = shared.killing.clone();
    tokio::spawn(async move {
        tokio::select! {
            result = connection => if let Err(error) = result {
                tracing::debug!(%error, "upstream connection ended");
            },
            () = killing.cancelled() => {}
        }
    });
}

impl Sender {
    /// Sends one request.
    pub(crate) async fn send(
        &mut self,
        request: http::Request<RequestBody>,
    ) -> Result<http::Response<hyper::body::Incoming>, TrySendError<http::Request<RequestBody>>>
    {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}
