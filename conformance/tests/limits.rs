//! A session may use so much, and another one is not touched by it.

use std::time::Duration;

use outgate_conformance::{Outcome, ReqBody, Way, World, destination, within};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_out_are_a_budget_on_every_way_in() {
    let world = World::configured(|config, _| {
        config["sessions"] = json!({ "limits": { "bytes_out": "100KiB" } });
    })
    .await;
    for way in Way::ALL {
        let (_, token) = world.session();
        let small = world
            .get(way, "a.test", "/upload")
            .method("POST")
            .bearer(&token);
        let ok = small.clone().body(ReqBody::Zeros(10_000));
        assert_eq!(
            world.guest().send(way, &ok).await.answered().status,
            200,
            "{way:?}"
        );
        let mark = world.mark();
        let big = small.clone().body(ReqBody::Zeros(1_000_000));
        let outcome = within(10, "a cut", world.guest().send(way, &big)).await;
        assert!(
            !matches!(&outcome, Outcome::Answered(answer) if answer.status == 200),
            "{way:?}: {outcome:?}"
        );
        world.assert_audited(mark, "bytes_limit", &format!("{way:?}"));
        let seen = world.origin(way).last();
        assert!(
            seen.body_length < 250_000 && !seen.body_complete,
            "{way:?}: {} bytes",
            seen.body_length
        );
        let mark = world.mark();
        let outcome = world.guest().send(way, &ok).await;
        world.assert_denied(mark, &outcome, "bytes_limit", &format!("{way:?}: used up"));
    }
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mark = world.mark();
    let req = world
        .get(Way::TunnelH1, "pass.test", "/upload")
        .method("POST")
        .body(ReqBody::Zeros(1_000_000));
    let outcome = within(10, "a cut", guest.send(Way::TunnelH1, &req)).await;
    assert!(
        !matches!(outcome, Outcome::Answered(_)),
        "pass-through: {outcome:?}"
    );
    world.assert_audited(mark, "bytes_limit", "pass-through");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bytes_out_too() {
    let world = World::configured(|config, _| {
        config["sessions"] = json!({ "limits": { "bytes_out": "100KiB" } });
    })
    .await;
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
