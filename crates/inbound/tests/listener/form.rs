//! What is no request with one meaning is refused before anybody looks at its token.

use std::time::{Duration, Instant};

use outgate_journey::{denial::DenyCode, record::Verdict};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::{Options, World, echoed, reason};

#[tokio::test]
async fn ambiguous_requests_are_refused_whoever_sends_them() {
    let world = World::in_clear(json!({})).await;
    let token = format!("Authorization: Bearer {}\r\n", world.token());
    let large = format!("X-Large: {}\r\n", "a".repeat(70_000));
    let many = "X-Many: 1\r\n".repeat(200);
    let rows = [
        (
            "POST / HTTP/1.1\r\nHost: agent.test\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: agent.test\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: agent.test\r\nTransfer-Encoding: gzip, chunked\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "GET / HTTP/1.1\r\nHost: agent.test\r\nHost: agent.test\r\n",
            "",
            400,
            "malformed_request",
        ),
        ("GET / HTTP/1.1\r\n", "", 400, "malformed_request"),
        ("GET / HTTP/1.0\r\n", "", 400, "host_invalid"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", "", 400, "host_invalid"),
        (
            "GET / HTTP/1.1\r\nHost: user@agent.test\r\n",
            "",
            400,
            "host_invalid",
        ),
        (
            "GET / HTTP/1.1\r\nHost : agent.test\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "GET / HTTP/1.1\r\nHost: agent.test\r\nA: 1\r\n b\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "GET http://agent.test/ HTTP/1.1\r\nHost: agent.test\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "GET http://169.254.169.254/ HTTP/1.1\r\nHost: agent.test\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "CONNECT agent.test:443 HTTP/1.1\r\nHost: agent.test:443\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: agent.test\r\n",
            "",
            400,
            "malformed_request",
        ),
        (
            "GET / HTTP/1.1\r\nHost: agent.test\r\n",
            large.as_str(),
            431,
            "header_too_large",
        ),
        (
            "GET / HTTP/1.1\r\nHost: agent.test\r\n",
            many.as_str(),
            431,
            "header_too_large",
        ),
        (
            "GET / HTTP/1.1\r\nHost: agent.test\r\nConnection: upgrade\r\nUpgrade: h2c\r\n",
            "",
            400,
            "upgrade_not_supported",
        ),
        (
            "POST / HTTP/1.1\r\nHost: agent.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
            "",
            400,
            "upgrade_not_supported",
        ),
    ];
    for (head, more, status, code) in rows {
        let response = world.raw(&format!("{head}{token}{more}\r\n")).await;
        assert_eq!(
            (response.status, reason(&response).as_str()),
            (status, code),
            "{head}"
        );
    }
    let response = world.raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(reason(&response), "cleartext_http2");
    assert_eq!(world.service.asked(), 0);
    world.records(rows.len() + 1).await;
}

#[tokio::test]
async fn only_the_hosts_that_the_file_names_are_served() {
    let world = World::in_clear(json!({ "hosts": ["agent.test"] })).await;
    let token = world.token();
    let ask = |host: &str| {
        format!("GET /x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    for good in ["agent.test", "AGENT.test", "agent.test:8443", "agent.test."] {
        assert_eq!(world.raw(&ask(good)).await.status, 200, "{good}");
    }
    for bad in [
        "other.test",
        "127.0.0.1",
        "a.agent.test",
        "agent.test.evil.test",
        "[::1]",
    ] {
        let response = world.raw(&ask(bad)).await;
        assert_eq!(
            (response.status, reason(&response).as_str()),
            (421, "authority_mismatch"),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_head_that_drips_is_ended_and_a_silent_connection_is_closed() {
    let world = World::with(Options {
        is_tls: false,
        timeouts: json!({ "head": "300ms", "idle": "300ms" }),
        ..Options::default()
    })
    .await;
    let response = world
        .raw("GET / HTTP/1.1\r\nHost: agent.test\r\nX-Slow")
        .await;
    assert_eq!(
        (response.status, reason(&response).as_str()),
        (408, "request_timeout")
    );
    let mut silent = TcpStream::connect(world.listener.address()).await.unwrap();
    let began = Instant::now();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
    world.records(1).await;
}

#[tokio::test]
async fn what_is_no_tls_is_recorded_and_a_probe_of_the_port_is_not() {
    let world = World::new().await;
    drop(TcpStream::connect(world.listener.address()).await.unwrap());
    let mut plain = TcpStream::connect(world.listener.address()).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: agent.test\r\n\r\n")
        .await
        .unwrap();
    let mut left = Vec::new();
    let _ = plain.read_to_end(&mut left).await;
    let record = &world.records(1).await[0];
    assert_eq!(
        record.verdict,
        Verdict::Denied(DenyCode::TlsHandshakeFailed)
    );
    assert_eq!(record.rule.as_deref(), Some("inbound[0]"));
}

#[tokio::test]
async fn there_are_no_more_connections_than_the_file_says_and_a_websocket_is_one() {
    let world = World::in_clear(json!({ "max_connections": 1 })).await;
    let token = world.token();
    let mut socket = world.h1().await;
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: agent.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    socket.write(upgrade.as_bytes()).await.unwrap();
    let (answer, _) = socket.read_response_head("GET").await.unwrap();
    assert_eq!(answer.status, 101);
    let mut second = TcpStream::connect(world.listener.address()).await.unwrap();
    let mut left = Vec::new();
    let _ = second.read_to_end(&mut left).await;
    assert_eq!(left, b"");
    let record = &world.records(1).await[0];
    assert_eq!(
        record.verdict,
        Verdict::Denied(DenyCode::TooManyConnections)
    );
    drop(socket);
    world.records(2).await;
    let line = format!("Authorization: Bearer {token}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    echoed(&world.get("/x", &[&line]).await);
}
