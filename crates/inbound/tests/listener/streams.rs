//! Streams: passed on as they come, ended with the token that let them in and with the gateway.

use std::time::{Duration, Instant};

use outgate_journey::{denial::DenyCode, record::Ending};
use outgate_testkit::{
    message::Req,
    websocket::{frame, read_frame},
};
use serde_json::json;

use crate::world::{Options, World};

const SOON: Duration = Duration::from_secs(5);

async fn open(world: &World, path: &str, token: &str, more: &str) -> outgate_testkit::h1::H1 {
    let mut h1 = world.h1().await;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: agent.test\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
    );
    h1.write(head.as_bytes()).await.unwrap();
    h1
}

#[tokio::test]
async fn an_event_arrives_before_the_stream_ends() {
    let world = World::new().await;
    let mut h1 = open(&world, "/sse", &world.token(), "").await;
    let (head, mut framing) = h1.read_response_head("GET").await.unwrap();
    assert_eq!(head.headers.get("content-type"), Some("text/event-stream"));
    for number in 0..3 {
        let event = tokio::time::timeout(SOON, h1.read_body(&mut framing))
            .await
            .unwrap();
        assert_eq!(event.unwrap().unwrap(), format!("data: {number}\n\n"));
        world.service.events.add_permits(1);
    }
    drop(h1);
    world.service.events.add_permits(1);
    assert_eq!(world.records(1).await[0].ending, Ending::Aborted);

    let mut h2 = world.h2().await;
    let ask = Req::get("agent.test", 443, "/sse").bearer(&world.token());
    let mut streaming = h2.start(&ask).await.unwrap();
    let event = tokio::time::timeout(SOON, streaming.next()).await.unwrap();
    assert_eq!(event.unwrap().unwrap(), "data: 0\n\n");
}

#[tokio::test]
async fn a_stream_ends_when_its_token_does() {
    let world = World::new().await;
    let began = Instant::now();
    let mut h1 = open(&world, "/sse", &world.token_for(2), "").await;
    let (_, mut framing) = h1.read_response_head("GET").await.unwrap();
    h1.read_body(&mut framing).await.unwrap().unwrap();
    let end = tokio::time::timeout(SOON, h1.read_body(&mut framing))
        .await
        .unwrap();
    assert!(
        end.is_err(),
        "{end:?}: a stream that was cut has no proper end"
    );
    assert!(began.elapsed() < Duration::from_secs(4));
    let record = &world.records(1).await[0];
    assert_eq!(record.ending, Ending::Cut(DenyCode::BearerExpired));

    let mut socket = open(
        &world,
        "/ws",
        &world.token_for(2),
        "Connection: upgrade\r\nUpgrade: websocket\r\n",
    )
    .await;
    assert_eq!(
        socket.read_response_head("GET").await.unwrap().0.status,
        101
    );
    let end = tokio::time::timeout(SOON, socket.read_any()).await.unwrap();
    assert!(matches!(end, Ok(None) | Err(_)), "{end:?}");
    let record = &world.records(2).await[1];
    assert_eq!(record.ending, Ending::Cut(DenyCode::BearerExpired));

    // A body on its way in ends as well.
    let mut upload = world.h1().await;
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: agent.test\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\nabc",
        world.token_for(2)
    );
    upload.write(head.as_bytes()).await.unwrap();
    let answer = tokio::time::timeout(SOON, upload.read_response("POST"))
        .await
        .unwrap();
    assert_eq!(
        answer.unwrap().headers.get("x-deny-reason"),
        Some("bearer_expired")
    );
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_after_its_token_verified() {
    let world = World::new().await;
    let more = "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n";
    let mut socket = open(&world, "/ws", &world.token(), more).await;
    let (head, _) = socket.read_response_head("GET").await.unwrap();
    assert_eq!(head.status, 101);
    let accept = head.headers.get("sec-websocket-accept");
    assert_eq!(accept, Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for text in ["one", "two"] {
        socket
            .write(&frame(1, text.as_bytes(), true))
            .await
            .unwrap();
        let (opcode, payload) = tokio::time::timeout(SOON, read_frame(&mut socket))
            .await
            .unwrap()
            .unwrap();
        assert_eq!((opcode, payload.as_slice()), (1, text.as_bytes()));
    }
    socket.shutdown().await.unwrap();
    let record = &world.records(1).await[0];
    assert_eq!(
        (record.status, record.ending),
        (Some(101), Ending::Completed)
    );
    assert_eq!((record.bytes_out, record.bytes_in), (18, 18));
    let bad = world
        .get(
            "/ws",
            &[
                "Connection: upgrade",
                "Upgrade: websocket",
                "Authorization: Bearer x",
            ],
        )
        .await;
    assert_eq!(bad.status, 401);
    assert_eq!(world.service.asked(), 1);
}

#[tokio::test]
async fn a_stopping_gateway_lets_streams_finish_and_then_cuts_them() {
    let world = World::with(Options {
        is_tls: false,
        keys: json!({}),
        ..Options::default()
    })
    .await;
    let mut h1 = open(&world, "/sse", &world.token(), "").await;
    let (_, mut framing) = h1.read_response_head("GET").await.unwrap();
    h1.read_body(&mut framing).await.unwrap().unwrap();
    world.core.stopping.cancel();
    world.service.events.add_permits(1);
    let event = tokio::time::timeout(SOON, h1.read_body(&mut framing))
        .await
        .unwrap();
    assert_eq!(event.unwrap().unwrap(), "data: 1\n\n");
    world.core.killing.cancel();
    let end = tokio::time::timeout(SOON, h1.read_body(&mut framing))
        .await
        .unwrap();
    assert!(end.is_err(), "{end:?}");
    let record = &world.records(1).await[0];
    assert_eq!(record.ending, Ending::Cut(DenyCode::ShuttingDown));
    world.core.tasks.close();
    tokio::time::timeout(SOON, world.core.tasks.wait())
        .await
        .unwrap();
}
