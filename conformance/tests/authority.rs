//! The host that is named by CONNECT, SNI, `Host`, `:authority` and an absolute target is one host, on every request.

use std::time::Duration;

use outgate_conformance::{
    Channel, Guest, K1, Outcome, Req, TlsOptions, Way, World, destination,
    hello::{Hello, client_hello},
    raw, record, within,
};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

outgate_conformance::scenarios! {
    a_request_for_one_host_never_says_another_in_its_host_field: [P5 I3];
    an_address_in_the_host_field_is_a_host_of_its_own: [P5 I3];
    an_address_in_the_host_field_goes_nowhere: [P5 I3];
    an_absolute_form_target_and_its_host_field_say_the_same: [P5], Envoy: Differs(
        "of an absolute-form request Envoy drops the `Host` field for the target's host (RFC 9112, 3.2.2), as that is \
         what is judged and sent",
        "says x.test"
    );
    an_absolute_form_target_that_is_served_is_the_host_that_is_sent: [P5 I3];
    a_later_request_on_the_connection_is_held_to_the_same_host: [P5 I3];
    a_connection_to_a_host_without_a_credential_draws_none_by_naming_another: [P5 I3];
    a_server_name_other_than_the_tunnels_host_ends_the_handshake: [P3 P5];
    another_listed_server_name_than_the_tunnels_host_ends_the_handshake: [P3 P5], Envoy: Differs(
        "Envoy asks for a leaf by the server name alone: another listed host has one while a tunnel to it is open, and \
         each request is then refused as server_name_mismatch",
        "Answered"
    );
    another_listed_server_name_than_the_tunnels_host_is_served_nothing: [P3 P5];
    a_tunnel_without_a_server_name_is_refused: [P3 P5];
    hand_built_hellos_get_the_verdict_of_their_only_reading: [P3 P5];
    an_encrypted_hello_passes_only_where_the_rule_says_so: [P3 P5], Envoy: Differs(
        "Envoy's TLS inspector does not tell whether a hello is encrypted; what is passed through is held to the outer \
         name and to the vetted address",
        "the tunnel stayed open"
    );
    a_hello_in_single_bytes_is_read_all_the_same: [P5];
    targets_and_hosts_with_two_readings_are_refused: [P5 P6];
    an_inner_target_of_another_scheme_is_refused: [P5];
    a_connect_inside_a_tunnel_is_refused: [P5], Envoy: Differs(
        "Envoy refuses it by itself, before anybody is asked, and cannot tell it from a fault",
        "internal_fault"
    );
    an_absolute_form_target_with_user_information_or_two_hosts_is_refused: [P5 P6], Envoy: Differs(
        "Envoy takes user information out of a target, and drops every `Host` beside it, before anybody is asked; what \
         is judged and sent is the target's host (destinations: user_information_before_a_name…)",
        "Response { status: 200"
    );
    a_request_to_the_proxy_itself_is_refused: [P5], Envoy: Differs(
        "Envoy does not tell whether a target was in absolute form: a request that names its host only in `Host` is \
         judged and sent as one for that host",
        "Response { status: 200"
    );
    a_request_to_the_proxy_itself_is_at_most_one_for_the_host_it_names: [P5 I3];
    bytes_sent_along_with_the_connect_are_the_tunnels_first: [P5];
    on_http2_host_and_authority_agree_or_the_request_is_refused: [P5], Envoy: Differs(
        "on HTTP/2 Envoy drops a `host` field beside `:authority`, which is what is judged and sent",
        "host beside :authority"
    );
    on_http2_a_host_beside_the_authority_is_never_sent: [P5 I3];
    each_absolute_form_request_of_one_connection_is_judged_for_its_own_host: [P5 I3];
}

async fn a_request_for_one_host_never_says_another_in_its_host_field() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        let named = two_hosts(world.port(way)).into_iter();
        for (host, said) in named.filter(|(_, said)| said != ADDRESS) {
            assert_one_host(&world, way, host, &said, &token).await;
        }
    }
    world.assert_no_upstream_saw(K1);
}

async fn an_address_in_the_host_field_is_a_host_of_its_own() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        assert_one_host(&world, way, "a.test", ADDRESS, &token).await;
    }
}

