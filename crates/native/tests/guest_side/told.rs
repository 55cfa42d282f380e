//! Credentials that another process tells: attached as it says at this moment, and not at all without it.

use std::time::Duration;

use outgate_config::Config;
use outgate_journey::{denial::DenyCode, record::Entry};
use outgate_native::gateway::Attribution;
use outgate_testkit::{TestCa, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    vault::Vault,
    world::{SECOND, Setup, Way, World},
};

const FIRST: &str = "told-first-Q7f3vN0pXz2LrT8w";
const NONE: Result<&str, &str> = Err("credential_unavailable");
const SECOND_VALUE: &str = "told-second-mH6dJ9sRcV1uKq4g";

/// A server that is not open yet, and where it will be.
fn vault() -> (Vault, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Vault::at(&folder.path().join("vault.sock")), folder)
}

fn from(folder: &TempDir, max_age: Option<&str>) -> Value {
    let mut sds = json!({ "socket": folder.path().join("vault.sock"), "name": "the-key" });
    if let Some(max_age) = max_age {
        sds["max_age"] = max_age.into();
    }
    json!({ "from": { "sds": sds } })
}

/// A gateway whose `a.test` gets what the server says.
async fn world(folder: &TempDir, max_age: Option<&str>) -> World {
    let source = from(folder, max_age);
    let setup = Setup::new(Attribution::BySocket)
        .config(move |config, _| config["credentials"]["k1"] = source);
    World::with(setup).await
}

/// What the upstream was sent as the credential; else why nothing was.
async fn attached(world: &World) -> Result<String, String> {
    let req = world.get(Way::Clear, "a.test", "/").bearer(&world.token());
    let outcome = world.send(Way::Clear, &req).await;
    if let Some(reason) = outcome.reason() {
        assert_eq!(outcome.response().unwrap().status, 503, "{outcome:?}");
        return Err(reason.to_owned());
    }
    assert_eq!(outcome.answered().status, 200);
    let seen = world.clear.last();
    Ok(seen
        .headers
        .get("x-api-key")
        .unwrap_or("nothing")
        .to_owned())
}

