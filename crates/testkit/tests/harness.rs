//! The harness against itself: what it says it saw is what was sent, and its bad manners are as bad as promised.

use std::time::Duration;

use outgate_testkit::{
    Alpn, CertificateKind, Channel, Guest, Origin, OriginOptions, Outcome, Req, TestCa, TlsOptions,
    certs::roots_from_pem, codec, h1::H1, message::ReqBody, raw, websocket, within,
};
use tokio::net::TcpStream;

/// A channel straight to the origin, as if it stood at the end of a tunnel.
async fn channel(origin: &Origin, ca: &TestCa, alpn: &str) -> Result<Channel, Outcome> {
    let guest = Guest::new(origin.address(), roots_from_pem([ca.pem()]));
    let stream = TcpStream::connect(origin.address()).await.unwrap();
    let tls = guest
        .handshake(stream, &TlsOptions::new("a.test", alpn))
        .await?;
    if alpn == "h2" {
        Ok(Channel::h2(tls.io).await.unwrap())
    } else {
        Ok(Channel::h1_in_tunnel(tls.io))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_protocols_echo_upload_stream_and_send_trailers() {
    let ca = TestCa::new("a CA");
    let origin = Origin::start(&ca, OriginOptions::tls(&["a.test"])).await;
    for alpn in ["http/1.1", "h2"] {
        let mut channel = channel(&origin, &ca, alpn).await.unwrap();
        let req = Req::get("a.test", 443, "/echo?x=1").header("x-api-key", "key-1");
        let echo = channel.send(&req).await.answered();
        assert_eq!(echo.status, 200, "{alpn}");
        assert!(echo.text().contains("key-1"), "{alpn}: {}", echo.text());
        let seen = origin.last();
        assert_eq!(
            (
                seen.target.as_str(),
                seen.authority.as_str(),
                seen.sni.as_deref()
            ),
            ("/echo?x=1", "a.test:443", Some("a.test")),
        );
        for encoding in codec::ENCODINGS {
            let path = format!("/echo-as?enc={encoding}&chunk=1");
            let answer = channel
                .send(&Req::get("a.test", 443, &path).header("x-api-key", "key-1"))
                .await
                .answered();
            let coding = answer.headers.get("content-encoding");
            let body = codec::decode(coding, &answer.body).await;
            assert!(codec::holds_secret(&body, "key-1"), "{alpn} {encoding}");
        }
        let upload = Req::get("a.test", 443, "/upload")
            .method("POST")
            .body(ReqBody::Zeros(1_000_000));
        assert_eq!(channel.send(&upload).await.answered().text(), "1000000");
        let trailers = channel
            .send(&Req::get("a.test", 443, "/trailers"))
            .await
            .answered();
        assert_eq!(trailers.trailers.get("grpc-status"), Some("0"), "{alpn}");
        assert!(trailers.complete);
        let lie = channel
            .send(&Req::get("a.test", 443, "/lie?cl=100"))
            .await
            .answered();
        assert!(!lie.complete, "{alpn}");
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_has_early_hints_resets_and_websockets() {
    let ca = TestCa::new("a CA");
    let origin = Origin::start(&ca, OriginOptions::plain()).await;
    let head = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a.test\r\n\r\n");
    let limit = Duration::from_secs(2);
    let hints = raw::exchange(origin.address(), head("/early-hints").as_bytes(), limit)
        .await
        .unwrap();
    assert_eq!((hints.informational[0].0, hints.status), (103, 200));
    let reset = raw::exchange(origin.address(), head("/reset").as_bytes(), limit).await;
    assert!(reset.is_none());
    let hang = raw::exchange(
        origin.address(),
        head("/hang").as_bytes(),
        Duration::from_millis(200),
    )
    .await;
    assert!(hang.is_none());

    let stream = TcpStream::connect(origin.address()).await.unwrap();
    let mut ws = H1::new(Box::new(stream));
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nhost: a.test\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\r\n",
        websocket::KEY
    );
    ws.write(upgrade.as_bytes()).await.unwrap();
    let (answer, _) = ws.read_response_head("GET").await.unwrap();
    assert_eq!(answer.status, 101);
    ws.write(&websocket::frame(1, b"hello", true))
        .await
        .unwrap();
    let (opcode, payload) = within(2, "an echo", websocket::read_frame(&mut ws))
        .await
        .unwrap();
    assert_eq!((opcode, payload.as_slice()), (1, &b"hello"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_certificates_are_refused_by_a_strict_client() {
    let ca = TestCa::new("a CA");
    for kind in [
        CertificateKind::SelfSigned,
        CertificateKind::WrongName,
        CertificateKind::Expired,
        CertificateKind::NotYetValid,
        CertificateKind::UnknownCa,
    ] {
        let origin = Origin::start(&ca, OriginOptions::tls(&["a.test"]).certificate(kind)).await;
        let refused = channel(&origin, &ca, "h2").await;
        assert!(
            matches!(refused, Err(Outcome::HandshakeFailed(_))),
            "{kind:?}"
        );
        assert_eq!(origin.count(), 0);
    }
    let origin = Origin::start(&ca, OriginOptions::tls(&["a.test"]).alpn(Alpn::H1)).await;
    assert!(channel(&origin, &ca, "http/1.1").await.is_ok());
    assert!(channel(&origin, &ca, "h2").await.is_err());
}
