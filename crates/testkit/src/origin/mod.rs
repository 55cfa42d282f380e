//! A real upstream: TLS or plain, HTTP/1.1 or HTTP/2, with routes that behave and routes that do not, and a memory
//! of every request that reached it. What it did not see was not sent.

mod exchange;
mod routes;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use rustls::{ServerConfig, crypto::aws_lc_rs, server::ResolvesServerCert, sign::CertifiedKey};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    certs::{CertificateKind, TestCa},
    io::BoxIo,
    message::Headers,
};

/// Which protocols the origin offers in ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// `h2` first.
    Both,
    /// `http/1.1` only.
    H1,
    /// `h2` only.
    H2,
    /// No ALPN at all: HTTP/1.1.
    None,
}

/// How an origin is started.
#[derive(Clone)]
pub struct OriginOptions {
    /// Names in its certificate; `None`: plain HTTP.
    pub tls_names: Option<Vec<String>>,
    /// What it presents.
    pub certificate: CertificateKind,
    /// What it offers.
    pub alpn: Alpn,
    /// Only TLS 1.2.
    pub tls12_only: bool,
}

impl OriginOptions {
    /// A good TLS origin with both protocols.
    #[must_use]
    pub fn tls(names: &[&str]) -> Self {
        Self {
            tls_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
            certificate: CertificateKind::Good,
            alpn: Alpn::Both,
            tls12_only: false,
        }
    }

    /// A plain HTTP/1.1 origin.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            tls_names: None,
            ..Self::tls(&[])
        }
    }

    /// Another certificate.
    #[must_use]
    pub fn certificate(mut self, kind: CertificateKind) -> Self {
        self.certificate = kind;
        self
    }

    /// Another ALPN list.
    #[must_use]
    pub fn alpn(mut self, alpn: Alpn) -> Self {
        self.alpn = alpn;
        self
    }

    /// Only TLS 1.2.
    #[must_use]
    pub fn tls12_only(mut self) -> Self {
        self.tls12_only = true;
        self
    }
}

/// A request as the origin saw it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Counts accepted TCP connections, from 1.
    pub connection: u64,
    /// The TLS server name.
    pub sni: Option<String>,
    /// `HTTP/1.1` or `HTTP/2`.
    pub version: &'static str,
    /// The method.
    pub method: String,
    /// The target as sent: path and query, on HTTP/2 `:path`.
    pub target: String,
    /// `Host`, on HTTP/2 `:authority`.
    pub authority: String,
    /// Fields, on HTTP/2 without the pseudo ones.
    pub headers: Headers,
    /// Trailer fields.
    pub trailers: Headers,
    /// The first 64 KiB of the body.
    pub body: Vec<u8>,
    /// Its whole length.
    pub body_length: u64,
    /// Whether the body ended as its framing says.
    pub body_complete: bool,
}

impl Seen {
    /// Whether target, authority, fields, trailers or body hold `text` in any spelling.
    #[must_use]
    pub fn mentions(&self, text: &str) -> bool {
        let holds = |part: &str| crate::codec::holds_secret(part.as_bytes(), text);
        holds(&self.target)
            || holds(&self.authority)
            || self
                .headers
                .0
                .iter()
                .chain(&self.trailers.0)
                .any(|(name, value)| {
                    holds(name) || holds(value) || basic_password(value).is_some_and(|v| holds(&v))
                })
            || crate::codec::holds_secret(&self.body, text)
    }
}

fn basic_password(value: &str) -> Option<String> {
    use base64::Engine;
    let text = value.strip_prefix("Basic ")?;
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .ok()?;
    String::from_utf8(bytes).ok()
}

#[derive(Default)]
pub(crate) struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicU64,
    open: AtomicUsize,
    key: Mutex<Option<(String, String)>>,
}

impl Shared {
    fn begin(&self, seen: Seen) -> usize {
        let mut all = self.seen.lock().expect("no panic holds it");
        all.push(seen);
        all.len() - 1
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.seen.lock().expect("no panic holds it").get_mut(index) {
            change(seen);
        }
    }
}

/// A running upstream.
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Starts an upstream on a free port of `127.0.0.1`; `ca` signs its certificate.
    pub async fn start(ca: &TestCa, options: OriginOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self::serve(listener, ca, options)
    }

    /// The same on a listener that the test chose.
    #[must_use]
    pub fn serve(listener: TcpListener, ca: &TestCa, options: OriginOptions) -> Self {
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let acceptor = options
            .tls_names
            .as_ref()
            .map(|names| acceptor(ca.issue(options.certificate, names), &options));
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            address,
            shared,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every request so far, in the order their heads came.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().expect("no panic holds it").clone()
    }

    /// How many requests came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.seen.lock().expect("no panic holds it").len()
    }

    /// The last request.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the origin saw a request")
    }

    /// How many TCP connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many TCP connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// `/requires-key` answers 401 unless this field has this value.
    pub fn require_key(&self, field: &str, value: &str) {
        let mut key = self.shared.key.lock().expect("no panic holds it");
        *key = Some((field.to_owned(), value.to_owned()));
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn acceptor(key: CertifiedKey, options: &OriginOptions) -> TlsAcceptor {
    let versions: &[_] = if options.tls12_only {
        &[&rustls::version::TLS12]
    } else {
        rustls::ALL_VERSIONS
    };
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(versions)
        .expect("versions of the provider")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OneCertificate(Arc::new(key))));
    config.alpn_protocols = match options.alpn {
        Alpn::Both => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Alpn::H1 => vec![b"http/1.1".to_vec()],
        Alpn::H2 => vec![b"h2".to_vec()],
        Alpn::None => Vec::new(),
    };
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    // Connections end with the origin: a set that is dropped aborts its tasks.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            let _closed = CountDown(Arc::clone(&shared));
            let _ = stream.set_nodelay(true);
            let _ = serve_connection(stream, acceptor, number, &shared).await;
        });
    }
}

struct CountDown(Arc<Shared>);

impl Drop for CountDown {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    number: u64,
    shared: &Arc<Shared>,
) -> std::io::Result<()> {
    let Some(acceptor) = acceptor else {
        let connection = exchange::Connection::plain(number, Arc::clone(shared));
        return exchange::serve_h1(Box::new(stream), connection).await;
    };
    let tls = acceptor.accept(stream).await?;
    let (_, state) = tls.get_ref();
    let connection = exchange::Connection {
        number,
        sni: state.server_name().map(str::to_owned),
        shared: Arc::clone(shared),
    };
    let is_h2 = state.alpn_protocol() == Some(b"h2");
    let io: BoxIo = Box::new(tls);
    if is_h2 {
        exchange::serve_h2(io, connection).await
    } else {
        exchange::serve_h1(io, connection).await
    }
}
