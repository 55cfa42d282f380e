//! Leaves as secrets.

use std::sync::{Arc, atomic::Ordering};

use outgate_minter::{LeafSecrets, is_leaf_name};
use outgate_xds::{Client, LOCAL, Lookup, Source, type_urls};

use crate::support::{World, bumping};

fn served(world: &World) -> LeafSecrets {
    LeafSecrets::new(Arc::clone(&world.service))
}

#[tokio::test]
async fn a_secret_is_a_leaf_absent_or_to_be_asked_for_later() {
    let world = World::new(bumping(&["a.test"]));
    let secrets = served(&world);
    let client = Client::new("envoy-1", 1);
    let Lookup::Found(found) = secrets.one(&client, type_urls::SECRET, "a.test").await else {
        panic!("a leaf");
    };
    let leaf = world.leaf("a.test").await.unwrap();
    assert_eq!((&*found.name, &*found.version), ("a.test", leaf.serial()));
    for name in [
        "b.test",
        "A.test",
        "127.0.0.1",
        "",
        "credentials/a.test",
        "injections/a",
    ] {
        let lookup = secrets.one(&client, type_urls::SECRET, name).await;
        assert!(matches!(lookup, Lookup::Absent), "{name}");
    }
    let cluster = secrets.one(&client, type_urls::CLUSTER, "a.test").await;
    assert!(matches!(cluster, Lookup::Absent));
    assert!(secrets.all(&client, type_urls::SECRET).is_none());

    world.book.closed.store(true, Ordering::SeqCst);
    world.service.set_policy(bumping(&["b.test"]));
    let lookup = secrets.one(&client, type_urls::SECRET, "b.test").await;
    assert!(matches!(lookup, Lookup::Later));
    let lookup = secrets.one(&client, type_urls::SECRET, "a.test").await;
    assert!(
        matches!(lookup, Lookup::Absent),
        "a refusal needs no record"
    );
}

#[tokio::test]
async fn who_asks_is_who_the_connection_is() {
    let world = World::new(bumping(&["a.test", "b.test"]));
    let secrets = served(&world);
    for (client, name) in [("envoy-7", "a.test"), (LOCAL, "b.test")] {
        let client = Client::new(client, 1);
        assert!(matches!(
            secrets.secret(&client, name).await,
            Lookup::Found(_)
        ));
    }
    let kinds = world.book.records();
    let kinds: Vec<_> = kinds
        .iter()
        .map(|it| (it.operator.name.as_str(), it.operator.kind.as_str()))
        .collect();
    assert_eq!(kinds, [("envoy-7", "gateway"), ("local", "local")]);
}

#[test]
fn other_families_of_names_are_no_leaves() {
    for (name, leaf) in [
        ("a.test", true),
        ("", true),
        ("credentials/a.test", false),
        ("injections/a-01234567", false),
        ("/", false),
    ] {
        assert_eq!(is_leaf_name(name), leaf, "{name}");
    }
}
