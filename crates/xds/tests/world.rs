//! The state-of-the-world protocol, rule by rule, over a real socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use outgate_envoy_proto::envoy::service::{
    discovery::v3::DiscoveryRequest,
    secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient as Sds,
};
use outgate_xds::{Change, XdsService};
use support::*;
use tonic::Code;

#[tokio::test]
async fn every_response_says_all_that_there_is_of_what_is_subscribed_to() {
    let served = serve();
    served.source.put(SECRET, "a", "1");
    let mut ads = served.world().await;
    ads.send(world(SECRET, &["a", "b"])).await;
    let first = ads.next().await;
    assert_eq!(world_text(&first), "Secret a@1");
    ads.ack(&first, &["a", "b"]).await;
    served.source.set(SECRET, "b", "1");
    let second = ads.next().await;
    assert_eq!(world_text(&second), "Secret a@1 b@1");
    assert_ne!(second.version_info, first.version_info);
    ads.ack(&second, &["a", "b"]).await;
    served.source.remove(SECRET, "a");
    let third = ads.next().await;
    assert_eq!(world_text(&third), "Secret b@1");
}

#[tokio::test]
async fn no_names_ask_for_everything_until_a_name_was_given() {
    let served = serve();
    served.source.put(CLUSTER, "a", "1");
    served.source.put(CLUSTER, "b", "1");
    let mut ads = served.world().await;
    ads.send(world(CLUSTER, &[])).await;
    let all = ads.next().await;
    assert_eq!(world_text(&all), "Cluster a@1 b@1");
    ads.ack(&all, &["*", "a"]).await;
    // It has it all, but the name was asked for just now.
    let again = ads.next().await;
    assert_eq!(world_text(&again), "Cluster a@1 b@1");
    ads.ack(&again, &["a"]).await;
    served.source.set(CLUSTER, "a", "2");
    let one = ads.next().await;
    assert_eq!(world_text(&one), "Cluster a@2");
    // This time it means nothing.
    ads.ack(&one, &[]).await;
    served.source.set(CLUSTER, "a", "3");
    let quiet = ads.is_quiet();
    quiet.await;
}

#[tokio::test]
async fn a_listener_that_is_left_out_is_gone_and_an_empty_world_is_said() {
    let served = serve();
    served.source.put(LISTENER, "l", "1");
    let mut ads = served.world().await;
    ads.send(world(LISTENER, &[])).await;
    let first = ads.next().await;
    ads.ack(&first, &[]).await;
    served.source.remove(LISTENER, "l");
    assert_eq!(world_text(&ads.next().await), "Listener");
    let mut other = served.world().await;
    other.send(world(CLUSTER, &[])).await;
    assert_eq!(world_text(&other.next().await), "Cluster");
}

#[tokio::test]
async fn a_request_with_an_old_nonce_is_passed_over() {
    let served = serve();
    served.source.put(SECRET, "a", "1");
    let mut ads = served.world().await;
    ads.send(world(SECRET, &["a"])).await;
    let first = ads.next().await;
    ads.ack(&first, &["a"]).await;
    served.source.set(SECRET, "a", "2");
    let second = ads.next().await;
    ads.ack(&first, &["a", "b"]).await;
    served.source.set(SECRET, "b", "1");
    ads.is_quiet().await;
    ads.ack(&second, &["a", "b"]).await;
    assert_eq!(world_text(&ads.next().await), "Secret a@2 b@1");
    let acks = served.source.events();
    assert_eq!(acks[1..], ["ack Secret a@1", "ack Secret a@2"]);
}

#[tokio::test]
async fn a_world_that_is_refused_is_not_sent_again_before_it_changes() {
    let served = serve();
    served.source.put(CLUSTER, "a", "1");
    let mut ads = served.world().await;
    ads.send(world(CLUSTER, &[])).await;
    let first = ads.next().await;
    ads.nack(&first, &[], "no").await;
    served.source.say(Change::Everything);
    ads.is_quiet().await;
    assert!(
        served
            .source
            .events()
            .contains(&"nack envoy-1 Cluster a@1: no".to_owned())
    );
    served.source.set(CLUSTER, "a", "2");
    assert_eq!(world_text(&ads.next().await), "Cluster a@2");
}

#[tokio::test]
async fn a_name_that_is_asked_for_anew_is_sent_though_it_was_sent_before() {
    let served = serve();
    for name in ["a", "b"] {
        served.source.put(SECRET, name, "1");
    }
    let mut ads = served.world().await;
    ads.send(world(SECRET, &["a", "b"])).await;
    let first = ads.next().await;
    ads.ack(&first, &["a"]).await;
    ads.is_quiet().await;
    ads.ack(&first, &["a", "b"]).await;
    assert_eq!(world_text(&ads.next().await), "Secret a@1 b@1");
}

