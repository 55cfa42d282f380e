//! The incremental protocol, rule by rule, over a real socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use outgate_envoy_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use outgate_xds::{Change, XdsService};
use support::*;
use tonic::Code;

#[tokio::test]
async fn two_types_share_a_stream_and_neither_waits_for_the_others_answer() {
    let served = serve();
    served.source.put(CLUSTER, "c", "1");
    served.source.put(SECRET, "a.example", "1");
    let mut ads = served.ads().await;
    ads.subscribe(CLUSTER, &[]).await;
    let clusters = ads.next().await;
    assert_eq!(text(&clusters), "Cluster c@1");
    // Not answered yet.
    ads.subscribe(SECRET, &["a.example"]).await;
    assert_eq!(ads.told().await, "Secret a.example@1");
    served.source.set(SECRET, "a.example", "2");
    assert_eq!(ads.told().await, "Secret a.example@2");
    assert!(
        !served
            .source
            .events()
            .contains(&"ack Cluster c@1".to_owned())
    );
    ads.ack(&clusters).await;
    until("the answer", || {
        served
            .source
            .events()
            .contains(&"ack Cluster c@1".to_owned())
    })
    .await;
}

#[tokio::test]
async fn a_first_request_without_names_asks_for_everything() {
    let served = serve();
    served.source.put(CLUSTER, "c", "1");
    let mut ads = served.ads().await;
    ads.subscribe(CLUSTER, &[]).await;
    assert_eq!(ads.told().await, "Cluster c@1");
    served.source.set(CLUSTER, "d", "1");
    assert_eq!(ads.told().await, "Cluster d@1", "only what changed");
    served.source.remove(CLUSTER, "c");
    assert_eq!(ads.told().await, "Cluster -c");
}

#[tokio::test]
async fn everything_is_answered_even_where_there_is_nothing() {
    let served = serve();
    let mut ads = served.ads().await;
    ads.subscribe(LISTENER, &["*"]).await;
    assert_eq!(ads.told().await, "Listener");
    served.source.set(LISTENER, "l", "1");
    assert_eq!(ads.told().await, "Listener l@1");
    ads.unsubscribe(LISTENER, &["*"]).await;
    ads.is_caught_up_with().await;
    served.source.set(LISTENER, "l", "2");
    ads.is_quiet().await;
}

#[tokio::test]
async fn a_type_without_a_whole_has_no_wildcard() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &[]).await;
    ads.subscribe(SECRET, &["*"]).await;
    ads.is_quiet().await;
    ads.subscribe(SECRET, &["a.example"]).await;
    assert_eq!(ads.told().await, "Secret a.example@1");
}

#[tokio::test]
async fn a_name_is_answered_each_time_it_is_asked_for() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    let mut sds = served.sds().await;
    for _ in 0..3 {
        sds.subscribe("", &["a.example"]).await;
        assert_eq!(sds.told().await, "Secret a.example@1");
    }
    sds.is_quiet().await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_said_to_be_gone_at_once_and_comes_when_it_is_made() {
    let served = serve();
    let mut sds = served.sds().await;
    sds.subscribe(SECRET, &["a.example"]).await;
    assert_eq!(sds.told().await, "Secret -a.example");
    served.source.say(Change::Type(SECRET));
    sds.is_quiet().await;
    served.source.set(SECRET, "a.example", "1");
    assert_eq!(sds.told().await, "Secret a.example@1");
    served.source.remove(SECRET, "a.example");
    assert_eq!(sds.told().await, "Secret -a.example");
}

#[tokio::test]
async fn a_name_that_was_unsubscribed_is_spoken_of_no_more() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    let mut sds = served.sds().await;
    sds.subscribe(SECRET, &["a.example"]).await;
    assert_eq!(sds.told().await, "Secret a.example@1");
    sds.unsubscribe(SECRET, &["a.example", "never.example"])
        .await;
    // A request that is read after that one, and answered.
    sds.subscribe(SECRET, &["b.example"]).await;
    assert_eq!(sds.told().await, "Secret -b.example");
    let lookups = served.source.lookups();
    served.source.set(SECRET, "a.example", "2");
    sds.is_quiet().await;
    assert_eq!(served.source.lookups(), lookups);
}

