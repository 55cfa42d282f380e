//! How long a leaf is held, who is told that it is due, and what takes it away.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outgate_journey::{denial::DenyCode, session::UnixSeconds};
use outgate_minter::Leaf;
use outgate_pki::CertificateAuthority;
use tokio::sync::Semaphore;

use crate::support::{HOUR, NOW, World, bumping, minter};

#[tokio::test]
async fn a_leaf_is_the_same_until_it_is_due_and_another_from_then_on() {
    let mut world = World::new(bumping(&["a.test"]));
    let first = world.leaf("a.test").await.unwrap();
    world.pass(13);
    assert!(Arc::ptr_eq(&first, &world.leaf("a.test").await.unwrap()));
    assert_eq!(world.announced(), [""; 0]);
    world.pass(3);
    assert!(world.announced().contains(&"a.test".to_owned()));
    let second = world.leaf("a.test").await.unwrap();
    assert_ne!(first.serial(), second.serial());
    assert_ne!(first.key_pem(), second.key_pem());
    assert_eq!(second.not_after(), UnixSeconds(world.now().0 + 24 * HOUR));
    assert_eq!(world.book.mints(), ["a.test", "a.test"]);
    world.pass(13);
    assert_eq!(world.announced(), [""; 0]);
}

#[tokio::test]
async fn a_leaf_that_nobody_asks_for_again_is_announced_and_not_renewed() {
    let mut world = World::new(bumping(&["a.test"]));
    world.leaf("a.test").await.unwrap();
    world.pass(24 * 3);
    assert!(world.announced().iter().all(|name| name == "a.test"));
    assert_eq!(world.book.mints(), ["a.test"]);
    assert_eq!(world.service.held(), 0);
}

#[tokio::test]
async fn renewals_are_spread_over_two_hours() {
    let hosts: Vec<_> = (0..60).map(|i| format!("h{i}.test")).collect();
    let names: Vec<_> = hosts.iter().map(String::as_str).collect();
    let world = World::new(bumping(&names));
    let mut due = BTreeSet::new();
    for name in names {
        due.insert(world.leaf(name).await.unwrap().due().0 - NOW.0);
    }
    assert!(due.len() > 40, "{due:?}");
    assert!(due.iter().all(|at| (14 * HOUR..=16 * HOUR).contains(at)));
    assert!(due.last().unwrap() - due.first().unwrap() > HOUR, "{due:?}");
}

#[tokio::test]
async fn a_leaf_that_is_due_and_cannot_be_renewed_serves_until_it_ends() {
    let mut world = World::new(bumping(&["a.test"]));
    let first = world.leaf("a.test").await.unwrap();
    world.pass(17);
    world.book.closed.store(true, Ordering::SeqCst);
    assert!(Arc::ptr_eq(&first, &world.leaf("a.test").await.unwrap()));
    world.announced();
    world.pass(1);
    assert_eq!(world.announced(), ["a.test"], "it is announced again");
    world.pass(6);
    assert_eq!(
        world.leaf("a.test").await.unwrap_err(),
        DenyCode::AuditUnavailable
    );
    world.book.closed.store(false, Ordering::SeqCst);
    assert!(world.leaf("a.test").await.is_ok());
}

#[tokio::test]
async fn a_leaf_that_is_not_good_yet_is_minted_again() {
    let world = World::new(bumping(&["a.test"]));
    world.clock.set_wall(UnixSeconds(NOW.0 + 48 * HOUR));
    let ahead = world.leaf("a.test").await.unwrap();
    world.clock.set_wall(NOW);
    let leaf = world.leaf("a.test").await.unwrap();
    assert_ne!(ahead.serial(), leaf.serial());
    assert_eq!(leaf.not_after(), UnixSeconds(NOW.0 + 24 * HOUR));
}

#[tokio::test]
async fn a_policy_takes_away_the_leaves_of_the_hosts_that_it_drops_and_no_others() {
    let mut world = World::new(bumping(&["a.test", "b.test", "*.wild.test"]));
    let kept = world.leaf("a.test").await.unwrap();
    for name in ["b.test", "x.wild.test", "y.wild.test"] {
        world.leaf(name).await.unwrap();
    }
    world
        .service
        .set_policy(bumping(&["a.test", "x.wild.test"]));
    assert_eq!(world.service.held(), 2);
    assert_eq!(
        world.announced().len(),
        1,
        "all secrets are asked for again"
    );
    assert!(Arc::ptr_eq(&kept, &world.leaf("a.test").await.unwrap()));
    for name in ["b.test", "y.wild.test"] {
        let refused = world.leaf(name).await.unwrap_err();
        assert_eq!(refused, DenyCode::DestinationNotAllowed, "{name}");
    }
    world.service.set_policy(bumping(&["b.test"]));
    world.leaf("b.test").await.unwrap();
    assert_eq!(world.book.mints().len(), 5);
    world.announced();
    world.pass(24);
    assert!(world.announced().iter().all(|name| name == "b.test"));
}

