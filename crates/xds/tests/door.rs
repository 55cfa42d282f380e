//! Who gets through the door, over real sockets and real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outgate_envoy_proto::envoy::service::{
    auth::v3::{CheckRequest, authorization_client::AuthorizationClient},
    secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient as Sds,
};
use outgate_xds::{Door, DoorFault, Services, TlsDoor, XdsService};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, version::TLS12};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use support::{
    pki::{Ca, For, Identity},
    *,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::Code;

struct World {
    ca: Ca,
    source: Arc<TestSource>,
    tls: TlsDoor,
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn open(names: &[&str]) -> World {
    let ca = Ca::new();
    let source = TestSource::new();
    let server = ca.issue(For::Server, &["xds.example"]);
    let tls = TlsDoor::new(
        server.certificate.as_bytes(),
        server.key.as_bytes(),
        ca.pem.as_bytes(),
        &owned(names),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let door = Door::tcp(listener, tls.clone()).unwrap();
    let address = door.address().unwrap();
    let stop = CancellationToken::new();
    let services = Services::new().xds(&XdsService::new(source.clone()));
    let task = tokio::spawn(door.serve(services, stop.clone()));
    World {
        ca,
        source,
        tls,
        address,
        stop,
        task,
    }
}

impl World {
    fn config(&self, identity: Option<&Identity>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca.pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    async fn link(&self, config: ClientConfig) -> Result<Link, String> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = "xds.example".try_into().unwrap();
        let tls = connector
            .connect(name, tcp)
            .await
            .map_err(|e| e.to_string())?;
        Link::try_over(tls).await.map_err(|e| e.to_string())
    }

    /// Whether a call gets an answer.
    async fn lets_in(&self, identity: Option<&Identity>) -> bool {
        match self.link(self.config(identity)).await {
            Err(_) => false,
            Ok(link) => answers(link).await,
        }
    }
}

async fn answers(link: Link) -> bool {
    let call = async {
        Sds::with_origin(link, origin())
            .fetch_secrets(world("", &["a"]))
            .await
    };
    let answer = tokio::time::timeout(PATIENCE, call)
        .await
        .expect("no answer");
    answer.is_ok()
}

#[tokio::test]
async fn only_a_certificate_of_the_clients_ca_gets_in() {
    let world = open(&[]);
    let good = world.ca.issue(For::Client, &["envoy-1"]);
    assert!(world.lets_in(Some(&good)).await);
    let stranger = Ca::new().issue(For::Client, &["envoy-1"]);
    let expired = world.ca.issue(For::ExpiredClient, &["envoy-1"]);
    let server = world.ca.issue(For::Server, &["envoy-1"]);
    let nameless = world.ca.issue(For::Client, &[]);
    let wildcard = world.ca.issue(For::Client, &["*.example"]);
    let impostor = world.ca.issue(For::Client, &["local"]);
    for (what, identity) in [
        ("no certificate", None),
        ("another CA's", Some(&stranger)),
        ("an expired one", Some(&expired)),
        ("a server's", Some(&server)),
        ("one without a name", Some(&nameless)),
        ("one with a wildcard", Some(&wildcard)),
        ("one that is called as a local client is", Some(&impostor)),
    ] {
        assert!(!world.lets_in(identity).await, "{what} was let in");
    }
    assert!(world.lets_in(Some(&good)).await);
}

#[tokio::test]
async fn a_client_is_known_by_the_name_that_is_on_the_list() {
    let world = open(&["Envoy-2", "spiffe://example.org/envoy"]);
    for (names, known) in [
        (&["envoy-1"][..], None),
        (&["envoy-1", "envoy-2"], Some("envoy-2")),
        (
            &["spiffe://example.org/envoy"],
            Some("spiffe://example.org/envoy"),
        ),
        (&["spiffe://example.org/Envoy"], None),
    ] {
        let identity = world.ca.issue(For::Client, names);
        assert_eq!(
            world.lets_in(Some(&identity)).await,
            known.is_some(),
            "{names:?}"
        );
        if let Some(known) = known {
            let link = world.link(world.config(Some(&identity))).await.unwrap();
            let mut ads = DeltaStream::ads(link).await;
            ads.subscribe(SECRET, &["a"]).await;
            ads.told().await;
            let event = format!("connected {known} envoy-1");
            assert!(world.source.events().contains(&event), "{event}");
        }
    }
}

#[tokio::test]
async fn who_is_struck_from_the_list_is_cut_and_the_others_go_on() {
    let world = open(&[]);
    let mut streams = Vec::new();
    for name in ["envoy-1", "envoy-2"] {
        let identity = world.ca.issue(For::Client, &[name]);
        let link = world.link(world.config(Some(&identity))).await.unwrap();
        let mut ads = DeltaStream::ads(link).await;
        ads.subscribe(SECRET, &["a"]).await;
        ads.told().await;
        streams.push((ads, identity));
    }
    world.tls.set_names(&owned(&["envoy-2"]));
    let (mut kept, _) = streams.pop().unwrap();
    let (mut cut, identity) = streams.pop().unwrap();
    cut.fault().await;
    assert!(!world.lets_in(Some(&identity)).await);
    world.source.set(SECRET, "a", "1");
    assert_eq!(kept.told().await, "Secret a@1");
}

#[tokio::test]
async fn another_certificate_and_ca_count_from_the_next_connection_on() {
    let world = open(&[]);
    let old = world.ca.issue(For::Client, &["envoy-1"]);
    let link = world.link(world.config(Some(&old))).await.unwrap();
    let clients = Ca::new();
    let server = world.ca.issue(For::Server, &["xds.example"]);
    let (certificate, key) = (server.certificate.as_bytes(), server.key.as_bytes());
    world
        .tls
        .replace(certificate, key, clients.pem.as_bytes())
        .unwrap();
    assert!(answers(link).await, "an open connection goes on");
    assert!(!world.lets_in(Some(&old)).await);
    let new = clients.issue(For::Client, &["envoy-1"]);
    assert!(world.lets_in(Some(&new)).await);
    let unusable = world.tls.replace(b"", key, clients.pem.as_bytes());
    assert!(matches!(unusable, Err(DoorFault::NoCertificate(_))));
    assert!(world.lets_in(Some(&new)).await);
}

#[tokio::test]
async fn a_client_of_the_older_tls_and_without_alpn_gets_in() {
    let world = open(&[]);
    let identity = world.ca.issue(For::Client, &["envoy-1"]);
    let mut config = world.config(Some(&identity));
    config.alpn_protocols.clear();
    let link = world.link(config).await.unwrap();
    assert!(answers(link).await);
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(world.ca.pem.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    let older = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            chain.collect::<Result<_, _>>().unwrap(),
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap(),
        )
        .unwrap();
    assert!(answers(world.link(older).await.unwrap()).await);
}

#[tokio::test]
async fn plain_text_and_silence_cost_nobody_else_anything() {
    let world = open(&[]);
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut rest));
    let _ = read.await.expect("it is not closed");
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let good = world.ca.issue(For::Client, &["envoy-1"]);
    assert!(world.lets_in(Some(&good)).await);
    // The oldest of them is pushed out at once.
    let read = tokio::time::timeout(PATIENCE, silent[0].read_to_end(&mut rest));
    let _ = read.await.expect("it is not closed");
}

#[tokio::test]
async fn a_client_on_the_unix_socket_is_local() {
    let served = serve();
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &["a"]).await;
    ads.told().await;
    assert_eq!(served.source.events()[0], "connected local envoy-1");
}

