//! What others imposed on a tenant's sessions, its own operators cannot lift.

use serde_json::json;

use crate::world::{NOW, Who, World};

const ROOT: Who = Who::Token("all");
const TEAM: Who = Who::Token("all-a");
const DENIED: &str = "/v1/denylist?session=s_a";

async fn world() -> World {
    let world = World::new().await;
    world.session("s_a", Some("team-a")).await;
    world
}

async fn deny(world: &World, who: &Who) -> u16 {
    let body = json!({"session": "s_a", "reason": "r"}).to_string();
    let answer = world
        .call(who, "POST", "/v1/denylist", &[], body.as_bytes())
        .await;
    answer.status
}

#[tokio::test]
async fn a_tenant_neither_lifts_nor_replaces_what_others_denied() {
    for other in [ROOT, Who::Local] {
        let world = world().await;
        assert_eq!(deny(&world, &other).await, 200);
        let soon = json!({"session": "s_a", "reason": "r", "until": NOW.0 + 2}).to_string();
        for (method, path, body) in [
            ("DELETE", DENIED, ""),
            ("POST", "/v1/denylist", soon.as_str()),
        ] {
            world
                .refused(&TEAM, method, path, &[], body.as_bytes(), "tenant_bound")
                .await;
        }
        let answer = world.call(&other, "DELETE", DENIED, &[], b"").await;
        assert_eq!(answer.status, 204);
    }
}

#[tokio::test]
async fn a_tenant_lifts_what_it_denied_itself_and_everybodys_operator_does_too() {
    let world = world().await;
    for who in [TEAM, ROOT] {
        assert_eq!(deny(&world, &TEAM).await, 200);
        assert_eq!(world.sessions.denied(|_| true)[0].by, "token:all-a@team-a");
        assert_eq!(deny(&world, &TEAM).await, 200);
        let answer = world.call(&who, "DELETE", DENIED, &[], b"").await;
        assert_eq!(answer.status, 204);
    }
    // Taken over by one for all, it is not the tenant's any more.
    assert_eq!(deny(&world, &TEAM).await, 200);
    assert_eq!(deny(&world, &ROOT).await, 200);
    world
        .refused(&TEAM, "DELETE", DENIED, &[], b"", "tenant_bound")
        .await;
}

#[tokio::test]
async fn a_tenant_widens_limits_no_further_than_others_left_them() {
    let world = world().await;
    let path = "/v1/sessions/s_a/limits";
    let set = async |who: &Who, limits: serde_json::Value| {
        let body = limits.to_string();
        let answer = world.call(who, "PUT", path, &[], body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{limits} {:?}", answer.json());
    };
    let refused = async |limits: serde_json::Value| {
        let body = limits.to_string();
        world
            .refused(&TEAM, "PUT", path, &[], body.as_bytes(), "tenant_bound")
            .await;
    };
    set(&TEAM, json!({"requests": "5/h"})).await;
    set(&TEAM, json!({})).await;
    set(&ROOT, json!({"requests": "10/h"})).await;
    refused(json!({})).await;
    refused(json!({"requests": "11/h"})).await;
    refused(json!({"bytes_out": 5})).await;
    set(&TEAM, json!({"requests": "5/h", "bytes_out": 5})).await;
    refused(json!({"requests": "11/h"})).await;
    set(&TEAM, json!({"requests": "10/h"})).await;
    set(&ROOT, json!({})).await;
    set(&TEAM, json!({"requests": "100/s"})).await;
}

#[tokio::test]
async fn a_tenant_is_not_shown_what_data_planes_say_of_everybodys_rules() {
    let world = world().await;
    for (who, shown) in [(Who::Local, 1), (ROOT, 1), (TEAM, 0)] {
        let answer = world.call(&who, "GET", "/v1/gateway", &[], b"").await;
        assert_eq!(answer.status, 200);
        let about = answer.json();
        assert_eq!(about["data_planes"].as_array().unwrap().len(), shown);
        assert_eq!(about["proxy"], json!(["127.0.0.1:8080"]));
        assert_eq!(about.to_string().contains("team-b"), shown == 1);
    }
}
