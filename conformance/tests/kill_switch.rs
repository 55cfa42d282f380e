//! The operator's ways to stop a session, or all of them, and what lifting gives back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outgate_conformance::{Way, World, within};
use tokio::{sync::Barrier, task::JoinSet};

outgate_conformance::scenarios! {
    the_kill_switch_cuts_everything_stays_on_and_is_lifted: [C2 C3];
    one_kill_ends_one_session: [C2 I7];
    an_entry_of_the_denylist_holds_until_it_is_taken_off: [C2 I7];
}

const CUT: Duration = Duration::from_millis(1000);

async fn answers(world: &World, token: &str) -> Option<String> {
    let req = world.get(Way::TunnelH1, "a.test", "/").bearer(token);
    let outcome = world.guest().send(Way::TunnelH1, &req).await;
    outcome.reason().map(str::to_owned)
}

async fn the_kill_switch_cuts_everything_stays_on_and_is_lifted() {
    let mut world = World::new().await;
    let (ended, ended_token) = world.session();
    world.plane().session_end(&ended);
    let (_, token) = world.session();
    let begun = Arc::new(Barrier::new(Way::ALL.len() + 1));
    let mut streams = JoinSet::new();
    for way in Way::ALL {
        let req = world
            .get(way, "a.test", "/sse?n=500&every_ms=20")
            .bearer(&token);
        let (guest, begun) = (world.guest(), Arc::clone(&begun));
        streams.spawn(async move {
            let mut channel = guest.open(way, &req).await.expect("a connection");
            let mut stream = channel.start(&req).await.expect("a head");
            stream.next().await.expect("an event");
            begun.wait().await;
            while let Ok(Some(_)) = stream.next().await {}
            Instant::now()
        });
    }
    begun.wait().await;
    let mark = world.mark();
    world.operate(&["kill", "--all", "--reason", "an exercise"]);
    let killed = Instant::now();
    for ended in within(5, "the cut", streams.join_all()).await {
        let after = ended.saturating_duration_since(killed);
        assert!(after < CUT, "cut after {after:?}");
    }
    world.assert_audited(mark, "kill_switch", "the streams");
    for way in Way::ALL {
        let mark = world.mark();
        let req = world.get(way, "n.test", "/").bearer(&token);
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(mark, &outcome, "kill_switch", &format!("{way:?}"));
    }
    let refused = world.plane().operate(&["session", "create"]);
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("kill_switch"), "{refused:?}");

    world.restart();
    assert_eq!(
        answers(&world, &token).await.as_deref(),
        Some("kill_switch")
    );

    world.operate(&["kill", "--lift"]);
    assert_eq!(
        answers(&world, &token).await,
        None,
        "it has its standing back"
    );
    let revoked = Some("session_revoked".to_owned());
    assert_eq!(
        answers(&world, &ended_token).await,
        revoked,
        "one that was ended has not"
    );
    let (_, fresh) = world.session();
    assert_eq!(answers(&world, &fresh).await, None);
}

async fn one_kill_ends_one_session() {
    let world = World::new().await;
    let ((id, token), (_, other)) = (world.session(), world.session());
    world.operate(&["kill", &id, "--reason", "a test"]);
    assert_eq!(
        answers(&world, &token).await.as_deref(),
        Some("session_revoked")
    );
    assert_eq!(answers(&world, &other).await, None);
    // A killed session is not renewed either.
    let renewed = world.plane().operate(&["session", "renew", &id]);
    assert_ne!(renewed.code, Some(0), "{renewed:?}");
}

async fn an_entry_of_the_denylist_holds_until_it_is_taken_off() {
    let world = World::new().await;
    let (id, token) = world.session();
    world.operate(&["deny", "add", &id, "--reason", "a test"]);
    assert_eq!(
        answers(&world, &token).await.as_deref(),
        Some("session_revoked")
    );
    let listed = world.operate(&["deny", "list", "--json"]);
    assert!(
        listed.contains(&id) && listed.contains("a test"),
        "{listed}"
    );
    world.operate(&["deny", "remove", &id]);
    assert_eq!(answers(&world, &token).await, None);

    // One token of a session, and not the session.
    let renewed: serde_json::Value =
        serde_json::from_str(&world.operate(&["session", "renew", &id, "--json"])).unwrap();
    let renewed = renewed["token"].as_str().unwrap().to_owned();
    let claims = renewed.split('.').nth(1).unwrap();
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let jti = claims["jti"].as_str().unwrap();
    world.operate(&["deny", "add", "--token", jti, "--reason", "a leak"]);
    assert_eq!(
        answers(&world, &renewed).await.as_deref(),
        Some("session_revoked")
    );
    assert_eq!(
        answers(&world, &token).await,
        None,
        "its other token is good"
    );

    let (id, token) = world.session();
    world.operate(&["deny", "add", &id, "--for", "2s"]);
    assert_eq!(
        answers(&world, &token).await.as_deref(),
        Some("session_revoked")
    );
    tokio::time::sleep(Duration::from_millis(3200)).await;
    assert_eq!(
        answers(&world, &token).await,
        None,
        "it was denied for two seconds"
    );
}
