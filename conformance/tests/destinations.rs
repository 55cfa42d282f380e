//! Which hosts, ports and spellings of them are let out, on every way in.

use std::time::Duration;

use outgate_conformance::{
    Guest, K1, Outcome, Req, Way, World, add_destination, destination, raw, within,
};
use outgate_testkit::Gateway;
use serde_json::json;
use tokio::net::TcpListener;

outgate_conformance::scenarios! {
    an_empty_policy_lets_nothing_out: [P1];
    an_unlisted_host_is_refused_and_neither_resolved_nor_dialled: [P1];
    a_rule_for_a_name_covers_none_of_its_subdomains: [P6];
    a_wildcard_covers_exactly_one_label: [P6];
    the_wildcard_itself_is_no_host: [P6], Envoy: Differs(
        "Envoy's codec refuses such a target as malformed_request, before anybody is asked",
        "malformed_request"
    );
    the_wildcard_itself_goes_nowhere: [P6];
    another_port_than_the_rules_is_refused: [P6];
    every_spelling_of_an_allowed_name_is_the_same_name: [P6];
    names_with_a_second_reading_are_refused: [P6];
    a_name_with_user_information_is_refused: [P6], Envoy: Differs(
        "Envoy takes user information out of a target before anybody is asked; what is judged and sent is the host \
         behind it",
        "user@a.test"
    );
    user_information_before_a_name_changes_nothing_of_what_is_judged_and_sent: [P5 P6];
    no_spelling_of_an_address_is_a_destination: [P4 P6];
    the_gateway_never_dials_its_own_listener: [P4 C1];
    plain_http_is_refused_where_the_rule_serves_only_tls: [P6 S3];
    plain_http_inside_a_tunnel_is_judged_like_any_other_request: [S3];
    deny_all_switches_one_destination_off: [P1 P2];
    one_gateway_serves_bump_and_pass_through_at_once: [P2];
    an_opaque_destination_carries_any_bytes_for_a_session_until_it_ends: [P2 C3];
}

async fn an_empty_policy_lets_nothing_out() {
    let world = World::configured(|config, _| {
        config["destinations"] = json!([]);
        config["credentials"] = json!({});
    })
    .await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = guest
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
    }
    assert_eq!(world.dns.queries(), []);
    assert_eq!(world.tls.connections() + world.plain.connections(), 0);
}

async fn an_unlisted_host_is_refused_and_neither_resolved_nor_dialled() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guests = [world.guest(), world.guest().with_proxy_token(&token)];
    for way in Way::ALL {
        for guest in &guests {
            for host in ["x.test", "c2VjcmV0.x.test", "test", "a.test.x.test"] {
                let mark = world.mark();
                let outcome = guest
                    .send(way, &world.get(way, host, "/").bearer(&token))
                    .await;
                let context = format!("{way:?} {host}");
                world.assert_denied(mark, &outcome, "destination_not_allowed", &context);
            }
        }
    }
    assert!(
        !world.dns.was_asked_for("x.test"),
        "{:?}",
        world.dns.queries()
    );
    assert_eq!(world.tls.connections() + world.plain.connections(), 0);
}

async fn a_rule_for_a_name_covers_none_of_its_subdomains() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let req = world.get(way, "sub.a.test", "/").bearer(&token);
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
    }
}

async fn a_wildcard_covers_exactly_one_label() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = world.get(way, "one.wild.test", "/").bearer(&token);
        let answer = world.guest().send(way, &req).await.answered();
        assert_eq!(answer.status, 200, "{way:?}: {}", answer.text());
        for (host, code) in [
            ("wild.test", "destination_not_allowed"),
            ("two.one.wild.test", "destination_not_allowed"),
            ("xwild.test", "destination_not_allowed"),
            (".wild.test", "host_invalid"),
        ] {
            let mark = world.mark();
            let context = format!("{way:?} {host}");
            if way == Way::AbsoluteForm {
                let target = format!("{host}:{}", world.plain.port());
                let outcome = absolute(&world, &target, &token).await;
                world.assert_denied(mark, &outcome, code, &context);
            } else {
                let refused = world
                    .guest()
                    .connect(&format!("{host}:{}", world.tls.port()))
                    .await;
                let outcome = refused.expect_err(&context);
                world.assert_denied(mark, &outcome, code, &context);
            }
        }
    }
}

/// What comes of naming the wildcard itself.
async fn asked_for_the_wildcard(world: &World, way: Way, token: &str) -> Outcome {
    if way == Way::AbsoluteForm {
        let target = format!("*.wild.test:{}", world.plain.port());
        return absolute(world, &target, token).await;
    }
    let target = format!("*.wild.test:{}", world.tls.port());
    let refused = world.guest().connect(&target).await;
    refused.expect_err("it is no host")
}

