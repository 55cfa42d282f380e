//! What a session is given when it is created, and what an operator gives it later, narrows what the policy has.

use outgate_conformance::{ReqBody, Way, World};
use serde_json::json;

outgate_conformance::scenarios! {
    a_session_that_is_confined_to_a_policy_has_only_what_it_names: [C2 P1];
    a_policy_that_leaves_the_file_leaves_its_sessions_nothing: [C2 P1];
    limits_are_given_with_a_session_and_set_later: [C2 S6];
}

async fn world() -> World {
    World::configured(|config, _| {
        config["policies"] = json!({
            "narrow": { "destinations": ["a.test", "pass.test"], "limits": { "requests": "3/min" } }
        });
    })
    .await
}

async fn a_session_that_is_confined_to_a_policy_has_only_what_it_names() {
    let world = world().await;
    let (_, wide) = world.session();
    for way in Way::ALL {
        let (_, narrow) = world.session_with(&["--policy", "narrow"]);
        let mark = world.mark();
        let outside = world.get(way, "n.test", "/").bearer(&narrow);
        let outcome = world.guest().send(way, &outside).await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
        world.assert_audited(mark, "policies.narrow", "the rule that decided");
        let inside = world.get(way, "a.test", "/").bearer(&narrow);
        for _ in 0..3 {
            assert_eq!(
                world.guest().send(way, &inside).await.answered().status,
                200,
                "{way:?}"
            );
        }
        let mark = world.mark();
        let outcome = world.guest().send(way, &inside).await;
        world.assert_denied(
            mark,
            &outcome,
            "rate_limited",
            &format!("{way:?}: its own rate"),
        );
        let outside = world.get(way, "n.test", "/").bearer(&wide);
        assert_eq!(
            world.guest().send(way, &outside).await.answered().status,
            200,
            "{way:?}"
        );
    }
    let unknown = world
        .plane()
        .operate(&["session", "create", "--policy", "nowhere"]);
    assert_ne!(unknown.code, Some(0), "{unknown:?}");
}

async fn a_policy_that_leaves_the_file_leaves_its_sessions_nothing() {
    let mut world = world().await;
    let (_, token) = world.session_with(&["--policy", "narrow"]);
    let guest = world.guest().with_proxy_token(&token);
    let echo = world.get(Way::TunnelH1, "pass.test", "/echo");
    let mut tunnel = guest.open(Way::TunnelH1, &echo).await.expect("a tunnel");
    assert_eq!(tunnel.send(&echo).await.answered().status, 200);
    let mut config = world.config.clone();
    config.as_object_mut().unwrap().remove("policies");
    world.plane_mut().write_config(&config);
    world.until_logged("configuration taken over").await;
    let mut tunnel = tunnel.into_h1();
    outgate_conformance::within(3, "the cut", async {
        while let Ok(Some(_)) = tunnel.read_any().await {}
    })
    .await;
    let mark = world.mark();
    let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
    let outcome = world.guest().send(Way::TunnelH1, &req).await;
    world.assert_denied(mark, &outcome, "destination_not_allowed", "no such policy");
}

async fn limits_are_given_with_a_session_and_set_later() {
    let world = world().await;
    for way in Way::ALL {
        let (id, token) = world.session_with(&["--limit", "bytes_out=20000"]);
        let upload = world
            .get(way, "a.test", "/upload")
            .method("POST")
            .bearer(&token)
            .body(ReqBody::Zeros(15_000));
        assert_eq!(
            world.guest().send(way, &upload).await.answered().status,
            200,
            "{way:?}"
        );
        let mark = world.mark();
        let _ = world.guest().send(way, &upload).await;
        world.assert_audited(mark, "bytes_limit", &format!("{way:?}"));

        world.operate(&[
            "session",
            "limit",
            &id,
            "requests=1/h",
            "bytes_out=10000000",
        ]);
        // What it was given still holds beside what was set later.
        let mark = world.mark();
        let outcome = world.guest().send(way, &upload).await;
        world.assert_denied(mark, &outcome, "bytes_limit", &format!("{way:?}"));

        let (id, token) = world.session();
        world.operate(&["session", "limit", &id, "requests=1/h"]);
        let req = world.get(way, "n.test", "/").bearer(&token);
        assert_eq!(
            world.guest().send(way, &req).await.answered().status,
            200,
            "{way:?}"
        );
        let mark = world.mark();
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(
            mark,
            &outcome,
            "rate_limited",
            &format!("{way:?}: set later"),
        );
    }
}
