//! What a guest's connection became, carried to its end. Everything that led there is gone by then: many connections are
//! idle for most of their lives, and none keeps room for how it began.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use outgate_journey::gate::still_allowed;
use outgate_plane::{Live, budget::Budget, trail::Trail};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::{
    ahead::ReadAhead,
    carrier::Carrier,
    connect::{Admitted, GuestConnection},
    relay::Relay,
    shared::Shared,
};

/// A connection that was judged and opened. A tunnel's record comes along; those of its requests are their own.
pub(crate) enum Opened {
    /// HTTP in TLS that was terminated.
    Bumped(Arc<Carrier>, Box<TlsStream<ReadAhead<TcpStream>>>, Trail),
    /// HTTP in clear, of which so much was read.
    Plain(Arc<Carrier>, TcpStream, BytesMut, Option<Trail>),
    /// Bytes.
    Passing(Box<Passing>),
}

/// A tunnel that is passed through.
pub(crate) struct Passing {
    pub(crate) guest: GuestConnection,
    pub(crate) upstream: TcpStream,
    pub(crate) admitted: Admitted,
    pub(crate) trail: Trail,
}

impl Opened {
    /// Carries it until it ends.
    pub(crate) async fn carry(self, shared: &Arc<Shared>) {
        match self {
            Self::Bumped(carrier, stream, trail) => {
                // On the heap: what is idle over HTTP/1.1 has no room for the others.
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    Box::pin(carrier.serve_http2(stream)).await;
                } else {
                    carrier.serve_http1(stream, BytesMut::new()).await;
                }
                finish(trail);
            }
            Self::Plain(carrier, stream, received, trail) => {
                carrier.serve_http1(stream, received).await;
                if let Some(trail) = trail {
                    finish(trail);
                }
            }
            Self::Passing(passing) => Box::pin(passing.carry(shared)).await,
        }
    }
}

/// The tunnel carried requests; what cut it stands in its own record.
fn finish(mut trail: Trail) {
    if let Some(code) = trail.session_over() {
        trail.cut(code);
    }
    trail.complete();
}

impl Passing {
    async fn carry(self: Box<Self>, shared: &Arc<Shared>) {
        let Self {
            guest,
            upstream,
            admitted,
            trail,
        } = *self;
        let Admitted { live, pass, .. } = &admitted;
        let budget = pass
            .session()
            .and_then(|session| Budget::of(shared, live, session));
        let relay = Relay {
            shared,
            budget,
            scrubber: None,
            idle: live.timeouts.idle,
        };
        let judge = |live: &Live, peer: Option<SocketAddr>| {
            still_allowed(&live.policy, pass.allowed(), pass.session(), peer)
        };
        let GuestConnection {
            stream, received, ..
        } = guest;
        relay
            .run_sockets(stream, received, upstream, trail, judge)
            .await;
    }
}