async fn the_wildcard_itself_is_no_host() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = asked_for_the_wildcard(&world, way, &token).await;
        world.assert_denied(mark, &outcome, "host_invalid", &format!("{way:?}"));
    }
}

async fn the_wildcard_itself_goes_nowhere() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = asked_for_the_wildcard(&world, way, &token).await;
        let context = format!("{way:?}: {outcome:?}");
        let reason = outcome.reason().unwrap_or("").to_owned();
        assert!(
            ["host_invalid", "malformed_request"].contains(&reason.as_str()),
            "{context}"
        );
        world.assert_audited(mark, &reason, &context);
        world.assert_nothing_sent(mark, &context);
    }
    assert_eq!(world.dns.queries(), []);
}

/// An absolute-form request for an authority as it stands, well-formed or not.
async fn absolute(world: &World, authority: &str, token: &str) -> Outcome {
    let bytes = format!(
        "GET http://{authority}/ HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    let answer = raw::exchange(
        world.plane().proxy(),
        bytes.as_bytes(),
        Duration::from_secs(5),
    )
    .await;
    Outcome::Answered(answer.unwrap_or_else(|| panic!("no answer for {authority}")))
}

#[test]
fn a_wildcard_over_a_public_suffix_is_refused_at_load() {
    for host in [
        "*.com",
        "*.co.uk",
        "*.github.io",
        "*",
        "*.*.example.org",
        "a*.example.org",
    ] {
        let config = json!({ "version": 1, "destinations": [{ "host": host }] });
        let output = Gateway::check(&config);
        assert_eq!(output.code, Some(1), "{host}: {output:?}");
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(text.contains("destinations[0]"), "{host}: {text}");
    }
}

async fn another_port_than_the_rules_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for port in [22, 25, 443, 8443] {
        for host in ["a.test", "pass.test"] {
            let mark = world.mark();
            let refused = guest.connect(&format!("{host}:{port}")).await;
            let outcome = refused.expect_err("a refusal");
            world.assert_denied(
                mark,
                &outcome,
                "port_not_allowed",
                &format!("{host}:{port}"),
            );
        }
        let mark = world.mark();
        let req = Req::get("a.test", port, "/").bearer(&token);
        let outcome = guest.send(Way::AbsoluteForm, &req).await;
        world.assert_denied(mark, &outcome, "port_not_allowed", &format!("http, {port}"));
    }
    assert_eq!(world.tls.connections() + world.plain.connections(), 0);
}

async fn every_spelling_of_an_allowed_name_is_the_same_name() {
    let world = World::new().await;
    let (_, token) = world.session();
    for spelling in ["a.test", "A.TEST", "a.Test", "a.test."] {
        for way in Way::ALL {
            let req = Req {
                sni: Some("a.test".into()),
                ..world.get(way, spelling, "/")
            };
            let answer = world
                .guest()
                .send(way, &req.bearer(&token))
                .await
                .answered();
            assert_eq!(answer.status, 200, "{way:?} {spelling}: {}", answer.text());
            let authority = world.origin(way).last().authority;
            assert_eq!(
                authority,
                format!("a.test:{}", world.port(way)),
                "{way:?} {spelling}: the canonical name is sent"
            );
        }
    }
}

async fn names_with_a_second_reading_are_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    for host in [
        "a。test",
        "ａ.test",
        "а.test",
        "%61.test",
        "a%2etest",
        "a.test%00",
        "a..test",
        "a.test..",
        "xn--a.test",
        "a_\u{0}.test",
    ] {
        assert_no_host(&world, host, &token).await;
    }
    assert_eq!(world.dns.queries(), []);
}

async fn assert_no_host(world: &World, host: &str, token: &str) {
    let mark = world.mark();
    let port = world.tls.port();
    let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n");
    let limit = Duration::from_secs(5);
    let proxy = world.plane().proxy();
    let answer = raw::exchange(proxy, head.as_bytes(), limit).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer for CONNECT {host:?}"));
    assert!((400..500).contains(&answer.status), "{host:?}: {answer:?}");
    world.assert_audited(
        mark,
        answer
            .reason()
            .unwrap_or_else(|| panic!("no reason: {host:?}")),
        host,
    );
    let port = world.plain.port();
    let answer = absolute(world, &format!("{host}:{port}"), token)
        .await
        .answered();
    assert!((400..500).contains(&answer.status), "{host:?}: {answer:?}");
    assert!(answer.reason().is_some(), "{host:?}: {answer:?}");
    world.assert_nothing_sent(mark, host);
}

