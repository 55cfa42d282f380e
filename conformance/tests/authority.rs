//! The host that is named by CONNECT, SNI, `Host`, `:authority` and an absolute target is one host, on every request.

use std::time::Duration;

use outgate_conformance::{
    Channel, K1, Outcome, Req, TlsOptions, Way, World, destination,
    hello::{Hello, client_hello},
    raw, within,
};
use serde_json::json;
use tokio::io::AsyncWriteExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_one_host_never_says_another_in_its_host_field() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let port = world.port(way);
        for (host, said) in [
            ("a.test", format!("x.test:{port}")),
            ("a.test", format!("n.test:{port}")),
            ("n.test", format!("a.test:{port}")),
            ("a.test", "a.test:1".to_owned()),
            ("a.test", "127.0.0.1".to_owned()),
            ("a.test", format!("a.test.x.test:{port}")),
        ] {
            let mark = world.mark();
            let req = world.get(way, host, "/").bearer(&token).authority(&said);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} {host} says {said}");
            // HTTP/2 carries `:authority` in the target, and an unreadable one has its own code.
            let literal = said == "127.0.0.1" && way == Way::TunnelH2;
            let code = if literal {
                "ip_literal"
            } else {
                "authority_mismatch"
            };
            world.assert_denied(mark, &outcome, code, &context);
        }
    }
    world.assert_no_upstream_saw(K1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_name_other_than_the_tunnels_host_ends_the_handshake() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::TUNNELS {
        for (host, sni) in [
            ("a.test", "x.test"),
            ("a.test", "b.test"),
            ("n.test", "a.test"),
            ("pass.test", "a.test"),
            ("pass.test", "x.test"),
            ("a.test", "sub.a.test"),
        ] {
            let mark = world.mark();
            let req = world.get(way, host, "/").bearer(&token).sni(sni);
            let outcome = guest.send(way, &req).await;
            let context = format!("{way:?} {host} with SNI {sni}");
            assert!(
                matches!(outcome, Outcome::HandshakeFailed(_)),
                "{context}: {outcome:?}"
            );
            world.assert_audited(mark, "server_name_mismatch", &context);
            world.assert_nothing_sent(mark, &context);
        }
    }
    assert!(!world.dns.was_asked_for("x.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_built_hellos_get_the_verdict_of_their_only_reading() {
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
        (
            "pass.test",
            Hello {
                encrypted_client_hello: true,
                ..named(b"pass.test")
            },
            Some("encrypted_client_hello"),
        ),
        (
            "n.test",
            Hello {
                encrypted_client_hello: true,
                ..named(b"n.test")
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
        let context = format!("{host}: {hello:?}");
        let mark = world.mark();
        let before = world.tls.connections();
        let mut tunnel = guest
            .connect(&format!("{host}:{}", world.tls.port()))
            .await
            .expect("a tunnel");
        let limit = Duration::from_millis(if code.is_some() { 4000 } else { 700 });
        let (answer, closed) = raw::send_and_drain(&mut tunnel, &client_hello(&hello), limit).await;
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_and_hosts_with_two_readings_are_refused() {
    let world = World::new().await;
    let (_, token) = world.session();
    let port = world.plain.port();
    let tls = world.tls.port();
    let auth = format!("authorization: Bearer {token}\r\n");
    let in_clear = [
        format!("GET http://a.test@x.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET http://x.test@a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET http://a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\nhost: x.test\r\n"),
        format!("GET https://a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        format!("GET ftp://a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET //a.test:{port}/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("GET http://a.test:{port}\\@x.test/ HTTP/1.1\r\nhost: a.test:{port}\r\n"),
        format!("CONNECT http://a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        "CONNECT a.test HTTP/1.1\r\nhost: a.test\r\n".to_owned(),
        "CONNECT a.test:0 HTTP/1.1\r\nhost: a.test:0\r\n".to_owned(),
        "CONNECT a.test:65536 HTTP/1.1\r\nhost: a.test:65536\r\n".to_owned(),
        format!("CONNECT a.test:{tls}:{tls} HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        format!("CONNECT a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
    ];
    for head in in_clear {
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
            &head,
        );
        world.assert_nothing_sent(mark, &head);
    }
    let in_tunnel = [
        format!("GET http://x.test/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        "GET https://x.test/ HTTP/1.1\r\nhost: x.test\r\n".to_owned(),
        format!("GET http://a.test:{tls}/ HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a.test:{tls}\r\nhost: x.test\r\n"),
        "GET / HTTP/1.1\r\n".to_owned(),
        format!("CONNECT x.test:{tls} HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
        format!("CONNECT a.test:{tls} HTTP/1.1\r\nhost: a.test:{tls}\r\n"),
    ];
    for head in in_tunnel {
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
        let answer = within(5, &head, h1.read_response("GET")).await.unwrap();
        assert!((400..500).contains(&answer.status), "{head}: {answer:?}");
        world.assert_audited(
            mark,
            answer
                .reason()
                .unwrap_or_else(|| panic!("no reason: {head}")),
            &head,
        );
        world.assert_nothing_sent(mark, &head);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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