async fn an_address_in_the_host_field_goes_nowhere() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        let mark = world.mark();
        let req = world.get(way, "a.test", "/").bearer(&token);
        let outcome = world.guest().send(way, &req.authority(ADDRESS)).await;
        let context = format!("{way:?}: {outcome:?}");
        let reason = outcome.reason().unwrap_or("").to_owned();
        assert!(
            ["authority_mismatch", "ip_literal"].contains(&reason.as_str()),
            "{context}"
        );
        world.assert_denied(mark, &outcome, &reason, &context);
    }
}

async fn an_absolute_form_target_and_its_host_field_say_the_same() {
    let world = World::new().await;
    let (_, token) = world.session();
    let way = Way::AbsoluteForm;
    for (host, said) in two_hosts(world.port(way)) {
        assert_one_host(&world, way, host, &said, &token).await;
    }
    world.assert_no_upstream_saw(K1);
}

/// What is refused on one plane and served on another is in no case sent as two hosts.
async fn an_absolute_form_target_that_is_served_is_the_host_that_is_sent() {
    let world = World::new().await;
    let (_, token) = world.session();
    let way = Way::AbsoluteForm;
    for (host, said) in two_hosts(world.port(way)) {
        let before = world.seen();
        let req = world
            .get(way, host, "/echo")
            .bearer(&token)
            .authority(&said);
        let outcome = world.guest().send(way, &req).await;
        let context = format!("{host} says {said}: {outcome:?}");
        if outcome.reason().is_some() {
            assert_eq!(world.seen(), before, "{context}");
            continue;
        }
        let seen = world.plain.last();
        assert_eq!(
            seen.authority,
            format!("{host}:{}", world.port(way)),
            "{context}"
        );
        assert!(!seen.mentions("x.test"), "{context}: {seen:?}");
        assert_eq!(seen.mentions(K1), host == "a.test", "{context}: {seen:?}");
    }
}

/// What is no name of any host.
const ADDRESS: &str = "127.0.0.1";

/// A host, and what else a request for it may say.
fn two_hosts(port: u16) -> [(&'static str, String); 6] {
    [
        ("a.test", format!("x.test:{port}")),
        ("a.test", format!("n.test:{port}")),
        ("n.test", format!("a.test:{port}")),
        ("a.test", "a.test:1".to_owned()),
        ("a.test", ADDRESS.to_owned()),
        ("a.test", format!("a.test.x.test:{port}")),
    ]
}

async fn assert_one_host(world: &World, way: Way, host: &str, said: &str, token: &str) {
    let mark = world.mark();
    let req = world.get(way, host, "/").bearer(token).authority(said);
    let outcome = world.guest().send(way, &req).await;
    let context = format!("{way:?} {host} says {said}");
    // HTTP/2 carries `:authority` in the target, and an unreadable one has its own code.
    let literal = said == ADDRESS && way == Way::TunnelH2;
    let code = if literal {
        "ip_literal"
    } else {
        "authority_mismatch"
    };
    world.assert_denied(mark, &outcome, code, &context);
}

async fn a_later_request_on_the_connection_is_held_to_the_same_host() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        let good = world.get(way, "n.test", "/first").bearer(&token);
        let mut channel = world.guest().open(way, &good).await.expect("a tunnel");
        assert_eq!(channel.send(&good).await.answered().status, 200);
        let mark = world.mark();
        let spoofed = good
            .clone()
            .authority(&format!("a.test:{}", world.tls.port()));
        let outcome = channel.send(&spoofed).await;
        world.assert_denied(mark, &outcome, "authority_mismatch", &format!("{way:?}"));
    }
    world.assert_no_upstream_saw(K1);
}

async fn a_connection_to_a_host_without_a_credential_draws_none_by_naming_another() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = world
            .get(way, "n.test", "/echo")
            .bearer(&token)
            .header("x-forwarded-host", "a.test")
            .header("x-host", "a.test")
            .header("forwarded", "host=a.test");
        assert_eq!(world.guest().send(way, &req).await.answered().status, 200);
    }
    world.assert_no_upstream_saw(K1);
}

async fn a_server_name_other_than_the_tunnels_host_ends_the_handshake() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::TUNNELS {
        for (host, sni) in [
            ("a.test", "x.test"),
            ("pass.test", "a.test"),
            ("pass.test", "x.test"),
            ("a.test", "sub.a.test"),
        ] {
            assert_no_handshake(&world, &guest, way, host, sni, &token).await;
        }
    }
    assert!(!world.dns.was_asked_for("x.test"));
}

