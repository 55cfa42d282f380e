//! The client. One limit of time covers a whole call, from the look-up of the name to the last byte of the answer, so
//! that no far side can keep a caller by dripping.

use std::{fmt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use outgate_clock::CertificateTime;
use rustls::ClientConfig;

use crate::{
    error::{HttpsError, SetupError},
    roots::Roots,
    url::Url,
};

/// Longer than any answer's head that is meant well.
const LARGEST_HEAD: usize = 64 * 1024;
/// The same in HTTP/2's words, where the head is counted by its fields.
const LARGEST_HEADER_LIST: u32 = 64 * 1024;
/// Shorter than servers usually keep a connection, so that a call rarely meets one that is being closed.
const IDLE: Duration = Duration::from_secs(20);

/// What a client trusts and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whom it trusts. Default: the system's roots.
    pub roots: Roots,
    /// For the TCP connection, to each of a name's addresses in turn. Default: 5 s.
    pub connect: Duration,
    /// For the whole call. Default: 10 s.
    pub total: Duration,
    /// The longest body. Default: 1 MiB.
    pub max_response_bytes: usize,
    /// Whether `http://` may be spoken to loopback. Anyone on the machine may listen there. Default: no.
    pub plaintext_loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            roots: Roots::System,
            connect: Duration::from_secs(5),
            total: Duration::from_secs(10),
            max_response_bytes: 1024 * 1024,
            plaintext_loopback: false,
        }
    }
}

/// An HTTPS client. Cheap to clone; the clones share their connections, which live on the runtime of the call that
/// opened them.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    total: Duration,
    max_response_bytes: usize,
    plaintext_loopback: bool,
}

/// A complete answer, of any status.
#[derive(Clone)]
pub struct Response {
    /// The status; a redirect is an answer like any other.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// The body as it was sent.
    pub body: Bytes,
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

impl Client {
    /// A client with its own pool of connections. Blocks on the files of roots.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(settings: &Settings) -> Result<Self, SetupError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_details(provider, Arc::new(CertificateTime))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(settings.roots.read()?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        // The TLS layer above it sees to the scheme.
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(settings.connect));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            // `send` decides which plaintext may pass.
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(tcp);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(4)
            .http1_max_buf_size(LARGEST_HEAD)
            .http2_max_header_list_size(LARGEST_HEADER_LIST)
            .build(connector);
        Ok(Self {
            inner,
            total: settings.total,
            max_response_bytes: settings.max_response_bytes,
            plaintext_loopback: settings.plaintext_loopback,
        })
    }

    /// `GET`.
    ///
    /// # Errors
    /// [`HttpsError`].
    pub async fn get(&self, url: &Url, headers: HeaderMap) -> Result<Response, HttpsError> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// `POST`.
    ///
    /// # Errors
    /// [`HttpsError`].
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, HttpsError> {
        self.send(Method::POST, url, headers, body).await
    }

    /// Any method.
    ///
    /// # Errors
    /// [`HttpsError`].
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, HttpsError> {
        let host = || url.host().to_owned();
        let may_be_clear = self.plaintext_loopback && url.is_loopback();
        if !url.is_https() && !may_be_clear {
            return Err(HttpsError::Plaintext { host: host() });
        }
        let mut request = Request::builder()
            .method(method)
            .uri(url.uri().clone())
            .body(Full::new(body))
            .map_err(|_| HttpsError::Request { host: host() })?;
        *request.headers_mut() = headers;
        let call = async {
            let answer = self
                .inner
                .request(request)
                .await
                .map_err(|fault| HttpsError::of_request(host(), &fault))?;
            let (head, body) = answer.into_parts();
            let body = self.read(url, body).await?;
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        tokio::time::timeout(self.total, call)
            .await
            .unwrap_or_else(|_| Err(HttpsError::Timeout { host: host() }))
    }

    async fn read(&self, url: &Url, mut body: hyper::body::Incoming) -> Result<Bytes, HttpsError> {
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|fault| HttpsError::of_body(url.host().to_owned(), &fault))?;
            // Trailers are not read.
            let Ok(chunk) = frame.into_data() else {
                continue;
            };
            if chunk.len() > self.max_response_bytes.saturating_sub(read.len()) {
                return Err(HttpsError::TooLarge {
                    host: url.host().to_owned(),
                    limit: self.max_response_bytes,
                });
            }
            read.extend_from_slice(&chunk);
        }
        Ok(read.freeze())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
