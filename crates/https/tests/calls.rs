//! Calls to real servers on loopback: what comes back, and every way in which it may not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use outgate_https::{Client, HttpsError, Roots, Settings, SetupError, Url};
use outgate_testkit::{CertificateKind, TestCa};
use support::{Route, Server, route, whole};
use tempfile::TempDir;
use tokio::net::TcpListener;

struct Trust {
    ca: TestCa,
    dir: TempDir,
}

impl Trust {
    fn new() -> Self {
        let (ca, dir) = (TestCa::new("a provider's CA"), TempDir::new().unwrap());
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        Self { ca, dir }
    }

    fn settings(&self) -> Settings {
        Settings {
            roots: Roots::Pem(vec![self.dir.path().join("ca.pem")]),
            ..Settings::default()
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.settings()).unwrap()
    }

    async fn server(&self, route: Route) -> Server {
        Server::start(&self.ca, &["http/1.1"], route).await
    }
}

fn ok() -> Route {
    route(|_| Response::new(whole("ok")))
}

async fn get(client: &Client, url: &str) -> Result<outgate_https::Response, HttpsError> {
    client
        .get(&Url::parse(url).unwrap(), HeaderMap::new())
        .await
}

#[tokio::test]
async fn a_call_carries_its_parts_there_and_back_on_either_version() {
    let trust = Trust::new();
    for (alpn, version) in [("http/1.1", Version::HTTP_11), ("h2", Version::HTTP_2)] {
        let echo = route(move |request| {
            assert_eq!(request.version(), version);
            let mut answer = Response::new(whole(request.body().clone()));
            *answer.status_mut() = StatusCode::IM_A_TEAPOT;
            answer
                .headers_mut()
                .insert("x-back", request.headers()["x-there"].clone());
            let target = request.uri().path_and_query().unwrap().as_str().to_owned();
            answer
                .headers_mut()
                .insert("x-target", target.parse().unwrap());
            answer
        });
        let server = Server::start(&trust.ca, &[alpn], echo).await;
        let mut headers = HeaderMap::new();
        headers.insert("x-there", HeaderValue::from_static("yes"));
        let url = Url::parse(&server.url("/a?b=c")).unwrap();
        let body = Bytes::from_static(b"token=t");
        let answer = trust.client().post(&url, headers, body).await.unwrap();
        assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
        assert_eq!(answer.body, "token=t");
        assert_eq!(answer.headers["x-back"], "yes");
        assert_eq!(answer.headers["x-target"], "/a?b=c");
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let trust = Trust::new();
    let server = trust.server(ok()).await;
    let client = trust.client();
    for _ in 0..20 {
        assert_eq!(get(&client, &server.url("/")).await.unwrap().body, "ok");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_ends_the_call() {
    let trust = Trust::new();
    let names = ["127.0.0.1".to_owned()];
    for kind in [
        CertificateKind::SelfSigned,
        CertificateKind::WrongName,
        CertificateKind::Expired,
        CertificateKind::NotYetValid,
        CertificateKind::UnknownCa,
    ] {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let server = Server::presenting(
            trust.ca.issue(kind, &names),
            &["http/1.1"],
            route(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Response::new(whole("ok"))
            }),
        )
        .await;
        let refused = get(&trust.client(), &server.url("/")).await.unwrap_err();
        assert!(
            matches!(refused, HttpsError::Tls { .. }),
            "{kind:?}: {refused:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 0, "{kind:?}");
    }
}

#[tokio::test]
async fn named_roots_replace_those_of_the_system() {
    let trust = Trust::new();
    let other = Trust::new();
    let server = trust.server(ok()).await;
    let refused = get(&other.client(), &server.url("/")).await.unwrap_err();
    assert!(matches!(refused, HttpsError::Tls { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let trust = Trust::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let server = trust
        .server(route(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut answer = Response::new(whole(""));
            *answer.status_mut() = StatusCode::FOUND;
            answer
                .headers_mut()
                .insert("location", HeaderValue::from_static("/elsewhere"));
            answer
        }))
        .await;
    let answer = get(&trust.client(), &server.url("/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::FOUND);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn plaintext_reaches_loopback_alone_and_only_where_it_is_allowed() {
    let server = Server::plaintext(ok()).await;
    let trust = Trust::new();
    let url = format!("http://{}/", server.address);
    let refused = get(&trust.client(), &url).await.unwrap_err();
    assert!(
        matches!(refused, HttpsError::Plaintext { .. }),
        "{refused:?}"
    );

    let allowing = Client::new(&Settings {
        plaintext_loopback: true,
        ..trust.settings()
    })
    .unwrap();
    assert_eq!(get(&allowing, &url).await.unwrap().body, "ok");
    for far in ["http://192.0.2.1/", "http://collector.example.org/"] {
        let refused = get(&allowing, far).await.unwrap_err();
        assert!(
            matches!(refused, HttpsError::Plaintext { .. }),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_is_read_up_to_the_limit_and_not_a_byte_further() {
    let trust = Trust::new();
    let client = Client::new(&Settings {
        max_response_bytes: 1000,
        ..trust.settings()
    })
    .unwrap();
    for (length, fits) in [
        (0, true),
        (999, true),
        (1000, true),
        (1001, false),
        (1 << 20, false),
    ] {
        let server = trust
            .server(route(move |_| Response::new(whole(vec![b'x'; length]))))
            .await;
        match get(&client, &server.url("/")).await {
            Ok(answer) => assert!(fits && answer.body.len() == length, "{length}"),
            Err(HttpsError::TooLarge { limit: 1000, .. }) => assert!(!fits, "{length}"),
            Err(other) => panic!("{length}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_never_ends_is_given_up_when_it_is_too_long() {
    let trust = Trust::new();
    let client = Client::new(&Settings {
        max_response_bytes: 100_000,
        ..trust.settings()
    })
    .unwrap();
    let server = trust
        .server(route(|_| {
            let chunk = Bytes::from(vec![b'x'; 8192]);
            let chunks = futures_util::stream::repeat_with(move || {
                Ok::<_, Infallible>(Frame::data(chunk.clone()))
            });
            Response::new(StreamBody::new(chunks).boxed_unsync())
        }))
        .await;
    let refused = get(&client, &server.url("/")).await.unwrap_err();
    assert!(
        matches!(refused, HttpsError::TooLarge { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_slow_at_any_step_is_given_up_in_time() {
    let trust = Trust::new();
    let client = Client::new(&Settings {
        total: Duration::from_millis(300),
        ..trust.settings()
    })
    .unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_handshake = format!("https://{}/", silent.local_addr().unwrap());
    let no_answer = trust
        .server(Arc::new(|_| Box::pin(std::future::pending())))
        .await;
    let no_end = trust
        .server(route(|_| {
            let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(
                Bytes::from_static(b"{"),
            ))]);
            let endless = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            Response::new(StreamBody::new(endless).boxed_unsync())
        }))
        .await;
    for url in [no_handshake, no_answer.url("/"), no_end.url("/")] {
        let begin = Instant::now();
        let refused = get(&client, &url).await.unwrap_err();
        assert!(matches!(refused, HttpsError::Timeout { .. }), "{refused:?}");
        assert!(begin.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn nobody_listening_and_nonsense_are_told_apart() {
    let trust = Trust::new();
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("https://{}/", listener.local_addr().unwrap())
    };
    let refused = get(&trust.client(), &gone).await.unwrap_err();
    assert!(matches!(refused, HttpsError::Connect { .. }), "{refused:?}");

    let nonsense = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", nonsense.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = nonsense.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-x\r\n").await;
        }
    });
    let refused = get(&trust.client(), &url).await.unwrap_err();
    assert!(
        matches!(refused, HttpsError::Tls { .. } | HttpsError::Connect { .. }),
        "{refused:?}"
    );
}

#[tokio::test]
async fn no_error_shows_a_query_or_a_header() {
    let trust = Trust::new();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for url in [
        format!("https://{gone}/?key=hunter2"),
        format!("http://{gone}/?key=hunter2"),
    ] {
        let url = Url::parse(&url).unwrap();
        let refused = trust.client().get(&url, headers.clone()).await.unwrap_err();
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("127.0.0.1"), "{shown}");
    }
}

#[test]
fn roots_that_are_missing_empty_or_broken_are_refused() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    for path in [
        dir.path().join("missing.pem"),
        write("empty.pem", ""),
        write("text.pem", "no certificate"),
        write(
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
    ] {
        let settings = Settings {
            roots: Roots::Pem(vec![path.clone()]),
            ..Settings::default()
        };
        let refused = Client::new(&settings).unwrap_err();
        assert!(
            refused.to_string().contains(path.to_str().unwrap()),
            "{refused}"
        );
    }
    let nothing = Settings {
        roots: Roots::Pem(Vec::new()),
        ..Settings::default()
    };
    assert!(matches!(Client::new(&nothing), Err(SetupError::NoRoots)));
}
