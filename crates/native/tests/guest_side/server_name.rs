//! Captured TLS: the server name is the destination, and nothing else is. The dialled address is no evidence (right
//! name, attacker's address), an unlisted name gets no leaf, and inner requests are held to the name.

use std::net::Ipv4Addr;

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::{
    Outcome, TlsOptions,
    hello::{Hello, client_hello},
    raw,
};
use serde_json::json;

use crate::world::{ANYWHERE, ELSEWHERE, K1, SECOND, Setup, Way, World};

/// TLS alerts (RFC 8446 section 6) that end a handshake before anything was said.
pub(crate) const ACCESS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];
pub(crate) const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];

pub(crate) fn named(name: &[u8]) -> Hello<'_> {
    Hello {
        server_name: Some(name),
        ..Hello::default()
    }
}

/// Sends bytes to a dialled address; what came back until the gateway closed.
pub(crate) async fn say(world: &World, address: Ipv4Addr, port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = world.dial(address, port).await;
    let (answer, closed) = raw::send_and_drain(&mut stream, bytes, 2 * SECOND).await;
    assert!(closed, "the gateway kept the connection open: {answer:?}");
    answer
}

#[tokio::test]
async fn the_gateway_dials_what_it_resolved_for_the_name_whatever_address_the_guest_dialled() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        for address in [ANYWHERE, ELSEWHERE] {
            for alpn in ["http/1.1", "h2"] {
                let context = format!("{attribution:?} {address} {alpn}");
                let mark = world.mark();
                let stream = world.dial(address, world.tls.port()).await;
                let options = TlsOptions::new("A.test", alpn);
                let tunnel = world.proxy.handshake(stream, &options).await.unwrap();
                assert_eq!(tunnel.alpn.as_deref(), Some(alpn.as_bytes()), "{context}");
                let mut channel = if alpn == "h2" {
                    outgate_testkit::Channel::h2(tunnel.io).await.unwrap()
                } else {
                    outgate_testkit::Channel::h1_in_tunnel(tunnel.io)
                };
                let req = world.get(Way::TlsH1, "a.test", "/").bearer(&world.token());
                let response = channel.send(&req).await.answered();
                assert_eq!(response.status, 200, "{context}");
                let seen = world.tls.last();
                assert_eq!(seen.headers.get("x-api-key"), Some(K1), "{context}");
                assert_eq!(seen.sni.as_deref(), Some("a.test"), "{context}");
                drop(channel);
                let record = world
                    .record(mark, &context, |it| it.entry == Entry::Bumped)
                    .await;
                assert_eq!(record.upstream, Some(world.tls.address()), "{context}");
                let record = world
                    .record(mark, &context, |it| it.entry == Entry::Transparent)
                    .await;
                assert_eq!(record.verdict, Verdict::Allowed, "{context}");
                assert_eq!(record.host.as_deref(), Some("a.test"), "{context}");
                assert_eq!(record.port, Some(world.tls.port()), "{context}");
                let known = record.session.as_ref() == Some(world.session.id());
                assert_eq!(known, attribution == Attribution::BySocket, "{context}");
            }
        }
        world.assert_no_upstream_saw(&world.token());
        world.finish().await;
    }
}

#[tokio::test]
async fn a_passed_through_name_is_carried_to_its_resolved_address_with_its_own_certificate() {
    let world = World::new(Attribution::BySocket).await;
    for address in [ANYWHERE, ELSEWHERE] {
        let mark = world.mark();
        let stream = world.dial(address, world.tls.port()).await;
        let options = TlsOptions::new("pass.test", "http/1.1");
        let tunnel = world.proxy.handshake(stream, &options).await.unwrap();
        let mut channel = outgate_testkit::Channel::h1_in_tunnel(tunnel.io);
        let req = world
            .get(Way::TlsH1, "pass.test", "/")
            .header("x-api-key", "mine");
        assert_eq!(channel.send(&req).await.answered().status, 200);
        assert_eq!(world.tls.last().headers.get("x-api-key"), Some("mine"));
        drop(channel);
        let record = world
            .record(mark, "pass-through", |it| it.entry == Entry::Transparent)
            .await;
        assert_eq!(record.posture, Some("pass-through"));
        assert_eq!(record.upstream, Some(world.tls.address()));
        assert_eq!(record.session.as_ref(), Some(world.session.id()));
    }
    world.finish().await;
}

