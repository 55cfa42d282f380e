//! One connection to the control plane: TCP, TLS, HTTP/2, each within its time; the other side is asked every two
//! seconds whether it is there.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::{body::Body, codegen::Service};

use crate::{Pace, error::FleetError};

/// For the connection and the handshake together.
const CONNECT: Duration = Duration::from_secs(5);
/// How long it may take to learn why a connection broke.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Where the control plane is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) origin: Uri,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Address {
    /// Reads `https://host:port`.
    pub(crate) fn parse(url: &str) -> Result<Self, FleetError> {
        let uri: Uri = url.parse().map_err(|_| FleetError::Address)?;
        let plain = uri.scheme_str() == Some("https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        let (Some(host), true) = (uri.host(), plain) else {
            return Err(FleetError::Address);
        };
        let port = uri.port_u16().ok_or(FleetError::Address)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| FleetError::Address)?;
        let origin = format!("https://{}", uri.authority().map_or("", |a| a.as_str()));
        Ok(Self {
            origin: origin.parse().map_err(|_| FleetError::Address)?,
            host,
            port,
            name,
        })
    }
}

/// Sends calls over one connection.
#[derive(Clone)]
pub(crate) struct Link {
    requests: http2::SendRequest<Body>,
    /// The connection ends with the last who uses it.
    _connection: Arc<AbortOnDropHandle<()>>,
    /// Why it ended.
    ended: watch::Receiver<Option<String>>,
}

impl Link {
    /// # Errors
    /// What failed, for the operator.
    pub(crate) async fn open(
        address: &Address,
        tls: &Arc<ClientConfig>,
        pace: &Pace,
    ) -> Result<Self, String> {
        let connector = TlsConnector::from(Arc::clone(tls));
        let connected = async {
            let tcp = TcpStream::connect((address.host.as_str(), address.port)).await?;
            tcp.set_nodelay(true)?;
            connector.connect(address.name.clone(), tcp).await
        };
        let stream = timeout(CONNECT, connected)
            .await
            .map_err(|_| "it does not answer".to_owned())?
            .map_err(|error| error.to_string())?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("it does not speak HTTP/2".to_owned());
        }
        let (every, patience) = pace.keep_alive;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(every)
            .keep_alive_timeout(patience)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(512 * 1024)
            .max_header_list_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let (tell, ended) = watch::channel(None);
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tell.send_replace(Some(chain(&error)));
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
    pub(crate) async fn broken(mut self) -> Option<String> {
        let ended = timeout(LAST_WORD, self.ended.wait_for(Option::is_some)).await;
        ended.ok()?.ok()?.clone()
    }
}

/// What an error says, with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_behind_tls_is_an_address() {
        for (url, origin) in [
            (
                "https://control.example.org:9444",
                Some("https://control.example.org:9444/"),
            ),
            ("https://127.0.0.1:9444/", Some("https://127.0.0.1:9444/")),
            ("https://[::1]:9444", Some("https://[::1]:9444/")),
            ("http://control.example.org:9444", None),
            ("https://control.example.org", None),
            ("https://control.example.org:9444/path", None),
            ("https://control.example.org:9444/?q", None),
            ("https://user@control.example.org:9444", None),
            ("https://:9444", None),
            ("control.example.org:9444", None),
            ("", None),
        ] {
            let parsed = Address::parse(url).ok().map(|a| a.origin.to_string());
            assert_eq!(parsed.as_deref(), origin, "{url}");
        }
    }
}
