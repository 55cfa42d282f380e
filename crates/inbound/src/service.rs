//! Connections to the service. Where they go is the file's word; nothing of a request chooses it.

use std::{error::Error as StdError, net::SocketAddr, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client, Error,
        connect::{HttpConnector, HttpInfo},
    },
    rt::{TokioExecutor, TokioTimer},
};
use outgate_config::InboundTarget;
use outgate_journey::denial::{Denial, DenyCode};
use outgate_plane::Live;
use outgate_wire::http1::MAX_HEAD;

use crate::body::RequestBody;

/// Shorter than servers usually keep a connection, so that a request rarely meets one that is being closed.
const IDLE: Duration = Duration::from_secs(20);
/// Kept connections to one service.
const MOST_IDLE: usize = 64;
/// Decoded size of an answer's HTTP/2 header block, in bytes.
const MAX_HEADER_LIST: u32 = 64 * 1024;

/// A service and the connections to it.
pub(crate) struct Service {
    client: Client<HttpsConnector<HttpConnector>, RequestBody>,
}

impl Service {
    pub(crate) fn new(target: &InboundTarget, live: &Live) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(live.timeouts.connect));
        tcp.set_nodelay(true);
        let tls = if target.is_http2 {
            live.upstream_tls.http2.clone()
        } else {
            live.upstream_tls.http1.clone()
        };
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .http1_max_buf_size(MAX_HEAD)
            .http1_preserve_header_case(true)
            .http2_only(target.is_http2)
            .http2_max_header_list_size(MAX_HEADER_LIST)
            .set_host(false)
            .build(HttpsConnector::from((tcp, tls)));
        Self { client }
    }

    /// Sends a request and waits for the head of its answer. A kept connection that the service had closed gives the
    /// request back unsent, and another is tried; nothing that may have been sent is sent twice.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Denial> {
        self.client
            .request(request)
            .await
            .map_err(|fault| denial(&fault))
    }
}

/// The service's address, as far as it is known.
pub(crate) fn peer(answer: &Response<Incoming>) -> Option<SocketAddr> {
    let info = answer.extensions().get::<HttpInfo>()?;
    Some(info.remote_addr())
}

fn denial(fault: &Error) -> Denial {
    let causes: Vec<&(dyn StdError + 'static)> = causes(fault).collect();
    let is_tls = causes.iter().any(|cause| is_of_tls(*cause));
    let code = match (fault.is_connect(), is_tls) {
        (true, true) => DenyCode::UpstreamTlsFailed,
        (true, false) => DenyCode::UpstreamUnreachable,
        (false, _) => DenyCode::UpstreamProtocol,
    };
    let why: Vec<String> = causes.iter().map(ToString::to_string).collect();
    Denial::new(code).because(why.join(": "))
}

fn causes(fault: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = fault.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// An I/O error's own error is not among its sources.
fn is_of_tls(cause: &(dyn StdError + 'static)) -> bool {
    let inner = cause.downcast_ref::<std::io::Error>();
    let inner = inner.and_then(std::io::Error::get_ref);
    cause.is::<rustls::Error>() || inner.is_some_and(|inner| is_of_tls(inner))
}
