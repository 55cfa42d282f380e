//! Floors, not products: a CONNECT proxy that ignores the name it is asked for and dials one address.
//!
//! What a gateway needs beyond these is what its policy, parsing, pooling, injection and minting cost.

#[cfg(target_os = "linux")]
mod splice;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    sockets,
    tls::{self, KeyExchange},
};

/// Of each copy, a way.
const BUFFER: usize = 64 * 1024;
/// A request for a tunnel that is longer is not ours.
const LONGEST_HEAD: usize = 8192;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Copies bytes through this process: the floor for pass-through.
    Copy,
    /// Has the kernel move them, by splice(2): the lower floor.
    Splice,
    /// Ends TLS with one ready leaf and begins it again: the floor for a bump.
    Bump,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    mode: Mode,

    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Where every tunnel ends.
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,

    /// bump: the leaf's chain, PEM.
    #[arg(long, required_if_eq("mode", "bump"))]
    cert: Option<PathBuf>,

    /// bump: its key, PEM.
    #[arg(long, required_if_eq("mode", "bump"))]
    key: Option<PathBuf>,

    /// bump: the CA that the upstream is verified by, PEM.
    #[arg(long, required_if_eq("mode", "bump"))]
    ca: Option<PathBuf>,

    /// bump: the name that the upstream is verified by.
    #[arg(long, default_value = "up.bench.test")]
    sni: String,

    /// Prefers the post-quantum key exchange.
    #[arg(long)]
    post_quantum: bool,

    #[arg(long, default_value_t = 2)]
    pub threads: usize,
}

/// Serves until it is ended.
pub(crate) async fn main(arguments: Arguments) -> anyhow::Result<()> {
    let (mut serving, _) = start(&arguments)?;
    while serving.join_next().await.is_some() {}
    Ok(())
}

/// Binds and serves in the background; all tunnels end when the set is dropped.
pub(crate) fn start(arguments: &Arguments) -> anyhow::Result<(JoinSet<()>, SocketAddr)> {
    let tunnel = Arc::new(Tunnel {
        to: arguments.to,
        way: Way::new(arguments)?,
    });
    let listener =
        sockets::listen(arguments.listen).with_context(|| arguments.listen.to_string())?;
    let address = listener.local_addr()?;
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, tunnel));
    Ok((serving, address))
}

async fn serve(listener: TcpListener, tunnel: Arc<Tunnel>) {
    let mut tunnels = JoinSet::new();
    loop {
        let client = sockets::accept(&listener).await;
        let tunnel = Arc::clone(&tunnel);
        tunnels.spawn(async move { tunnel.relay(client).await });
        while tunnels.try_join_next().is_some() {}
    }
}

struct Tunnel {
    to: SocketAddr,
    way: Way,
}

/// How bytes get across.
enum Way {
    Copy,
    #[cfg(target_os = "linux")]
    Splice,
    Bump(Box<Bump>),
}

struct Bump {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Way {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        match arguments.mode {
            Mode::Copy => Ok(Self::Copy),
            #[cfg(target_os = "linux")]
            Mode::Splice => Ok(Self::Splice),
            #[cfg(not(target_os = "linux"))]
            Mode::Splice => anyhow::bail!("splice(2) is Linux's"),
            Mode::Bump => Ok(Self::Bump(Box::new(Bump::new(arguments)?))),
        }
    }
}

impl Bump {
    fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let exchange = KeyExchange::from_flag(arguments.post_quantum);
        let chain = arguments.cert.as_ref().context("--cert is missing")?;
        let key = arguments.key.as_ref().context("--key is missing")?;
        let ca = arguments.ca.as_ref().context("--ca is missing")?;
        let server = tls::server(chain, key, tls::HTTP1, exchange)?;
        let client = tls::client(ca, tls::HTTP1, true, exchange)?;
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
            name: ServerName::try_from(arguments.sni.clone())?,
        })
    }

    async fn relay(&self, client: TcpStream, upstream: TcpStream) -> io::Result<()> {
        let (mut client, mut upstream) = tokio::try_join!(
            self.acceptor.accept(client),
            self.connector.connect(self.name.clone(), upstream)
        )?;
        copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
        Ok(())
    }
}

impl Tunnel {
    /// What goes wrong in a tunnel is the client's to report.
    async fn relay(&self, client: TcpStream) {
        let _ = self.try_relay(client).await;
    }

    async fn try_relay(&self, mut client: TcpStream) -> io::Result<()> {
        read_connect(&mut client).await?;
        let mut upstream = TcpStream::connect(self.to).await?;
        upstream.set_nodelay(true)?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        match &self.way {
            Way::Copy => {
                copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER, BUFFER).await?;
                Ok(())
            }
            #[cfg(target_os = "linux")]
            Way::Splice => splice::relay(client, upstream),
            Way::Bump(bump) => bump.relay(client, upstream).await,
        }
    }
}

/// Reads the request's head. A client sends nothing more before it has the answer.
async fn read_connect(client: &mut TcpStream) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_buf(&mut head).await? == 0 || head.len() > LONGEST_HEAD {
            return Err(io::Error::other("no request for a tunnel"));
        }
    }
    if head.starts_with(b"CONNECT ") {
        return Ok(());
    }
    Err(io::Error::other("not a CONNECT"))
}

#[cfg(test)]
pub(crate) fn for_test(mode: Mode, to: SocketAddr, folder: &std::path::Path) -> Arguments {
    Arguments {
        mode,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        to,
        cert: Some(folder.join("leaf.pem")),
        key: Some(folder.join("leaf.key")),
        ca: Some(folder.join("upca.pem")),
        sni: "up.bench.test".to_owned(),
        post_quantum: false,
        threads: 1,
    }
}
