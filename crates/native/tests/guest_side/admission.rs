//! Captured TLS whose name is allowed, and which is not carried all the same: for its port, its address, its session's
//! limits or the gateway's.

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::{
    Req,
    hello::{Hello, client_hello},
    raw,
};
use serde_json::json;

use crate::{
    server_name::{ACCESS_DENIED, UNRECOGNIZED_NAME, named, say},
    world::{ANYWHERE, SECOND, Setup, Way, World},
};

#[tokio::test]
async fn a_covered_name_on_another_port_is_refused() {
    let world = World::new(Attribution::BySocket).await;
    let mark = world.mark();
    let answer = say(
        &world,
        ANYWHERE,
        world.clear.port(),
        &client_hello(&named(b"pass.test")),
    )
    .await;
    assert_eq!(answer, ACCESS_DENIED);
    world
        .refusal(
            mark,
            Entry::Transparent,
            DenyCode::PortNotAllowed,
            "pass.test",
        )
        .await;
    world.assert_nothing_looked_up(mark, "pass.test");
    world.finish().await;
}

#[tokio::test]
async fn a_name_that_resolves_to_a_denied_address_or_the_gateway_itself_is_not_dialled() {
    let mut setup = Setup::new(Attribution::BySocket).config(|config, ports| {
        config["resolver"]["hosts"] = json!({
            "private.test": "10.0.0.1", "self.test": "127.0.0.2", "mapped.test": "::ffff:127.0.0.9",
        });
        config["resolver"]["allow"] = json!(["127.0.0.1/32", "127.0.0.2/32"]);
        for host in ["private.test", "self.test", "mapped.test"] {
            let rule = json!({ "host": host, "ports": [ports.tls], "posture": "pass-through" });
            config["destinations"].as_array_mut().unwrap().push(rule);
        }
    });
    setup.knows_its_sockets = true;
    let world = World::with(setup).await;
    for host in ["private.test", "self.test", "mapped.test"] {
        let mark = world.mark();
        let answer = say(
            &world,
            ANYWHERE,
            world.tls.port(),
            &client_hello(&named(host.as_bytes())),
        )
        .await;
        assert_eq!(answer, ACCESS_DENIED, "{host}");
        let record = world
            .refusal(mark, Entry::Transparent, DenyCode::AddressDenied, host)
            .await;
        assert_eq!(record.host.as_deref(), Some(host));
        // A dialled gateway would have had a record of its own.
        assert_eq!(world.records_since(mark).len(), 1, "{host}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_dead_resolver_closes() {
    let world = World::new(Attribution::BySocket).await;
    world
        .dns
        .set("pass.test", outgate_testkit::DnsAnswer::Broken);
    let mark = world.mark();
    let answer = say(
        &world,
        ANYWHERE,
        world.tls.port(),
        &client_hello(&named(b"pass.test")),
    )
    .await;
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 80], "internal_error");
    world
        .refusal(
            mark,
            Entry::Transparent,
            DenyCode::NameNotResolved,
            "pass.test",
        )
        .await;
    world.assert_nothing_dialled(mark, "pass.test");
    world.finish().await;
}

#[tokio::test]
async fn connections_are_counted_for_the_session_that_the_socket_names() {
    let setup = Setup::new(Attribution::BySocket).config(|config, _| {
        config["sessions"] = json!({ "limits": { "concurrent_connections": 1 } });
    });
    let world = World::with(setup).await;
    let first = world.handshake(Way::TlsH1, "n.test").await.unwrap();
    let mark = world.mark();
    let answer = say(
        &world,
        ANYWHERE,
        world.tls.port(),
        &client_hello(&named(b"pass.test")),
    )
    .await;
    assert_eq!(answer, ACCESS_DENIED);
    world
        .refusal(
            mark,
            Entry::Transparent,
            DenyCode::ConnectionLimit,
            "the second",
        )
        .await;
    let req: Req = world.get(Way::Clear, "n.test", "/");
    let outcome = world.send(Way::Clear, &req).await;
    world
        .assert_denied(
            mark,
            &outcome,
            Entry::TransparentPlain,
            DenyCode::ConnectionLimit,
            "in clear",
        )
        .await;
    drop(first);
    world.finish().await;
}

#[tokio::test]
async fn a_v6_address_is_captured_like_any_other() {
    let (upstream, mut capturing) = crate::world::captured_port().await;
    let port = upstream.local_addr().unwrap().port();
    drop(upstream);
    capturing.push(tokio::net::TcpListener::bind(("::1", port)).await.unwrap());
    let mut setup = Setup::new(Attribution::BySocket);
    setup.capturing = capturing;
    let world = World::with(setup).await;
    let mark = world.mark();
    let mut stream = tokio::net::TcpStream::connect(("::1", port)).await.unwrap();
    let hello = client_hello(&Hello::default());
    let (answer, _) = raw::send_and_drain(&mut stream, &hello, 2 * SECOND).await;
    assert_eq!(answer, UNRECOGNIZED_NAME);
    let record = world
        .refusal(mark, Entry::Transparent, DenyCode::ServerNameMissing, "::1")
        .await;
    assert_eq!(record.host.as_deref(), Some("::1"));
    world.finish().await;
}

#[tokio::test]
async fn a_captured_connection_without_room_is_closed_and_recorded() {
    let setup = Setup::new(Attribution::BySocket).config(|config, _| {
        config["listen"]["max_connections"] = json!(1);
    });
    let world = World::with(setup).await;
    let first = world.handshake(Way::TlsH1, "n.test").await.unwrap();
    let mark = world.mark();
    let mut second = world.dial(ANYWHERE, world.tls.port()).await;
    assert!(raw::drain(&mut second, 2 * SECOND).await.1, "kept open");
    world
        .record(mark, "no room", |it| {
            it.verdict == Verdict::Denied(DenyCode::TooManyConnections)
        })
        .await;
    drop(first);
    world.finish().await;
}