#[tokio::test]
async fn who_comes_back_with_the_same_version_is_sent_nothing() {
    let served = serve();
    served.source.put(CLUSTER, "a", "1");
    let mut ads = served.world().await;
    ads.send(world(CLUSTER, &[])).await;
    let version_info = ads.next().await.version_info;
    drop(ads);
    let mut back = served.world().await;
    back.send(DiscoveryRequest {
        version_info,
        ..world(CLUSTER, &[])
    })
    .await;
    back.is_quiet().await;
    served.source.set(CLUSTER, "a", "2");
    assert_eq!(world_text(&back.next().await), "Cluster a@2");
}

#[tokio::test]
async fn of_what_changes_while_an_answer_is_awaited_only_the_last_is_sent() {
    let served = serve();
    served.source.put(CLUSTER, "a", "1");
    let mut ads = served.world().await;
    ads.send(world(CLUSTER, &[])).await;
    let first = ads.next().await;
    for version in ["2", "3"] {
        served.source.set(CLUSTER, "a", version);
    }
    ads.is_quiet().await;
    ads.ack(&first, &[]).await;
    let second = ads.next().await;
    assert_eq!(world_text(&second), "Cluster a@3");
    ads.ack(&second, &[]).await;
    ads.is_quiet().await;
}

#[tokio::test]
async fn a_new_policy_reaches_clusters_before_what_points_to_them() {
    let served = serve();
    let kinds = [ROUTE, LISTENER, CLUSTER];
    let mut ads = served.world().await;
    for kind in kinds {
        served.source.put(kind, "x", "1");
        ads.send(world(kind, &["x"])).await;
        let response = ads.next().await;
        ads.ack(&response, &["x"]).await;
    }
    for kind in kinds {
        served.source.put(kind, "x", "2");
    }
    served.source.say(Change::Everything);
    for kind in [CLUSTER, LISTENER, ROUTE] {
        let response = ads.next().await;
        assert_eq!(response.type_url, kind);
        ads.ack(&response, &["x"]).await;
    }
}

#[tokio::test]
async fn secrets_that_are_looked_up_come_together_and_a_slow_one_does_not_keep_them_for_ever() {
    let served = serve();
    for name in ["a", "b", "slow"] {
        served.source.put(SECRET, name, "1");
    }
    let mut ads = served.world().await;
    ads.send(world(SECRET, &["a", "b"])).await;
    let first = ads.next().await;
    assert_eq!(world_text(&first), "Secret a@1 b@1");
    served.source.hold();
    ads.ack(&first, &["a", "b", "slow"]).await;
    let second = ads.next().await;
    assert_eq!(world_text(&second), "Secret a@1 b@1");
    ads.ack(&second, &["a", "b", "slow"]).await;
    served.source.let_go();
    assert_eq!(world_text(&ads.next().await), "Secret a@1 b@1 slow@1");
}

#[tokio::test]
async fn secrets_can_be_fetched_once() {
    let served = serve();
    served.source.put(SECRET, "a", "1");
    let mut sds = Sds::with_origin(served.link().await, origin());
    let fetched = sds.fetch_secrets(world("", &["b", "a", "a"])).await;
    let fetched = fetched.ok().unwrap().into_inner();
    assert_eq!(world_text(&fetched), "Secret a@1");
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (request, code) in [
        (world(SECRET, &many), Code::ResourceExhausted),
        (world(SECRET, &[""]), Code::InvalidArgument),
        (world(CLUSTER, &["a"]), Code::InvalidArgument),
    ] {
        let refused = sds.fetch_secrets(request).await.err().unwrap();
        assert_eq!(refused.code(), code);
    }
    served
        .source
        .later
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let refused = sds
        .fetch_secrets(world(SECRET, &["a"]))
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn who_breaks_a_bound_loses_its_stream() {
    let source = TestSource::new();
    let service = XdsService::bounded(source.clone(), 3, PATIENCE, PATIENCE);
    let served = serve_this(source, service);
    let long = "x".repeat(513);
    for (request, code) in [
        (
            world(SECRET, &["a", "b", "c", "d"]),
            Code::ResourceExhausted,
        ),
        (world(SECRET, &[&long]), Code::InvalidArgument),
        (world("", &["a"]), Code::InvalidArgument),
    ] {
        let mut bad = served.world().await;
        bad.send(request).await;
        assert_eq!(bad.fault().await.code(), code);
    }
}
