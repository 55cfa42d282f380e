//! Sessions end by themselves: the idle ones, and those that lived for as long as a session may (S5).

use std::time::{Duration, Instant};

use outgate_conformance::{Way, World, record, within};
use serde_json::json;

outgate_conformance::scenarios! {
    a_session_that_does_nothing_for_too_long_is_over_on_every_way_in: [S5];
    bytes_that_move_keep_a_session_and_a_silent_tunnel_does_not: [S5];
    a_lifetime_is_over_however_busy_the_session_is_and_whatever_was_renewed: [S5];
    a_restart_revives_nothing: [S5];
}

async fn with_sessions(sessions: serde_json::Value) -> World {
    World::configured(move |config, _| config["sessions"] = sessions).await
}

async fn is_answered(world: &World, token: &str) -> bool {
    let req = world.get(Way::TunnelH1, "a.test", "/").bearer(token);
    let outcome = world.guest().send(Way::TunnelH1, &req).await;
    outcome
        .response()
        .is_some_and(|response| response.status == 200)
}

async fn a_session_that_does_nothing_for_too_long_is_over_on_every_way_in() {
    let world = with_sessions(json!({ "idle": "2s" })).await;
    let (id, token) = world.session();
    assert!(is_answered(&world, &token).await);
    tokio::time::sleep(Duration::from_millis(3200)).await;
    for way in Way::ALL {
        let mark = world.mark();
        let req = world.get(way, "a.test", "/").bearer(&token);
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(mark, &outcome, "session_idle", &format!("{way:?}"));
    }
    // Its end has a record of its own, which names it.
    let ended: Vec<_> = world
        .plane()
        .audit_records()
        .into_iter()
        .filter(|one| record::find(one, "class_uid") == Some(&json!(3002)))
        .filter(|one| record::names(one, &id) && record::names(one, "idle"))
        .collect();
    assert_eq!(ended.len(), 1, "{ended:#?}");
    let (_, other) = world.session();
    assert!(is_answered(&world, &other).await, "another session is not");
}

async fn bytes_that_move_keep_a_session_and_a_silent_tunnel_does_not() {
    let world = with_sessions(json!({ "idle": "2s" })).await;
    let (_, busy) = world.session();
    let guest = world.guest().with_proxy_token(&busy);
    let req = world.get(Way::TunnelH1, "pass.test", "/sse?n=100&every_ms=100");
    let mut channel = guest.open(Way::TunnelH1, &req).await.expect("a tunnel");
    let mut stream = channel.start(&req).await.expect("a head");

    let (_, silent) = world.session();
    let guest = world.guest().with_proxy_token(&silent);
    let echo = world.get(Way::TunnelH1, "pass.test", "/echo");
    let mut idle = guest.open(Way::TunnelH1, &echo).await.expect("a tunnel");
    assert_eq!(idle.send(&echo).await.answered().status, 200);
    let mark = world.mark();

    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let event = within(3, "an event", stream.next()).await;
        assert!(
            matches!(event, Ok(Some(_))),
            "a busy tunnel is cut: {event:?}"
        );
    }
    let mut idle = idle.into_h1();
    within(1, "the cut", async {
        while let Ok(Some(_)) = idle.read_any().await {}
    })
    .await;
    world.assert_audited(mark, "session_idle", "the silent tunnel");
}

async fn a_lifetime_is_over_however_busy_the_session_is_and_whatever_was_renewed() {
    let world = with_sessions(json!({ "lifetime": "4s" })).await;
    let (id, token) = world.session();
    let begin = Instant::now();
    let req = world
        .get(Way::TunnelH1, "a.test", "/sse?n=500&every_ms=50")
        .bearer(&token);
    let mut channel = world
        .guest()
        .open(Way::TunnelH1, &req)
        .await
        .expect("a connection");
    let mut stream = channel.start(&req).await.expect("a head");
    let renewed: serde_json::Value =
        serde_json::from_str(&world.operate(&["session", "renew", &id, "--json"])).unwrap();
    let renewed = renewed["token"].as_str().expect("a token").to_owned();
    assert!(is_answered(&world, &renewed).await);
    let mark = world.mark();
    within(8, "the end of the stream", async {
        while let Ok(Some(_)) = stream.next().await {}
    })
    .await;
    let lived = begin.elapsed();
    assert!(
        (Duration::from_millis(2500)..Duration::from_secs(7)).contains(&lived),
        "cut after {lived:?}"
    );
    world.assert_audited(mark, "session_lifetime", "the stream");
    for token in [&token, &renewed] {
        let mark = world.mark();
        let req = world.get(Way::TunnelH2, "a.test", "/").bearer(token);
        let outcome = world.guest().send(Way::TunnelH2, &req).await;
        world.assert_denied(mark, &outcome, "session_lifetime", "afterwards");
    }
}

async fn a_restart_revives_nothing() {
    // What may be idle for less than two processes need to start again would end meanwhile.
    let mut world = with_sessions(json!({ "idle": "6s", "lifetime": "1h" })).await;
    let (idle, idle_token) = world.session();
    tokio::time::sleep(Duration::from_millis(7200)).await;
    let (ended, ended_token) = world.session();
    world.plane().session_end(&ended);
    let (denied, denied_token) = world.session();
    world.operate(&["deny", "add", &denied, "--reason", "a test"]);
    let (_, live_token) = world.session();
    world.restart();
    assert!(
        is_answered(&world, &live_token).await,
        "a live session lives on"
    );
    for (id, token, code) in [
        (idle, idle_token, "session_idle"),
        (ended, ended_token, "session_revoked"),
        (denied, denied_token, "session_revoked"),
    ] {
        let mark = world.mark();
        let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
        let outcome = world.guest().send(Way::TunnelH1, &req).await;
        world.assert_denied(mark, &outcome, code, &id);
    }
}
