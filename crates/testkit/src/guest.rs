//! What runs inside the sandbox: a client that knows the proxy, a CA and perhaps a token, and can take every way in.

use std::{io, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::HeaderName;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    h1::{Framing, H1},
    io::{BoxIo, Dribble},
    message::{Headers, Req, ReqBody, Response},
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

/// A connection that carries requests.
pub enum Channel {
    /// HTTP/1.1.
    H1 {
        /// The connection.
        stream: H1,
        /// Whether targets are absolute.
        absolute: bool,
        /// `proxy-authorization`, on each request.
        proxy_field: Option<String>,
    },
    /// HTTP/2.
    H2(h2::client::SendRequest<Bytes>),
}

/// An answer that is read piece by piece.
pub struct Streaming<'a> {
    /// Its head.
    pub response: Response,
    source: Source<'a>,
}

enum Source<'a> {
    H1(&'a mut H1, Framing),
    H2(h2::RecvStream),
}

impl Channel {
    /// HTTP/1.1 over the inside of a tunnel.
    #[must_use]
    pub fn h1_in_tunnel(io: BoxIo) -> Self {
        Self::H1 {
            stream: H1::new(io),
            absolute: false,
            proxy_field: None,
        }
    }

    /// HTTP/2 over the inside of a tunnel.
    ///
    /// # Errors
    /// The connection's.
    pub async fn h2(io: BoxIo) -> io::Result<Self> {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self::H2(send))
    }

    /// The HTTP/1.1 stream.
    ///
    /// # Panics
    /// On HTTP/2.
    #[must_use]
    pub fn into_h1(self) -> H1 {
        match self {
            Self::H1 { stream, .. } => stream,
            Self::H2(_) => panic!("not HTTP/1.1"),
        }
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&mut self, req: &Req) -> Outcome {
        match self.start(req).await {
            Ok(streaming) => Outcome::Answered(streaming.finish().await),
            Err(error) => Outcome::Closed(error),
        }
    }

    /// Sends a request and reads the answer's head.
    ///
    /// # Errors
    /// The connection's, or the stream's.
    pub async fn start(&mut self, req: &Req) -> io::Result<Streaming<'_>> {
        match self {
            Self::H1 {
                stream,
                absolute,
                proxy_field,
            } => {
                let sent = send_h1(stream, req, *absolute, proxy_field.as_deref()).await;
                // A refusal may arrive before the body was taken, and closes.
                let answer = stream.read_response_head(&req.method).await;
                let (response, framing) = match (answer, sent) {
                    (Ok(answer), _) => answer,
                    (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
                };
                Ok(Streaming {
                    response,
                    source: Source::H1(stream, framing),
                })
            }
            Self::H2(send) => {
                let (response, body) = send_h2(send, req).await?;
                Ok(Streaming {
                    response,
                    source: Source::H2(body),
                })
            }
        }
    }
}

impl Streaming<'_> {
    /// The next piece of the body; `None` at its proper end.
    ///
    /// # Errors
    /// A cut.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        match &mut self.source {
            Source::H1(stream, framing) => stream.read_body(framing).await,
            Source::H2(body) => match body.data().await {
                Some(Ok(piece)) => {
                    let _ = body.flow_control().release_capacity(piece.len());
                    Ok(Some(piece))
                }
                Some(Err(error)) => Err(io::Error::other(error)),
                None => Ok(None),
            },
        }
    }

    /// Reads the rest and counts it instead of keeping it.
    ///
    /// # Errors
    /// A cut.
    pub async fn count(mut self) -> io::Result<u64> {
        let mut count = 0;
        while let Some(piece) = self.next().await? {
            count += piece.len() as u64;
        }
        Ok(count)
    }

    /// Reads the rest; a cut leaves `complete` unset.
    pub async fn finish(mut self) -> Response {
        loop {
            match self.next().await {
                Ok(Some(piece)) => self.response.body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => return self.response,
            }
        }
        match &mut self.source {
            Source::H1(stream, _) => {
                self.response.trailers = std::mem::take(&mut stream.trailers);
                self.response.complete = true;
            }
            Source::H2(body) => match body.trailers().await {
                Ok(trailers) => {
                    self.response.complete = true;
                    self.response.trailers = trailers
                        .map(|map| Headers::from_map(&map))
                        .unwrap_or_default();
                }
                Err(_) => return self.response,
            },
        }
        self.response
    }
}