#[tokio::test]
async fn the_leaf_that_was_asked_for_longest_ago_makes_room() {
    let mut world = World::holding(bumping(&["*.test"]), 3);
    for name in ["a.test", "b.test", "c.test", "a.test", "d.test"] {
        world.leaf(name).await.unwrap();
    }
    assert_eq!(world.service.held(), 3);
    for name in ["a.test", "c.test", "d.test"] {
        world.leaf(name).await.unwrap();
    }
    assert_eq!(world.book.mints(), ["a.test", "b.test", "c.test", "d.test"]);
    world.pass(16);
    let announced: BTreeSet<_> = world.announced().into_iter().collect();
    let all = ["a.test", "b.test", "c.test", "d.test"].map(str::to_owned);
    assert_eq!(
        announced,
        BTreeSet::from(all),
        "whoever has b.test is told, too"
    );
}

#[tokio::test]
async fn a_guest_that_asks_for_ever_more_names_fills_no_memory() {
    let mut world = World::holding(bumping(&["*.test"]), 5);
    for i in 0..200 {
        world.leaf(&format!("h{i}.test")).await.unwrap();
        assert!(world.service.held() <= 5);
    }
    world.pass(16);
    let names: BTreeSet<_> = world.announced().into_iter().collect();
    assert_eq!(names.len(), 50);
}

#[tokio::test(start_paused = true)]
async fn the_service_looks_by_itself() {
    let mut world = World::new(bumping(&["a.test"]));
    world.leaf("a.test").await.unwrap();
    world.clock.advance(Duration::from_secs(16 * HOUR));
    let service = Arc::clone(&world.service);
    let looking = tokio::spawn(async move { service.keep_fresh().await });
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(world.announced(), ["a.test"]);
    looking.abort();
}

#[tokio::test]
async fn another_ca_signs_from_the_next_leaf_on_and_everybody_is_told() {
    let mut world = World::new(bumping(&["a.test", "b.test"]));
    let first = world.leaf("a.test").await.unwrap();
    let before = world.service.authority();
    world.service.set_minter(minter());
    let after = world.service.authority();
    assert_ne!(before.fingerprint_sha256(), after.fingerprint_sha256());
    assert_eq!(world.service.held(), 0);
    let told = world.announced();
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("Type("), "{told:?}");
    let second = world.leaf("a.test").await.unwrap();
    assert_ne!(first.serial(), second.serial());
    let vouches = |by: &CertificateAuthority, leaf: &Leaf| {
        by.vouches_for(leaf.chain_pem(), leaf.key_pem(), leaf.host(), NOW)
            .is_some()
    };
    assert!(vouches(&after, &second) && !vouches(&after, &first));
}

/// A mint that waits for its record while the CA is renewed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_leaf_of_the_ca_before_is_handed_out_once_it_was_renewed() {
    let world = Arc::new(World::new(bumping(&["a.test"])));
    world.book.disk.forget_permits(Semaphore::MAX_PERMITS);
    let asking = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.leaf("a.test").await }
    });
    while world.book.mints().is_empty() {
        tokio::task::yield_now().await;
    }
    world.service.set_minter(minter());
    world.book.disk.add_permits(2);
    let leaf = asking.await.unwrap().unwrap();
    let authority = world.service.authority();
    let vouched = authority.vouches_for(leaf.chain_pem(), leaf.key_pem(), leaf.host(), NOW);
    assert!(vouched.is_some());
    assert_eq!(world.book.mints(), ["a.test", "a.test"]);
}

#[tokio::test]
async fn a_ca_that_has_expired_is_a_refusal_of_its_own() {
    let world = World::new(bumping(&["a.test"]));
    world.clock.advance(Duration::from_secs(3651 * 24 * HOUR));
    assert_eq!(world.leaf("a.test").await.unwrap_err(), DenyCode::CaExpired);
}
