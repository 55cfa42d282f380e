//! Another configuration holds from the next request on.

use serde_json::json;

use crate::{
    idp::{Signer, jwks},
    world::{Options, World, echoed, reason},
};

#[tokio::test]
async fn another_configuration_holds_from_the_next_request_on() {
    let world = World::in_clear(json!({})).await;
    let line = format!("Authorization: Bearer {}", world.token());
    let mut kept = world.h1().await;
    let ask = format!("GET /x HTTP/1.1\r\nHost: agent.test\r\n{line}\r\n\r\n");
    kept.write(ask.as_bytes()).await.unwrap();
    echoed(&kept.read_response("GET").await.unwrap());

    let other = Signer::p256("2");
    let text = jwks([&other]).to_string();
    std::fs::write(world.folder.path().join("other.json"), text).unwrap();
    let issuers = json!([{ "issuer": "other", "audience": "agent", "jwks_file": "other.json" }]);
    let next = world.reconfigured(&Options {
        is_tls: false,
        keys: json!({ "issuers": issuers, "exempt": [] }),
        ..Options::default()
    });
    let prepared = world.listener.prepare(&next.inbound[0], None).unwrap();
    // Nothing has changed before it is put in force.
    echoed(&world.get("/healthz", &[]).await);
    world.listener.put_in_force(prepared);
    kept.write(ask.as_bytes()).await.unwrap();
    let refused = kept.read_response("GET").await.unwrap();
    assert_eq!(reason(&refused), "bearer_invalid");
    assert_eq!(reason(&world.get("/healthz", &[]).await), "bearer_missing");
    let mut claims = world.claims();
    claims["iss"] = json!("other");
    let line = format!("Authorization: Bearer {}", other.token(&claims));
    echoed(&world.get("/x", &[&line]).await);

    std::fs::remove_file(world.folder.path().join("other.json")).unwrap();
    assert!(world.listener.prepare(&next.inbound[0], None).is_err());
    echoed(&world.get("/x", &[&line]).await);
}
