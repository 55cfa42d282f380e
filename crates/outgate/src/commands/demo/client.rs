//! The demo's workload: an ordinary HTTPS client behind a proxy, which trusts the gateway's CA and holds a token.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response, header::HOST as HOST_FIELD};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{HOST, api::DemoApi, gateway::DemoGateway};

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    reason: Option<String>,
    headers: String,
    pub(crate) body: String,
}

impl Answer {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        match &self.reason {
            Some(reason) => format!("{} x-deny-reason: {reason}", self.status),
            None => format!("{} {}", self.status, self.body.trim()),
        }
    }

    pub(crate) fn is_denied(&self, status: u16, reason: &str) -> bool {
        self.status == status && self.reason.as_deref() == Some(reason)
    }

    /// Whether the key, in plain or in hex, stands anywhere in it.
    pub(crate) fn reveals(&self, key: &str) -> bool {
        let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
        [key, &hex]
            .iter()
            .any(|secret| self.headers.contains(secret) || self.body.contains(secret))
    }
}

/// A client behind the gateway.
pub(crate) struct Client {
    proxy: String,
    authority: String,
    tls: TlsConnector,
}

impl Client {
    pub(crate) fn new(gateway: &DemoGateway, api: &DemoApi) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(gateway.ca_pem().as_bytes()) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            proxy: gateway.proxy().to_owned(),
            authority: format!("{HOST}:{}", api.port()),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Asks the API.
    pub(crate) async fn get(&self, token: Option<&str>, path: &str) -> Result<Answer> {
        let (parts, body) = self.send(token, path).await?.into_parts();
        let body = body
            .collect()
            .await
            .context("the answer's body")?
            .to_bytes();
        let headers = parts.headers.iter().map(|(name, value)| {
            format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
        });
        let reason = parts
            .headers
            .get("x-deny-reason")
            .and_then(|value| value.to_str().ok());
        Ok(Answer {
            status: parts.status.as_u16(),
            reason: reason.map(str::to_owned),
            headers: headers.collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }

    /// Asks for a stream of events.
    pub(crate) async fn open_stream(&self, token: &str, path: &str) -> Result<EventStream> {
        let response = self.send(Some(token), path).await?;
        if response.status() != 200 {
            bail!("the stream was refused: {}", response.status());
        }
        Ok(EventStream(response.into_body()))
    }

    /// Tries to reach a host that no rule names.
    pub(crate) async fn connect_elsewhere(&self, token: &str) -> Result<Answer> {
        let (_, head) = self.connect("elsewhere.example:443", Some(token)).await?;
        let field = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|value| value.trim().to_owned())
        };
        Ok(Answer {
            status: head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .unwrap_or_default(),
            reason: field("x-deny-reason:"),
            headers: head.clone(),
            body: String::new(),
        })
    }

    async fn send(&self, token: Option<&str>, path: &str) -> Result<Response<Incoming>> {
        let (stream, head) = self.connect(&self.authority, None).await?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("the proxy refused the tunnel: {head}");
        }
        let name = ServerName::try_from(HOST)?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .context("TLS through the gateway")?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::get(path).header(HOST_FIELD, &self.authority);
        if let Some(token) = token {
            request = request.header("x-api-key", token);
        }
        sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await
            .context("a request through the gateway")
    }

    async fn connect(&self, authority: &str, token: Option<&str>) -> Result<(TcpStream, String)> {
        let mut stream = TcpStream::connect(&self.proxy).await.context("the proxy")?;
        let mut request = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n");
        if let Some(token) = token {
            request.push_str(&format!("proxy-authorization: Bearer {token}\r\n"));
        }
        stream
            .write_all(format!("{request}\r\n").as_bytes())
            .await?;
        // Byte by byte: what follows the head is TLS.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.context("the proxy's answer")?);
        }
        Ok((stream, String::from_utf8_lossy(&head).into_owned()))
    }
}

/// A stream of events.
pub(crate) struct EventStream(Incoming);

impl EventStream {
    /// The next event; `None` at the end.
    pub(crate) async fn next_event(&mut self) -> Result<Option<String>> {
        match self.0.frame().await {
            Some(Ok(frame)) => Ok(frame
                .into_data()
                .ok()
                .map(|data| String::from_utf8_lossy(&data).trim().to_owned())),
            Some(Err(error)) => Err(error.into()),
            None => Ok(None),
        }
    }

    /// Reads until the stream is over, however it ends.
    pub(crate) async fn drain(&mut self) {
        while let Some(Ok(_)) = self.0.frame().await {}
    }
}
