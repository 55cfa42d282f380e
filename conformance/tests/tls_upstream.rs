//! An upstream that is not who it should be, or does not behave, gets no credential and does not take the gateway along.

use std::time::{Duration, Instant};

use outgate_conformance::{
    CertificateKind, K1, Mark, Origin, OriginOptions, Outcome, Req, Setup, TestCa, Way, World,
    add_destination, destination, hurry, within,
};
use serde_json::json;
use tokio::net::TcpListener;

outgate_conformance::scenarios! {
    a_bad_certificate_gets_no_request_and_no_credential: [P9];
    tls_1_2_is_the_floor_and_can_be_switched_off: [P9];
    with_no_roots_at_all_nothing_is_trusted: [P9];
    an_upstream_that_misbehaves_gets_a_clear_answer_on_the_clients_leg: [P8];
    an_upstream_that_is_not_there_is_said_to_be_so_in_time: [P8];
    the_bundle_holds_the_system_roots_and_the_ca: [P2];
    an_upgrade_that_nobody_asked_for_is_the_upstreams_fault: [P11], Envoy: Differs(
        "Envoy hands a 101 on that nobody asked for, as an answer without a body, and nothing behind it",
        "status: 101"
    );
    an_upgrade_that_nobody_asked_for_opens_no_tunnel: [P11 S3];
}

/// A tunnel may meet its upstream at CONNECT, at the handshake or at the first request.
fn assert_failed(world: &World, mark: Mark, outcome: &Outcome, code: &str, context: &str) {
    if let Some(reason) = outcome.reason() {
        assert_eq!(reason, code, "{context}: {outcome:?}");
    } else {
        assert!(
            !matches!(outcome, Outcome::Answered(_)),
            "{context}: {outcome:?}"
        );
    }
    world.assert_audited(mark, code, context);
}

async fn a_bad_certificate_gets_no_request_and_no_credential() {
    let ca = TestCa::new("the upstreams' CA");
    let mut bad = Vec::new();
    for kind in [
        CertificateKind::SelfSigned,
        CertificateKind::WrongName,
        CertificateKind::Expired,
        CertificateKind::NotYetValid,
        CertificateKind::UnknownCa,
    ] {
        let options = OriginOptions::tls(&["a.test"]).certificate(kind);
        bad.push((kind, Origin::start(&ca, options).await));
    }
    let ports: Vec<u16> = bad.iter().map(|(_, origin)| origin.port()).collect();
    let world = World::with(Setup {
        ca,
        config: Box::new(move |config, _| destination(config, "a.test")["ports"] = json!(ports)),
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    for (kind, origin) in &bad {
        for way in Way::TUNNELS {
            let mark = world.mark();
            let req = Req::get("a.test", origin.port(), "/").bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} {kind:?}");
            assert_failed(&world, mark, &outcome, "upstream_tls_failed", &context);
            assert_eq!(origin.count(), 0, "{context}: a request was sent");
        }
        assert!(origin.connections() > 0, "{kind:?}: it was tried");
    }
    world.assert_no_upstream_saw(K1);
}

async fn tls_1_2_is_the_floor_and_can_be_switched_off() {
    for (floor, code) in [("1.2", None), ("1.3", Some("upstream_tls_failed"))] {
        let ca = TestCa::new("the upstreams' CA");
        let old = Origin::start(&ca, OriginOptions::tls(&["a.test"]).tls12_only()).await;
        let port = old.port();
        let world = World::with(Setup {
            ca,
            config: Box::new(move |config, _| {
                destination(config, "a.test")["ports"] = json!([port]);
                config["upstream"]["min_tls"] = json!(floor);
            }),
            ..Setup::default()
        })
        .await;
        let (_, token) = world.session();
        for way in Way::TUNNELS {
            let mark = world.mark();
            let req = Req::get("a.test", port, "/").bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?}, floor {floor}");
            match code {
                None => assert_eq!(outcome.answered().status, 200, "{context}"),
                Some(code) => {
                    assert_failed(&world, mark, &outcome, code, &context);
                    assert_eq!(old.count(), 0, "{context}");
                }
            }
        }
    }
}

async fn with_no_roots_at_all_nothing_is_trusted() {
    let world = World::configured(|config, _| {
        config["upstream"] = json!({ "roots": "system" });
    })
    .await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        assert_failed(
            &world,
            mark,
            &outcome,
            "upstream_tls_failed",
            &format!("{way:?}"),
        );
        world.assert_nothing_sent(mark, &format!("{way:?}"));
    }
}

