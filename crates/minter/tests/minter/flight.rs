//! One mint for one name, however many ask, and whatever becomes of whoever asked first.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outgate_journey::denial::DenyCode;
use outgate_minter::{Asker, Leaf};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::{World, bumping};

/// Askers that wait, for a disk that does not answer yet.
async fn asking(world: &mut World, how_many: usize) -> JoinSet<Result<Arc<Leaf>, DenyCode>> {
    world.book.disk.forget_permits(Semaphore::MAX_PERMITS);
    let mut askers = JoinSet::new();
    for _ in 0..how_many {
        let service = Arc::clone(&world.service);
        askers.spawn(async move {
            let leaf = service.leaf(&Asker::local(), "a.test").await;
            leaf.map_err(|denial| denial.code())
        });
    }
    while world.book.records().is_empty() {
        tokio::task::yield_now().await;
    }
    askers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_askers_for_one_name_have_one_leaf() {
    let mut world = World::new(bumping(&["a.test"]));
    let mut askers = asking(&mut world, 1000).await;
    world.book.disk.add_permits(1);
    let mut serials = HashSet::new();
    while let Some(leaf) = askers.join_next().await {
        serials.insert(leaf.unwrap().unwrap().serial().to_owned());
    }
    assert_eq!(serials.len(), 1);
    assert_eq!(world.book.mints(), ["a.test"]);
}

#[tokio::test]
async fn nobody_has_a_leaf_before_its_record_is_on_disk() {
    let mut world = World::new(bumping(&["a.test"]));
    let mut askers = asking(&mut world, 3).await;
    let early = tokio::time::timeout(Duration::from_millis(50), askers.join_next()).await;
    assert!(early.is_err());
    assert_eq!(world.service.held(), 0);
    world.book.disk.add_permits(1);
    assert_eq!(askers.join_all().await.len(), 3);
    assert_eq!(world.service.held(), 1);
}

#[tokio::test]
async fn a_mint_goes_on_when_whoever_asked_first_is_gone() {
    let mut world = World::new(bumping(&["a.test"]));
    let mut first = asking(&mut world, 1).await;
    let service = Arc::clone(&world.service);
    let second = tokio::spawn(async move { service.leaf(&Asker::local(), "a.test").await });
    tokio::task::yield_now().await;
    first.shutdown().await;
    world.book.disk.add_permits(1);
    assert!(second.await.unwrap().is_ok());
    assert_eq!(world.book.mints(), ["a.test"]);
}

#[tokio::test]
async fn a_mint_that_fails_fails_once_for_all_who_wait() {
    let mut world = World::new(bumping(&["a.test"]));
    world.book.broken.store(true, Ordering::SeqCst);
    let askers = asking(&mut world, 100).await;
    world.book.disk.add_permits(1);
    for refused in askers.join_all().await {
        assert_eq!(refused.unwrap_err(), DenyCode::AuditUnavailable);
    }
    assert_eq!(world.book.records().len(), 1);
    world.book.broken.store(false, Ordering::SeqCst);
    assert!(world.leaf("a.test").await.is_ok());
}

#[tokio::test]
async fn a_host_that_is_dropped_while_its_leaf_is_minted_has_none() {
    let mut world = World::new(bumping(&["a.test"]));
    let askers = asking(&mut world, 10).await;
    world.service.set_policy(bumping(&["b.test"]));
    world.book.disk.add_permits(1);
    for refused in askers.join_all().await {
        assert_eq!(refused.unwrap_err(), DenyCode::DestinationNotAllowed);
    }
    assert_eq!(world.service.held(), 0);
}
