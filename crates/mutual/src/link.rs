//! One connection to a server: the transport, HTTP/2 on it, within a time; the other side is asked again and again
//! whether it is there.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;
use tonic::{body::Body, codegen::Service};

/// For the connection and the handshakes together.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to learn why a connection broke.
const LAST_WORD: Duration = Duration::from_millis(100);
/// The longest head of an answer.
const HEAD_BYTES: u32 = 16 * 1024;

/// A connection over TLS to a host's port; the certificate there has to have the name.
///
/// # Errors
/// The network's, or TLS's.
pub async fn connect(
    host: &str,
    port: u16,
    name: ServerName<'static>,
    tls: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(tls));
    connector.connect(name, tcp).await
}

/// Opens a link, or gives it up after five seconds.
///
/// # Errors
/// What failed, for the operator.
pub async fn in_time<T>(opened: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let opened = timeout(CONNECT, opened).await;
    opened.map_err(|_| "it does not answer".to_owned())?
}

/// How a connection is kept.
#[derive(Debug, Clone, Copy)]
pub struct LinkSettings {
    /// How often the server is asked whether it is there, and how long it may take to answer.
    pub keep_alive: (Duration, Duration),
    /// Bytes that it may send on one stream before they are read.
    pub stream_window: u32,
    /// Bytes that it may send on all streams together before they are read.
    pub connection_window: u32,
}

/// Sends calls over one connection.
#[derive(Clone)]
pub struct Link {
    requests: http2::SendRequest<Body>,
    /// The connection ends with the last who uses it.
    _connection: Arc<AbortOnDropHandle<()>>,
    /// Why it ended.
    ended: watch::Receiver<Option<String>>,
}

impl Link {
    /// Begins to speak HTTP/2.
    ///
    /// # Errors
    /// HTTP/2's.
    pub async fn over<S>(stream: S, settings: LinkSettings) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (every, patience) = settings.keep_alive;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(every)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_header_list_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let (tell, ended) = watch::channel(None);
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tell.send_replace(Some(with_causes(&error)));
            }
        });
        Ok(Self {
            requests,
            ended,
            _connection: Arc::new(AbortOnDropHandle::new(connection)),
        })
    }

    /// Why the connection broke, if it did: a call that fails with it says less. An alert of the other side's TLS
    /// comes with the first answer only, since version 1.3.
    pub async fn broken(mut self) -> Option<String> {
        let ended = timeout(LAST_WORD, self.ended.wait_for(Option::is_some)).await;
        ended.ok()?.ok()?.clone()
    }
}

impl Service<http::Request<Body>> for Link {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.requests.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.requests.send_request(request))
    }
}

/// What an error says, with what caused it.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    const SETTINGS: LinkSettings = LinkSettings {
        keep_alive: (Duration::from_millis(100), Duration::from_millis(100)),
        stream_window: 64 * 1024,
        connection_window: 64 * 1024,
    };

    #[derive(Debug)]
    struct Told(&'static str, Option<Box<Told>>);

    impl std::fmt::Display for Told {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Told {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|cause| cause as _)
        }
    }

    #[test]
    fn an_error_says_each_cause_once() {
        let told = |text, cause| Told(text, Some(Box::new(cause)));
        let alert = || Told("received fatal alert", None);
        for (error, text) in [
            (alert(), "received fatal alert"),
            (
                told("connection error", alert()),
                "connection error: received fatal alert",
            ),
            (
                told("broken: received fatal alert", told("received", alert())),
                "broken: received fatal alert",
            ),
        ] {
            assert_eq!(with_causes(&error), text);
        }
    }

    #[tokio::test]
    async fn who_does_not_answer_is_given_up() {
        let began = tokio::time::Instant::now();
        let (near, _far) = duplex(1024);
        let opened = in_time(async {
            let mut near = near;
            near.read_u8().await.map_err(|error| error.to_string())
        });
        assert_eq!(opened.await, Err("it does not answer".to_owned()));
        assert!(began.elapsed() >= CONNECT);
        assert_eq!(in_time(async { Ok(1) }).await, Ok(1));
        let refused = async { Err::<(), _>("refused".to_owned()) };
        assert_eq!(in_time(refused).await, Err("refused".to_owned()));
    }

    #[tokio::test]
    async fn a_server_that_falls_silent_breaks_the_link() {
        let (near, far) = duplex(64 * 1024);
        let link = Link::over(near, SETTINGS).await.unwrap();
        let why = timeout(Duration::from_secs(5), async {
            loop {
                if let Some(why) = link.clone().broken().await {
                    return why;
                }
            }
        });
        let why = why.await.expect("it is not noticed");
        assert!(why.contains("keep-alive timed out"), "{why}");
        drop(far);
    }

    #[tokio::test]
    async fn the_connection_ends_with_the_last_who_uses_it() {
        let (near, mut far) = duplex(64 * 1024);
        let link = Link::over(near, SETTINGS).await.unwrap();
        let another = link.clone();
        drop(link);
        let mut preface = [0; 24];
        far.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        drop(another);
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(5), far.read_to_end(&mut rest)).await;
        ended.expect("it is held open").unwrap();
    }
}