async fn an_upstream_that_misbehaves_gets_a_clear_answer_on_the_clients_leg() {
    let world = World::configured(|config, _| {
        config["timeouts"]["response"] = json!("1s");
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for (path, code) in [
            ("/hang", "upstream_timeout"),
            ("/reset", "upstream_protocol"),
            ("/garbage", "upstream_protocol"),
            ("/huge-head", "upstream_protocol"),
        ] {
            for host in ["a.test", "n.test"] {
                let mark = world.mark();
                let req = world.get(way, host, path).bearer(&token);
                let outcome = within(8, path, world.guest().send(way, &req)).await;
                let context = format!("{way:?} {host} {path}");
                assert_eq!(outcome.reason(), Some(code), "{context}: {outcome:?}");
                world.assert_audited(mark, code, &context);
            }
        }
        // A body that stops early is cut, not passed off as whole.
        for host in ["a.test", "n.test"] {
            let req = world.get(way, host, "/lie?cl=100").bearer(&token);
            let cut = match within(8, "a cut", world.guest().send(way, &req)).await {
                Outcome::Answered(answer) => !answer.complete || answer.status >= 500,
                _ => true,
            };
            assert!(
                cut,
                "{way:?} {host}: five bytes of a hundred passed as whole"
            );
        }
        let fine = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        assert_eq!(
            fine.answered().status,
            200,
            "{way:?}: and the next request is served"
        );
    }
}

async fn an_upstream_that_is_not_there_is_said_to_be_so_in_time() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = closed.local_addr().unwrap().port();
    drop(closed);
    // It accepts and says nothing, ever: no TLS handshake.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = silent.local_addr().unwrap().port();
    let holder = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = silent.accept().await {
            held.push(accepted);
        }
    });
    let world = World::configured(move |config, _| {
        hurry(config);
        config["resolver"]["hosts"] = json!({ "gone.test": "127.0.0.1", "mute.test": "127.0.0.1" });
        for (host, port) in [("gone.test", gone), ("mute.test", mute)] {
            let rule = json!({ "host": host, "ports": [port], "plaintext": true,
                "inject": { "credential": "k1", "header": "x-api-key", "over_plaintext": true } });
            add_destination(config, rule);
        }
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let req = Req::get("gone.test", gone, "/").bearer(&token);
        let outcome = within(8, "a verdict", world.guest().send(way, &req)).await;
        assert_failed(
            &world,
            mark,
            &outcome,
            "upstream_unreachable",
            &format!("{way:?}"),
        );
    }
    for way in Way::TUNNELS {
        let begin = Instant::now();
        let req = Req::get("mute.test", mute, "/").bearer(&token);
        let outcome = within(8, "a verdict", world.guest().send(way, &req)).await;
        assert!(
            !matches!(&outcome, Outcome::Answered(answer) if answer.status < 400),
            "{way:?}: {outcome:?}"
        );
        assert!(
            begin.elapsed() < Duration::from_secs(6),
            "{way:?}: {:?}",
            begin.elapsed()
        );
    }
    holder.abort();
}

async fn the_bundle_holds_the_system_roots_and_the_ca() {
    let world = World::configured(|config, _| {
        config["upstream"]["roots"] = json!("system");
    })
    .await;
    let gateway = world.plane().gateway();
    let ca = gateway
        .ca_pem()
        .expect("a CA, because a credential is configured");
    let out = gateway.command(&["ca", "export", "--bundle"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    let count = |text: &str| text.matches("BEGIN CERTIFICATE").count();
    let body =
        |text: &str| -> String { text.lines().filter(|line| !line.starts_with('-')).collect() };
    assert!(
        body(&out.stdout).contains(&body(&ca)),
        "the CA is in the bundle"
    );
    let system = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt")
        .map(|text| count(&text))
        .unwrap_or(0);
    assert!(
        count(&out.stdout) > system * 9 / 10,
        "{} of {system} system roots",
        count(&out.stdout)
    );
    let shown = gateway.ready()["bundle"]
        .as_str()
        .expect("a bundle in the ready line")
        .to_owned();
    let file = std::fs::read_to_string(shown).unwrap();
    assert_eq!(count(&file), count(&out.stdout));
    assert!(!file.contains("PRIVATE"));
}

async fn an_upgrade_that_nobody_asked_for_is_the_upstreams_fault() {
    let world = World::with(Setup {
        alpn: outgate_conformance::Alpn::H1,
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        for host in ["a.test", "n.test"] {
            let mark = world.mark();
            let req = world.get(way, host, "/rogue-101").bearer(&token);
            let outcome = within(8, "a verdict", world.guest().send(way, &req)).await;
            let context = format!("{way:?} {host}");
            assert_eq!(
                outcome.reason(),
                Some("upstream_protocol"),
                "{context}: {outcome:?}"
            );
            world.assert_audited(mark, "upstream_protocol", &context);
        }
    }
}

async fn an_upgrade_that_nobody_asked_for_opens_no_tunnel() {
    let world = World::with(Setup {
        alpn: outgate_conformance::Alpn::H1,
        ..Setup::default()
    })
    .await;
    let (_, token) = world.session();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        for host in ["a.test", "n.test"] {
            let before = world.seen();
            let req = world.get(way, host, "/rogue-101").bearer(&token);
            let mut channel = world.guest().open(way, &req).await.expect("a connection");
            let outcome = within(8, "an answer", channel.send(&req)).await;
            let context = format!("{way:?} {host}: {outcome:?}");
            assert!(
                !format!("{outcome:?}").contains("nobody asked"),
                "{context}"
            );
            assert_eq!(world.seen(), before + 1, "{context}");
            // What is said next is another request or nothing, never the bytes of a tunnel.
            let next = world.get(way, host, "/").bearer(&token);
            let next = next.authority(&format!("x.test:{}", world.port(way)));
            let next = if way == Way::AbsoluteForm {
                world.get(way, "x.test", "/").bearer(&token)
            } else {
                next
            };
            let outcome = within(8, "a verdict", channel.send(&next)).await;
            let refused = outcome.reason().is_some() || !matches!(outcome, Outcome::Answered(_));
            assert!(refused, "{context}, then {outcome:?}");
            assert_eq!(world.seen(), before + 1, "{context}, then {outcome:?}");
        }
    }
}
