//! One connection to a server of secrets: the transport, TLS on TCP, HTTP/2, within a time; the other side is asked
//! again and again whether it is there.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::Incoming;
use outgate_mutual::{LinkSettings, connect, in_time, with_causes};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tonic::{body::Body, codegen::Service};

use super::address::{Address, Place};

const SETTINGS: LinkSettings = LinkSettings {
    keep_alive: (Duration::from_secs(5), Duration::from_secs(5)),
    stream_window: 1024 * 1024,
    connection_window: 2 * 1024 * 1024,
};
/// For how long a server may have been gone without its being noticed.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// Sends calls over one connection.
#[derive(Clone)]
pub(super) struct Link(outgate_mutual::Link);

impl Link {
    /// # Errors
    /// What failed, for the operator.
    pub(super) async fn open(address: &Address) -> Result<Self, String> {
        let opened = async {
            match &address.place {
                Place::Unix(path) => {
                    let stream = UnixStream::connect(path).await;
                    Self::over(stream.map_err(|error| error.to_string())?).await
                }
                Place::Tcp {
                    host,
                    port,
                    name,
                    tls,
                } => {
                    let stream = connect(host, *port, name.clone(), tls).await;
                    Self::over(stream.map_err(|error| error.to_string())?).await
                }
            }
        };
        in_time(opened).await
    }

    async fn over<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = outgate_mutual::Link::over(stream, SETTINGS).await;
        link.map(Self).map_err(|error| with_causes(&error))
    }

    /// Why the connection broke, if it did.
    pub(super) async fn broken(self) -> Option<String> {
        self.0.broken().await
    }
}

impl Service<http::Request<Body>> for Link {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = <outgate_mutual::Link as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}
