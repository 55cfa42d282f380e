//! The exfiltration tripwire (S7), at every rung: what it records, and what it ends when it is armed.

use std::time::Duration;

use outgate_conformance::{Outcome, ReqBody, Way, World, eventually, record, within};
use serde_json::{Value, json};

outgate_conformance::scenarios! {
    bytes_over_the_budget_are_an_anomaly_and_end_an_armed_session_at_every_rung: [S7];
    an_armed_tripwire_cuts_the_upload_that_trips_it: [S7], Envoy: Differs(
        "Envoy tells of the bytes of a stream each second and at its end: what announces no length is refused then, not \
         at the budget",
        "it was let out"
    );
    requests_and_distinct_destinations_trip_it_too: [S7];
    what_is_older_than_the_window_is_forgotten: [S7];
}

async fn with_tripwire(tripwire: Value) -> World {
    World::configured(move |config, _| config["sessions"] = json!({ "tripwire": tripwire })).await
}

/// The findings about a session, as soon as there are any.
async fn findings(world: &World, id: &str) -> Vec<Value> {
    let is_finding = |one: &Value| {
        record::find(one, "class_uid") == Some(&json!(2004)) && record::names(one, id)
    };
    let found = eventually(Duration::from_secs(3), || {
        let mut records = world.plane().audit_records();
        records.retain(is_finding);
        (!records.is_empty()).then_some(records)
    });
    found.await.unwrap_or_default()
}

fn passed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Answered(answer) if answer.status == 200)
}

/// Waits until nothing that was sent is still on its way to an upstream.
async fn settled(world: &World) {
    let mut seen = world.seen();
    loop {
        tokio::time::sleep(Duration::from_millis(150)).await;
        match world.seen() {
            now if now == seen => return,
            now => seen = now,
        }
    }
}

async fn bytes_over_the_budget_are_an_anomaly_and_end_an_armed_session_at_every_rung() {
    for arm in [false, true] {
        let world =
            with_tripwire(json!({ "window": "1h", "bytes_out": "100KiB", "arm": arm })).await;
        let ways = Way::ALL.into_iter().map(|way| (way, "a.test"));
        for (way, host) in ways.chain([(Way::TunnelH1, "pass.test")]) {
            let context = format!("{way:?} {host} armed: {arm}");
            let (id, token) = world.session();
            let guest = world.guest().with_proxy_token(&token);
            let req = world
                .get(way, host, "/upload")
                .method("POST")
                .bearer(&token)
                .body(ReqBody::Zeros(1_000_000));
            let outcome = within(20, &context, guest.send(way, &req)).await;
            assert!(arm || passed(&outcome), "{context}: {outcome:?}");
            let found = findings(&world, &id).await;
            assert_eq!(found.len(), 1, "{context}: {found:#?}");
            assert!(
                record::names(&found[0], "bytes_out"),
                "{context}: {found:#?}"
            );
            let again = world.get(way, "a.test", "/").bearer(&token);
            settled(&world).await;
            let mark = world.mark();
            let outcome = world.guest().send(way, &again).await;
            if arm {
                world.assert_denied(mark, &outcome, "session_revoked", &context);
            } else {
                assert_eq!(outcome.answered().status, 200, "{context}");
            }
        }
    }
}

async fn an_armed_tripwire_cuts_the_upload_that_trips_it() {
    let tripwire = json!({ "window": "1h", "bytes_out": "100KiB", "arm": true });
    let world = with_tripwire(tripwire).await;
    let ways = Way::ALL.into_iter().map(|way| (way, "a.test"));
    for (way, host) in ways.chain([(Way::TunnelH1, "pass.test")]) {
        let (_, token) = world.session();
        let req = world.get(way, host, "/upload").method("POST");
        let body = ReqBody::Chunked(vec![vec![0; 50_000]; 20]);
        let guest = world.guest().with_proxy_token(&token);
        let req = req.bearer(&token).body(body);
        let outcome = within(20, "an end", guest.send(way, &req)).await;
        assert!(!passed(&outcome), "{way:?} {host}: it was let out");
    }
}

async fn requests_and_distinct_destinations_trip_it_too() {
    let world = with_tripwire(
        json!({ "window": "1h", "requests": 5, "distinct_destinations": 2, "arm": true }),
    )
    .await;
    for way in Way::ALL {
        let (id, token) = world.session();
        for index in 0..6 {
            let req = world.get(way, "a.test", "/").bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            // The end of the session may cut the tunnel before the reason is read.
            assert_eq!(passed(&outcome), index < 5, "{way:?} {index}: {outcome:?}");
        }
        assert!(
            record::names(&findings(&world, &id).await[0], "requests"),
            "{way:?}"
        );

        let (id, token) = world.session();
        for (host, wanted) in [("a.test", true), ("n.test", true), ("optional.test", false)] {
            let req = world.get(way, host, "/").bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            assert_eq!(passed(&outcome), wanted, "{way:?} {host}: {outcome:?}");
        }
        let found = findings(&world, &id).await;
        assert!(
            record::names(&found[0], "distinct_destinations"),
            "{way:?}: {found:#?}"
        );
    }
    // Tunnels that show nothing count as a request each.
    let (id, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let authority = format!("pass.test:{}", world.tls.port());
    let mut refused = 0;
    for _ in 0..6 {
        refused += usize::from(guest.connect(&authority).await.is_err());
    }
    assert_eq!(refused, 1);
    assert_eq!(findings(&world, &id).await.len(), 1);
}

async fn what_is_older_than_the_window_is_forgotten() {
    let world = with_tripwire(json!({ "window": "2s", "requests": 3, "arm": true })).await;
    let (id, token) = world.session();
    for _ in 0..3 {
        for _ in 0..3 {
            let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
            let outcome = world.guest().send(Way::TunnelH1, &req).await;
            assert_eq!(outcome.answered().status, 200);
        }
        tokio::time::sleep(Duration::from_millis(2500)).await;
    }
    assert!(findings(&world, &id).await.is_empty());
}
