//! The client of secrets, against our server and against others.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::{
    net::TcpListener,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::Stream;
use outgate_envoy_proto::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use outgate_xds::{
    Body, Door, Services, TlsDoor, XdsService,
    client::{Protocol, SecretClient, SecretFault, SecretState, SecretValue, SecretWatch, Target},
};
use prost_types::Any;
use support::{
    pki::{Ca, For, Identity},
    *,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

const LONG: Duration = PATIENCE;

fn client(served: &Served) -> SecretClient {
    client_with(served, Protocol::Delta)
}

fn client_with(served: &Served, protocol: Protocol) -> SecretClient {
    SecretClient::new(Target::Unix(served.path.clone()), "gw-1", protocol).unwrap()
}

/// The state as a text.
fn said(state: &SecretState) -> String {
    match state {
        SecretState::Waiting => "waiting".to_owned(),
        SecretState::Absent => "absent".to_owned(),
        SecretState::Present(secret) => value(&secret.value),
    }
}

fn value(value: &SecretValue) -> String {
    match value {
        SecretValue::Generic(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        SecretValue::Certificate { chain_pem, key_pem } => format!("{chain_pem}+{}", **key_pem),
    }
}

async fn becomes(watch: &mut SecretWatch, wanted: &str) {
    let wait = async {
        let mut now = watch.state();
        while said(&now) != wanted {
            now = watch.changed().await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("it is {}, not {wanted}", said(&watch.state()));
    }
}

#[tokio::test]
async fn a_secret_is_watched_from_its_coming_to_its_end() {
    let served = serve();
    let client = client(&served);
    let mut watch = client.watch("a").unwrap();
    assert_eq!(said(&watch.state()), "waiting");
    becomes(&mut watch, "absent").await;
    for (version, value) in [("1", "a@1"), ("2", "a@2"), ("certificate", "chain+key")] {
        served.source.set(SECRET, "a", version);
        becomes(&mut watch, value).await;
    }
    served.source.set(SECRET, "a", "empty");
    becomes(&mut watch, "absent").await;
    served.source.set(SECRET, "a", "3");
    becomes(&mut watch, "a@3").await;
    served.source.remove(SECRET, "a");
    becomes(&mut watch, "absent").await;
    assert_eq!(served.source.events()[0], "connected local gw-1");
}

#[tokio::test]
async fn a_secret_is_got_on_demand_once_for_all_who_ask() {
    let served = serve();
    served.source.put(SECRET, "a", "1");
    let client = client(&served);
    served.source.hold();
    let gets: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("a", LONG).await })
        })
        .collect();
    until("the look-up", || served.source.lookups() == 1).await;
    served.source.let_go();
    for get in gets {
        let secret = get.await.unwrap().unwrap();
        assert_eq!((&*secret.name, &*secret.version), ("a", "1"));
        assert_eq!(value(&secret.value), "a@1");
    }
    assert_eq!(value(&client.get("a", LONG).await.unwrap().value), "a@1");
    assert_eq!(client.get("b", LONG).await.err(), Some(SecretFault::Absent));
    assert_eq!(client.get("b", LONG).await.err(), Some(SecretFault::Absent));
    assert_eq!(served.source.lookups(), 2);
    served.source.set(SECRET, "a", "2");
    let mut watch = client.watch("a").unwrap();
    becomes(&mut watch, "a@2").await;
}