#[tokio::test]
async fn who_has_everything_and_gives_up_a_name_is_told_whether_it_is_part_of_everything() {
    let served = serve();
    served.source.put(CLUSTER, "c", "1");
    let mut ads = served.ads().await;
    ads.subscribe(CLUSTER, &["*", "c", "other"]).await;
    assert_eq!(ads.told().await, "Cluster -other c@1");
    ads.unsubscribe(CLUSTER, &["c"]).await;
    assert_eq!(ads.told().await, "Cluster c@1");
    ads.unsubscribe(CLUSTER, &["other"]).await;
    assert_eq!(ads.told().await, "Cluster -other");
    // Everything is given up, the name is not.
    ads.subscribe(CLUSTER, &["c"]).await;
    assert_eq!(ads.told().await, "Cluster c@1");
    ads.unsubscribe(CLUSTER, &["*"]).await;
    ads.is_caught_up_with().await;
    served.source.put(CLUSTER, "d", "1");
    served.source.set(CLUSTER, "c", "2");
    assert_eq!(ads.told().await, "Cluster c@2");
}

#[tokio::test]
async fn who_comes_back_is_sent_only_what_it_lacks() {
    let served = serve();
    for name in ["same", "newer"] {
        served.source.put(SECRET, name, "2");
        served.source.put(CLUSTER, name, "2");
    }
    let had = |type_url: &str, names: &[&str]| DeltaDiscoveryRequest {
        initial_resource_versions: [("same", "2"), ("newer", "1"), ("gone", "1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        ..delta(type_url, names)
    };
    let mut ads = served.ads().await;
    ads.send(had(SECRET, &["same", "newer", "gone", "new"]))
        .await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let response = ads.next().await;
        ads.ack(&response).await;
        told.extend(text(&response).split(' ').skip(1).map(str::to_owned));
    }
    told.sort();
    assert_eq!(told, ["-gone", "-new", "newer@2"]);
    ads.send(had(CLUSTER, &[])).await;
    assert_eq!(ads.told().await, "Cluster -gone newer@2");
    ads.is_quiet().await;
}

#[tokio::test]
async fn who_comes_back_with_all_of_it_is_sent_nothing() {
    let served = serve();
    served.source.put(CLUSTER, "c", "1");
    let mut ads = served.ads().await;
    ads.send(DeltaDiscoveryRequest {
        initial_resource_versions: [("c".to_owned(), "1".to_owned())].into(),
        ..delta(CLUSTER, &["*"])
    })
    .await;
    ads.is_quiet().await;
    served.source.set(CLUSTER, "c", "2");
    assert_eq!(ads.told().await, "Cluster c@2");
}

#[tokio::test]
async fn a_refused_version_is_not_sent_again_and_its_refusal_is_reported() {
    let served = serve();
    served.source.put(CLUSTER, "bad", "1");
    let mut ads = served.ads().await;
    ads.subscribe(CLUSTER, &[]).await;
    let response = ads.next().await;
    ads.nack(&response, &format!("no\nway {}", "x".repeat(5000)))
        .await;
    until("the report", || {
        served
            .source
            .events()
            .iter()
            .any(|event| event.starts_with("nack"))
    })
    .await;
    let events = served.source.events();
    let report = events
        .iter()
        .find(|event| event.starts_with("nack"))
        .unwrap();
    assert!(
        report.starts_with("nack envoy-1 Cluster bad@1: no?way xxx"),
        "{report}"
    );
    assert!(report.len() < 1100);
    served.source.say(Change::Everything);
    ads.is_quiet().await;
    served.source.set(CLUSTER, "good", "1");
    assert_eq!(ads.told().await, "Cluster good@1");
    served.source.set(CLUSTER, "bad", "2");
    assert_eq!(ads.told().await, "Cluster bad@2");
}

#[tokio::test]
async fn of_what_changes_while_an_answer_is_awaited_only_the_last_is_sent() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    let mut sds = served.sds().await;
    sds.subscribe(SECRET, &["a.example", "b.example"]).await;
    let first = sds.next().await;
    assert_eq!(text(&first), "Secret -b.example a.example@1");
    for version in ["2", "3", "4"] {
        served.source.set(SECRET, "a.example", version);
    }
    served.source.set(SECRET, "b.example", "1");
    served.source.remove(SECRET, "b.example");
    sds.is_quiet().await;
    sds.ack(&first).await;
    assert_eq!(sds.told().await, "Secret a.example@4");
    sds.is_quiet().await;
}

