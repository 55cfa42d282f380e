//! Which addresses are dialled: only those that the gateway resolved and vetted itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use outgate_conformance::{
    DnsAnswer, Mark, Outcome, Way, World, add_destination, destination, within,
};
use serde_json::json;
use tokio::net::TcpListener;

outgate_conformance::scenarios! {
    a_name_that_resolves_into_the_deny_set_is_not_dialled: [P4];
    no_exception_opens_cloud_metadata: [P4];
    deny_wins_over_allow: [P4];
    rebinding_never_reaches_an_address_that_was_not_vetted: [P4];
    of_several_addresses_only_the_allowed_ones_are_dialled: [P4];
    a_dead_or_lying_resolver_closes: [P4];
    a_silent_resolver_is_answered_for_in_time: [P4];
    a_name_in_the_hosts_table_is_not_asked_for: [P4];
}

/// On tunnels the address is judged at CONNECT or after the hello; either way the record says so.
fn assert_not_dialled(world: &World, mark: Mark, outcome: &Outcome, code: &str, context: &str) {
    if outcome.response().is_some() {
        world.assert_denied(mark, outcome, code, context);
    } else {
        world.assert_audited(mark, code, context);
        world.assert_nothing_sent(mark, context);
    }
}

async fn a_name_that_resolves_into_the_deny_set_is_not_dialled() {
    let world = World::configured(|config, _| {
        config["resolver"]["allow"] = json!([]);
    })
    .await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for address in [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "::1",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ] {
        for host in ["a.test", "pass.test"] {
            world.dns.set(
                host,
                DnsAnswer::Addresses(vec![address.parse().unwrap()], 0),
            );
        }
        let mut tries = vec![(Way::TunnelH1, "pass.test")];
        tries.extend(Way::ALL.map(|way| (way, "a.test")));
        for (way, host) in tries {
            let mark = world.mark();
            let req = world.get(way, host, "/").bearer(&token);
            let outcome = guest.send(way, &req).await;
            let context = format!("{way:?} {host} at {address}");
            assert_not_dialled(&world, mark, &outcome, "address_denied", &context);
        }
    }
    assert_eq!(world.tls.connections() + world.plain.connections(), 0);
}

async fn no_exception_opens_cloud_metadata() {
    let world = World::configured(|config, _| {
        config["resolver"]["allow"] = json!(["0.0.0.0/0", "::/0"]);
    })
    .await;
    let (_, token) = world.session();
    for address in [
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "::",
    ] {
        world.dns.set(
            "n.test",
            DnsAnswer::Addresses(vec![address.parse().unwrap()], 0),
        );
        for way in Way::ALL {
            let mark = world.mark();
            let outcome = world
                .guest()
                .send(way, &world.get(way, "n.test", "/").bearer(&token))
                .await;
            let context = format!("{way:?} {address}");
            assert_not_dialled(&world, mark, &outcome, "address_denied", &context);
        }
    }
}

async fn deny_wins_over_allow() {
    let world = World::configured(|config, _| {
        config["resolver"]["deny"] = json!(["127.0.0.1/32"]);
        let by_rule = destination(config, "n.test");
        by_rule["addresses"] = json!({ "allow": ["127.0.0.1/32"] });
    })
    .await;
    let (_, token) = world.session();
    let by_rule = World::configured(|config, _| {
        destination(config, "n.test")["addresses"] = json!({ "deny": ["127.0.0.1"] });
    })
    .await;
    let (_, second) = by_rule.session();
    for way in Way::ALL {
        for (world, token) in [(&world, &token), (&by_rule, &second)] {
            let mark = world.mark();
            let req = world.get(way, "n.test", "/").bearer(token);
            let outcome = world.guest().send(way, &req).await;
            assert_not_dialled(world, mark, &outcome, "address_denied", &format!("{way:?}"));
        }
        let other = by_rule.get(way, "a.test", "/").bearer(&second);
        let answer = by_rule.guest().send(way, &other).await.answered();
        assert_eq!(answer.status, 200, "{way:?}: another rule's exception");
    }
}

