//! What runs inside the sandbox: a client that knows the proxy, a CA and perhaps a token, and can take every way in.

use std::{io, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    channel::Channel,
    h1::H1,
    io::{BoxIo, Dribble},
    message::{Req, Response},
};

/// The ways into the explicit proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// `GET http://host/path` to the proxy.
    AbsoluteForm,
    /// CONNECT, a handshake for `http/1.1`, requests inside.
    TunnelH1,
    /// CONNECT, a handshake for `h2`, requests inside.
    TunnelH2,
}

impl Way {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::AbsoluteForm, Self::TunnelH1, Self::TunnelH2];
    /// The ways with TLS.
    pub const TUNNELS: [Self; 2] = [Self::TunnelH1, Self::TunnelH2];
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// An answer to the request itself.
    Answered(Response),
    /// The CONNECT was refused.
    ConnectRefused(Response),
    /// The handshake inside the tunnel failed.
    HandshakeFailed(io::Error),
    /// The connection ended without an answer.
    Closed(io::Error),
}

impl Outcome {
    /// The reason of a denial, on whichever leg it came.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.response().and_then(Response::reason)
    }

    /// The answer, to CONNECT or to the request.
    #[must_use]
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Answered(response) | Self::ConnectRefused(response) => Some(response),
            _ => None,
        }
    }

    /// The answer to the request.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn answered(self) -> Response {
        match self {
            Self::Answered(response) => response,
            other => panic!("no answer to the request: {other:?}"),
        }
    }
}

/// The TLS side of a tunnel.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// The server name to send and verify; empty: none is sent.
    pub server_name: String,
    /// Protocols to offer.
    pub alpn: Vec<Vec<u8>>,
    /// Only TLS 1.2.
    pub tls12_only: bool,
    /// So many bytes of the handshake go out one at a time.
    pub dribble: usize,
}

impl TlsOptions {
    /// A name and one protocol, `h2` or `http/1.1`; no protocol if empty.
    #[must_use]
    pub fn new(server_name: &str, alpn: &str) -> Self {
        let alpn = if alpn.is_empty() {
            Vec::new()
        } else {
            vec![alpn.as_bytes().to_vec()]
        };
        Self {
            server_name: server_name.into(),
            alpn,
            tls12_only: false,
            dribble: 0,
        }
    }
}

/// A TLS session inside a tunnel.
pub struct TlsTunnel {
    /// The stream.
    pub io: BoxIo,
    /// What the server chose.
    pub alpn: Option<Vec<u8>>,
    /// The leaf that it presented.
    pub leaf: CertificateDer<'static>,
}

/// A client of one proxy.
#[derive(Clone)]
pub struct Guest {
    /// The proxy.
    pub proxy: SocketAddr,
    /// What it trusts.
    pub roots: Arc<RootCertStore>,
    /// Sent as the proxy password, if set.
    pub proxy_token: Option<String>,
}

impl Guest {
    /// A client without a token.
    #[must_use]
    pub fn new(proxy: SocketAddr, roots: RootCertStore) -> Self {
        Self {
            proxy,
            roots: Arc::new(roots),
            proxy_token: None,
        }
    }