#[tokio::test]
async fn a_hello_that_names_no_allowed_host_gets_an_alert_and_no_leaf_lookup_or_dial() {
    use DenyCode::{
        DestinationNotAllowed, HostInvalid, IpLiteral, ServerNameMissing, TlsHandshakeFailed,
    };
    let ech = |name| Hello {
        encrypted_client_hello: true,
        ..named(name)
    };
    let two = Hello {
        second_server_name: Some(b"a.test"),
        ..named(b"x.test")
    };
    let long = "a".repeat(64) + ".test";
    let cases: &[(Hello<'_>, DenyCode, Option<&str>, &[u8])] = &[
        (
            named(b"x.test"),
            DestinationNotAllowed,
            Some("x.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"X.TEST"),
            DestinationNotAllowed,
            Some("x.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"sub.a.test"),
            DestinationNotAllowed,
            Some("sub.a.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"wild.test"),
            DestinationNotAllowed,
            Some("wild.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"xwild.test"),
            DestinationNotAllowed,
            Some("xwild.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"two.one.wild.test"),
            DestinationNotAllowed,
            Some("two.one.wild.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"closed.test"),
            DestinationNotAllowed,
            Some("closed.test"),
            ACCESS_DENIED,
        ),
        (
            named(b"a.test.x.test"),
            DestinationNotAllowed,
            Some("a.test.x.test"),
            ACCESS_DENIED,
        ),
        (
            ech(b"x.test"),
            DestinationNotAllowed,
            Some("x.test"),
            ACCESS_DENIED,
        ),
        (Hello::default(), ServerNameMissing, None, UNRECOGNIZED_NAME),
        (named(b"127.0.0.1"), IpLiteral, None, UNRECOGNIZED_NAME),
        (named(b"0x7f.1"), IpLiteral, None, UNRECOGNIZED_NAME),
        (named(b"2130706433"), IpLiteral, None, UNRECOGNIZED_NAME),
        (named(b"::1"), IpLiteral, None, UNRECOGNIZED_NAME),
        (named(b"a.test\0.x.test"), HostInvalid, None, ACCESS_DENIED),
        (named(b".a.test"), HostInvalid, None, ACCESS_DENIED),
        (named(b"a.test:443"), IpLiteral, None, UNRECOGNIZED_NAME),
        (named(long.as_bytes()), HostInvalid, None, ACCESS_DENIED),
        (
            named("\u{ff41}.test".as_bytes()),
            TlsHandshakeFailed,
            None,
            ACCESS_DENIED,
        ),
        (named(b""), TlsHandshakeFailed, None, ACCESS_DENIED),
        (two, TlsHandshakeFailed, None, ACCESS_DENIED),
    ];
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        for (hello, code, host, alert) in cases {
            let context = format!("{attribution:?} {hello:?}");
            let mark = world.mark();
            let answer = say(&world, ANYWHERE, world.tls.port(), &client_hello(hello)).await;
            assert_eq!(&answer, alert, "{context}");
            let record = world
                .refusal(mark, Entry::Transparent, *code, &context)
                .await;
            assert_eq!(
                record.host.as_deref(),
                Some(host.unwrap_or("127.0.0.2")),
                "{context}"
            );
            assert_eq!(record.port, Some(world.tls.port()), "{context}");
            assert_eq!(
                world.records_since(mark).len(),
                1,
                "{context}: another record"
            );
            let known = record.session.as_ref() == Some(world.session.id());
            assert_eq!(known, attribution == Attribution::BySocket, "{context}");
            world.assert_nothing_looked_up(mark, &context);
            world.assert_nothing_dialled(mark, &context);
        }
        world.finish().await;
    }
}

#[tokio::test]
async fn an_encrypted_hello_is_not_carried_but_may_be_terminated() {
    let world = World::new(Attribution::BySocket).await;
    let ech = |name| {
        client_hello(&Hello {
            encrypted_client_hello: true,
            ..named(name)
        })
    };
    let mark = world.mark();
    let answer = say(&world, ANYWHERE, world.tls.port(), &ech(b"pass.test")).await;
    assert_eq!(answer, ACCESS_DENIED);
    world
        .refusal(
            mark,
            Entry::Transparent,
            DenyCode::EncryptedClientHello,
            "pass.test",
        )
        .await;
    world.assert_nothing_dialled(mark, "pass.test");

    // The outer name is the one that is served.
    let mut stream = world.dial(ANYWHERE, world.tls.port()).await;
    let (answer, _) = raw::send_and_drain(&mut stream, &ech(b"n.test"), SECOND / 4).await;
    assert_eq!(answer.first(), Some(&22), "no ServerHello: {answer:?}");
    drop(stream);
    world.finish().await;
}

#[tokio::test]
async fn a_hello_in_pieces_is_read_as_one() {
    let world = World::new(Attribution::BySocket).await;
    for hello in [
        Hello {
            record_size: 40,
            ..named(b"pass.test")
        },
        Hello {
            padding: 4000,
            ..named(b"pass.test")
        },
        Hello {
            padding: 20_000,
            record_size: 3000,
            ..named(b"PASS.test")
        },
    ] {
        let before = world.tls.connections();
        let mut stream = world.dial(ANYWHERE, world.tls.port()).await;
        // The upstream answers the carried hello: with an alert or its own handshake.
        let (answer, _) = raw::send_and_drain(&mut stream, &client_hello(&hello), SECOND / 4).await;
        assert!(
            matches!(answer.first(), Some(21 | 22)),
            "{hello:?}: {answer:?}"
        );
        assert_eq!(world.tls.connections(), before + 1, "{hello:?}");
    }
    let stream = world.dial(ANYWHERE, world.tls.port()).await;
    let options = TlsOptions {
        dribble: 100,
        ..TlsOptions::new("n.test", "http/1.1")
    };
    assert!(
        world.proxy.handshake(stream, &options).await.is_ok(),
        "100 segments of one byte"
    );
    world.finish().await;
}

#[tokio::test]
async fn an_inner_request_for_another_host_is_refused_and_draws_nothing() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        let port = world.tls.port();
        for way in Way::TLS {
            for (sni, authority) in [
                ("n.test", format!("a.test:{port}")),
                ("a.test", format!("b.test:{port}")),
                ("n.test", format!("x.test:{port}")),
                ("n.test", format!("127.0.0.1:{port}")),
                // The port that an https URL has unless it says so is not the one that was dialled.
                ("n.test", "n.test".to_owned()),
                ("n.test", format!("n.test:{}", world.clear.port())),
            ] {
                let context = format!("{attribution:?} {way:?} {sni} {authority}");
                let mark = world.mark();
                let req = world
                    .get(way, sni, "/")
                    .authority(&authority)
                    .bearer(&world.token());
                let outcome = world.send(way, &req).await;
                let code = match &outcome {
                    Outcome::Answered(response) => response.reason().map(str::to_owned),
                    other => panic!("{context}: {other:?}"),
                };
                // An address as :authority cannot be read as a name at all.
                let code = if code.as_deref() == Some("ip_literal") {
                    DenyCode::IpLiteral
                } else {
                    DenyCode::AuthorityMismatch
                };
                world
                    .assert_denied(mark, &outcome, Entry::Bumped, code, &context)
                    .await;
            }
        }
        world.assert_no_upstream_saw(K1);
        world.finish().await;
    }
}

#[tokio::test]
async fn every_request_of_a_captured_tls_connection_is_judged() {
    let world = World::new(Attribution::BySocket).await;
    for way in Way::TLS {
        let first = world.get(way, "rules.test", "/v1/x");
        let mut channel = world.open(way, &first).await.unwrap();
        assert_eq!(channel.send(&first).await.answered().status, 200, "{way:?}");
        for (path, code) in [
            ("/v2/x", DenyCode::PathNotAllowed),
            ("/v1/%2e%2e/v2", DenyCode::PathAmbiguous),
            ("/v1//x", DenyCode::PathAmbiguous),
        ] {
            let mark = world.mark();
            let outcome = channel.send(&world.get(way, "rules.test", path)).await;
            world
                .assert_denied(mark, &outcome, Entry::Bumped, code, path)
                .await;
        }
        let mark = world.mark();
        let outcome = channel.send(&first.clone().method("DELETE")).await;
        world
            .assert_denied(
                mark,
                &outcome,
                Entry::Bumped,
                DenyCode::MethodNotAllowed,
                "DELETE",
            )
            .await;
        assert_eq!(channel.send(&first).await.answered().status, 200, "{way:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn a_passed_through_name_that_is_served_in_clear_too_needs_its_token_on_either() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let setup = Setup::new(attribution).config(|config, ports| {
            let rule = json!({ "host": "x.test", "ports": [ports.tls, ports.clear], "plaintext": true,
                               "posture": "pass-through" });
            config["destinations"].as_array_mut().unwrap().push(rule);
        });
        let world = World::with(setup).await;
        let attributed = attribution == Attribution::BySocket;
        let mark = world.mark();
        let passed = world.handshake(Way::TlsH1, "x.test").await;
        assert_eq!(passed.is_ok(), attributed, "{attribution:?}");
        if !attributed {
            world
                .refusal(mark, Entry::Transparent, DenyCode::TokenMissing, "x.test")
                .await;
            world.assert_nothing_dialled(mark, "x.test");
        }
        let bare = world.get(Way::Clear, "x.test", "/");
        let reason = world
            .send(Way::Clear, &bare)
            .await
            .reason()
            .map(str::to_owned);
        let expected = (!attributed).then_some("token_missing");
        assert_eq!(reason.as_deref(), expected, "{attribution:?}");
        let req = bare.bearer(&world.token());
        assert_eq!(world.send(Way::Clear, &req).await.answered().status, 200);
        drop(passed);
        world.assert_no_upstream_saw(&world.token());
        world.finish().await;
    }
}