#[tokio::test]
async fn a_client_that_never_answers_is_not_waited_for_for_ever() {
    let source = TestSource::new();
    let quick = Duration::from_millis(300);
    let service = XdsService::bounded(source.clone(), 10, PATIENCE, quick);
    let served = serve_this(source, service);
    let mut sds = served.sds().await;
    sds.subscribe(SECRET, &["a.example"]).await;
    assert_eq!(text(&sds.next().await), "Secret -a.example");
    served.source.set(SECRET, "a.example", "1");
    assert_eq!(text(&sds.next().await), "Secret a.example@1");
}

#[tokio::test]
async fn an_old_nonce_answers_nothing_but_what_else_is_asked_counts() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    let mut sds = served.sds().await;
    sds.subscribe(SECRET, &["a.example"]).await;
    let first = sds.next().await;
    sds.ack(&first).await;
    served.source.set(SECRET, "a.example", "2");
    let second = sds.next().await;
    // The old nonce again, with another wish.
    sds.send(DeltaDiscoveryRequest {
        response_nonce: first.nonce.clone(),
        ..delta(SECRET, &["b.example"])
    })
    .await;
    sds.is_quiet().await;
    sds.ack(&second).await;
    assert_eq!(sds.told().await, "Secret -b.example");
    until("the answers", || served.source.events().len() == 4).await;
    assert_eq!(
        served.source.events()[1..],
        [
            "ack Secret a.example@1",
            "ack Secret a.example@2",
            "ack Secret -b.example"
        ]
    );
}

#[tokio::test]
async fn a_new_policy_makes_before_it_breaks() {
    let served = serve();
    let source = &served.source;
    source.put(CLUSTER, "old", "1");
    source.put(LISTENER, "l", "1");
    source.put(ROUTE, "r", "1");
    source.put(SECRET, "s", "1");
    let mut ads = served.ads().await;
    for (kind, name) in [(SECRET, "s"), (ROUTE, "r"), (LISTENER, "*"), (CLUSTER, "*")] {
        ads.subscribe(kind, &[name]).await;
        ads.told().await;
    }
    source.take(CLUSTER, "old");
    source.put(CLUSTER, "new", "1");
    source.put(LISTENER, "l", "2");
    source.put(ROUTE, "r", "2");
    source.put(SECRET, "s", "2");
    source.say(Change::Everything);
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(ads.told().await);
    }
    let at = |what: &str| {
        order
            .iter()
            .position(|told| told == what)
            .unwrap_or_else(|| panic!("{what} of {order:?}"))
    };
    assert!(at("Cluster new@1") < at("Listener l@2"), "{order:?}");
    assert!(
        at("Listener l@2") < at("RouteConfiguration r@2"),
        "{order:?}"
    );
    assert!(
        at("RouteConfiguration r@2") < at("Cluster -old"),
        "{order:?}"
    );
    assert!(at("Secret s@2") < 5);
}

#[tokio::test]
async fn listeners_wait_for_clusters_that_cannot_be_sent_yet_and_secrets_do_not() {
    let served = serve();
    let source = &served.source;
    for kind in [CLUSTER, LISTENER] {
        source.put(kind, "x", "1");
    }
    source.put(SECRET, "x", "1");
    let mut ads = served.ads().await;
    ads.subscribe(LISTENER, &[]).await;
    ads.told().await;
    ads.subscribe(SECRET, &["x"]).await;
    ads.told().await;
    ads.subscribe(CLUSTER, &[]).await;
    // Warming: its answer comes when its secret has.
    let clusters = ads.next().await;
    for kind in [CLUSTER, LISTENER] {
        source.put(kind, "y", "1");
    }
    source.put(SECRET, "x", "2");
    source.say(Change::Everything);
    assert_eq!(ads.told().await, "Secret x@2");
    ads.is_quiet().await;
    ads.ack(&clusters).await;
    assert_eq!(ads.told().await, "Cluster y@1");
    assert_eq!(ads.told().await, "Listener y@1");
}

#[tokio::test]
async fn a_change_of_one_among_thousands_costs_one_look_up() {
    let served = serve();
    let names: Vec<String> = (0..5_000).map(|n| format!("host-{n}.example")).collect();
    for name in &names {
        served.source.put(SECRET, name, "1");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &names).await;
    let mut told = 0;
    while told < names.len() {
        let response = ads.next().await;
        ads.ack(&response).await;
        told += response.resources.len();
    }
    assert!(served.source.most.load(Ordering::SeqCst) <= 64);
    let before = served.source.lookups();
    served.source.set(SECRET, "host-77.example", "2");
    served.source.set(SECRET, "nobody.example", "2");
    assert_eq!(ads.told().await, "Secret host-77.example@2");
    assert_eq!(served.source.lookups() - before, 1);
}

