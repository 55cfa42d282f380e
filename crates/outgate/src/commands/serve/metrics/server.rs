//! The listener for counts. Whoever can connect may read, so a connection costs little and is over soon: one request, two
//! seconds for its head, five for all of it, and only so many at once. There is one thing to ask for.

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener as StdTcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use outgate_native::sockets;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::text::Page;

const PATH: &str = "/metrics";
const CONNECTIONS: usize = 16;
const HEAD_WITHIN: Duration = Duration::from_secs(2);
const ALL_WITHIN: Duration = Duration::from_secs(5);
/// The least that the HTTP library takes.
const MAX_HEAD: usize = 8 * 1024;
const MAX_FIELDS: usize = 32;
const AFTER_A_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Makes the page anew each time.
pub(super) type Source = Arc<dyn Fn() -> String + Send + Sync>;

/// Listeners that nobody is served on yet.
pub(in crate::commands::serve) struct Bound(Vec<StdTcpListener>);

impl Bound {
    /// Opens the sockets of these addresses.
    ///
    /// # Errors
    /// Which cannot be opened, and why.
    pub(in crate::commands::serve) fn open(addresses: &[SocketAddr]) -> Result<Self> {
        Ok(Self(sockets::open(addresses).context("listen.metrics")?))
    }

    /// Where they listen.
    pub(in crate::commands::serve) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.0.iter().map(StdTcpListener::local_addr);
        addresses.filter_map(Result::ok).collect()
    }

    /// Serves in the background, until it is told to stop.
    ///
    /// # Errors
    /// If the runtime takes no more sockets.
    pub(super) fn serve(self, source: &Source, stop: &CancellationToken) -> Result<()> {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        for listener in self.0 {
            let listener = TcpListener::from_std(listener)?;
            let (source, room, stop) = (Arc::clone(source), Arc::clone(&room), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = accept(listener, source, room) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, source: Source, room: Arc<Semaphore>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Who finds no room is closed: there is nothing here to wait for.
                if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
                    let source = Arc::clone(&source);
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(ALL_WITHIN, converse(stream, source)).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "metrics: accept failed");
                tokio::time::sleep(AFTER_A_FAILED_ACCEPT).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, source: Source) {
    let service = service_fn(|request| {
        let answer = answer(&request, &source);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "metrics: connection ended");
    }
}

fn answer(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if request.uri().path() != PATH {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(Page::CONTENT_TYPE));
        *response.body_mut() = Full::new(source().into());
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: CancellationToken,
    }

    fn running() -> Running {
        let bound = Bound::open(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        let (address, stop) = (bound.addresses()[0], CancellationToken::new());
        let source: Source = Arc::new(|| "outgate_ready 1\n".to_owned());
        bound.serve(&source, &stop).unwrap();
        Running { address, stop }
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn there_is_one_page_and_nothing_else() {
        let running = running();
        let ask = async |line: &str| {
            ask(
                running.address,
                &format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"),
            )
            .await
        };
        let page = ask("GET /metrics").await;
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains(Page::CONTENT_TYPE) && page.ends_with("\r\n\r\noutgate_ready 1\n"));
        assert!(page.contains("connection: close"), "{page}");
        let head = ask("HEAD /metrics").await;
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        for (line, status) in [
            ("GET /", "404"),
            ("GET /metrics/", "404"),
            ("GET /v1/health", "404"),
            ("POST /metrics", "405"),
            ("DELETE /metrics", "405"),
            ("CONNECT a.test:443", "404"),
        ] {
            let answer = ask(line).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{line}: {answer}"
            );
        }
        running.stop.cancel();
    }

    #[tokio::test]
    async fn who_says_nothing_or_takes_nothing_is_gone_before_long_and_takes_no_place_for_ever() {
        let running = running();
        let begin = Instant::now();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(running.address).await.unwrap();
            stream.write_all(b"GET /met").await.unwrap();
            silent.push(stream);
        }
        // The last ones may not be accepted yet: the places are taken before long.
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        while begin.elapsed() < HEAD_WITHIN / 2 && !ask(running.address, request).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(ask(running.address, request).await, "");
        for stream in &mut silent {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
        }
        assert!(begin.elapsed() < ALL_WITHIN + Duration::from_secs(2));
        let mut served = ask(running.address, request).await;
        while served.is_empty() && begin.elapsed() < ALL_WITHIN * 2 {
            served = ask(running.address, request).await;
        }
        assert!(served.starts_with("HTTP/1.1 200"), "{served}");
        running.stop.cancel();
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let running = running();
        let head = format!(
            "GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
            "a".repeat(MAX_HEAD)
        );
        let answer = ask(running.address, &head).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
        running.stop.cancel();
    }
}
