//! What a captured connection says first when it is neither a ClientHello nor a request: garbage, another protocol,
//! too much, too slowly, nothing. Each ends in time, with one record, and nothing is dialled or looked up.

use std::time::{Duration, Instant};

use outgate_journey::{denial::DenyCode, record::Entry};
use outgate_native::gateway::Attribution;
use outgate_testkit::{
    hello::{Hello, client_hello},
    raw,
};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::world::{ANYWHERE, SECOND, Setup, Way, World};

fn hello() -> Vec<u8> {
    client_hello(&Hello {
        server_name: Some(b"n.test"),
        ..Hello::default()
    })
}

/// A world that does not wait for long.
async fn impatient(attribution: Attribution) -> World {
    let setup = Setup::new(attribution).config(|config, _| {
        config["timeouts"]["head"] = json!("250ms");
        config["timeouts"]["handshake"] = json!("250ms");
    });
    World::with(setup).await
}

#[tokio::test]
async fn what_is_no_tls_and_no_request_is_refused_and_recorded_with_the_dialled_address() {
    use DenyCode::{
        CleartextHttp2, HeaderTooLarge, MalformedRequest, RequestTimeout, TlsHandshakeFailed,
    };
    let cut = hello()[..40].to_vec();
    let large = client_hello(&Hello {
        server_name: Some(b"n.test"),
        padding: 60_000,
        ..Hello::default()
    });
    let (tls, clear) = (Entry::Transparent, Entry::TransparentPlain);
    let cases: Vec<(&str, Vec<u8>, Entry, DenyCode)> = vec![
        (
            "nothing (the peer is waited for)",
            Vec::new(),
            tls,
            RequestTimeout,
        ),
        ("half a ClientHello", cut, tls, RequestTimeout),
        (
            "a record that is no ClientHello",
            vec![22, 3, 1, 0, 5, 2, 0, 0, 1, 0],
            tls,
            TlsHandshakeFailed,
        ),
        (
            "an empty record",
            vec![22, 3, 1, 0, 0],
            tls,
            TlsHandshakeFailed,
        ),
        ("a huge ClientHello", large, tls, TlsHandshakeFailed),
        (
            "an SSH client",
            b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
            clear,
            MalformedRequest,
        ),
        ("zeros", vec![0; 300], clear, MalformedRequest),
        (
            "an alert",
            vec![21, 3, 3, 0, 2, 2, 40],
            clear,
            MalformedRequest,
        ),
        (
            "SSLv2",
            vec![0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10],
            clear,
            MalformedRequest,
        ),
        (
            "half a request",
            b"GET / HTTP/1.1\r\nhost: n.t".to_vec(),
            clear,
            RequestTimeout,
        ),
        (
            "HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
            clear,
            CleartextHttp2,
        ),
        (
            "a megabyte of head",
            [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'a'; 1 << 20]].concat(),
            clear,
            HeaderTooLarge,
        ),
    ];
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = impatient(attribution).await;
        for port in [world.tls.port(), world.clear.port()] {
            for (what, bytes, entry, code) in &cases {
                let context = format!("{attribution:?} {port} {what}");
                let mark = world.mark();
                let mut stream = world.dial(ANYWHERE, port).await;
                let (_, closed) = raw::send_and_drain(&mut stream, bytes, 2 * SECOND).await;
                assert!(closed, "{context}: kept open");
                let record = world.refusal(mark, *entry, *code, &context).await;
                assert_eq!(
                    world.records_since(mark).len(),
                    1,
                    "{context}: another record"
                );
                assert_eq!(record.host.as_deref(), Some("127.0.0.2"), "{context}");
                assert_eq!(record.port, Some(port), "{context}");
                if *entry == Entry::Transparent {
                    let known = record.session.as_ref() == Some(world.session.id());
                    assert_eq!(known, attribution == Attribution::BySocket, "{context}");
                }
                world.assert_nothing_dialled(mark, &context);
                world.assert_nothing_looked_up(mark, &context);
            }
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn a_connection_that_closes_before_it_named_a_host_is_recorded() {
    let world = World::new(Attribution::BySocket).await;
    for (what, bytes, code) in [
        ("at once", Vec::new(), DenyCode::ServerNameMissing),
        (
            "inside its hello",
            hello()[..40].to_vec(),
            DenyCode::TlsRequired,
        ),
    ] {
        let mark = world.mark();
        let mut stream = world.dial(ANYWHERE, world.tls.port()).await;
        stream.write_all(&bytes).await.unwrap();
        drop(stream);
        let record = world.refusal(mark, Entry::Transparent, code, what).await;
        assert_eq!(record.host.as_deref(), Some("127.0.0.2"), "{what}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_slow_opening_is_waited_for_as_long_as_the_file_says_and_no_longer() {
    let world = impatient(Attribution::BySocket).await;
    for (what, bytes, entry) in [
        ("a hello", hello(), Entry::Transparent),
        (
            "a head",
            [b"GET / HTTP/1.1\r\n".to_vec(), vec![b'a'; 300]].concat(),
            Entry::TransparentPlain,
        ),
    ] {
        let mark = world.mark();
        let mut stream = world.dial(ANYWHERE, world.tls.port()).await;
        let begin = Instant::now();
        let _ = raw::dribble(&mut stream, &bytes, Duration::from_millis(10)).await;
        let (_, closed) = raw::drain(&mut stream, SECOND).await;
        assert!(closed && begin.elapsed() < 4 * SECOND, "{what}");
        let record = world
            .refusal(mark, entry, DenyCode::RequestTimeout, what)
            .await;
        assert!(
            record.ended_after < SECOND,
            "{what}: {:?}",
            record.ended_after
        );
    }
    world.finish().await;
}

#[tokio::test]
async fn a_megabyte_of_head_inside_captured_tls_is_refused() {
    let world = World::new(Attribution::BySocket).await;
    let req = world
        .get(Way::TlsH1, "n.test", "/")
        .header("x", &"a".repeat(1 << 20));
    let mark = world.mark();
    let outcome = world.send(Way::TlsH1, &req).await;
    world
        .assert_denied(
            mark,
            &outcome,
            Entry::Bumped,
            DenyCode::HeaderTooLarge,
            "h1",
        )
        .await;
    world.finish().await;
}
