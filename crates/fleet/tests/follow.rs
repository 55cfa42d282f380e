//! What the control plane knows arrives, soon, in an order that lets nothing through, and only if it is any good.

mod support;

use std::time::{Duration, Instant};

use outgate_fleet::{Denylist, Pace};
use outgate_journey::{
    record::AnomalyRecord,
    tripwire::{Budget, Overrun},
};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_told_whom_to_refuse_before_whom_to_believe_and_what_to_allow() {
    let world = World::new();
    let source = Source::new(7, "policy 7");
    source.edit(|list| list.insert(ended("s_1")));
    let control = Control::start(&world, &source, quick()).await;
    let gateway = Gateway::start(world.config(control.address), quick());
    gateway.follows().await;

    let seen = gateway.sink.seen();
    assert_eq!(seen.order, ["denylist", "keys", "policy"]);
    assert_eq!(seen.list, Some(source.list()));
    assert_eq!(seen.keys.as_deref(), Some(KEYS));
    let policy = seen.policy.unwrap();
    assert_eq!((policy.number, &*policy.text), (7, "policy 7"));
    let status = gateway.until("it says so", |s| s.policy == Some(7)).await;
    assert!(status.connected && status.refused.is_empty() && status.problem.is_none());
    assert!(
        gateway
            .follower
            .freshness()
            .is_within(Duration::from_secs(2))
    );
    let followers = control.server.followers();
    assert_eq!(followers.len(), 1);
    assert_eq!(&*followers[0].gateway, "gw-1");

    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_denylist_is_heard_of_and_ages_only_without_heartbeats() {
    let world = World::new();
    let source = Source::new(1, "");
    let control = Control::start(&world, &source, quick()).await;
    let gateway = Gateway::start(world.config(control.address), quick());
    let freshness = gateway.follower.freshness();
    assert_eq!(freshness.last_heard(), None);
    gateway.follows().await;
    assert_eq!(gateway.sink.seen().list, Some(Denylist::default()));
    gateway.until("it is connected", |s| s.connected).await;
    // Nothing changes, and yet it is known to be current.
    let deadline = Instant::now() + Duration::from_millis(900);
    while Instant::now() < deadline {
        assert!(
            freshness.is_within(Duration::from_millis(800)),
            "{freshness:?}"
        );
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_arrives_well_within_a_second() {
    let world = World::new();
    let source = Source::new(1, "p");
    // The promise is stated for the usual pace: it must not be the heartbeat that carries it.
    let control = Control::start(&world, &source, Pace::default()).await;
    let gateway = Gateway::start(world.config(control.address), Pace::default());
    gateway.follows().await;
    for n in 0..30 {
        let fact = ended(&format!("s_{n}"));
        let key = fact.key();
        source.edit(|list| list.insert(fact));
        let took = gateway
            .sink
            .until("it arrives", |seen| {
                seen.list.as_ref().is_some_and(|l| l.get(&key).is_some())
            })
            .await;
        assert!(took < Duration::from_millis(900), "{took:?}");
    }
    source.edit(|list| list.insert(killed()));
    gateway
        .sink
        .until("the kill arrives", |seen| seen.list == Some(source.list()))
        .await;
    source.edit(|list| list.remove(&killed().key()));
    gateway
        .sink
        .until("the lift arrives", |seen| seen.list == Some(source.list()))
        .await;
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_facts_arrive_and_a_revocation_after_them_is_one_message() {
    let world = World::new();
    let source = Source::new(1, &"long policy ".repeat(100_000));
    source.edit(|list| {
        for n in 0..100_000 {
            list.insert(ended(&format!("s_{n:026}")));
        }
    });
    let control = Control::start(&world, &source, Pace::default()).await;
    let gateway = Gateway::start(world.config(control.address), Pace::default());
    gateway.follows().await;
    assert_eq!(gateway.sink.seen().list, Some(source.list()));
    assert_eq!(gateway.sink.seen().policy.unwrap().text.len(), 1_200_000);

    let fact = ended("the_one");
    source.edit(|list| list.insert(fact.clone()));
    let key = fact.key();
    let took = gateway
        .sink
        .until("it arrives", |seen| {
            seen.list.as_ref().is_some_and(|l| l.get(&key).is_some())
        })
        .await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        gateway.sink.seen().order,
        ["denylist", "keys", "policy", "denylist"]
    );
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_changes_is_followed_by_its_newest_state_however_slow_the_gateway() {
    let world = World::new();
    let source = Source::new(1, "policy 1");
    let control = Control::start(&world, &source, quick()).await;
    let slow = Gateway::start(world.config(control.address), quick());
    let fast = Gateway::start(world.config(control.address), quick());
    for gateway in [&slow, &fast] {
        gateway.follows().await;
    }
    *slow.sink.slow.lock().unwrap() = Duration::from_millis(200);
    let until = Instant::now() + Duration::from_secs(2);
    let mut changes = 0_u64;
    while Instant::now() < until {
        changes += 1;
        source.edit(|list| {
            list.insert(ended(&format!("s_{}", changes % 500)));
            list.remove(&ended(&format!("s_{}", (changes + 250) % 500)).key());
        });
        source.set_policy(changes + 1, &format!("policy {}", changes + 1));
        if changes.is_multiple_of(50) {
            // It stays fresh meanwhile: the flood does not pass for silence.
            assert!(
                fast.follower
                    .freshness()
                    .is_within(Duration::from_millis(1500))
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert!(changes > 1000, "{changes} are no flood");
    let newest = format!("policy {}", changes + 1);
    for gateway in [&slow, &fast] {
        gateway
            .sink
            .until("the newest is there", |seen| {
                seen.list == Some(source.list())
                    && seen.policy.as_ref().is_some_and(|p| *p.text == *newest)
            })
            .await;
        let order = gateway.sink.seen().order;
        assert!(
            order.len() < 300,
            "{} parts for {changes} changes",
            order.len()
        );
    }
    let parts = slow.sink.seen().order.len();
    assert!(
        parts < 40,
        "the slow one was sent {parts} parts instead of the newest"
    );
    slow.stop().await;
    fast.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_gateway_that_takes_nothing_in_the_control_plane_makes_no_messages() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let gateway = Gateway::start(world.config(control.address), quick());
    gateway.follows().await;
    *gateway.sink.slow.lock().unwrap() = Duration::from_secs(3);
    source.edit(|list| list.insert(ended("first")));
    let mut facts = 0_u64;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        source.edit(|list| {
            for _ in 0..200 {
                facts += 1;
                list.insert(denied(&format!("t_{facts}"), &"why ".repeat(120)));
            }
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    // A fact is half a kilobyte: what the connection holds is about as many as fit its window.
    let sent = control.server.followers()[0].denylist;
    assert!(facts > 4000, "{facts} are not enough to tell");
    assert!(sent < 2000, "{sent} of {facts} were written out for nobody");
    *gateway.sink.slow.lock().unwrap() = Duration::ZERO;
    gateway
        .sink
        .until("all is there", |seen| seen.list == Some(source.list()))
        .await;
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_load_is_reported_and_the_last_good_stays() {
    let world = World::new();
    let source = Source::new(1, "good");
    let control = Control::start(&world, &source, quick()).await;
    let sink = Sink::new();
    *sink.picky.lock().unwrap() = Some("bad");
    let gateway = Gateway::start_with(world.config(control.address), quick(), sink);
    gateway.follows().await;

    source.set_policy(2, "bad");
    let status = gateway
        .until("it is refused", |s| !s.refused.is_empty())
        .await;
    assert_eq!(status.refused[0].part, "policy");
    assert_eq!(status.refused[0].reason, "it does not load");
    assert_eq!(status.policy, Some(1));
    assert!(status.connected, "the rest goes on");
    assert_eq!(&*gateway.sink.seen().policy.unwrap().text, "good");
    // A revocation still arrives.
    source.edit(|list| list.insert(ended("s_1")));
    gateway
        .sink
        .until("the revocation", |seen| seen.list == Some(source.list()))
        .await;

    source.set_policy(3, "better");
    let status = gateway.until("it is mended", |s| s.policy == Some(3)).await;
    assert!(status.refused.is_empty());
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denylist_that_is_refused_is_not_called_fresh() {
    let world = World::new();
    let source = Source::new(1, "good");
    let control = Control::start(&world, &source, quick()).await;
    let sink = Sink::new();
    *sink.picky.lock().unwrap() = Some("");
    let gateway = Gateway::start_with(world.config(control.address), quick(), sink);
    gateway.follows().await;
    source.edit(|list| list.insert(killed()));
    let status = gateway
        .until("it is refused", |s| !s.refused.is_empty())
        .await;
    assert_eq!(status.refused[0].part, "denylist");
    let heard = gateway.follower.freshness().last_heard().unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let later = gateway.follower.freshness().last_heard().unwrap();
    assert!(
        later >= heard + Duration::from_millis(500),
        "{heard:?} {later:?}"
    );

    *gateway.sink.picky.lock().unwrap() = None;
    gateway
        .sink
        .until("it is taken", |seen| seen.list == Some(source.list()))
        .await;
    let status = gateway.until("it is mended", |s| s.connected).await;
    assert!(status.refused.is_empty());
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_with_a_private_key_does_not_travel() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let gateway = Gateway::start(world.config(control.address), quick());
    gateway.follows().await;
    source.set_keys(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"c2VjcmV0"}]}"#);
    source.set_policy(2, "after");
    gateway
        .sink
        .until("what came after is there", |seen| {
            seen.policy.as_ref().is_some_and(|p| p.number == 2)
        })
        .await;
    assert_eq!(gateway.sink.seen().keys.as_deref(), Some(KEYS));
    gateway.stop().await;
    control.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anomalies_arrive_under_the_certificates_name_also_those_from_before() {
    let world = World::new();
    let source = Source::new(1, "policy");
    let control = Control::start(&world, &source, quick()).await;
    let mut gateway = Gateway::ready(
        world.config(control.address),
        quick(),
        Sink::new(),
        machine_clock(),
    );
    let reporter = gateway.follower.reporter();
    for n in 0..200 {
        reporter.report(AnomalyRecord {
            time_unix_ms: n,
            session: id("s_1"),
            overrun: Overrun {
                budget: Budget::BytesOut,
                limit: 10,
                seen: 10 + n,
            },
            window_seconds: 60,
            armed: true,
        });
    }
    gateway.follow();
    let arrived = async {
        while source.reports.lock().unwrap().len() < 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, arrived)
        .await
        .expect("they arrive");
    let reports = source.reports.lock().unwrap().clone();
    for (n, (name, anomaly)) in reports.iter().enumerate() {
        assert_eq!((name.as_str(), anomaly.time_unix_ms), ("gw-1", n as u64));
    }
    gateway.stop().await;
    control.stop().await;
}