#[tokio::test]
async fn what_was_given_stays_while_the_server_is_away_and_is_said_again_after() {
    let mut served = serve();
    for name in ["same", "newer", "gone"] {
        served.source.put(SECRET, name, "1");
    }
    let client = client(&served);
    assert_eq!(client.silent_for(), None);
    let mut watches = Vec::new();
    for name in ["same", "newer", "gone"] {
        let mut watch = client.watch(name).unwrap();
        becomes(&mut watch, &format!("{name}@1")).await;
        watches.push(watch);
    }
    assert_eq!(client.silent_for(), Some(Duration::ZERO));
    assert_eq!(client.problem(), None);
    served.close().await;
    until("the loss", || client.problem().is_some()).await;
    let silent = client.silent_for().unwrap();
    assert!(silent > Duration::ZERO);
    assert_eq!(said(&watches[0].state()), "same@1");
    assert_eq!(
        value(&client.get("same", LONG).await.unwrap().value),
        "same@1"
    );
    let began = Instant::now();
    let new = client.get("new", Duration::from_millis(300)).await.err();
    assert!(matches!(new, Some(SecretFault::Unavailable(_))), "{new:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let later = client.silent_for().unwrap();
    assert!(
        later >= silent + Duration::from_millis(300),
        "{silent:?} {later:?}"
    );
    let before = served.source.events().len();
    served.source.put(SECRET, "newer", "2");
    served.source.take(SECRET, "gone");
    served.source.put(SECRET, "new", "1");
    served.reopen();
    becomes(&mut watches[1], "newer@2").await;
    becomes(&mut watches[2], "absent").await;
    assert_eq!(
        value(&client.get("new", LONG).await.unwrap().value),
        "new@1"
    );
    assert_eq!(client.silent_for(), Some(Duration::ZERO));
    let after = || served.source.events()[before..].join(" ");
    until("the answers", || {
        after().contains("newer@2") && after().contains("same@1")
    })
    .await;
    assert_eq!(said(&watches[0].state()), "same@1");
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_found_when_it_comes() {
    let mut served = serve();
    served.source.put(SECRET, "a", "1");
    served.close().await;
    let client = client(&served);
    let mut watch = client.watch("a").unwrap();
    until("the problem", || client.problem().is_some()).await;
    served.reopen();
    becomes(&mut watch, "a@1").await;
    assert_eq!(client.problem(), None);
}

#[tokio::test]
async fn a_silent_server_is_waited_for_as_long_as_was_said() {
    let served = serve();
    served.source.hold();
    let client = client(&served);
    let got = client.get("a", Duration::from_millis(300)).await;
    assert_eq!(got.err(), Some(SecretFault::Timeout));
    served.source.put(SECRET, "a", "1");
    served.source.let_go();
    assert_eq!(value(&client.get("a", LONG).await.unwrap().value), "a@1");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_what_was_before_and_the_rest_is_taken() {
    let served = serve();
    let client = client(&served);
    let mut bad = client.watch("bad").unwrap();
    served.source.set(SECRET, "bad", "1");
    becomes(&mut bad, "bad@1").await;
    served.source.set(SECRET, "bad", "malformed");
    until("the refusal", || {
        let refusal = "nack gw-1 Secret bad@malformed: 1 unusable: bad: malformed".to_owned();
        served.source.events().contains(&refusal)
    })
    .await;
    becomes(&mut bad, "absent").await;
    served.source.put(SECRET, "good", "1");
    assert_eq!(
        value(&client.get("good", LONG).await.unwrap().value),
        "good@1"
    );
    served.source.set(SECRET, "bad", "2");
    becomes(&mut bad, "bad@2").await;
}

#[tokio::test]
async fn a_secret_for_a_time_lasts_while_the_server_is_there_and_no_longer() {
    let mut served = serve();
    *served.source.ttl.lock().unwrap() = Some(Duration::from_millis(600));
    served.source.put(SECRET, "a", "1");
    let client = client(&served);
    let mut watch = client.watch("a").unwrap();
    becomes(&mut watch, "a@1").await;
    let quiet = tokio::time::timeout(Duration::from_millis(990), watch.changed()).await;
    assert!(
        quiet.is_err(),
        "it is prolonged, and nobody need hear of it"
    );
    served.close().await;
    becomes(&mut watch, "absent").await;
    served.reopen();
    becomes(&mut watch, "a@1").await;
}

#[tokio::test]
async fn the_state_of_the_world_is_understood() {
    let mut served = serve();
    served.source.put(SECRET, "a", "1");
    let client = client_with(&served, Protocol::StateOfTheWorld);
    let mut one = client.watch("a").unwrap();
    becomes(&mut one, "a@1").await;
    let mut other = client.watch("b").unwrap();
    served.source.set(SECRET, "b", "1");
    becomes(&mut other, "b@1").await;
    served.source.set(SECRET, "a", "2");
    becomes(&mut one, "a@2").await;
    served.source.set(SECRET, "b", "malformed");
    until("the refusal", || {
        let events = served.source.events();
        events
            .iter()
            .any(|event| event.starts_with("nack gw-1 Secret a@2,b@malformed"))
    })
    .await;
    served.source.set(SECRET, "b", "empty");
    becomes(&mut other, "absent").await;
    served.close().await;
    until("the loss", || client.problem().is_some()).await;
    assert_eq!(said(&one.state()), "a@2");
    served.source.put(SECRET, "a", "3");
    served.reopen();
    becomes(&mut one, "a@3").await;
}

/// A server that knows only the older protocol.
struct OldServer {
    requests: Arc<Mutex<Vec<DiscoveryRequest>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for OldServer {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("not in my days"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let requests = Arc::clone(&self.requests);
        let answers = futures_util::stream::unfold(request.into_inner(), move |mut inbound| {
            let requests = Arc::clone(&requests);
            async move {
                loop {
                    let request = inbound.message().await.ok()??;
                    let is_answer = !request.response_nonce.is_empty();
                    let names = request.resource_names.clone();
                    requests.lock().unwrap().push(request);
                    if is_answer {
                        continue;
                    }
                    let resources = names.iter().map(|name| {
                        let body = prost::Message::encode_to_vec(&old_secret(name));
                        Any {
                            type_url: SECRET.to_owned(),
                            value: body,
                        }
                    });
                    let response = DiscoveryResponse {
                        version_info: "7".to_owned(),
                        nonce: "n".to_owned(),
                        type_url: SECRET.to_owned(),
                        resources: resources.collect(),
                        ..DiscoveryResponse::default()
                    };
                    return Some((Ok(response), inbound));
                }
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_secrets(
        &self,
        _request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("not in my days"))
    }
}

fn old_secret(
    name: &str,
) -> outgate_envoy_proto::envoy::extensions::transport_sockets::tls::v3::Secret {
    use outgate_envoy_proto::envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{GenericSecret, Secret, secret::Type},
    };
    Secret {
        name: name.to_owned(),
        r#type: Some(Type::GenericSecret(GenericSecret {
            secret: Some(DataSource {
                specifier: Some(Specifier::InlineString(format!("old {name}"))),
                ..DataSource::default()
            }),
            ..GenericSecret::default()
        })),
    }
}

#[tokio::test]
async fn a_server_that_knows_only_the_older_protocol_is_spoken_to_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.sock");
    let requests = Arc::default();
    let server = SecretDiscoveryServiceServer::new(OldServer {
        requests: Arc::clone(&requests),
    });
    let door = Door::unix(&path).unwrap();
    let _task = tokio::spawn(door.serve(Services::new().add(server), CancellationToken::new()));
    let auto = SecretClient::new(Target::Unix(path.clone()), "gw-1", Protocol::Auto).unwrap();
    let secret = auto.get("a", LONG).await.unwrap();
    assert_eq!(value(&secret.value), "old a");
    assert_eq!(&*secret.version, "7");
    until("the answer", || requests.lock().unwrap().len() == 2).await;
    {
        let requests = requests.lock().unwrap();
        assert_eq!(requests[0].node.as_ref().unwrap().id, "gw-1");
        assert_eq!(requests[0].version_info, "");
        let answer = (&*requests[1].version_info, &*requests[1].response_nonce);
        assert_eq!(answer, ("7", "n"));
        assert_eq!(requests[1].resource_names, ["a"]);
    }
    let delta = SecretClient::new(Target::Unix(path), "gw-1", Protocol::Delta).unwrap();
    let refused = delta.get("a", Duration::from_millis(500)).await.err();
    let expected = "it does not serve secrets this way".to_owned();
    assert_eq!(refused, Some(SecretFault::Unavailable(expected)));
}

#[tokio::test]
async fn both_sides_show_certificates_and_another_target_can_be_set() {
    let ca = Ca::new();
    let source = TestSource::new();
    source.put(SECRET, "a", "1");
    let server = ca.issue(For::Server, &["vault.example"]);
    let (certificate, key) = (server.certificate.as_bytes(), server.key.as_bytes());
    let names = owned(&["gw-1"]);
    let tls = TlsDoor::new(certificate, key, ca.pem.as_bytes(), &names).unwrap();
    let door = Door::tcp(TcpListener::bind("127.0.0.1:0").unwrap(), tls).unwrap();
    let port = door.address().unwrap().port();
    let services = Services::new().xds(&XdsService::new(source.clone()));
    let _task = tokio::spawn(door.serve(services, CancellationToken::new()));
    let target = |ca: &Ca, server_name: &str, identity: &Identity| Target::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
        server_name: Some(server_name.to_owned()),
        ca_pem: ca.pem.clone().into_bytes(),
        certificate_pem: identity.certificate.clone().into_bytes(),
        key_pem: identity.key.clone().into_bytes().into(),
    };
    let good = ca.issue(For::Client, &["gw-1"]);
    let unlisted = ca.issue(For::Client, &["gw-2"]);
    for (what, target) in [
        ("another CA", target(&Ca::new(), "vault.example", &good)),
        ("another name", target(&ca, "other.example", &good)),
        ("not on the list", target(&ca, "vault.example", &unlisted)),
    ] {
        let client = SecretClient::new(target, "gw-1", Protocol::Auto).unwrap();
        let refused = client.get("a", Duration::from_millis(700)).await.err();
        assert!(
            matches!(refused, Some(SecretFault::Unavailable(_))),
            "{what}: {refused:?}"
        );
    }
    let client = SecretClient::new(
        target(&ca, "vault.example", &unlisted),
        "gw-1",
        Protocol::Auto,
    )
    .unwrap();
    let mut watch = client.watch("a").unwrap();
    until("the problem", || client.problem().is_some()).await;
    client
        .set_target(target(&ca, "vault.example", &good))
        .unwrap();
    becomes(&mut watch, "a@1").await;
    let unusable = Identity {
        certificate: String::new(),
        ..good
    };
    let refused = client.set_target(target(&ca, "vault.example", &unusable));
    assert!(matches!(refused, Err(SecretFault::Target(_))));
    source.set(SECRET, "a", "2");
    becomes(&mut watch, "a@2").await;
}

#[tokio::test]
async fn no_secret_is_in_what_is_printed() {
    let served = serve();
    served.source.put(SECRET, "a", "1");
    let client = client(&served);
    let secret = client.get("a", LONG).await.unwrap();
    let watch = client.watch("a").unwrap();
    let printed = format!(
        "{secret:?} {:?} {watch:?} {client:?} {:?}",
        secret.value,
        Body::generic_secret("a", b"a@1")
    );
    assert!(!printed.contains("a@1"), "{printed}");
    assert!(printed.contains("generic"));
}