#[tokio::test]
async fn all_are_looked_up_again_even_where_nothing_comes_of_it() {
    let served = serve();
    let names: Vec<String> = (0..300).map(|n| format!("host-{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &names).await;
    let mut told = 0;
    while told < names.len() {
        let response = ads.next().await;
        ads.ack(&response).await;
        told += response.removed_resources.len();
    }
    served.source.say(Change::Type(SECRET));
    until("the look-ups", || served.source.lookups() == 600).await;
    ads.is_quiet().await;
}

#[tokio::test]
async fn one_that_takes_long_keeps_no_other_waiting_and_few_are_looked_up_at_once() {
    let served = serve();
    served.source.put(SECRET, "slow.example", "1");
    let mut ads = served.ads().await;
    served.source.hold();
    let names: Vec<String> = (0..63).map(|n| format!("{n}.example")).collect();
    let mut held: Vec<&str> = names.iter().map(String::as_str).collect();
    held.push("slow.example");
    ads.subscribe(SECRET, &held[1..]).await;
    until("the look-ups", || served.source.lookups() == 63).await;
    // The place that is left.
    served.source.held.store(false, Ordering::SeqCst);
    ads.subscribe(SECRET, &["quick.example"]).await;
    assert_eq!(ads.told().await, "Secret -quick.example");
    served.source.hold();
    ads.subscribe(SECRET, &["x.example", "y.example"]).await;
    until("the look-up", || served.source.lookups() == 65).await;
    tokio::time::sleep(QUIET).await;
    assert_eq!(served.source.lookups(), 65, "the last waits for a place");
    served.source.let_go();
    let mut told = 0;
    while told < 65 {
        let response = ads.next().await;
        ads.ack(&response).await;
        told += response.resources.len() + response.removed_resources.len();
    }
    assert_eq!(served.source.most.load(Ordering::SeqCst), 64);
}

#[tokio::test]
async fn what_cannot_be_told_now_is_told_later() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    served.source.later.store(true, Ordering::SeqCst);
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &["a.example"]).await;
    ads.is_quiet().await;
    served.source.later.store(false, Ordering::SeqCst);
    assert_eq!(ads.told().await, "Secret a.example@1");
}

#[tokio::test]
async fn many_secrets_are_sent_in_messages_of_a_bearable_size() {
    let served = serve();
    served.source.body_bytes.store(300_000, Ordering::SeqCst);
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for name in &names {
        served.source.put(SECRET, name, "1");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &names).await;
    let mut told = 0;
    while told < names.len() {
        let response = ads.next().await;
        assert!(prost::Message::encoded_len(&response) < 2_200_000);
        ads.ack(&response).await;
        told += response.resources.len();
    }
}

#[tokio::test]
async fn who_breaks_a_bound_loses_its_stream_and_nobody_else_loses_anything() {
    let source = TestSource::new();
    let service = XdsService::bounded(source.clone(), 3, PATIENCE, PATIENCE);
    let served = serve_this(source, service);
    let link = served.link().await;
    let mut good = DeltaStream::ads(link.clone()).await;
    good.subscribe(SECRET, &["a.example"]).await;
    good.told().await;
    let long = "x".repeat(513);
    for (request, code) in [
        (
            delta(SECRET, &["a", "b", "c", "d"]),
            Code::ResourceExhausted,
        ),
        (delta(SECRET, &[&long]), Code::InvalidArgument),
        (delta(SECRET, &[""]), Code::InvalidArgument),
        (delta("", &["a"]), Code::InvalidArgument),
        (delta(&long, &["a"]), Code::InvalidArgument),
        (
            DeltaDiscoveryRequest {
                initial_resource_versions: (0..4)
                    .map(|n| (n.to_string(), "1".to_owned()))
                    .collect(),
                ..delta(SECRET, &["a"])
            },
            Code::ResourceExhausted,
        ),
    ] {
        let mut bad = DeltaStream::ads(link.clone()).await;
        bad.send(request).await;
        let status = bad.fault().await;
        assert_eq!(status.code(), code, "{status}");
        assert!(!status.message().is_empty());
    }
    let mut types = DeltaStream::ads(link.clone()).await;
    for n in 0..33 {
        types
            .subscribe(&format!("type.googleapis.com/{n}"), &[])
            .await;
    }
    assert_eq!(types.fault().await.code(), Code::ResourceExhausted);
    let mut other = DeltaStream::sds(link).await;
    other.subscribe(CLUSTER, &["a"]).await;
    assert_eq!(other.fault().await.code(), Code::InvalidArgument);
    served.source.set(SECRET, "a.example", "1");
    assert_eq!(good.told().await, "Secret a.example@1");
}

