//! What operators are shown of a session: the records of its requests, and, only where the owner said so, what their
//! bodies began with, without any secret.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use outgate_conformance::{K1, ReqBody, Way, World, eventually, record};
use serde_json::{Value, json};

outgate_conformance::scenarios! {
    a_session_is_shown_with_what_it_asked_for_and_without_what_others_did: [D7 A1];
    bodies_are_kept_only_where_the_owner_said_so: [D7];
    bodies_are_shown_as_the_guest_sent_and_got_them: [D7 I6], Envoy: Differs(
        "what Envoy decrypts stays in Envoy: of its requests there are records alone",
        "no body is kept"
    );
}

/// What is shown of a session, as soon as it is so many requests.
async fn shown(world: &World, id: &str, count: usize) -> Vec<Value> {
    let found = eventually(Duration::from_secs(5), || {
        let text = world.operate(&["session", "requests", id, "--bodies", "--json"]);
        let shown: Value = serde_json::from_str(&text).expect("JSON");
        let requests = shown["requests"].as_array().expect("a list").clone();
        // What opened a tunnel ends when its connection is seen to.
        let inner = requests.into_iter().filter(|one| one["entry"] != "connect");
        let inner: Vec<_> = inner.collect();
        (inner.len() >= count).then_some(inner)
    });
    let found = found.await.expect("requests");
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

fn body(request: &Value, name: &str) -> Option<Vec<u8>> {
    let text = request.get(name)?.get("base64")?.as_str()?;
    Some(STANDARD.decode(text).expect("base64"))
}

async fn a_session_is_shown_with_what_it_asked_for_and_without_what_others_did() {
    let world = World::new().await;
    for way in Way::ALL {
        let (id, token) = world.session();
        let (other, other_token) = world.session();
        let mark = world.mark();
        for (path, bearer) in [
            ("/first?q=hidden", &token),
            ("/theirs", &other_token),
            ("/last", &token),
        ] {
            let req = world.get(way, "a.test", path).bearer(bearer);
            assert_eq!(
                world.guest().send(way, &req).await.answered().status,
                200,
                "{way:?}"
            );
        }
        let req = world.get(way, "rules.test", "/v1/admin/x").bearer(&token);
        let outcome = world.guest().send(way, &req).await;
        assert!(outcome.reason().is_some(), "{way:?}: {outcome:?}");
        let mut requests = shown(&world, &id, 3).await;
        // In the order of their records; an Envoy reports when it likes.
        requests.sort_by_key(|one| one["path"].to_string());
        let paths: Vec<_> = requests.iter().map(|one| one["path"].clone()).collect();
        assert_eq!(paths, ["/first", "/last", "/v1/admin/x"], "{way:?}");
        for one in &requests[..2] {
            assert_eq!(
                (&one["allowed"], &one["status"]),
                (&json!(true), &json!(200)),
                "{way:?}"
            );
            assert_eq!(
                (&one["credential"], &one["method"]),
                (&json!("k1"), &json!("GET")),
                "{way:?}"
            );
        }
        assert_eq!(requests[2]["allowed"], false, "{way:?}");
        assert_eq!(requests[2]["code"], "request_denied", "{way:?}");
        for one in &requests {
            let request_id = one["request_id"].as_str().expect("an id");
            let records =
                world.until_recorded(mark, request_id, |it| record::names(it, request_id));
            assert!(record::names(&records[0], &id), "{way:?}: {records:?}");
        }
        assert_eq!(
            shown(&world, &other, 1).await[0]["path"],
            "/theirs",
            "{way:?}"
        );
        let text = world.operate(&["session", "requests", &id]);
        assert!(
            text.contains("a.test") && text.contains("request_denied"),
            "{text}"
        );
        assert!(!text.contains("hidden") && !text.contains(&token), "{text}");
    }
}

async fn bodies_are_kept_only_where_the_owner_said_so() {
    let world = World::new().await;
    let (id, token) = world.session();
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/echo").bearer(&token);
        let req = req.method("POST").body(ReqBody::Bytes(b"mine".to_vec()));
        assert_eq!(
            world.guest().send(way, &req).await.answered().status,
            200,
            "{way:?}"
        );
    }
    for one in shown(&world, &id, Way::ALL.len()).await {
        assert!(
            one.get("request_body").is_none() && one.get("response_body").is_none(),
            "{one}"
        );
    }
}

async fn bodies_are_shown_as_the_guest_sent_and_got_them() {
    let mut world = World::configured(|config, _| {
        config["sessions"] = json!({ "view": { "requests": 10, "bodies": "2KiB" } });
    })
    .await;
    let sent = b"\x1b[2J from the guest \xff".to_vec();
    for way in [Way::TunnelH1, Way::TunnelH2] {
        let (id, token) = world.session();
        let req = world.get(way, "a.test", "/echo").bearer(&token);
        let req = req.method("POST").body(ReqBody::Bytes(sent.clone()));
        let answer = world.guest().send(way, &req).await.answered();
        assert_eq!(answer.status, 200, "{way:?}");
        assert!(
            world.origin(way).last().mentions(K1),
            "{way:?}: it was injected"
        );
        let one = shown(&world, &id, 1).await.remove(0);
        assert_eq!(
            body(&one, "request_body"),
            Some(sent.clone()),
            "no body is kept: {one}"
        );
        let got = body(&one, "response_body").expect("a body");
        let most = answer.body.len().min(2048);
        assert_eq!(got, answer.body[..most], "{way:?}");
        for secret in [K1, &token] {
            let text = String::from_utf8_lossy(&got).into_owned();
            assert!(!text.contains(secret), "{way:?}: {text}");
        }
        let text = world.operate(&["session", "requests", &id, "--bodies"]);
        assert!(
            !text.contains('\u{1b}') && text.contains("from the guest"),
            "{text:?}"
        );
    }
    // In clear all the way, it is not decrypted traffic.
    let (id, token) = world.session();
    let req = world
        .get(Way::AbsoluteForm, "a.test", "/echo")
        .bearer(&token);
    assert_eq!(
        world
            .guest()
            .send(Way::AbsoluteForm, &req)
            .await
            .answered()
            .status,
        200
    );
    assert_eq!(body(&shown(&world, &id, 1).await[0], "response_body"), None);

    let way = Way::TunnelH1;
    let (id, token) = world.session();
    let large = world.get(way, "a.test", "/bytes?n=100000").bearer(&token);
    assert_eq!(
        world.guest().send(way, &large).await.answered().body.len(),
        100_000
    );
    let one = shown(&world, &id, 1).await.remove(0);
    assert_eq!(body(&one, "response_body").map(|it| it.len()), Some(2048));
    assert_eq!(one["response_body"]["is_cut"], true);
    let mut config = world.config.clone();
    config["sessions"] = json!({});
    world.plane_mut().write_config(&config);
    world.until_logged("configuration taken over").await;
    let one = shown(&world, &id, 1).await.remove(0);
    assert_eq!(
        body(&one, "response_body"),
        None,
        "they are gone, not hidden"
    );
}
