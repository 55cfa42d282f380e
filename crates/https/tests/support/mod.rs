//! A web server on loopback that answers as a test says, over real TLS.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{rt::TokioExecutor, rt::TokioIo, server::conn::auto};
use outgate_testkit::{CertificateKind, TestCa};
use rustls::{
    ServerConfig,
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
pub(crate) type Route = Arc<dyn Fn(Request<Bytes>) -> Answer + Send + Sync>;

/// A body that is known beforehand.
pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(body.into()).boxed_unsync()
}

/// A route that answers at once.
pub(crate) fn route(
    answer: impl Fn(Request<Bytes>) -> Response<Body> + Send + Sync + 'static,
) -> Route {
    Arc::new(move |request| {
        let answer = answer(request);
        Box::pin(async move { answer })
    })
}

/// A running server. Stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Server {
    /// With a certificate by `ca` for `127.0.0.1` and `localhost`.
    pub(crate) async fn start(ca: &TestCa, alpn: &[&str], route: Route) -> Self {
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        Self::presenting(ca.issue(CertificateKind::Good, &names), alpn, route).await
    }

    /// With this certificate.
    pub(crate) async fn presenting(certificate: CertifiedKey, alpn: &[&str], route: Route) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(certificate));
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self::listen(Some(TlsAcceptor::from(Arc::new(tls))), route).await
    }

    /// Without TLS.
    pub(crate) async fn plaintext(route: Route) -> Self {
        Self::listen(None, route).await
    }

    async fn listen(tls: Option<TlsAcceptor>, route: Route) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (tls, route) = (tls.clone(), Arc::clone(&route));
                connections.spawn(async move {
                    match tls {
                        Some(tls) => {
                            // A client that does not trust the certificate leaves; that is what its test is about.
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(TokioIo::new(stream), route).await;
                            }
                        }
                        None => serve(TokioIo::new(tcp), route).await,
                    }
                });
            }
        });
        Self {
            address,
            accepted,
            tasks,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes the port and every connection.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve<I>(io: I, route: Route)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let route = Arc::clone(&route);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(route(Request::from_parts(head, body)).await)
        }
    });
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(io, service)
        .await;
}