async fn a_name_with_user_information_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    assert_no_host(&world, "user@a.test", &token).await;
}

async fn user_information_before_a_name_changes_nothing_of_what_is_judged_and_sent() {
    let world = World::new().await;
    let (_, token) = world.session();
    for (user, host) in [
        ("user", "a.test"),
        ("x.test", "a.test"),
        ("user:word", "n.test"),
        ("a.test", "n.test"),
        ("a.test", "x.test"),
    ] {
        let before = world.seen();
        let port = world.plain.port();
        let target = format!("{user}@{host}:{port}");
        let outcome = absolute(&world, &target, &token).await;
        let context = format!("{target}: {outcome:?}");
        if outcome.reason().is_some() {
            assert_eq!(world.seen(), before, "{context}");
            continue;
        }
        assert_eq!(world.seen(), before + 1, "{context}");
        let seen = world.plain.last();
        assert_eq!(seen.authority, format!("{host}:{port}"), "{context}");
        assert!(!seen.mentions(user), "{context}: {seen:?}");
        assert_eq!(seen.mentions(K1), host == "a.test", "{context}: {seen:?}");
    }
    assert!(!world.dns.was_asked_for("x.test"));
}

async fn no_spelling_of_an_address_is_a_destination() {
    let world = World::new().await;
    let (_, token) = world.session();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "0",
        "a.test.127",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "169.254.169.254",
    ] {
        let mark = world.mark();
        let refused = world
            .guest()
            .connect(&format!("{host}:{}", world.tls.port()))
            .await;
        let outcome = refused.expect_err(host);
        world.assert_denied(mark, &outcome, "ip_literal", host);
        let mark = world.mark();
        let outcome = absolute(&world, &format!("{host}:{}", world.plain.port()), &token).await;
        world.assert_denied(mark, &outcome, "ip_literal", host);
    }
    assert_eq!(world.tls.connections() + world.plain.connections(), 0);
}

async fn the_gateway_never_dials_its_own_listener() {
    for listen in ["127.0.0.1", "0.0.0.0"] {
        let free = TcpListener::bind((listen, 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let world = World::configured(move |config, _| {
            config["listen"]["proxy"] = json!(format!("{listen}:{port}"));
            let addresses = if listen == "0.0.0.0" {
                json!(["127.0.0.1", "127.0.0.9", "::ffff:127.0.0.1"])
            } else {
                json!(["127.0.0.1", "::ffff:127.0.0.1"])
            };
            for (host, posture) in [("own-bump.test", "bump"), ("own-pass.test", "pass-through")] {
                config["resolver"]["hosts"][host] = addresses.clone();
                let rule = json!({ "host": host, "ports": [port], "posture": posture });
                add_destination(config, rule);
            }
            config["resolver"]["hosts"]["own-plain.test"] = addresses;
            add_destination(
                config,
                json!({ "host": "own-plain.test", "ports": [port], "plaintext": true, "posture": "bump" }),
            );
        })
        .await;
        let (_, token) = world.session();
        let mut guest = world.guest().with_proxy_token(&token);
        guest.proxy = (std::net::Ipv4Addr::LOCALHOST, port).into();
        for host in ["own-bump.test", "own-pass.test"] {
            let mark = world.mark();
            let req = Req::get(host, port, "/").bearer(&token);
            let outcome = guest.send(Way::TunnelH1, &req).await;
            assert_tunnel_denied(&world, mark, &outcome, "address_denied", host);
        }
        let mark = world.mark();
        let req = Req::get("own-plain.test", port, "/").bearer(&token);
        let outcome = guest.send(Way::AbsoluteForm, &req).await;
        world.assert_denied(mark, &outcome, "address_denied", listen);
    }
}

/// A tunnel may say no at CONNECT, in the tunnel, or (pass-through) by closing it; the record says why.
fn assert_tunnel_denied(
    world: &World,
    mark: outgate_conformance::Mark,
    outcome: &Outcome,
    code: &str,
    context: &str,
) {
    match outcome {
        Outcome::HandshakeFailed(_) | Outcome::Closed(_) => {
            world.assert_audited(mark, code, context);
            world.assert_nothing_sent(mark, context);
        }
        answered => world.assert_denied(mark, answered, code, context),
    }
}

async fn plain_http_is_refused_where_the_rule_serves_only_tls() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mark = world.mark();
    let req = world
        .get(Way::AbsoluteForm, "tlsonly.test", "/")
        .bearer(&token);
    let outcome = guest.send(Way::AbsoluteForm, &req).await;
    world.assert_denied(mark, &outcome, "plaintext_not_allowed", "absolute-form");
    // The same in a tunnel: port 443 that does not speak TLS.
    for host in ["tlsonly.test", "pass.test", "basic.test"] {
        let mark = world.mark();
        let mut tunnel = guest
            .connect(&format!("{host}:{}", world.tls.port()))
            .await
            .expect("a tunnel");
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        let limit = Duration::from_secs(4);
        let (_, closed) = raw::send_and_drain(&mut tunnel, request.as_bytes(), limit).await;
        assert!(closed, "{host}: the tunnel stayed open");
        world.assert_audited(mark, "tls_required", host);
        world.assert_nothing_sent(mark, host);
    }
}

async fn plain_http_inside_a_tunnel_is_judged_like_any_other_request() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest();
    let port = world.plain.port();
    for (host, auth, code) in [
        ("a.test", Some(&token), None),
        ("a.test", None, Some("token_missing")),
        ("b.test", Some(&token), Some("credential_over_plaintext")),
        ("rules.test", Some(&token), Some("path_not_allowed")),
    ] {
        let mark = world.mark();
        let tunnel = guest
            .connect(&format!("{host}:{port}"))
            .await
            .expect("a tunnel");
        let mut channel = outgate_conformance::Channel::h1_in_tunnel(Box::new(tunnel));
        let req = Req::get(host, port, "/");
        let req = auth.map_or(req.clone(), |token| req.bearer(token));
        let outcome = within(5, host, channel.send(&req)).await;
        match code {
            Some(code) => world.assert_denied(mark, &outcome, code, host),
            None => assert_eq!(outcome.answered().status, 200),
        }
    }
}

