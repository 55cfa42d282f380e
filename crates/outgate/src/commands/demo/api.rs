//! The demo's API: real TLS, one key, and the bad habit of echoing it.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_rustls::TlsAcceptor;

use super::HOST;

type Body = BoxBody<Bytes, Infallible>;

/// A running API.
pub(crate) struct DemoApi {
    port: u16,
    certificate_pem: String,
    seen: Arc<Seen>,
}

struct Seen {
    key: String,
    requests: AtomicUsize,
    heads: Mutex<String>,
}

impl DemoApi {
    pub(crate) async fn start() -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec![HOST.to_owned()])
            .context("the API's certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            certified.signing_key.serialize_der(),
        ));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)?;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("a port for the API")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Seen {
            key: random_key()?,
            requests: AtomicUsize::new(0),
            heads: Mutex::default(),
        });
        tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Arc::clone(&seen),
        ));
        Ok(Self {
            port,
            certificate_pem: certified.cert.pem(),
            seen,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The one key that it accepts.
    pub(crate) fn key(&self) -> &str {
        &self.seen.key
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Whether some text stood in any request's head.
    pub(crate) fn saw(&self, text: &str) -> bool {
        self.seen
            .heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(text)
    }
}

/// A key that looks like one, different each time.
fn random_key() -> Result<String> {
    let token = outgate_plane::random_hex().context("random numbers")?;
    Ok(format!("sk-demo-{token}"))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let seen = Arc::clone(&seen);
                async move { Ok::<_, Infallible>(answer(&request, &seen)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

fn answer(request: &Request<Incoming>, seen: &Seen) -> Response<Body> {
    seen.requests.fetch_add(1, Ordering::Relaxed);
    note(request.headers(), seen);
    let presented = request
        .headers()
        .get("x-api-key")
        .and_then(|value| value.to_str().ok());
    if presented != Some(&seen.key) {
        return text(StatusCode::UNAUTHORIZED, "wrong key\n".to_owned());
    }
    match request.uri().path() {
        "/v1/whoami" => text(StatusCode::OK, "you hold the real key\n".to_owned()),
        "/v1/echo" => {
            let mut response = text(
                StatusCode::OK,
                format!("your key is {0}, in hex {1}\n", seen.key, hex(&seen.key)),
            );
            if let Ok(value) = seen.key.parse() {
                response.headers_mut().insert("x-your-key", value);
            }
            response
        }
        "/v1/stream" => stream(),
        _ => text(StatusCode::NOT_FOUND, "no such thing\n".to_owned()),
    }
}

fn note(headers: &HeaderMap, seen: &Seen) {
    let mut heads = seen.heads.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, value) in headers {
        heads.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = status;
    response
}

/// An event every 100 ms, for as long as somebody listens.
fn stream() -> Response<Body> {
    let (events, received) = mpsc::channel::<Bytes>(1);
    tokio::spawn(async move {
        for number in 1.. {
            let event = Bytes::from(format!("data: event {number}\n\n"));
            if events.send(event).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let frames = EventFrames(received);
    let mut response = Response::new(BodyExt::boxed(frames));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/event-stream"),
    );
    response
}

struct EventFrames(mpsc::Receiver<Bytes>);

impl hyper::body::Body for EventFrames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|event| event.map(|bytes| Ok(Frame::data(bytes))))
    }
}
