//! Opaque destinations, whose peer may speak first: only there the dialled address counts, and only where the gateway
//! itself resolves exactly one of them to it.
//!
//! Each one resolves to the upstream and to the address that the guest dials; the first of them is the one that
//! answers.

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::{
    hello::{Hello, client_hello},
    raw,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::world::{ANYWHERE, ELSEWHERE, SECOND, Setup, World, captured_port};

/// A world with opaque destinations on one port of their own, their upstream and the port.
async fn world(
    attribution: Attribution,
    hosts: &'static [&'static str],
) -> (World, TcpListener, u16) {
    let (upstream, capturing) = captured_port().await;
    let port = upstream.local_addr().unwrap().port();
    let mut setup = Setup::new(attribution).config(move |config, _| {
        config["resolver"]["allow"] = json!(["127.0.0.0/8"]);
        config["timeouts"]["handshake"] = json!("500ms");
        config["resolver"]["hosts"] = json!({});
        for host in hosts {
            config["resolver"]["hosts"][*host] = json!(["127.0.0.1", "127.0.0.2"]);
            let rule = json!({ "host": host, "ports": [port], "protocol": "opaque" });
            config["destinations"].as_array_mut().unwrap().push(rule);
        }
        let rule = json!({ "host": "beside.test", "ports": [port], "posture": "bump" });
        config["destinations"].as_array_mut().unwrap().push(rule);
    });
    setup.capturing = capturing;
    (World::with(setup).await, upstream, port)
}

#[tokio::test]
async fn a_peer_that_speaks_first_is_reached_by_its_resolved_address() {
    let (world, upstream, port) = world(Attribution::BySocket, &["mail.test"]).await;
    let mark = world.mark();
    let mut guest = world.dial(ANYWHERE, port).await;
    let (mut peer, _) = upstream.accept().await.unwrap();
    peer.write_all(b"220 mail.test\r\n").await.unwrap();
    let mut greeting = [0; 15];
    guest.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 mail.test\r\n");
    guest.write_all(b"\x16\x03not TLS at all").await.unwrap();
    let mut said = [0; 16];
    peer.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"\x16\x03not TLS at all");
    drop((guest, peer));
    let record = world
        .record(mark, "opaque", |it| it.entry == Entry::Transparent)
        .await;
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(
        (record.host.as_deref(), record.port),
        (Some("mail.test"), Some(port))
    );
    assert_eq!(record.session.as_ref(), Some(world.session.id()));
    assert_eq!(record.upstream, upstream.local_addr().ok());
    assert_eq!((record.bytes_out, record.bytes_in), (16, 15));
    world.finish().await;
}

#[tokio::test]
async fn without_attribution_an_opaque_destination_needs_a_token_that_nobody_can_present() {
    let (world, upstream, port) = world(Attribution::ByToken, &["mail.test"]).await;
    let mark = world.mark();
    let mut guest = world.dial(ANYWHERE, port).await;
    let (said, closed) = raw::drain(&mut guest, SECOND).await;
    assert!(closed && said.is_empty());
    let record = world
        .refusal(mark, Entry::Transparent, DenyCode::TokenMissing, "opaque")
        .await;
    assert_eq!(record.host.as_deref(), Some("127.0.0.2"));
    assert_not_dialled(&upstream).await;
    world.finish().await;
}

#[tokio::test]
async fn an_address_of_several_or_of_none_names_nothing() {
    for (hosts, address, what) in [
        (&["one.test", "two.test"][..], ANYWHERE, "two have it"),
        (&["one.test"][..], ELSEWHERE, "none has it"),
    ] {
        let (world, upstream, port) = world(Attribution::BySocket, hosts).await;
        let mark = world.mark();
        let mut guest = world.dial(address, port).await;
        let (said, closed) = raw::drain(&mut guest, 2 * SECOND).await;
        assert!(closed && said.is_empty(), "{what}");
        let record = world
            .refusal(mark, Entry::Transparent, DenyCode::RequestTimeout, what)
            .await;
        assert_eq!(
            record.host.as_deref(),
            Some(address.to_string().as_str()),
            "{what}"
        );
        for bytes in [
            client_hello(&Hello {
                server_name: Some(b"x.test"),
                ..Hello::default()
            }),
            client_hello(&Hello::default()),
            format!("GET / HTTP/1.1\r\nhost: one.test:{port}\r\nconnection: close\r\n\r\n")
                .into_bytes(),
            b"EHLO me\r\n".to_vec(),
        ] {
            let mark = world.mark();
            let mut guest = world.dial(address, port).await;
            let (_, closed) = raw::send_and_drain(&mut guest, &bytes, 6 * SECOND).await;
            assert!(closed, "{what}: {bytes:?}");
            let denied = world.record(mark, what, |_| true).await;
            assert_ne!(denied.verdict, Verdict::Allowed, "{what}: {bytes:?}");
        }
        assert_not_dialled(&upstream).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn an_opaque_destination_that_is_named_in_tls_is_dialled_once() {
    let (world, upstream, port) = world(Attribution::BySocket, &["one.test", "two.test"]).await;
    let hello = client_hello(&Hello {
        server_name: Some(b"one.test"),
        ..Hello::default()
    });
    let mark = world.mark();
    let mut guest = world.dial(ANYWHERE, port).await;
    guest.write_all(&hello).await.unwrap();
    let accepting = tokio::time::timeout(SECOND, upstream.accept());
    let (mut peer, _) = accepting.await.expect("dialled").unwrap();
    let mut said = vec![0; hello.len()];
    let whole = tokio::time::timeout(SECOND, peer.read_exact(&mut said)).await;
    assert!(
        matches!(whole, Ok(Ok(_))),
        "the hello went elsewhere: {whole:?}"
    );
    assert_eq!(said, hello);
    assert_not_dialled(&upstream).await;
    drop((guest, peer));
    let record = world
        .record(mark, "one.test", |it| it.entry == Entry::Transparent)
        .await;
    assert_eq!(record.host.as_deref(), Some("one.test"));
    world.finish().await;
}

#[tokio::test]
async fn an_ended_session_opens_no_opaque_relay() {
    let (world, upstream, port) = world(Attribution::BySocket, &["mail.test"]).await;
    world.end_session().await;
    let mark = world.mark();
    let mut guest = world.dial(ANYWHERE, port).await;
    assert!(raw::drain(&mut guest, SECOND).await.1);
    world
        .refusal(mark, Entry::Transparent, DenyCode::SessionRevoked, "opaque")
        .await;
    assert_not_dialled(&upstream).await;
    world.finish().await;
}

async fn assert_not_dialled(upstream: &TcpListener) {
    let dialled = tokio::time::timeout(SECOND / 5, upstream.accept()).await;
    assert!(dialled.is_err(), "dialled: {dialled:?}");
}