async fn assert_no_handshake(
    world: &World,
    guest: &Guest,
    way: Way,
    host: &str,
    sni: &str,
    token: &str,
) {
    let mark = world.mark();
    let req = world.get(way, host, "/").bearer(token).sni(sni);
    let outcome = guest.send(way, &req).await;
    let context = format!("{way:?} {host} with SNI {sni}");
    assert!(
        matches!(outcome, Outcome::HandshakeFailed(_)),
        "{context}: {outcome:?}"
    );
    world.assert_audited(mark, "server_name_mismatch", &context);
    world.assert_nothing_sent(mark, &context);
}

/// A bumped host, and another listed one that its tunnel may name.
const OTHERS: [(&str, &str); 3] = [
    ("a.test", "b.test"),
    ("n.test", "a.test"),
    ("a.test", "one.wild.test"),
];

async fn a_tunnel_to(world: &World, guest: &Guest, host: &str) -> Channel {
    let req = world.get(Way::TunnelH1, host, "/");
    guest.open(Way::TunnelH1, &req).await.expect("a tunnel")
}

async fn another_listed_server_name_than_the_tunnels_host_ends_the_handshake() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::TUNNELS {
        for (host, sni) in OTHERS {
            let _open = a_tunnel_to(&world, &guest, sni).await;
            assert_no_handshake(&world, &guest, way, host, sni, &token).await;
        }
    }
}

async fn another_listed_server_name_than_the_tunnels_host_is_served_nothing() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::TUNNELS {
        for (host, sni) in OTHERS {
            // Whichever of the two the requests are for, and whether or not the other one's tunnel is open.
            for (said, open) in [(host, false), (host, true), (sni, false), (sni, true)] {
                let mut other = None;
                if open {
                    other = Some(a_tunnel_to(&world, &guest, sni).await);
                }
                let mark = world.mark();
                let dialled = world.tls.connections();
                let context = format!("{way:?} {host} with SNI {sni} says {said}, open: {open}");
                let authority = format!("{said}:{}", world.port(way));
                let req = world.get(way, host, "/").bearer(&token);
                let req = req.sni(sni).authority(&authority);
                match guest.open(way, &req).await {
                    Err(outcome) => assert!(
                        matches!(outcome, Outcome::HandshakeFailed(_)),
                        "{context}: {outcome:?}"
                    ),
                    Ok(mut channel) => {
                        for _ in 0..2 {
                            let outcome = channel.send(&req).await;
                            let reason = outcome.reason();
                            assert!(
                                [Some("server_name_mismatch"), Some("authority_mismatch")]
                                    .contains(&reason),
                                "{context}: {outcome:?}"
                            );
                            assert_eq!(outcome.response().map(|one| one.status), Some(421));
                        }
                    }
                }
                let named = |one: &Value| {
                    ["server_name_mismatch", "authority_mismatch"]
                        .iter()
                        .any(|code| record::names(one, code))
                };
                world.until_recorded(mark, &context, named);
                world.assert_nothing_sent(mark, &context);
                assert_eq!(world.tls.connections(), dialled, "{context}: dialled");
                drop(other);
            }
        }
    }
}

async fn a_tunnel_without_a_server_name_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for host in ["a.test", "pass.test"] {
        let mark = world.mark();
        let stream = guest
            .connect(&format!("{host}:{}", world.tls.port()))
            .await
            .expect("a tunnel");
        let outcome = guest
            .handshake(stream, &TlsOptions::new("", "http/1.1"))
            .await;
        assert!(outcome.is_err(), "{host}");
        world.assert_audited(mark, "server_name_missing", host);
        world.assert_nothing_sent(mark, host);
    }
}

async fn hand_built_hellos_get_the_verdict_of_their_only_reading() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let named = |name: &'static [u8]| Hello {
        server_name: Some(name),
        ..Hello::default()
    };
    for (host, hello, code) in [
        ("pass.test", named(b"pass.test"), None),
        ("pass.test", named(b"PASS.test"), None),
        (
            "pass.test",
            Hello {
                padding: 4000,
                ..named(b"pass.test")
            },
            None,
        ),
        (
            "pass.test",
            Hello {
                record_size: 40,
                ..named(b"pass.test")
            },
            None,
        ),
        ("pass.test", named(b"a.test"), Some("server_name_mismatch")),
        ("pass.test", Hello::default(), Some("server_name_missing")),
        ("pass.test", named(b"pass.test\0.x.test"), Some("")),
        ("pass.test", named(b"127.0.0.1"), Some("")),
        ("pass.test", named(b""), Some("")),
        (
            "pass.test",
            Hello {
                second_server_name: Some(b"a.test"),
                ..named(b"pass.test")
            },
            Some(""),
        ),
    ] {
        assert_hello(&world, &guest, host, &hello, code).await;
    }
}