#[tokio::test]
async fn places_that_are_given_up_can_be_taken_again() {
    let source = TestSource::new();
    let service = XdsService::bounded(source.clone(), 2, PATIENCE, PATIENCE);
    let served = serve_this(source, service);
    let mut ads = served.ads().await;
    ads.subscribe(SECRET, &["a", "a", "b"]).await;
    assert_eq!(ads.told().await, "Secret -a -b");
    for n in 0..5 {
        let (old, new) = (format!("n{}", n - 1), format!("n{n}"));
        let old = if n == 0 { "a" } else { &old };
        ads.unsubscribe(SECRET, &[old]).await;
        ads.subscribe(SECRET, &[&new]).await;
        assert_eq!(ads.told().await, format!("Secret -{new}"));
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up_and_costs_others_nothing() {
    let source = TestSource::new();
    let quick = Duration::from_millis(300);
    let service = XdsService::bounded(source.clone(), 100_000, quick, Duration::ZERO);
    let served = serve_this(source, service);
    served.source.body_bytes.store(500_000, Ordering::SeqCst);
    let link = served.link().await;
    let slow = DeltaStream::ads(link.clone()).await;
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    for name in &names {
        served.source.put(SECRET, name, "1");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    slow.subscribe(SECRET, &names).await;
    until("the stream", || served.service.streams() == 1).await;
    until("its end", || served.service.streams() == 0).await;
    served.source.body_bytes.store(0, Ordering::SeqCst);
    let mut other = DeltaStream::ads(link).await;
    other.subscribe(SECRET, &["1"]).await;
    assert_eq!(other.told().await, "Secret 1@1");
}

#[tokio::test]
async fn what_a_client_calls_itself_is_cleaned_and_its_coming_and_going_reported() {
    let served = serve();
    let mut ads = served.ads().await;
    let mut request = delta(SECRET, &["a"]);
    request.node.as_mut().unwrap().id = format!("a\nb{}", "c".repeat(1000));
    ads.send(request).await;
    ads.told().await;
    let event = served.source.events()[0].clone();
    assert!(event.starts_with("connected local a?bccc"), "{event}");
    assert!(event.len() < 300);
    drop(ads);
    until("its going", || {
        served
            .source
            .events()
            .iter()
            .any(|event| event.starts_with("gone local a?b"))
    })
    .await;
    assert_eq!(served.service.streams(), 0);
}

#[tokio::test]
async fn who_says_all_it_wants_and_hangs_up_is_still_answered() {
    let served = serve();
    served.source.put(SECRET, "a.example", "1");
    let DeltaStream {
        requests,
        mut responses,
    } = served.ads().await;
    requests.send(delta(SECRET, &["a.example"])).await.unwrap();
    drop(requests);
    let response = responses.message().await.unwrap().unwrap();
    assert_eq!(text(&response), "Secret a.example@1");
    assert!(responses.message().await.unwrap().is_none());
}

#[tokio::test]
async fn what_may_be_used_for_a_time_only_is_prolonged_for_as_long_as_it_is_there() {
    let served = serve();
    let ttl = Duration::from_millis(300);
    *served.source.ttl.lock().unwrap() = Some(ttl);
    served.source.put(SECRET, "a", "1");
    let mut sds = served.sds().await;
    sds.subscribe(SECRET, &["a"]).await;
    let first = sds.next().await;
    assert!(first.resources[0].resource.is_some());
    sds.ack(&first).await;
    for _ in 0..3 {
        let beat = sds.next().await;
        assert_eq!(text(&beat), "Secret a@1");
        assert!(beat.resources[0].resource.is_none());
        let said = beat.resources[0]
            .ttl
            .map(|ttl| Duration::try_from(ttl).unwrap());
        assert_eq!(said, Some(ttl));
        sds.ack(&beat).await;
    }
    served.source.remove(SECRET, "a");
    assert_eq!(sds.told().await, "Secret -a");
    sds.is_quiet().await;
}