    /// The same client with this proxy password.
    #[must_use]
    pub fn with_proxy_token(&self, token: &str) -> Self {
        Self {
            proxy_token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// `proxy-authorization` and its value.
    fn proxy_field(&self) -> Option<String> {
        self.proxy_token
            .as_ref()
            .map(|token| format!("Basic {}", STANDARD.encode(format!("session:{token}"))))
    }

    /// A plain connection to the proxy.
    ///
    /// # Errors
    /// The connect's.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.proxy).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Opens a tunnel; the refusal otherwise.
    ///
    /// # Errors
    /// [`Outcome::ConnectRefused`] or [`Outcome::Closed`].
    pub async fn connect(&self, authority: &str) -> Result<TcpStream, Outcome> {
        let stream = self.dial().await.map_err(Outcome::Closed)?;
        self.connect_on(stream, authority).await
    }

    /// Opens a tunnel on a connection that exists.
    ///
    /// # Errors
    /// As [`Guest::connect`].
    pub async fn connect_on(
        &self,
        mut stream: TcpStream,
        authority: &str,
    ) -> Result<TcpStream, Outcome> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut head = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n");
        if let Some(value) = self.proxy_field() {
            head.push_str(&format!("proxy-authorization: {value}\r\n"));
        }
        head.push_str("\r\n");
        stream
            .write_all(head.as_bytes())
            .await
            .map_err(Outcome::Closed)?;
        // Byte by byte: nothing of the tunnel may be taken with the head.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(error) => return Err(Outcome::Closed(error)),
            }
        }
        if answer.starts_with(b"HTTP/1.1 200") {
            return Ok(stream);
        }
        let rest = io::Cursor::new(answer);
        let mut h1 = H1::new(Box::new(tokio::io::join(
            rest.chain(stream),
            tokio::io::sink(),
        )));
        match h1.read_response("CONNECT").await {
            Ok(response) => Err(Outcome::ConnectRefused(response)),
            Err(error) => Err(Outcome::Closed(error)),
        }
    }

    /// A handshake inside a tunnel.
    ///
    /// # Errors
    /// [`Outcome::HandshakeFailed`].
    pub async fn handshake(
        &self,
        stream: TcpStream,
        options: &TlsOptions,
    ) -> Result<TlsTunnel, Outcome> {
        let versions: &[_] = if options.tls12_only {
            &[&rustls::version::TLS12]
        } else {
            rustls::ALL_VERSIONS
        };
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions)
            .expect("versions of the provider")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&options.alpn);
        config.enable_sni = !options.server_name.is_empty();
        let name = if options.server_name.is_empty() {
            "unnamed.test"
        } else {
            &options.server_name
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|error| Outcome::HandshakeFailed(io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, Dribble::new(stream, options.dribble))
            .await
            .map_err(Outcome::HandshakeFailed)?;
        let (_, state) = stream.get_ref();
        let leaf = state
            .peer_certificates()
            .and_then(|chain| chain.first())
            .expect("a server certificate")
            .clone()
            .into_owned();
        Ok(TlsTunnel {
            alpn: state.alpn_protocol().map(<[u8]>::to_vec),
            leaf,
            io: Box::new(stream),
        })
    }

    /// A tunnel with TLS in it for a request's host, port and server name.
    ///
    /// # Errors
    /// Whatever refused it.
    pub async fn tunnel(&self, way: Way, req: &Req) -> Result<TlsTunnel, Outcome> {
        let stream = self.connect(&format!("{}:{}", req.host, req.port)).await?;
        let alpn = if way == Way::TunnelH2 {
            "h2"
        } else {
            "http/1.1"
        };
        let name = req.sni.as_ref().unwrap_or(&req.host);
        self.handshake(stream, &TlsOptions::new(name, alpn)).await
    }

    /// Opens a connection on which requests like `req` can be sent.
    ///
    /// # Errors
    /// Whatever refused it.
    pub async fn open(&self, way: Way, req: &Req) -> Result<Channel, Outcome> {
        match way {
            Way::AbsoluteForm => {
                let stream = self.dial().await.map_err(Outcome::Closed)?;
                Ok(Channel::H1 {
                    stream: H1::new(Box::new(stream)),
                    absolute: true,
                    proxy_field: self.proxy_field(),
                })
            }
            Way::TunnelH1 => Ok(Channel::h1_in_tunnel(self.tunnel(way, req).await?.io)),
            Way::TunnelH2 => Channel::h2(self.tunnel(way, req).await?.io)
                .await
                .map_err(Outcome::Closed),
        }
    }

    /// Opens a connection, sends one request and reads its answer.
    pub async fn send(&self, way: Way, req: &Req) -> Outcome {
        match self.open(way, req).await {
            Ok(mut channel) => channel.send(req).await,
            Err(outcome) => outcome,
        }
    }
}
