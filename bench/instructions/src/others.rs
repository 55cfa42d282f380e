//! Everybody but the gateway: clients and upstreams, on a thread of their own.

use std::{
    net::SocketAddr,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use outgate_testkit::{
    Alpn, Channel, Guest, Origin, OriginOptions, Req, TestCa, Way as Kind, certs::roots_from_pem,
};
use tokio::{
    runtime::Builder,
    sync::{mpsc as orders, oneshot},
};

/// What is counted by itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    /// Absolute-form requests on one connection, in the clear.
    Clear,
    /// Requests on one bumped connection.
    Bumped,
    /// The same over HTTP/2.
    BumpedHttp2,
    /// `CONNECT`, handshake by a cached leaf, one request.
    NewTunnel,
    /// `CONNECT`, handshake and one request, passed through.
    NewPassThrough,
    /// Requests on one bumped connection that the policy refuses.
    Refused,
}

impl Part {
    pub(crate) const ALL: [Self; 6] = [
        Self::Clear,
        Self::Bumped,
        Self::BumpedHttp2,
        Self::NewTunnel,
        Self::NewPassThrough,
        Self::Refused,
    ];

    /// What it is called in the baseline.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Bumped => "bumped",
            Self::BumpedHttp2 => "bumped-http2",
            Self::NewTunnel => "new-tunnel",
            Self::NewPassThrough => "new-pass-through",
            Self::Refused => "refused",
        }
    }
}

/// Where the upstreams are.
#[derive(Clone)]
pub(crate) struct Upstreams {
    pub(crate) tls: SocketAddr,
    pub(crate) clear: SocketAddr,
    /// Of the CA that they have their certificates from, in PEM.
    pub(crate) ca: String,
}

/// Where the gateway is, and what its clients need to know.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) proxy: SocketAddr,
    /// Of the gateway's CA, in PEM.
    pub(crate) ca: String,
    pub(crate) token: String,
}

/// What the clients are told to do, and whom they tell when it is done.
struct Order {
    way: Way,
    part: Part,
    requests: u32,
    done: oneshot::Sender<()>,
}

/// The thread of clients and upstreams.
pub(crate) struct Others {
    thread: JoinHandle<()>,
    orders: orders::UnboundedSender<Order>,
    pub(crate) upstreams: Upstreams,
}

impl Others {
    /// Starts the upstreams.
    pub(crate) fn start() -> Self {
        let (there, where_) = mpsc::channel();
        let (orders, follow) = orders::unbounded_channel();
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(live(&there, follow));
        });
        Self {
            thread,
            orders,
            upstreams: where_.recv().expect("upstreams"),
        }
    }

    /// Has the clients send so many requests of a kind, and waits until all are answered.
    pub(crate) async fn send(&self, way: &Way, part: Part, requests: u32) {
        let (done, ended) = oneshot::channel();
        let order = Order {
            way: way.clone(),
            part,
            requests,
            done,
        };
        assert!(self.orders.send(order).is_ok(), "the clients have failed");
        ended.await.expect("the clients have failed");
    }

    /// Ends them.
    pub(crate) fn stop(self) {
        drop(self.orders);
        self.thread.join().expect("the clients end");
    }
}

async fn live(there: &mpsc::Sender<Upstreams>, mut follow: orders::UnboundedReceiver<Order>) {
    let ca = TestCa::new("the upstreams' CA");
    let names = ["a.test", "pass.test"];
    let tls = Origin::start(&ca, OriginOptions::tls(&names).alpn(Alpn::H1)).await;
    let clear = Origin::start(&ca, OriginOptions::plain()).await;
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let upstreams = Upstreams {
        tls: at(tls.port()),
        clear: at(clear.port()),
        ca: ca.pem().to_owned(),
    };
    there.send(upstreams.clone()).expect("somebody asks");
    while let Some(order) = follow.recv().await {
        let roots = roots_from_pem([order.way.ca.as_str(), &upstreams.ca]);
        let guest = Guest::new(order.way.proxy, roots).with_proxy_token(&order.way.token);
        drive(&guest, &order, &upstreams).await;
        // Nobody who has failed waits for it.
        let _ = order.done.send(());
    }
}

async fn drive(guest: &Guest, order: &Order, upstreams: &Upstreams) {
    let token = &order.way.token;
    let allowed = Req::get("a.test", upstreams.tls.port(), "/").bearer(token);
    let in_clear = Req::get("a.test", upstreams.clear.port(), "/").bearer(token);
    let refused = Req::get("a.test", upstreams.tls.port(), "/v2/x").bearer(token);
    let passed = Req::get("pass.test", upstreams.tls.port(), "/");
    let (kind, req, status, once_each) = match order.part {
        Part::Clear => (Kind::AbsoluteForm, in_clear, 200, false),
        Part::Bumped => (Kind::TunnelH1, allowed, 200, false),
        Part::BumpedHttp2 => (Kind::TunnelH2, allowed, 200, false),
        Part::NewTunnel => (Kind::TunnelH1, allowed, 200, true),
        Part::NewPassThrough => (Kind::TunnelH1, passed, 200, true),
        Part::Refused => (Kind::TunnelH1, refused, 403, false),
    };
    let mut channel = open(guest, kind, &req).await;
    for sent in 0..order.requests {
        if once_each && sent > 0 {
            channel = open(guest, kind, &req).await;
        }
        let answer = channel.send(&req).await.answered();
        assert_eq!(answer.status, status, "{:?}: {answer:?}", order.part);
    }
}

async fn open(guest: &Guest, kind: Kind, req: &Req) -> Channel {
    match guest.open(kind, req).await {
        Ok(channel) => channel,
        Err(outcome) => panic!("no way through the gateway: {outcome:?}"),
    }
}
