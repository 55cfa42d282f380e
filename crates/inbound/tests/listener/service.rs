//! A service that says what it was sent.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Semaphore,
};

type Body = BoxBody<Bytes, Infallible>;

/// A running service.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// How many requests came.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Each permit lets one more event of `/sse` go.
    pub(crate) events: Arc<Semaphore>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            events: Arc::new(Semaphore::new(0)),
        };
        let (asked, events) = (Arc::clone(&service.asked), Arc::clone(&service.events));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (asked, events) = (Arc::clone(&asked), Arc::clone(&events));
                tokio::spawn(async move {
                    let answer = hyper::service::service_fn(move |request| {
                        asked.fetch_add(1, Ordering::Relaxed);
                        let events = Arc::clone(&events);
                        async move { Ok::<_, Infallible>(answer(request, events).await) }
                    });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection_with_upgrades(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        service
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn answer(request: Request<Incoming>, events: Arc<Semaphore>) -> Response<Body> {
    match request.uri().path() {
        "/sse" => sse(events),
        "/ws" => websocket(request),
        "/hang" => std::future::pending().await,
        "/early" => whole("early"),
        _ => echo(request).await,
    }
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect();
    let body = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let mut response = whole(
        json!({
            "method": parts.method.as_str(), "target": parts.uri.path_and_query().unwrap().as_str(),
            "authority": parts.uri.authority().map(ToString::to_string),
            "version": format!("{:?}", parts.version), "headers": headers, "body": body,
        })
        .to_string(),
    );
    let fields = response.headers_mut();
    fields.insert("x-from-service", HeaderValue::from_static("1"));
    fields.insert("alt-svc", HeaderValue::from_static("h3=\":443\""));
    response
}

fn whole(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed())
}

fn sse(events: Arc<Semaphore>) -> Response<Body> {
    let stream = futures_util::stream::unfold(0, move |number| {
        let events = Arc::clone(&events);
        async move {
            if number > 0 {
                events.acquire().await.ok()?.forget();
            }
            let frame = Frame::data(Bytes::from(format!("data: {number}\n\n")));
            Some((Ok::<_, Infallible>(frame), number + 1))
        }
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(SyncStream(Box::pin(
        stream,
    )))));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A boxed body is `Sync`, and nobody looks at this one from two threads.
struct SyncStream<S>(std::pin::Pin<Box<S>>);

impl<S: futures_util::Stream> futures_util::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

fn websocket(mut request: Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = io.read(&mut bytes).await {
            io.write_all(&bytes[..count]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let mut response = whole("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    fields.insert("sec-websocket-accept", accept);
    response
}