async fn rebinding_never_reaches_an_address_that_was_not_vetted() {
    let world = World::configured(|config, places| {
        config["resolver"]["allow"] = json!(["127.0.0.1/32"]);
        let rule = json!({ "host": "turn.test", "ports": [places.tls, places.plain],
            "plaintext": true, "posture": "bump" });
        add_destination(config, rule);
        add_destination(
            config,
            json!({ "host": "turnpass.test", "ports": [places.tls] }),
        );
    })
    .await;
    // The same ports on an address that only the second answer gives.
    let caught = Arc::new(AtomicUsize::new(0));
    for port in [world.tls.port(), world.plain.port()] {
        let trap = TcpListener::bind(("127.0.0.2", port))
            .await
            .expect("loopback has 127.0.0.2");
        let caught = Arc::clone(&caught);
        tokio::spawn(async move {
            while trap.accept().await.is_ok() {
                caught.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let lists = vec![
        vec!["127.0.0.1".parse().unwrap()],
        vec!["127.0.0.2".parse().unwrap()],
    ];
    world
        .dns
        .set("turn.test", DnsAnswer::Alternating(lists.clone()));
    world
        .dns
        .set("turnpass.test", DnsAnswer::Alternating(lists));
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mut verdicts = [0, 0];
    for _ in 0..6 {
        for way in Way::ALL {
            let mark = world.mark();
            match guest
                .send(way, &world.get(way, "turn.test", "/").bearer(&token))
                .await
            {
                // The certificate does not have this name: reached, by the vetted address, is enough.
                Outcome::Answered(answer) if answer.reason() != Some("address_denied") => {
                    verdicts[0] += 1
                }
                outcome => {
                    verdicts[1] += 1;
                    assert_not_dialled(
                        &world,
                        mark,
                        &outcome,
                        "address_denied",
                        &format!("{way:?}"),
                    );
                }
            }
        }
        let _ = guest
            .send(
                Way::TunnelH1,
                &world.get(Way::TunnelH1, "turnpass.test", "/"),
            )
            .await;
    }
    assert_eq!(
        caught.load(Ordering::SeqCst),
        0,
        "the unvetted address was dialled"
    );
    assert!(
        verdicts[0] > 0 && verdicts[1] > 0,
        "both answers were met: {verdicts:?}"
    );
}

async fn of_several_addresses_only_the_allowed_ones_are_dialled() {
    let world = World::new().await;
    let (_, token) = world.session();
    let list = ["10.255.255.1", "169.254.169.254", "127.0.0.1"];
    let list = list.iter().map(|text| text.parse().unwrap()).collect();
    world.dns.set("a.test", DnsAnswer::Addresses(list, 0));
    for way in Way::ALL {
        let begin = Instant::now();
        let req = world.get(way, "a.test", "/").bearer(&token);
        assert_eq!(
            world.guest().send(way, &req).await.answered().status,
            200,
            "{way:?}"
        );
        assert!(
            begin.elapsed() < Duration::from_millis(1500),
            "{way:?}: a denied address was tried"
        );
    }
}

async fn a_dead_or_lying_resolver_closes() {
    let world = World::new().await;
    let (_, token) = world.session();
    world.dns.set("a.test", DnsAnswer::Broken);
    world.dns.set("b.test", DnsAnswer::Missing);
    world.dns.set("n.test", DnsAnswer::Addresses(Vec::new(), 0));
    for host in ["a.test", "b.test", "n.test"] {
        for way in Way::ALL {
            let mark = world.mark();
            let mut req = world.get(way, host, "/").bearer(&token);
            if host == "b.test" && way == Way::AbsoluteForm {
                req = world.get(way, "n.test", "/").bearer(&token);
            }
            let outcome = within(15, host, world.guest().send(way, &req)).await;
            assert_not_dialled(
                &world,
                mark,
                &outcome,
                "name_not_resolved",
                &format!("{way:?} {host}"),
            );
        }
    }
}

async fn a_silent_resolver_is_answered_for_in_time() {
    let world = World::new().await;
    let (_, token) = world.session();
    world.dns.set("a.test", DnsAnswer::Silent);
    let guest = world.guest().with_proxy_token(&token);
    let tries = Way::ALL.map(|way| {
        let (guest, req) = (guest.clone(), world.get(way, "a.test", "/").bearer(&token));
        tokio::spawn(async move { (way, guest.send(way, &req).await) })
    });
    let mark = world.mark();
    for attempt in tries {
        let (way, outcome) = within(12, "a verdict", attempt).await.unwrap();
        assert_not_dialled(
            &world,
            mark,
            &outcome,
            "name_not_resolved",
            &format!("{way:?}"),
        );
    }
}

async fn a_name_in_the_hosts_table_is_not_asked_for() {
    let world = World::configured(|config, places| {
        config["resolver"]["hosts"] = json!({ "n.test": "127.0.0.1", "a.test": ["127.0.0.1"] });
        // The deny-set holds for the table, too.
        config["resolver"]["hosts"]["inside.test"] = json!("10.0.0.1");
        let rule = json!({ "host": "inside.test", "ports": [places.plain], "plaintext": true, "posture": "bump" });
        add_destination(config, rule);
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for host in ["n.test", "a.test"] {
            let req = world.get(way, host, "/").bearer(&token);
            assert_eq!(
                world.guest().send(way, &req).await.answered().status,
                200,
                "{way:?}"
            );
        }
    }
    assert_eq!(world.dns.queries(), []);
    let mark = world.mark();
    let req = world
        .get(Way::AbsoluteForm, "inside.test", "/")
        .bearer(&token);
    let outcome = world.guest().send(Way::AbsoluteForm, &req).await;
    world.assert_denied(mark, &outcome, "address_denied", "hosts table");
}
