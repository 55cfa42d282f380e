//! What changes while Envoy serves: credentials, leaves, the CA, the policy.

use outgate_conformance::{
    Channel, Guest, Outcome, Way, World, add_destination, destination, eventually, within,
};
use outgate_testkit::certs::roots_from_pem;
use serde_json::json;
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

use crate::{TRAP, edge, open_stream, passed, until_served};

outgate_conformance::scenarios! {
    a_credential_that_is_taken_back_is_attached_no_more: [I4 E3], Native: Elsewhere(TRAP);
    a_change_of_policy_ends_no_live_connection: [E3 P11], Native: Elsewhere(TRAP);
    credentials_rotate_under_load_without_a_failed_request: [I4 E3], Native: Elsewhere(TRAP);
    leaves_go_and_come_under_load_without_a_failed_handshake_elsewhere: [E2], Native: Elsewhere(TRAP);
    leaves_of_another_ca_replace_the_old_ones: [E2], Native: Elsewhere(TRAP);
    a_configuration_that_envoy_rejects_is_reported_and_the_last_good_one_stays: [D1 E5], Native: Elsewhere(TRAP);
}

/// Envoy keeps using a secret that was removed.
///
/// MUTATION: let the limiter's answer name a credential that has no value, and answer that one by `removed_resources`
/// instead of an empty secret. Each alone goes unseen here: the other one holds.
async fn a_credential_that_is_taken_back_is_attached_no_more() {
    const KEY: &str = "taken-back-4f9a8b7c6d5e";
    let mut world = World::configured(|config, places| {
        let file = places.folder.join("taken");
        fs::write(&file, KEY).unwrap();
        config["credentials"]["taken"] = json!({ "from": { "file": file } });
        destination(config, "n.test")["inject"] =
            json!({ "credential": "taken", "header": "x-api-key", "over_plaintext": true });
    })
    .await;
    let (_, token) = world.session();
    let file = world.folder.path().join("taken");
    let mut channels = Vec::new();
    for way in Way::ALL {
        let req = world.get(way, "n.test", "/").bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        assert!(passed(&channel.send(&req).await), "{way:?}");
        assert!(world.origin(way).last().mentions(KEY), "{way:?}");
        channels.push((way, req, channel));
    }
    fs::remove_file(&file).unwrap();
    for (way, req, channel) in &mut channels {
        let begin = Instant::now();
        while passed(&channel.send(req).await) {
            assert!(begin.elapsed() < Duration::from_secs(3), "{way:?}: in use");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mark = world.mark();
    for (way, req, _) in &channels {
        for _ in 0..10 {
            let outcome = world.guest().send(*way, req).await;
            world.assert_denied(mark, &outcome, "credential_unavailable", "lost");
        }
    }
    // Back again, it works; and a policy that has no credential there attaches none.
    fs::write(&file, KEY).unwrap();
    for (way, req, _) in &channels {
        let begin = Instant::now();
        while !passed(&world.guest().send(*way, req).await) {
            assert!(begin.elapsed() < Duration::from_secs(5), "{way:?}: refused");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(world.origin(*way).last().mentions(KEY), "{way:?}");
    }
    let mut config = world.config.clone();
    config["credentials"]
        .as_object_mut()
        .unwrap()
        .remove("taken");
    destination(&mut config, "n.test")
        .as_object_mut()
        .unwrap()
        .remove("inject");
    world.plane_mut().write_config(&config);
    for (way, req, _) in &channels {
        let begin = Instant::now();
        loop {
            let outcome = world.guest().send(*way, req).await;
            if passed(&outcome) && !world.origin(*way).last().mentions(KEY) {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(5),
                "{way:?}: attached"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..10 {
            assert!(passed(&world.guest().send(*way, req).await), "{way:?}");
            assert!(!world.origin(*way).last().mentions(KEY), "{way:?}");
        }
    }
}

/// A change of a listener drains the connections of every filter chain that it touches.
///
/// MUTATION: write the policy's names into the listener (`server_names` of a filter chain, or a table in its RBAC).
async fn a_change_of_policy_ends_no_live_connection() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    let mut kept = Vec::new();
    for (way, host) in [
        (Way::AbsoluteForm, "a.test"),
        (Way::TunnelH1, "a.test"),
        (Way::TunnelH2, "a.test"),
        (Way::TunnelH1, "pass.test"),
    ] {
        let req = world.get(way, host, "/").bearer(&token);
        let mut channel = guest.open(way, &req).await.expect("a connection");
        assert!(passed(&channel.send(&req).await), "{way:?} {host}");
        kept.push((way, host, req, channel));
    }
    let events = world
        .get(Way::TunnelH2, "a.test", "/sse?n=400&every_ms=20")
        .bearer(&token);
    let stream = open_stream(&guest, Way::TunnelH2, events).await;
    for round in 0..3 {
        let mut config = world.config.clone();
        for index in 0..=round {
            let rule = json!({ "host": format!("added-{index}.test"), "posture": "bump" });
            add_destination(&mut config, rule);
        }
        world.plane_mut().write_config(&config);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(1200) {
            for (way, host, req, channel) in &mut kept {
                let outcome = channel.send(req).await;
                let context = format!("{way:?} {host}, round {round}");
                assert!(passed(&outcome), "{context}: {outcome:?}");
                let closes = outcome
                    .answered()
                    .headers
                    .get("connection")
                    .map(str::to_owned);
                assert_ne!(closes.as_deref(), Some("close"), "{context}: drained");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(!stream.is_finished(), "the stream was cut");
}

/// MUTATION: take the old value back before the next one is there (an empty secret between two values), or push the
/// next one only when somebody asks.
async fn credentials_rotate_under_load_without_a_failed_request() {
    let world = World::configured(|config, places| {
        let file = places.folder.join("rotating");
        fs::write(&file, "rotating-key-0").unwrap();
        config["credentials"]["rotating"] = json!({ "from": { "file": file } });
        destination(config, "n.test")["inject"] =
            json!({ "credential": "rotating", "header": "x-api-key", "over_plaintext": true });
    })
    .await;
    let (_, token) = world.session();
    let file = world.folder.path().join("rotating");
    let load = Load::start(&world, &world.guest(), "n.test", &token);
    for round in 1..=8 {
        tokio::time::sleep(Duration::from_millis(350)).await;
        let next = world.folder.path().join("rotating.next");
        fs::write(&next, format!("rotating-key-{round}")).unwrap();
        fs::rename(&next, &file).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1000)).await;
    let (failed, sent) = load.end().await;
    assert!(
        failed.is_empty(),
        "{} of {sent} failed: {:#?}",
        failed.len(),
        failed.first()
    );
    assert!(sent > 40, "a load of {sent} is none");
    for way in Way::ALL {
        let seen = world.origin(way).last();
        assert!(seen.mentions("rotating-key-8"), "{way:?}: {seen:?}");
    }
}

/// MUTATION: answer a change of policy by removing every leaf, and sending them again a moment later.
async fn leaves_go_and_come_under_load_without_a_failed_handshake_elsewhere() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let load = Load::start(&world, &world.guest(), "a.test", &token);
    let with = world.config.clone();
    let mut without = with.clone();
    let list = without["destinations"].as_array_mut().unwrap();
    list.retain(|rule| rule["host"] != "n.test");
    let req = world.get(Way::TunnelH1, "n.test", "/").bearer(&token);
    for round in 0..3 {
        for (config, there) in [(&without, false), (&with, true)] {
            world.plane_mut().write_config(config);
            let begin = Instant::now();
            loop {
                let outcome = world.guest().send(Way::TunnelH1, &req).await;
                if passed(&outcome) == there {
                    break;
                }
                let context = format!("round {round}, {there}: {outcome:?}");
                assert!(begin.elapsed() < Duration::from_secs(5), "{context}");
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }
    let (failed, sent) = load.end().await;
    assert!(
        failed.is_empty(),
        "{} of {sent} failed: {:#?}",
        failed.len(),
        failed.first()
    );
    assert!(sent > 40, "a load of {sent} is none");
}

/// Envoy keeps a leaf until it is told otherwise; after a reconnect it asks anew, without saying which one it has.
///
/// MUTATION: leave the CA's folder where it is.
async fn leaves_of_another_ca_replace_the_old_ones() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    let old = world.plane().ca_pem().expect("a CA");
    until_served(&world, &token, Duration::from_secs(5), "at first").await;
    let control = edge(&mut world).control_mut();
    control.kill();
    fs::remove_dir_all(control.state().join("ca")).unwrap();
    control.revive();
    let new = world.plane().ca_pem().expect("a CA");
    assert_ne!(old, new);
    // A guest that trusts only the other CA.
    until_served(&world, &token, Duration::from_secs(20), "by the other CA").await;
    let both = Guest::new(
        world.plane().proxy(),
        roots_from_pem([old.as_str(), new.as_str(), world.ca.pem()]),
    );
    let load = Load::start(&world, &both, "a.test", &token);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (failed, sent) = load.end().await;
    assert!(
        failed.is_empty(),
        "{} of {sent} failed: {:#?}",
        failed.len(),
        failed.first()
    );
    let only_old = Guest::new(world.plane().proxy(), roots_from_pem([old.as_str()]));
    for way in Way::TUNNELS {
        let req = world.get(way, "a.test", "/").bearer(&token);
        let outcome = only_old.send(way, &req).await;
        assert!(
            matches!(outcome, Outcome::HandshakeFailed(_)),
            "{way:?}: {outcome:?}"
        );
    }
}

/// MUTATION: do not read the error of a discovery request; or send the next policy's routes only when the listeners
/// were taken.
async fn a_configuration_that_envoy_rejects_is_reported_and_the_last_good_one_stays() {
    let mut world = World::configured(|config, _| {
        let list = config["destinations"].as_array_mut().unwrap();
        list.retain(|rule| rule["host"] != "b.test");
    })
    .await;
    let (_, token) = world.session();
    until_served(&world, &token, Duration::from_secs(5), "at first").await;
    let good = edge(&mut world).config().clone();
    // An address that no machine has: only Envoy finds out.
    let mut bad = world.config.clone();
    bad["envoy"]["proxy"] = json!([good["envoy"]["proxy"], "192.0.2.77:4077"]);
    world.plane_mut().write_config(&bad);
    let reported = eventually(Duration::from_secs(8), || {
        let logs = world.plane().logs();
        let mut lines = logs.lines();
        lines
            .any(|line| line.contains("envoy_refused_configuration"))
            .then_some(())
    });
    assert!(reported.await.is_some(), "the rejection was not reported");
    until_served(
        &world,
        &token,
        Duration::from_secs(5),
        "by the last good one",
    )
    .await;
    // It goes on taking what is good.
    let mut next = world.config.clone();
    let mut added = destination(&mut next, "n.test").clone();
    added["host"] = json!("b.test");
    add_destination(&mut next, added);
    next["destinations"]
        .as_array_mut()
        .unwrap()
        .retain(|rule| rule["host"] != "n.test");
    world.plane_mut().write_config(&next);
    let req = world.get(Way::TunnelH1, "n.test", "/").bearer(&token);
    let begin = Instant::now();
    while passed(&world.guest().send(Way::TunnelH1, &req).await) {
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "the next policy was not taken"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let req = world.get(Way::TunnelH1, "b.test", "/").bearer(&token);
    while !passed(&world.guest().send(Way::TunnelH1, &req).await) {
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "the next policy's routes were not taken"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_served(&world, &token, Duration::from_secs(5), "by the next one").await;
}

/// Requests that go on until they are told to stop: on connections that stay, and on ones of their own.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<String>>,
}

impl Load {
    fn start(world: &World, guest: &Guest, host: &str, token: &str) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            sent: Arc::default(),
            tasks: JoinSet::new(),
        };
        for way in Way::ALL {
            for keep in [true, false] {
                let req = world.get(way, host, "/").bearer(token);
                let (stop, sent) = (Arc::clone(&load.stop), Arc::clone(&load.sent));
                let guest = guest.clone();
                load.tasks.spawn(async move {
                    let mut failed = Vec::new();
                    let mut kept: Option<Channel> = None;
                    while !stop.load(Ordering::SeqCst) {
                        let outcome = match &mut kept {
                            Some(channel) => channel.send(&req).await,
                            None => match guest.open(way, &req).await {
                                Ok(mut channel) => {
                                    let outcome = channel.send(&req).await;
                                    kept = keep.then_some(channel);
                                    outcome
                                }
                                Err(outcome) => outcome,
                            },
                        };
                        if !passed(&outcome) {
                            failed.push(format!("{way:?}, kept: {keep}: {outcome:?}"));
                            kept = None;
                        }
                        sent.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    failed
                });
            }
        }
        load
    }

    /// Every failure, and how many requests there were.
    async fn end(self) -> (Vec<String>, usize) {
        self.stop.store(true, Ordering::SeqCst);
        let failed = within(20, "the load", self.tasks.join_all()).await.concat();
        (failed, self.sent.load(Ordering::SeqCst))
    }
}
