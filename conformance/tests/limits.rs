//! A session may use so much, and another one is not touched by it.

use std::time::Duration;

use outgate_conformance::{Outcome, Req, ReqBody, Way, World, destination, within};
use serde_json::json;

outgate_conformance::scenarios! {
    requests_over_the_sessions_rate_are_refused_with_a_time_to_wait: [S6];
    a_destination_has_a_rate_of_its_own: [S6];
    new_and_concurrent_connections_are_counted: [S6];
    bytes_out_are_a_budget_on_every_way_in: [S6];
    bytes_out_that_nobody_announced_are_cut_at_the_budget: [S6], Envoy: Differs(
        "Envoy tells of the bytes of a stream each second and at its end: what announces no length is refused then, not \
         at the budget",
        "not cut at the budget"
    );
    bytes_out_that_nobody_announced_leave_nothing_of_the_budget: [S6];
    distinct_destinations_are_counted_over_the_sessions_life: [S6];
    heads_are_bytes_out_too: [S6];
}

async fn requests_over_the_sessions_rate_are_refused_with_a_time_to_wait() {
    let world = World::configured(|config, _| {
        config["sessions"] = json!({ "limits": { "requests": "4/min" } });
    })
    .await;
    for way in Way::ALL {
        let (_, token) = world.session();
        let (_, other) = world.session();
        let req = world.get(way, "a.test", "/").bearer(&token);
        for index in 0..4 {
            assert_eq!(
                world.guest().send(way, &req).await.answered().status,
                200,
                "{way:?} {index}"
            );
        }
        let mark = world.mark();
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(mark, &outcome, "rate_limited", &format!("{way:?}"));
        let answer = outcome.answered();
        assert_eq!(answer.status, 429, "{way:?}");
        let wait: u64 = answer
            .headers
            .get("retry-after")
            .expect("retry-after")
            .parse()
            .unwrap();
        assert!((1..=60).contains(&wait), "{way:?}: {wait}");
        let fine = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&other))
            .await;
        assert_eq!(fine.answered().status, 200, "{way:?}: another session");
    }
}

async fn a_destination_has_a_rate_of_its_own() {
    let world = World::configured(|config, _| {
        destination(config, "a.test")["limits"] = json!({ "requests": "2/min" });
    })
    .await;
    for way in Way::ALL {
        let (_, token) = world.session();
        let req = world.get(way, "a.test", "/").bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        for _ in 0..2 {
            assert_eq!(channel.send(&req).await.answered().status, 200, "{way:?}");
        }
        let mark = world.mark();
        let outcome = channel.send(&req).await;
        world.assert_denied(mark, &outcome, "rate_limited", &format!("{way:?}"));
        let elsewhere = world
            .guest()
            .send(way, &world.get(way, "n.test", "/").bearer(&token))
            .await;
        assert_eq!(
            elsewhere.answered().status,
            200,
            "{way:?}: another destination"
        );
    }
}

