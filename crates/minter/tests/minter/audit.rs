//! What is on record: each mint, and refusals up to a number.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outgate_audit::{AuditKey, AuditLog, AuditOptions, RECORDS_FILE, Rotation};
use outgate_clock::FakeClock;
use outgate_journey::{denial::DenyCode, record::OperatorKind};
use outgate_minter::{Asker, LeafParts, LeafService};
use tokio::sync::broadcast;

use crate::support::{NOW, World, bumping, minter};

#[tokio::test]
async fn each_mint_says_who_has_which_leaf() {
    let world = World::new(bumping(&["a.test", "b.test"]));
    let leaf = world.leaf("a.test").await.unwrap();
    world.leaf("a.test").await.unwrap();
    world.service.leaf(&Asker::local(), "b.test").await.unwrap();
    let records = world.book.records();
    assert_eq!(records.len(), 2, "a leaf that is held is not minted");
    let first = &records[0];
    assert_eq!(first.request_id, leaf.serial());
    assert_eq!(first.time_unix_ms, NOW.0 * 1000);
    assert_eq!(
        (first.operator.name.as_str(), first.operator.kind),
        ("envoy-1", OperatorKind::Gateway)
    );
    assert_eq!(first.target.as_deref(), Some("a.test"));
    assert_eq!(first.outcome, Ok(()));
    assert_eq!(first.detail, "for envoy-1, good until 2026-09-22T14:13:20Z");
    assert_eq!(records[1].operator.kind, OperatorKind::Local);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_minted() {
    let world = World::new(bumping(&["a.test"]));
    world.book.closed.store(true, Ordering::SeqCst);
    assert_eq!(
        world.leaf("a.test").await.unwrap_err(),
        DenyCode::AuditUnavailable
    );
    assert_eq!(world.book.records().len(), 0);
    world.book.closed.store(false, Ordering::SeqCst);
    world.book.broken.store(true, Ordering::SeqCst);
    assert_eq!(
        world.leaf("a.test").await.unwrap_err(),
        DenyCode::AuditUnavailable
    );
    assert_eq!(world.service.held(), 0);
}

#[tokio::test]
async fn a_refusal_says_who_asked_for_what_and_why_not() {
    let world = World::new(bumping(&["a.test"]));
    let long = format!("{}.test", "ä".repeat(300));
    for name in ["b.test", "A.test", &long] {
        world.leaf(name).await.unwrap_err();
    }
    let told: Vec<_> = world.book.records();
    let told: Vec<_> = told
        .iter()
        .map(|it| {
            (
                it.target.as_deref().unwrap(),
                it.outcome.unwrap_err(),
                it.detail.as_str(),
            )
        })
        .collect();
    assert_eq!(told[0], ("b.test", "destination_not_allowed", "to envoy-1"));
    let spelt = "to envoy-1: not in its canonical spelling";
    assert_eq!(told[1], ("A.test", "host_invalid", spelt));
    assert_eq!(told[2].0.len(), 254);
}

#[tokio::test]
async fn refusals_without_end_are_summed_up_for_each_asker() {
    let world = World::new(bumping(&["a.test"]));
    for i in 0..1000 {
        world.leaf(&format!("h{i}.other")).await.unwrap_err();
    }
    for _ in 0..30 {
        world.leaf("10.0.0.1").await.unwrap_err();
    }
    assert_eq!(world.book.records().len(), 20);
    let quiet = Asker::plane("envoy-2");
    world.service.leaf(&quiet, "b.test").await.unwrap_err();
    assert_eq!(
        world.book.records().len(),
        21,
        "one that is loud hides no other"
    );

    world.service.look();
    assert_eq!(world.book.records().len(), 21);
    world.clock.advance(Duration::from_secs(10));
    world.service.look();
    let records = world.book.records();
    assert_eq!(records.len(), 22, "there is nothing to sum up of the other");
    let sum = records.last().unwrap();
    assert_eq!(sum.outcome, Err("leaves_refused"));
    assert_eq!(sum.operator.name, "envoy-1");
    let counts = "980 destination_not_allowed, 30 ip_literal";
    assert_eq!(
        sum.detail,
        format!("to envoy-1, without a record each: {counts}")
    );

    world.leaf("b.test").await.unwrap_err();
    assert_eq!(world.book.records().len(), 23, "then records begin again");
}

#[tokio::test]
async fn what_was_left_out_is_recorded_at_the_end() {
    let world = World::new(bumping(&[]));
    for _ in 0..21 {
        world.leaf("b.test").await.unwrap_err();
    }
    world.service.finish();
    world.service.finish();
    let records = world.book.records();
    assert_eq!(records.len(), 21);
    assert!(records[20].detail.ends_with("1 destination_not_allowed"));
}

#[tokio::test]
async fn no_key_is_in_the_trail_or_in_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(FakeClock::at(NOW));
    let options = AuditOptions {
        clock: clock.clone(),
        key: AuditKey::in_memory().unwrap(),
        rotation: Rotation::NEVER,
    };
    let log = AuditLog::open(folder.path(), options).unwrap();
    let service = LeafService::new(LeafParts {
        minter: minter(),
        policy: bumping(&["a.test"]),
        clock,
        trail: Arc::new(log.clone()),
        changes: broadcast::Sender::new(8),
        capacity: 8,
    });
    let leaf = service
        .leaf(&Asker::plane("envoy-1"), "a.test")
        .await
        .unwrap();
    // On disk already: the leaf is here.
    let trail = std::fs::read_to_string(folder.path().join(RECORDS_FILE)).unwrap();
    for expected in ["leaf.mint", "a.test", "envoy-1", leaf.serial()] {
        assert!(trail.contains(expected), "{expected}: {trail}");
    }
    let printed = format!("{leaf:?} {service:?}");
    let secret = leaf.key_pem().lines().nth(1).unwrap();
    for text in [&trail, &printed] {
        assert!(!text.contains(secret) && !text.contains("PRIVATE KEY"));
    }
}
