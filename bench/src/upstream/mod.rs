//! The upstream: the same answers over HTTP/1.1 and HTTP/2, and names for it.

mod answers;
mod bodies;
mod counters;
mod dns;
mod echo;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    sockets,
    tls::{self, KeyExchange},
};
pub(crate) use bodies::Repeated;
use counters::Counters;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to answer over TLS.
    #[arg(long, value_name = "ADDRESS", requires = "cert", requires = "key")]
    tls: Option<SocketAddr>,

    /// Where to answer in clear.
    #[arg(long, value_name = "ADDRESS")]
    plain: Option<SocketAddr>,

    /// Where to answer questions for names: every one is 127.0.0.1.
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<SocketAddr>,

    /// Certificate chain, PEM.
    #[arg(long)]
    cert: Option<PathBuf>,

    /// Its key, PEM.
    #[arg(long)]
    key: Option<PathBuf>,

    /// Offers HTTP/1.1 alone over TLS.
    #[arg(long)]
    no_h2: bool,

    /// Prefers the post-quantum key exchange.
    #[arg(long)]
    post_quantum: bool,

    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// Serves until it is ended.
pub(crate) async fn main(arguments: Arguments) -> anyhow::Result<()> {
    let (mut serving, _) = start(&arguments).await?;
    while serving.join_next().await.is_some() {}
    anyhow::bail!("nothing to listen on: give --tls, --plain or --dns")
}

/// Where an upstream listens.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Addresses {
    pub tls: Option<SocketAddr>,
    pub plain: Option<SocketAddr>,
}

/// Binds every listener and serves them in the background, until the set is dropped.
pub(crate) async fn start(arguments: &Arguments) -> anyhow::Result<(JoinSet<()>, Addresses)> {
    let counters = Arc::new(Counters::default());
    let mut serving = JoinSet::new();
    let mut addresses = Addresses::default();
    if let (Some(address), Some(chain), Some(key)) =
        (arguments.tls, &arguments.cert, &arguments.key)
    {
        let protocols = if arguments.no_h2 {
            tls::HTTP1
        } else {
            tls::EITHER
        };
        let exchange = KeyExchange::from_flag(arguments.post_quantum);
        let config = tls::server(chain, key, protocols, exchange)?;
        let listener = sockets::listen(address).with_context(|| address.to_string())?;
        addresses.tls = Some(listener.local_addr()?);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        serving.spawn(serve_tls(listener, acceptor, Arc::clone(&counters)));
    }
    if let Some(address) = arguments.plain {
        let listener = sockets::listen(address).with_context(|| address.to_string())?;
        addresses.plain = Some(listener.local_addr()?);
        serving.spawn(serve_plain(listener, Arc::clone(&counters)));
    }
    for address in &arguments.dns {
        let socket = UdpSocket::bind(address).await;
        let socket = socket.with_context(|| address.to_string())?;
        serving.spawn(dns::serve(socket, Arc::clone(&counters)));
    }
    Ok((serving, addresses))
}

async fn serve_plain(listener: TcpListener, counters: Arc<Counters>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = sockets::accept(&listener).await;
        connections.spawn(http1(stream, Arc::clone(&counters)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor, counters: Arc<Counters>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = sockets::accept(&listener).await;
        counters.tcp.add();
        connections.spawn(over_tls(stream, acceptor.clone(), Arc::clone(&counters)));
        while connections.try_join_next().is_some() {}
    }
}

async fn over_tls(stream: TcpStream, acceptor: TlsAcceptor, counters: Arc<Counters>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        counters.tls_fail.add();
        return;
    };
    let (_, session) = stream.get_ref();
    match session.handshake_kind() {
        Some(HandshakeKind::Resumed) => counters.tls_resumed.add(),
        _ => counters.tls_full.add(),
    }
    if session.alpn_protocol() == Some(b"h2") {
        http2(stream, counters).await;
    } else {
        http1(stream, counters).await;
    }
}

/// A connection that ends badly is the client's to report: it is the one that counts.
async fn http1<S>(stream: S, counters: Arc<Counters>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        answers::answer(request, Arc::clone(&counters))
    });
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

/// Windows and frames are large enough not to be what a download waits for.
async fn http2<S>(stream: S, counters: Arc<Counters>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        answers::answer(request, Arc::clone(&counters))
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

#[cfg(test)]
pub(crate) fn for_test(folder: &std::path::Path) -> Arguments {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Arguments {
        tls: Some(loopback),
        plain: Some(loopback),
        dns: Vec::new(),
        cert: Some(folder.join("up.pem")),
        key: Some(folder.join("up.key")),
        no_h2: false,
        post_quantum: false,
        threads: 1,
    }
}