async fn an_encrypted_hello_passes_only_where_the_rule_says_so() {
    let world = World::configured(|config, _| {
        destination(config, "n.test")["posture"] = json!("pass-through");
        destination(config, "n.test")
            .as_object_mut()
            .unwrap()
            .remove("plaintext");
        destination(config, "n.test")["encrypted_client_hello"] = json!(true);
    })
    .await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let encrypted = |name: &'static [u8]| Hello {
        server_name: Some(name),
        encrypted_client_hello: true,
        ..Hello::default()
    };
    assert_hello(&world, &guest, "n.test", &encrypted(b"n.test"), None).await;
    let refused = Some("encrypted_client_hello");
    assert_hello(
        &world,
        &guest,
        "pass.test",
        &encrypted(b"pass.test"),
        refused,
    )
    .await;
}

async fn assert_hello(
    world: &World,
    guest: &Guest,
    host: &str,
    hello: &Hello<'_>,
    code: Option<&str>,
) {
    let context = format!("{host}: {hello:?}");
    let mark = world.mark();
    let before = world.tls.connections();
    let mut tunnel = guest
        .connect(&format!("{host}:{}", world.tls.port()))
        .await
        .expect("a tunnel");
    let limit = Duration::from_millis(if code.is_some() { 4000 } else { 700 });
    let (answer, closed) = raw::send_and_drain(&mut tunnel, &client_hello(hello), limit).await;
    match code {
        // ServerHello, or an alert of the upstream about the hand-made key share: its answer, either way.
        None => {
            assert!(
                !answer.is_empty(),
                "{context}: the upstream's answer is carried"
            );
            assert_eq!(world.tls.connections(), before + 1, "{context}");
        }
        Some(code) => {
            assert!(closed, "{context}: the tunnel stayed open");
            assert!(!answer.starts_with(&[22]), "{context}: a handshake went on");
            if !code.is_empty() {
                world.assert_audited(mark, code, &context);
            }
            world.assert_nothing_sent(mark, &context);
        }
    }
}

async fn a_hello_in_single_bytes_is_read_all_the_same() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for host in ["a.test", "pass.test"] {
        for tls12_only in [false, true] {
            let stream = guest
                .connect(&format!("{host}:{}", world.tls.port()))
                .await
                .expect("a tunnel");
            let options = TlsOptions {
                dribble: 400,
                tls12_only,
                ..TlsOptions::new(host, "http/1.1")
            };
            let tls = guest
                .handshake(stream, &options)
                .await
                .expect("a handshake");
            let req = world.get(Way::TunnelH1, host, "/").bearer(&token);
            let answer = Channel::h1_in_tunnel(tls.io).send(&req).await.answered();
            assert_eq!(answer.status, 200, "{host}");
        }
    }
}

async fn targets_and_hosts_with_two_readings_are_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let port = world.plain.port();
    let tls = world.tls.port();
    let auth = format!("authorization: Bearer {token}\r\n");
    let in_clear = [
        format!("GET http://a.test@x.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET https://a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        format!("GET ftp://a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET http://a.test:{port}\\@x.test/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("CONNECT http://a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        "CONNECT a.test HTTP/1.1\r\nhost: a.test\r\n".to_owned(),
        "CONNECT a.test:0 HTTP/1.1\r\nhost: a.test:0\r\n".to_owned(),
        "CONNECT a.test:65536 HTTP/1.1\r\nhost: a.test:65536\r\n".to_owned(),
        format!("CONNECT a.test:{tls}:{tls} HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        format!("CONNECT a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
    ];
    for head in in_clear {
        assert_refused_in_clear(&world, &head, &auth).await;
    }
    let in_tunnel = [
        format!("GET http://x.test/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        "GET https://x.test/ HTTP/1.1\r\nhost: x.test\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nhost: a.test:{tls}\r\nhost: x.test\r\n"),
        "GET / HTTP/1.1\r\n".to_owned(),
    ];
    for head in in_tunnel {
        assert_refused_in_tunnel(&world, &head, &auth).await;
    }
}

async fn a_connect_inside_a_tunnel_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let tls = world.tls.port();
    let auth = format!("authorization: Bearer {token}\r\n");
    for host in ["x.test", "a.test"] {
        let head = format!("CONNECT {host}:{tls} HTTP/1.1\r\nhost: a.test:{tls}\r\n");
        assert_refused_in_tunnel(&world, &head, &auth).await;
    }
}

async fn an_inner_target_of_another_scheme_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let tls = world.tls.port();
    let auth = format!("authorization: Bearer {token}\r\n");
    let head = format!("GET http://a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n");
    assert_refused_in_tunnel(&world, &head, &auth).await;
}

