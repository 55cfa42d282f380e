//! hudsucker as a peer of the benchmark. It signs leaves with the given CA, adds one header field to every request, and
//! takes every name for the loopback address.
//!
//! Arguments: port, CA's certificate, CA's key, roots of the upstream, field, value, `bump` or `pass`.

use std::{
    fs,
    future::{Ready, ready},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result, bail};
use hudsucker::{
    Body, HttpContext, HttpHandler, Proxy, RequestOrResponse,
    certificate_authority::RcgenAuthority,
    hyper::{
        Request,
        header::{HeaderName, HeaderValue},
    },
    rcgen::{Issuer, KeyPair},
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, pem::PemObject},
    },
};
use hyper_util::client::legacy::connect::{HttpConnector, dns::Name};
use tokio::net::TcpSocket;

/// Leaves that it keeps.
const CACHED_LEAVES: u64 = 1_000;

/// A resolver that knows one address.
#[derive(Clone)]
struct Loopback;

impl tower_service::Service<Name> for Loopback {
    type Response = std::iter::Once<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(std::iter::once(loopback(0))))
    }
}

#[derive(Clone)]
struct Injecting {
    field: HeaderName,
    value: HeaderValue,
    bump: bool,
}

impl HttpHandler for Injecting {
    async fn handle_request(
        &mut self,
        _: &HttpContext,
        mut request: Request<Body>,
    ) -> RequestOrResponse {
        let headers = request.headers_mut();
        headers.insert(self.field.clone(), self.value.clone());
        request.into()
    }

    async fn should_intercept_connect(&mut self, _: &HttpContext, _: &Request<Body>) -> bool {
        self.bump
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn client(roots: &str) -> Result<ClientConfig> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots)? {
        store.add(certificate?)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Ok(builder
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth())
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, ca, key, roots, field, value, mode] = arguments.as_slice() else {
        bail!("usage: hudsucker-peer PORT CA KEY ROOTS FIELD VALUE bump|pass");
    };
    let key = KeyPair::from_pem(&fs::read_to_string(key).context("the CA's key")?)?;
    let issuer = Issuer::from_ca_cert_pem(&fs::read_to_string(ca)?, key)?;
    let mut http = HttpConnector::new_with_resolver(Loopback);
    http.enforce_http(false);
    http.set_nodelay(true);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(client(roots)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    // It sets TCP_NODELAY on no socket that it accepts, and each new connection would wait 40 ms; the listener hands it down.
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_nodelay(true)?;
    socket.bind(loopback(port.parse()?))?;
    let proxy = Proxy::builder()
        .with_listener(socket.listen(4096)?)
        .with_ca(RcgenAuthority::new(
            issuer,
            CACHED_LEAVES,
            aws_lc_rs::default_provider(),
        ))
        .with_http_connector(https)
        .with_http_handler(Injecting {
            field: field.to_lowercase().parse()?,
            value: value.parse()?,
            bump: mode == "bump",
        })
        .build()?;
    Ok(proxy.start().await?)
}
