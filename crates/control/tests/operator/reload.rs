//! Settings that change while the interface is served.

use outgate_control::operator::{OperatorSettings, Scope};

use crate::world::{Who, World, secret_file};

#[tokio::test]
async fn a_token_that_was_changed_in_its_file_is_good_from_the_reload_on() {
    let world = World::new().await;
    let fresh = "a-fresh-token-0123456789abcdef0123456789";
    secret_file(world.token_file("read"), fresh);
    let path = "/v1/kill";
    assert_eq!(
        world
            .call(&Who::Token("read"), "GET", path, &[], b"")
            .await
            .status,
        200
    );
    let mut settings: OperatorSettings = world.settings();
    secret_file(world.token_file("read"), fresh);
    settings.tokens.retain(|token| token.name != "revoke");
    world.api.replace(settings).unwrap();
    world
        .refused(
            &Who::Token("read"),
            "GET",
            path,
            &[],
            b"",
            "credential_invalid",
        )
        .await;
    world
        .refused(
            &Who::Token("revoke"),
            "GET",
            path,
            &[],
            b"",
            "credential_invalid",
        )
        .await;
    let renewed = Who::Bearer(fresh.to_owned());
    assert_eq!(
        world.call(&renewed, "GET", path, &[], b"").await.status,
        200
    );
}

#[tokio::test]
async fn settings_that_cannot_be_read_change_nothing() {
    let world = World::new().await;
    let mut settings = world.settings();
    settings.tokens[0].scopes = vec![Scope::AuditRead];
    std::fs::remove_file(world.token_file("policy")).unwrap();
    let error = world.api.replace(settings).unwrap_err();
    assert_eq!(error.place, "operator.tokens policy");
    for name in ["all", "policy"] {
        let answer = world
            .call(&Who::Token(name), "GET", "/v1/policy", &[], b"")
            .await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn another_certificate_is_presented_after_it_was_replaced() {
    let mut world = World::new().await;
    let other = outgate_testkit::certs::TestCa::new("another CA");
    world.api.replace_tls(&crate::world::server_tls(&other));
    let refused = world.client("read").kill_state().await;
    assert!(
        refused.is_err(),
        "the client takes no certificate of a CA that it does not trust"
    );
    world.ca = other;
    world.client("read").kill_state().await.unwrap();
}
