//! Where requests go, and how a connection gets there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use hyper::{Request, header::HeaderValue, http::HeaderName};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{
    arguments::TargetArguments,
    h1::{H1, Io},
};
use crate::{
    sockets,
    tls::{self, KeyExchange},
    upstream::Repeated,
};

pub(super) struct Target {
    /// The first address that a connection is made to.
    address: String,
    by: By,
    /// These may hold `{n}`.
    destination: String,
    name: String,
    path: String,
    headers: String,
    proxy_headers: String,
    tls: Option<TlsConnector>,
    next: AtomicU64,
    pub buffer: usize,
    pub upload: Option<u64>,
    pub h2: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Direct,
    Tunnel,
    AbsoluteForm,
}

impl Target {
    /// `path` is that of the kind of work, where none was given.
    pub(super) fn new(arguments: &TargetArguments, path: &str) -> anyhow::Result<Self> {
        let by = match (&arguments.proxy, arguments.forward) {
            (None, _) => By::Direct,
            (Some(_), false) => By::Tunnel,
            (Some(_), true) => By::AbsoluteForm,
        };
        let address = arguments.proxy.as_ref().or(arguments.direct.as_ref());
        let host = arguments.connect.rsplit_once(':');
        let host = host.map_or(arguments.connect.as_str(), |(host, _)| host);
        Ok(Self {
            address: address.context("neither --proxy nor --direct")?.clone(),
            by,
            destination: arguments.connect.clone(),
            name: arguments.sni.clone().unwrap_or_else(|| host.to_owned()),
            path: arguments.path.clone().unwrap_or_else(|| path.to_owned()),
            headers: lines(&arguments.header),
            proxy_headers: lines(&arguments.proxy_header),
            tls: connector(arguments)?,
            next: AtomicU64::new(arguments.base),
            buffer: arguments.buf.max(1),
            upload: arguments.upload,
            h2: arguments.h2,
        })
    }

    /// The counters of an upstream, in clear.
    pub(super) fn plain(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            by: By::Direct,
            destination: address.to_owned(),
            name: String::new(),
            path: "/stats".to_owned(),
            headers: String::new(),
            proxy_headers: String::new(),
            tls: None,
            next: AtomicU64::new(0),
            buffer: 4096,
            upload: None,
            h2: false,
        }
    }

    /// The number of another connection.
    pub(super) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Connects to the proxy, asks for the tunnel, and shakes hands inside it, as far as there are those.
    pub(super) async fn open(&self, number: u64) -> io::Result<Box<dyn Io>> {
        let mut stream: Box<dyn Io> = Box::new(sockets::connect(&self.address).await?);
        if self.by == By::Tunnel {
            stream = self
                .tunnel(stream, &numbered(&self.destination, number))
                .await?;
        }
        let Some(connector) = &self.tls else {
            return Ok(stream);
        };
        let name = ServerName::try_from(numbered(&self.name, number));
        let name = name.map_err(io::Error::other)?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    async fn tunnel(&self, stream: Box<dyn Io>, destination: &str) -> io::Result<Box<dyn Io>> {
        let headers = &self.proxy_headers;
        let request =
            format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n{headers}\r\n");
        let mut wire = H1::new(stream, 4096);
        wire.send(request.as_bytes(), Repeated::new(0)).await?;
        let head = wire.head().await?;
        if head.status != 200 {
            return Err(io::Error::other(format!("CONNECT: status {}", head.status)));
        }
        wire.into_stream()
    }

    /// A request's head by HTTP/1.1, to which `more` lines are added.
    pub(super) fn h1_request(&self, number: u64, more: &str) -> Vec<u8> {
        let host = numbered(&self.destination, number);
        let (origin, proxy_headers) = match self.by {
            By::AbsoluteForm => (format!("http://{host}"), self.proxy_headers.as_str()),
            By::Direct | By::Tunnel => (String::new(), ""),
        };
        let (method, length) = match self.upload {
            Some(length) => ("POST", format!("Content-Length: {length}\r\n")),
            None => ("GET", String::new()),
        };
        let (path, headers) = (&self.path, &self.headers);
        format!(
            "{method} {origin}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: outgate-bench\r\nAccept: */*\r\n\
             {length}{proxy_headers}{headers}{more}\r\n"
        )
        .into_bytes()
    }

    /// The same by HTTP/2.
    pub(super) fn h2_request(&self, number: u64) -> io::Result<Request<()>> {
        let host = numbered(&self.destination, number);
        let method = if self.upload.is_some() { "POST" } else { "GET" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{host}{}", self.path))
            .header("user-agent", "outgate-bench")
            .header("accept", "*/*");
        for (name, value) in self.headers.lines().filter_map(|line| line.split_once(':')) {
            let name = HeaderName::try_from(name).map_err(io::Error::other)?;
            let value = HeaderValue::try_from(value.trim()).map_err(io::Error::other)?;
            request = request.header(name, value);
        }
        request.body(()).map_err(io::Error::other)
    }
}

fn connector(arguments: &TargetArguments) -> anyhow::Result<Option<TlsConnector>> {
    if arguments.no_tls || arguments.forward {
        return Ok(None);
    }
    let ca = arguments.ca.as_ref().context("--ca is missing")?;
    let protocols = if arguments.h2 { tls::HTTP2 } else { tls::HTTP1 };
    let exchange = KeyExchange::from_flag(arguments.post_quantum);
    let config = tls::client(ca, protocols, arguments.resume, exchange)?;
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

fn numbered(text: &str, number: u64) -> String {
    text.replace("{n}", &number.to_string())
}

fn lines(headers: &[String]) -> String {
    headers.iter().flat_map(|line| [line, "\r\n"]).collect()
}