async fn send_h1(
    stream: &mut H1,
    req: &Req,
    absolute: bool,
    proxy_field: Option<&str>,
) -> io::Result<()> {
    let target = if absolute {
        format!("http://{}:{}{}", req.host, req.port, req.path)
    } else {
        req.path.clone()
    };
    let mut head = format!(
        "{} {target} HTTP/1.1\r\nhost: {}\r\n",
        req.method,
        req.host_field()
    );
    if let Some(value) = proxy_field {
        head.push_str(&format!("proxy-authorization: {value}\r\n"));
    }
    for (name, value) in &req.headers.0 {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match &req.body {
        ReqBody::None => {}
        ReqBody::Bytes(bytes) => head.push_str(&format!("content-length: {}\r\n", bytes.len())),
        ReqBody::Zeros(count) => head.push_str(&format!("content-length: {count}\r\n")),
        ReqBody::Chunked(_) => head.push_str("transfer-encoding: chunked\r\n"),
        ReqBody::WithTrailers(_, trailers) => {
            head.push_str("transfer-encoding: chunked\r\n");
            for (name, _) in &trailers.0 {
                head.push_str(&format!("trailer: {name}\r\n"));
            }
        }
    }
    head.push_str("\r\n");
    stream.write(head.as_bytes()).await?;
    match &req.body {
        ReqBody::None => {}
        ReqBody::Bytes(bytes) => stream.write(bytes).await?,
        ReqBody::Chunked(pieces) => {
            for piece in pieces {
                let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
                framed.extend_from_slice(piece);
                framed.extend_from_slice(b"\r\n");
                stream.write(&framed).await?;
            }
            stream.write(b"0\r\n\r\n").await?;
        }
        ReqBody::WithTrailers(bytes, trailers) => {
            let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
            framed.extend_from_slice(bytes);
            framed.extend_from_slice(b"\r\n0\r\n");
            for (name, value) in &trailers.0 {
                framed.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            framed.extend_from_slice(b"\r\n");
            stream.write(&framed).await?;
        }
        ReqBody::Zeros(count) => {
            let piece = [0; 65_536];
            let mut left = *count;
            while left > 0 {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                stream.write(&piece[..take]).await?;
                left -= take as u64;
            }
        }
    }
    Ok(())
}

async fn send_h2(
    send: &mut h2::client::SendRequest<Bytes>,
    req: &Req,
) -> io::Result<(Response, h2::RecvStream)> {
    let mut request = http::Request::builder()
        .method(req.method.as_str())
        .uri(format!("https://{}{}", req.host_field(), req.path))
        .version(http::Version::HTTP_2)
        .body(())
        .map_err(io::Error::other)?;
    for (name, value) in &req.headers.0 {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        let value = http::HeaderValue::from_str(value).map_err(io::Error::other)?;
        request.headers_mut().append(name, value);
    }
    let mut ready = send.clone().ready().await.map_err(io::Error::other)?;
    let ends = matches!(req.body, ReqBody::None);
    let (answer, mut stream) = ready
        .send_request(request, ends)
        .map_err(io::Error::other)?;
    // A refusal may come before the body was taken; then sending stops and the answer counts.
    let _ = send_h2_body(&mut stream, &req.body).await;
    let (parts, body) = answer.await.map_err(io::Error::other)?.into_parts();
    let response = Response {
        status: parts.status.as_u16(),
        headers: Headers::from_map(&parts.headers),
        ..Response::default()
    };
    Ok((response, body))
}

async fn send_h2_body(stream: &mut h2::SendStream<Bytes>, body: &ReqBody) -> io::Result<()> {
    match body {
        ReqBody::None => return Ok(()),
        ReqBody::Bytes(bytes) => send_piece(stream, Bytes::copy_from_slice(bytes)).await?,
        ReqBody::WithTrailers(bytes, trailers) => {
            send_piece(stream, Bytes::copy_from_slice(bytes)).await?;
            let mut map = http::HeaderMap::new();
            for (name, value) in &trailers.0 {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
                map.append(name, value.parse().map_err(io::Error::other)?);
            }
            return stream.send_trailers(map).map_err(io::Error::other);
        }
        ReqBody::Chunked(pieces) => {
            for piece in pieces {
                send_piece(stream, Bytes::copy_from_slice(piece)).await?;
            }
        }
        ReqBody::Zeros(count) => {
            let zeros = Bytes::from_static(&[0; 65_536]);
            let mut left = *count;
            while left > 0 {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                send_piece(stream, zeros.slice(..take)).await?;
                left -= take as u64;
            }
        }
    }
    stream
        .send_data(Bytes::new(), true)
        .map_err(io::Error::other)
}

async fn send_piece(stream: &mut h2::SendStream<Bytes>, mut rest: Bytes) -> io::Result<()> {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx))
            .await
            .ok_or_else(|| io::Error::other("the stream was reset"))?
            .map_err(io::Error::other)?;
        let piece = rest.split_to(room.min(rest.len()));
        stream.send_data(piece, false).map_err(io::Error::other)?;
    }
    Ok(())
}