async fn until(world: &World, limit: Duration, wanted: Result<&str, &str>) {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let found = attached(world).await;
        if found.as_ref().map(String::as_str).map_err(String::as_str) == wanted {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{found:?}, not {wanted:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_value_of_the_moment_is_attached_and_with_its_removal_nothing_is() {
    let (mut vault, folder) = vault();
    vault.put("the-key", FIRST);
    vault.open();
    let world = world(&folder, None).await;
    until(&world, 3 * SECOND, Ok(FIRST)).await;
    vault.put("the-key", SECOND_VALUE);
    until(&world, SECOND, Ok(SECOND_VALUE)).await;
    vault.remove("the-key");
    until(&world, SECOND, NONE).await;
    let mark = world.mark();
    let req = world.get(Way::TlsH2, "a.test", "/").bearer(&world.token());
    let outcome = world.send(Way::TlsH2, &req).await;
    world
        .assert_denied(
            mark,
            &outcome,
            Entry::Bumped,
            DenyCode::CredentialUnavailable,
            "removed",
        )
        .await;
    vault.put("the-key", "");
    until(&world, SECOND, NONE).await;
    vault.put("the-key", FIRST);
    until(&world, SECOND, Ok(FIRST)).await;
    world.finish().await;
}

#[tokio::test]
async fn a_gateway_starts_without_the_server_and_serves_as_soon_as_it_is_there() {
    let (mut vault, folder) = vault();
    let world = world(&folder, None).await;
    until(&world, SECOND, NONE).await;
    let others = world.get(Way::TlsH1, "b.test", "/").bearer(&world.token());
    assert_eq!(world.send(Way::TlsH1, &others).await.answered().status, 200);
    vault.open();
    vault.withhold("the-key");
    until(&world, SECOND, NONE).await;
    vault.put("the-key", FIRST);
    until(&world, 6 * SECOND, Ok(FIRST)).await;
    world.finish().await;
}

#[tokio::test]
async fn without_its_server_a_value_is_used_for_as_long_as_max_age_and_without_one_on() {
    for (max_age, after) in [(Some("1s"), NONE), (None, Ok(FIRST))] {
        let (mut vault, folder) = vault();
        vault.put("the-key", FIRST);
        vault.open();
        let world = world(&folder, max_age).await;
        until(&world, 3 * SECOND, Ok(FIRST)).await;
        vault.close().await;
        if max_age.is_some() {
            until(&world, 5 * SECOND, after).await;
        } else {
            tokio::time::sleep(SECOND).await;
            assert_eq!(attached(&world).await.as_deref(), Ok(FIRST));
        }
        vault.open();
        until(&world, 8 * SECOND, Ok(FIRST)).await;
        world.finish().await;
    }
}

#[tokio::test]
async fn what_is_no_key_is_not_attached_and_takes_the_last_one_away() {
    let (mut vault, folder) = vault();
    vault.open();
    let world = world(&folder, None).await;
    let (chain, key) = TestCa::new("a CA").issue_pem(&["a.test"]);
    let (_, foreign) = world.foreign_token().await;
    let cases: [(&str, &dyn Fn()); 3] = [
        ("a certificate", &|| {
            vault.put_certificate("the-key", &chain, &key)
        }),
        ("the guest's token", &|| {
            vault.put("the-key", &world.token())
        }),
        ("another's token", &|| vault.put("the-key", &foreign)),
    ];
    for (what, put) in cases {
        vault.put("the-key", FIRST);
        until(&world, 3 * SECOND, Ok(FIRST)).await;
        put();
        until(&world, SECOND, NONE).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            attached(&world).await.unwrap_err(),
            "credential_unavailable",
            "{what}"
        );
    }
    world.assert_no_upstream_saw(&foreign);
    world.finish().await;
}

/// The configuration with this as `k1`.
fn changed(world: &World, k1: &Value) -> Config {
    world.changed(|config| config["credentials"]["k1"] = k1.clone())
}

#[tokio::test]
async fn a_reload_follows_what_it_names_and_leaves_what_it_names_no_more() {
    let (mut vault, folder) = vault();
    vault.put("the-key", FIRST);
    vault.open();
    let world = world(&folder, None).await;
    until(&world, 3 * SECOND, Ok(FIRST)).await;
    let file = folder.path().join("k1-file");
    std::fs::write(&file, "from-a-file").unwrap();

    let next = changed(&world, &json!({ "from": { "file": file } }));
    world.gateway.take_over(next).unwrap();
    assert_eq!(attached(&world).await.as_deref(), Ok("from-a-file"));
    let left = eventually(3 * SECOND, || (vault.streams() == 0).then_some(()));
    left.await.expect("nobody asks it for anything");

    let next = changed(&world, &from(&folder, Some("1h")));
    world.gateway.take_over(next).unwrap();
    until(&world, 3 * SECOND, Ok(FIRST)).await;
    let next = changed(&world, &from(&folder, Some("2h")));
    world.gateway.take_over(next).unwrap();
    assert_eq!(
        attached(&world).await.as_deref(),
        Ok(FIRST),
        "known already"
    );

    let missing = json!({ "from": { "sds": { "address": "vault.test:1", "name": "k",
        "ca": "absent.pem", "certificate": "absent.pem", "key": "absent.key" } } });
    let next = changed(&world, &missing);
    let refused = world.gateway.take_over(next).unwrap_err().to_string();
    assert!(
        refused.contains("vault.test:1") && refused.contains("absent.pem"),
        "{refused}"
    );
    vault.put("the-key", SECOND_VALUE);
    until(&world, SECOND, Ok(SECOND_VALUE)).await;
    world.finish().await;
}