async fn deny_all_switches_one_destination_off() {
    let world = World::configured(|config, _| {
        let rule = destination(config, "n.test");
        rule["posture"] = json!("deny-all");
        rule.as_object_mut().unwrap().remove("plaintext");
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let req = world.get(way, "n.test", "/").bearer(&token);
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
    }
}

async fn one_gateway_serves_bump_and_pass_through_at_once() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest: Guest = world.guest().with_proxy_token(&token);
    let origin_ca = rustls::RootCertStore {
        roots: outgate_testkit::certs::roots_from_pem([world.ca.pem()]).roots,
    };
    let trusts_upstream = Guest::new(world.plane().proxy(), origin_ca).with_proxy_token(&token);
    let pass = world
        .get(Way::TunnelH2, "pass.test", "/")
        .bearer("its-own-key");
    let answer = trusts_upstream.send(Way::TunnelH2, &pass).await.answered();
    assert_eq!(
        answer.status, 200,
        "pass-through shows the upstream's own certificate"
    );
    assert_eq!(
        world.tls.last().headers.get("authorization"),
        Some("Bearer its-own-key"),
        "pass-through changes nothing"
    );
    let bump = world.get(Way::TunnelH2, "a.test", "/").bearer(&token);
    let outcome = trusts_upstream.send(Way::TunnelH2, &bump).await;
    assert!(
        matches!(outcome, Outcome::HandshakeFailed(_)),
        "bump shows a minted leaf: {outcome:?}"
    );
    assert_eq!(
        guest.send(Way::TunnelH2, &bump).await.answered().status,
        200
    );
}

async fn an_opaque_destination_carries_any_bytes_for_a_session_until_it_ends() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                // It speaks first, as many protocols do.
                stream.write_all(b"banner\n").await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    let world = World::configured(move |config, _| {
        config["resolver"]["hosts"] = json!({ "opaque.test": "127.0.0.1" });
        add_destination(
            config,
            json!({ "host": "opaque.test", "ports": [port], "protocol": "opaque", "posture": "pass-through" }),
        );
    })
    .await;
    let authority = format!("opaque.test:{port}");
    let mark = world.mark();
    let outcome = world
        .guest()
        .connect(&authority)
        .await
        .expect_err("no token");
    world.assert_denied(mark, &outcome, "token_missing", "opaque");
    let (id, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mut tunnel = guest.connect(&authority).await.expect("a tunnel");
    let mut banner = [0; 7];
    within(3, "the banner", tunnel.read_exact(&mut banner))
        .await
        .unwrap();
    tunnel.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    let mut echoed = [0; 11];
    within(3, "the echo", tunnel.read_exact(&mut echoed))
        .await
        .unwrap();
    assert_eq!((&banner, &echoed), (b"banner\n", b"SSH-2.0-x\r\n"));
    let mark = world.mark();
    world.plane().session_end(&id);
    let (_, closed) = raw::drain(&mut tunnel, Duration::from_secs(1)).await;
    assert!(closed, "the tunnel outlived its session");
    world.assert_audited(mark, "session_revoked", "opaque");
}