async fn assert_refused_in_tunnel(world: &World, head: &str, auth: &str) {
    let mark = world.mark();
    let req = world.get(Way::TunnelH1, "a.test", "/");
    let mut h1 = world
        .guest()
        .open(Way::TunnelH1, &req)
        .await
        .expect("a tunnel")
        .into_h1();
    h1.write(format!("{head}{auth}\r\n").as_bytes())
        .await
        .unwrap();
    let answer = within(5, head, h1.read_response("GET")).await.unwrap();
    assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
    world.assert_audited(
        mark,
        answer
            .reason()
            .unwrap_or_else(|| panic!("no reason: {head}")),
        head,
    );
    world.assert_nothing_sent(mark, head);
}

async fn an_absolute_form_target_with_user_information_or_two_hosts_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let port = world.plain.port();
    let auth = format!("authorization: Bearer {token}\r\n");
    for head in [
        format!("GET http://x.test@a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET http://a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\nhost: x.test\r\n"),
    ] {
        assert_refused_in_clear(&world, &head, &auth).await;
    }
}

/// What a server is asked, not a proxy.
const ORIGIN_FORMS: [&str; 2] = ["/", "//x.test/"];

async fn a_request_to_the_proxy_itself_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let auth = format!("authorization: Bearer {token}\r\n");
    for path in ORIGIN_FORMS {
        let port = world.plain.port();
        let head = format!("GET {path} HTTP/1.1\r\nhost: a.test:{port}\r\n");
        assert_refused_in_clear(&world, &head, &auth).await;
    }
}

async fn a_request_to_the_proxy_itself_is_at_most_one_for_the_host_it_names() {
    let world = World::new().await;
    let (_, token) = world.session();
    let port = world.plain.port();
    for path in ORIGIN_FORMS {
        for host in ["a.test", "n.test", "x.test", "127.0.0.1"] {
            for token in [Some(&token), None] {
                let auth = token.map_or(String::new(), |token| format!("x-api-key: {token}\r\n"));
                let before = world.seen();
                let bytes = format!("GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{auth}\r\n");
                let limit = Duration::from_secs(5);
                let proxy = world.plane().proxy();
                let answer = raw::exchange(proxy, bytes.as_bytes(), limit).await;
                let answer = answer.unwrap_or_else(|| panic!("no answer: {host}{path}"));
                let context = format!("{host}{path}: {answer:?}");
                if answer.reason().is_some() {
                    assert_eq!(world.seen(), before, "{context}");
                    continue;
                }
                assert!(token.is_some(), "served without a token: {context}");
                let seen = world.plain.last();
                assert_eq!(seen.authority, format!("{host}:{port}"), "{context}");
                assert_eq!(seen.target, path, "{context}");
                assert_eq!(seen.mentions(K1), host == "a.test", "{context}: {seen:?}");
            }
        }
    }
    assert!(!world.dns.was_asked_for("x.test"));
}

async fn assert_refused_in_clear(world: &World, head: &str, auth: &str) {
    let mark = world.mark();
    let bytes = format!("{head}{auth}\r\n");
    let proxy = world.plane().proxy();
    let answer = raw::exchange(proxy, bytes.as_bytes(), Duration::from_secs(5)).await;
    let answer = answer.unwrap_or_else(|| panic!("no answer: {head}"));
    assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
    world.assert_audited(
        mark,
        answer
            .reason()
            .unwrap_or_else(|| panic!("no reason: {head}")),
        head,
    );
    world.assert_nothing_sent(mark, head);
}