async fn new_and_concurrent_connections_are_counted() {
    let world = World::configured(|config, _| {
        config["sessions"] =
            json!({ "limits": { "concurrent_connections": 3, "connections": "8/min" } });
    })
    .await;
    let (_, token) = world.session();
    let (_, other) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let authority = format!("pass.test:{}", world.tls.port());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(guest.connect(&authority).await.expect("under the limit"));
    }
    let mark = world.mark();
    let outcome = guest
        .connect(&authority)
        .await
        .expect_err("the fourth at once");
    world.assert_denied(mark, &outcome, "connection_limit", "concurrent");
    assert_eq!(outcome.response().unwrap().status, 429);
    assert!(
        world
            .guest()
            .with_proxy_token(&other)
            .connect(&authority)
            .await
            .is_ok()
    );
    drop(held);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut refused = None;
    for _ in 0..8 {
        match guest.connect(&authority).await {
            Ok(stream) => drop(stream),
            Err(outcome) => {
                refused = Some(outcome);
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    let outcome = refused.expect("more than eight in a minute");
    assert_eq!(outcome.reason(), Some("connection_limit"));
}

async fn with_100_kib() -> World {
    World::configured(|config, _| {
        config["sessions"] = json!({ "limits": { "bytes_out": "100KiB" } });
    })
    .await
}

/// An upload of so many bytes that says so.
fn announced(world: &World, way: Way, token: &str, bytes: u64) -> Req {
    let req = world.get(way, "a.test", "/upload").method("POST");
    let req = req.bearer(token).body(ReqBody::Zeros(bytes));
    if way == Way::TunnelH2 {
        return req.header("content-length", &bytes.to_string());
    }
    req
}

async fn bytes_out_are_a_budget_on_every_way_in() {
    let world = with_100_kib().await;
    for way in Way::ALL {
        let (_, token) = world.session();
        let ok = announced(&world, way, &token, 10_000);
        let outcome = world.guest().send(way, &ok).await;
        assert_eq!(outcome.answered().status, 200, "{way:?}");
        let mark = world.mark();
        let before = world.origin(way).count();
        let big = announced(&world, way, &token, 1_000_000);
        let outcome = within(10, "a cut", world.guest().send(way, &big)).await;
        assert!(
            !matches!(&outcome, Outcome::Answered(answer) if answer.status == 200),
            "{way:?}: {outcome:?}"
        );
        world.assert_audited(mark, "bytes_limit", &format!("{way:?}"));
        for seen in world.origin(way).seen().split_off(before) {
            assert!(
                seen.body_length < 250_000 && !seen.body_complete,
                "{way:?}: {} bytes",
                seen.body_length
            );
        }
        // Whether the refused one was cut or not begun: what is over the budget stays over it.
        let mark = world.mark();
        let over = announced(&world, way, &token, 95_000);
        let outcome = world.guest().send(way, &over).await;
        world.assert_denied(mark, &outcome, "bytes_limit", &format!("{way:?}: used up"));
    }
}

/// The ways in on which bytes go out that nobody announced: bodies in pieces, and what passes through.
fn unannounced(world: &World, token: &str) -> Vec<(Way, Req)> {
    let pieces = vec![vec![0; 50_000]; 20];
    let ways = Way::ALL.into_iter().map(|way| (way, "a.test"));
    ways.chain([(Way::TunnelH1, "pass.test")])
        .map(|(way, host)| {
            let req = world.get(way, host, "/upload").method("POST");
            let body = ReqBody::Chunked(pieces.clone());
            (way, req.bearer(token).body(body))
        })
        .collect()
}

async fn bytes_out_that_nobody_announced_are_cut_at_the_budget() {
    let world = with_100_kib().await;
    for index in 0..4 {
        let (_, token) = world.session();
        let (way, req) = unannounced(&world, &token).swap_remove(index);
        let guest = world.guest().with_proxy_token(&token);
        let before = world.origin(way).count();
        let outcome = within(10, "a cut", guest.send(way, &req)).await;
        let context = format!("{way:?} {}: {outcome:?}", req.host);
        assert!(
            !matches!(&outcome, Outcome::Answered(answer) if answer.status == 200),
            "not cut at the budget: {context}"
        );
        for seen in world.origin(way).seen().split_off(before) {
            assert!(
                seen.body_length < 250_000 && !seen.body_complete,
                "not cut at the budget: {context}: {} bytes",
                seen.body_length
            );
        }
    }
}

async fn bytes_out_that_nobody_announced_leave_nothing_of_the_budget() {
    let world = with_100_kib().await;
    for index in 0..4 {
        let (_, token) = world.session();
        let (_, other) = world.session();
        let (way, req) = unannounced(&world, &token).swap_remove(index);
        let context = format!("{way:?} {}", req.host);
        let guest = world.guest().with_proxy_token(&token);
        let mark = world.mark();
        let _ = within(10, "an end", guest.send(way, &req)).await;
        // Within a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for next in Way::ALL {
            let mark = world.mark();
            let req = world.get(next, "a.test", "/").bearer(&token);
            let outcome = world.guest().send(next, &req).await;
            world.assert_denied(
                mark,
                &outcome,
                "bytes_limit",
                &format!("{context}: {next:?}"),
            );
        }
        world.assert_audited(mark, "bytes_limit", &context);
        let req = world.get(way, "a.test", "/").bearer(&other);
        let outcome = world.guest().send(way, &req).await;
        assert_eq!(outcome.answered().status, 200, "{context}: another session");
    }
}

async fn distinct_destinations_are_counted_over_the_sessions_life() {
    let world = World::configured(|config, _| {
        config["sessions"] = json!({ "limits": { "distinct_destinations": 2 } });
    })
    .await;
    for way in Way::ALL {
        let (_, token) = world.session();
        for host in ["a.test", "n.test", "a.test"] {
            let req = world.get(way, host, "/").bearer(&token);
            assert_eq!(
                world.guest().send(way, &req).await.answered().status,
                200,
                "{way:?} {host}"
            );
        }
        let mark = world.mark();
        let req = world.get(way, "optional.test", "/").bearer(&token);
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(mark, &outcome, "destinations_limit", &format!("{way:?}"));
        let again = world
            .guest()
            .send(way, &world.get(way, "n.test", "/").bearer(&token))
            .await;
        assert_eq!(
            again.answered().status,
            200,
            "{way:?}: known ones stay open"
        );
    }
}

async fn heads_are_bytes_out_too() {
    let world = with_100_kib().await;
    for way in Way::ALL {
        for in_field in [false, true] {
            let (_, token) = world.session();
            let big = "q".repeat(12_000);
            let req = if in_field {
                world.get(way, "a.test", "/").header("x-big", &big)
            } else {
                world.get(way, "a.test", &format!("/?{big}"))
            };
            let req = req.bearer(&token);
            let context = format!("{way:?} in a field: {in_field}");
            for _ in 0..8 {
                assert_eq!(
                    world.guest().send(way, &req).await.answered().status,
                    200,
                    "{context}"
                );
            }
            let mark = world.mark();
            let outcome = world.guest().send(way, &req).await;
            world.assert_denied(mark, &outcome, "bytes_limit", &context);
        }
    }
}
