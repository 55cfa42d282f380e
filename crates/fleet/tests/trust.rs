//! Who may follow, whom a gateway follows, and what a gateway can do to the control plane: nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what helps a test fails it"
)]

mod support;

use std::{sync::Arc, time::Duration};

use hyper_util::rt::{TokioExecutor, TokioIo};
use outgate_fleet::FollowerView;
use outgate_fleet_proto as pb;
use pb::fleet_client::FleetClient;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use support::*;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tonic::{Code, codegen::Service};

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_gateway_of_this_control_plane_gets_nothing() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    control.allow(&["gw-1", "spiffe://fleet/gw-3"]);
    let other = Ca::new();
    let ca = &world.ca;
    let unlisted = "list of gateways";
    let refused = [
        (
            "of another CA",
            other.issue(For::Gateway, &["gw-1"]),
            "alert",
        ),
        (
            "not on the list",
            ca.issue(For::Gateway, &["gw-2"]),
            unlisted,
        ),
        (
            "almost on it",
            ca.issue(For::Gateway, &["gw-1.example"]),
            unlisted,
        ),
        ("a wildcard", ca.issue(For::Gateway, &["*.gw-1"]), unlisted),
        ("without a name", ca.issue(For::Gateway, &[]), unlisted),
        (
            "an address",
            ca.issue(For::Gateway, &["127.0.0.1"]),
            unlisted,
        ),
        ("expired", ca.issue(For::ExpiredGateway, &["gw-1"]), "alert"),
        ("a server's", ca.issue(For::Server, &["gw-1"]), "alert"),
    ];
    for (why, identity, told) in refused {
        let gateway = Gateway::start(world.config_as(control.address, &identity), quick());
        let status = gateway.until(why, |s| s.problem.is_some()).await;
        assert!(!status.connected, "{why}");
        let problem = status.problem.unwrap();
        assert!(problem.contains(told), "{why}: {problem}");
        assert!(gateway.sink.seen().order.is_empty(), "{why}");
        assert_eq!(gateway.follower.freshness().last_heard(), None, "{why}");
        gateway.stop().await;
    }
    assert!(control.server.followers().is_empty());
    for names in [&["gw-1"][..], &["gw-9", "GW-1"], &["spiffe://fleet/gw-3"]] {
        let identity = world.ca.issue(For::Gateway, names);
        let gateway = Gateway::start(world.config_as(control.address, &identity), quick());
        gateway.follows().await;
        gateway.stop().await;
    }
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_is_answered() {
    let world = World::new();
    let control = Control::start(&world, &Source::new(1, "policy"), quick()).await;
    let config = client_builder(&world).with_no_client_auth();
    assert!(exchange(control.address, config).await.is_err());
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_nobody_but_its_control_plane() {
    let world = World::new();
    let impostor = World::new();
    let source = Source::new(1, "impostor's policy");
    let strange = Control::start(&impostor, &source, quick()).await;
    let misnamed = World {
        server: world.ca.issue(For::Server, &["other.test"]),
        ca: world.ca,
        gateway: world.gateway,
    };
    let named_otherwise = Control::start(&misnamed, &source, quick()).await;
    for address in [strange.address, named_otherwise.address] {
        let gateway = Gateway::start(misnamed.config(address), quick());
        gateway
            .until("it is refused", |s| s.problem.is_some())
            .await;
        assert!(gateway.sink.seen().order.is_empty());
        gateway.stop().await;
    }
    strange.stop().await;
    named_otherwise.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_taken_off_the_list_is_cut() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    control.allow(&["gw-1"]);
    let gateway = Gateway::start(world.config(control.address), quick());
    gateway.follows().await;
    control.allow(&["gw-2"]);
    let status = gateway.until("it is cut", |s| s.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("list of gateways"));
    source.edit(|list| list.insert(ended("s_1")));
    control.allow(&["gw-1", "gw-2"]);
    gateway
        .sink
        .until("it is back", |seen| seen.list == Some(source.list()))
        .await;
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_certificate_changes_nothing_on_the_control_plane() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let mut link = connect(&world, control.address).await;

    for path in [
        "/outgate.fleet.v1.Fleet/SetPolicy",
        "/outgate.fleet.v1.Fleet/Deny",
        "/outgate.operator.v1.Operator/Kill",
        "/v1/sessions",
        "/",
    ] {
        let request = http::Request::post(format!("https://control.test{path}"))
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::empty())
            .unwrap();
        let answer = link.call(request).await.unwrap();
        let status = answer
            .headers()
            .get("grpc-status")
            .map(|s| s.to_str().unwrap());
        assert_eq!(status, Some("12"), "{path}: unimplemented");
    }
    assert_eq!(source.list(), outgate_fleet::Denylist::default());
    assert!(source.reports.lock().unwrap().is_empty());
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_bounded_rationed_and_taken_whole_or_not_at_all() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let link = connect(&world, control.address).await;
    let mut client = FleetClient::with_origin(link, "https://control.test".parse().unwrap());
    let good = pb::Anomaly {
        session: "s_1".to_owned(),
        budget: "requests".to_owned(),
        ..pb::Anomaly::default()
    };
    let bad_budget = pb::Anomaly {
        budget: "reboot".to_owned(),
        ..good.clone()
    };
    let bad_session = pb::Anomaly {
        session: "'; drop table".to_owned(),
        ..good.clone()
    };
    let long = pb::Anomaly {
        budget: "x".repeat(100_000),
        ..good.clone()
    };
    for (anomalies, code) in [
        (vec![good.clone(), bad_budget], Code::InvalidArgument),
        (vec![good.clone(), bad_session], Code::InvalidArgument),
        (vec![good.clone(); 65], Code::InvalidArgument),
        (vec![long], Code::OutOfRange),
    ] {
        let request = pb::ReportRequest { anomalies, lost: 0 };
        assert_eq!(client.report(request).await.unwrap_err().code(), code);
    }
    assert!(source.reports.lock().unwrap().is_empty());

    let mut taken = 0;
    let mut refused = 0;
    for _ in 0..100 {
        let request = pb::ReportRequest {
            anomalies: vec![good.clone()],
            lost: 0,
        };
        match client.report(request).await {
            Ok(_) => taken += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                refused += 1;
            }
        }
    }
    assert!(
        taken > 5 && refused > 50,
        "{taken} taken, {refused} refused"
    );
    assert_eq!(source.reports.lock().unwrap().len(), taken);
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_only_open_connections_keep_no_gateway_out() {
    let world = World::new();
    let control = Control::start(&world, &Source::new(1, "policy"), quick()).await;
    let mut strangers = Vec::new();
    for _ in 0..400 {
        strangers.push(TcpStream::connect(control.address).await.unwrap());
    }
    let gateway = Gateway::start(world.config(control.address), quick());
    let began = std::time::Instant::now();
    gateway.follows().await;
    let took = began.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "{took:?}: it waited for them to be given up"
    );
    // The oldest were pushed out.
    let mut bytes = [0; 1];
    let read = tokio::time::timeout(Duration::from_secs(1), strangers[0].read(&mut bytes)).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_goes_on_with_a_renewed_certificate() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let relay = Relay::start(control.address).await;
    let gateway = Gateway::start(world.config(relay.address), quick());
    gateway.follows().await;
    let renewed = world.ca.issue(For::Gateway, &["gw-1.renewed"]);
    assert!(
        gateway
            .follower
            .set_identity(b"", renewed.key.as_bytes())
            .is_err()
    );
    let (certificate, key) = (renewed.certificate.as_bytes(), renewed.key.as_bytes());
    gateway.follower.set_identity(certificate, key).unwrap();
    relay.cut();
    let is_back = async {
        let named = |follower: &FollowerView| &*follower.gateway == "gw-1.renewed";
        while !control.server.followers().iter().any(named) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, is_back)
        .await
        .expect("it is back");
    source.edit(|list| list.insert(ended("s_1")));
    gateway
        .sink
        .until("it is told", |seen| seen.list == Some(source.list()))
        .await;
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_takes_only_its_share_of_connections() {
    let world = World::new();
    let control = Control::start(&world, &Source::new(1, "policy"), quick()).await;
    let config = client_config(&world);
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(open(control.address, config.clone()).await.unwrap());
    }
    let mut more = open(control.address, config).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, async {
        let mut bytes = [0; 1024];
        while more.read(&mut bytes).await.is_ok_and(|len| len > 0) {}
    });
    closed.await.expect("one more is closed");
    let another = world.ca.issue(For::Gateway, &["gw-2"]);
    let gateway = Gateway::start(world.config_as(control.address, &another), quick());
    gateway.follows().await;
    gateway.stop().await;
    drop(held);
    control.stop().await;
}

fn client_builder(
    world: &World,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(world.ca.pem.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

fn client_config(world: &World) -> ClientConfig {
    let chain = CertificateDer::from_pem_slice(world.gateway.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(world.gateway.key.as_bytes()).unwrap();
    client_builder(world)
        .with_client_auth_cert(vec![chain], key)
        .unwrap()
}

async fn open(
    address: std::net::SocketAddr,
    mut config: ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("control.test").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
}

/// In TLS 1.3 a client learns what became of its certificate when it reads.
async fn exchange(address: std::net::SocketAddr, config: ClientConfig) -> std::io::Result<usize> {
    let mut stream = open(address, config).await?;
    let mut bytes = [0; 64];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut bytes)).await;
    read.expect("it answers or closes")
}

#[derive(Clone)]
struct Bare(hyper::client::conn::http2::SendRequest<tonic::body::Body>);

async fn connect(world: &World, address: std::net::SocketAddr) -> Bare {
    let stream = open(address, client_config(world)).await.unwrap();
    let io = TokioIo::new(stream);
    let (requests, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    Bare(requests)
}

impl Service<http::Request<tonic::body::Body>> for Bare {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