#[tokio::test]
async fn what_is_not_served_is_said_to_be_so() {
    let served = serve();
    let mut authz = AuthorizationClient::with_origin(served.link().await, origin());
    let refused = authz.check(CheckRequest::default()).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn garbage_in_place_of_a_request_ends_that_stream_alone() {
    use http_body_util_free::whole;
    let served = serve();
    let mut link = served.link().await;
    let mut good = DeltaStream::ads(link.clone()).await;
    good.subscribe(SECRET, &["a"]).await;
    good.told().await;
    for body in [
        &b"\0\0\0\0\x04\xff\xff\xff\xff"[..],
        b"\0\xff\xff\xff\xff",
        b"\x07\0\0\0\0",
        b"\0\0\0\0\x09abc",
    ] {
        let request = http::Request::post(
            "http://localhost/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        )
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(whole(body))
        .unwrap();
        let answer = tonic::codegen::Service::call(&mut link, request)
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
    served.source.set(SECRET, "a", "1");
    assert_eq!(good.told().await, "Secret a@1");
    until("their end", || served.service.streams() == 1).await;
}

mod http_body_util_free {
    use http_body::Frame;

    /// A body of these bytes.
    pub(super) fn whole(bytes: &'static [u8]) -> tonic::body::Body {
        let frame = Ok::<_, tonic::Status>(Frame::data(bytes::Bytes::from_static(bytes)));
        tonic::body::Body::new(One(Some(frame)))
    }

    struct One(Option<Result<Frame<bytes::Bytes>, tonic::Status>>);

    impl http_body::Body for One {
        type Data = bytes::Bytes;
        type Error = tonic::Status;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<bytes::Bytes>, tonic::Status>>> {
            std::task::Poll::Ready(self.0.take())
        }
    }
}

#[tokio::test]
async fn a_door_that_closes_ends_its_streams_lets_calls_end_and_removes_its_socket() {
    let mut served = serve();
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &["a"]).await;
    ads.told().await;
    let link = served.link().await;
    served.source.hold();
    let lookups = served.source.lookups();
    let call = tokio::spawn(answers(link));
    until("the call", || served.source.lookups() > lookups).await;
    served.stop.cancel();
    assert!(
        matches!(ads.outcome().await, Ok(None)),
        "the stream ends without a fault"
    );
    served.source.let_go();
    assert!(call.await.unwrap(), "what is under way is answered");
    served.close().await;
    assert!(UnixStream::connect(&served.path).await.is_err());
    assert!(!served.path.exists());
    served.reopen();
    assert!(answers(served.link().await).await);
}

#[tokio::test]
async fn a_door_on_tcp_closes_for_good() {
    let world = open(&[]);
    let good = world.ca.issue(For::Client, &["envoy-1"]);
    assert!(world.lets_in(Some(&good)).await);
    world.stop.cancel();
    tokio::time::timeout(Duration::from_secs(15), world.task)
        .await
        .unwrap()
        .unwrap();
    assert!(TcpStream::connect(world.address).await.is_err());
    assert!(world.source.lookups.load(Ordering::SeqCst) > 0);
}