async fn bytes_sent_along_with_the_connect_are_the_tunnels_first() {
    let world = World::new().await;
    let (_, token) = world.session();
    let hello = client_hello(&Hello {
        server_name: Some(b"x.test"),
        ..Hello::default()
    });
    let mark = world.mark();
    let mut stream = world.guest().with_proxy_token(&token).dial().await.unwrap();
    let port = world.tls.port();
    let mut bytes =
        format!("CONNECT a.test:{port} HTTP/1.1\r\nhost: a.test:{port}\r\n\r\n").into_bytes();
    bytes.extend(hello);
    stream.write_all(&bytes).await.unwrap();
    let (_, closed) = raw::drain(&mut stream, Duration::from_secs(4)).await;
    assert!(closed, "a mismatched hello behind the CONNECT stayed open");
    world.assert_audited(mark, "server_name_mismatch", "hello with the CONNECT");
    world.assert_nothing_sent(mark, "hello with the CONNECT");
    // And none of it is taken for a second proxy request.
    let mark = world.mark();
    let mut stream = world.guest().dial().await.unwrap();
    let smuggled = format!(
        "GET http://n.test:{}/smuggled HTTP/1.1\r\nhost: n.test\r\n\r\n",
        world.plain.port()
    );
    let bytes = format!(
        "CONNECT tlsonly.test:{port} HTTP/1.1\r\nhost: tlsonly.test:{port}\r\n\r\n{smuggled}"
    );
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let (_, closed) = raw::drain(&mut stream, Duration::from_secs(4)).await;
    assert!(closed);
    world.assert_nothing_sent(mark, "a request behind the CONNECT");
}

async fn on_http2_host_and_authority_agree_or_the_request_is_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let mark = world.mark();
    let req = world
        .get(Way::TunnelH2, "a.test", "/")
        .bearer(&token)
        .header("host", "x.test");
    let outcome = world.guest().send(Way::TunnelH2, &req).await;
    match &outcome {
        Outcome::Answered(_) => {
            world.assert_denied(
                mark,
                &outcome,
                "authority_mismatch",
                "host beside :authority",
            );
        }
        _ => world.assert_nothing_sent(mark, "host beside :authority"),
    }
    let same = Req::get("a.test", world.tls.port(), "/")
        .bearer(&token)
        .header("host", &format!("a.test:{}", world.tls.port()));
    assert_eq!(
        world
            .guest()
            .send(Way::TunnelH2, &same)
            .await
            .answered()
            .status,
        200
    );
}

async fn on_http2_a_host_beside_the_authority_is_never_sent() {
    let world = World::new().await;
    let (_, token) = world.session();
    for (host, other) in [
        ("a.test", "x.test"),
        ("a.test", "n.test"),
        ("n.test", "a.test"),
    ] {
        let before = world.seen();
        let req = world
            .get(Way::TunnelH2, host, "/")
            .bearer(&token)
            .header("host", other);
        let outcome = world.guest().send(Way::TunnelH2, &req).await;
        let context = format!("{host} beside {other}: {outcome:?}");
        if world.seen() > before {
            let seen = world.tls.last();
            assert_eq!(
                seen.authority,
                format!("{host}:{}", world.tls.port()),
                "{context}"
            );
            assert!(!seen.mentions(other), "{context}: {seen:?}");
            assert_eq!(seen.mentions(K1), host == "a.test", "{context}: {seen:?}");
        }
    }
}

async fn each_absolute_form_request_of_one_connection_is_judged_for_its_own_host() {
    let world = World::new().await;
    let (_, token) = world.session();
    let way = Way::AbsoluteForm;
    let first = world.get(way, "a.test", "/").bearer(&token);
    let mut channel = world.guest().open(way, &first).await.expect("a connection");
    assert_eq!(channel.send(&first).await.answered().status, 200);
    assert!(world.plain.last().mentions(K1));
    let second = world.get(way, "n.test", "/").bearer(&token);
    assert_eq!(channel.send(&second).await.answered().status, 200);
    assert!(!world.plain.last().mentions(K1));
    let mark = world.mark();
    let outcome = channel
        .send(&world.get(way, "x.test", "/").bearer(&token))
        .await;
    world.assert_denied(mark, &outcome, "destination_not_allowed", "the third");
}
