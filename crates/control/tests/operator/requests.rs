//! The session view: who is shown what.

use std::sync::Arc;

use outgate_control::sessions::{Bodies, BodyStart, SessionRules, ViewRules};
use outgate_journey::{
    denial::DenyCode,
    record::{DecisionRecord, Ending, Entry, Verdict},
    session::SessionId,
};
use serde_json::json;

use crate::world::{Who, World};

const PATH: &str = "/v1/sessions/s_a/requests";

async fn world(bodies: usize) -> World {
    let world = World::new().await;
    world.session("s_a", Some("team-a")).await;
    world.session("s_b", Some("team-b")).await;
    world.sessions.set_rules(SessionRules {
        view: ViewRules {
            requests: 3,
            bodies,
            memory: 1 << 20,
        },
        ..SessionRules::default()
    });
    let client = "198.51.100.7:40123".parse().unwrap();
    for (number, name) in ["s_a", "s_b", "s_a"].into_iter().enumerate() {
        let id = format!("r-{number}");
        let mut record = DecisionRecord::begin(id, 1000, Entry::Bumped, client);
        record.session = SessionId::parse(name);
        record.host = Some("a.example.org".to_owned());
        record.verdict = Verdict::Allowed;
        record.ending = Ending::Cut(DenyCode::SessionRevoked);
        let body = |text: &[u8]| BodyStart {
            bytes: text.to_vec().into(),
            is_cut: false,
        };
        let bodies = Bodies {
            request: body(b"sent \xff"),
            response: body(b"got"),
        };
        world.sessions.note_request(&Arc::new(record), Some(bodies));
    }
    world
}

#[tokio::test]
async fn who_may_read_the_trail_is_shown_requests_and_nobody_else_is() {
    let world = world(100).await;
    for who in [
        Who::Local,
        Who::Token("all"),
        Who::Token("all-a"),
        Who::Token("audit"),
    ] {
        let answer = world.call(&who, "GET", PATH, &[], b"").await;
        assert_eq!(answer.status, 200);
        let shown = answer.json();
        assert_eq!(
            (&shown["kept"], &shown["kept_body_bytes"]),
            (&json!(3), &json!(100))
        );
        let requests = shown["requests"].as_array().unwrap();
        let ids: Vec<_> = requests.iter().map(|it| it["request_id"].clone()).collect();
        assert_eq!(ids, ["r-0", "r-2"]);
        assert_eq!(requests[0]["code"], "session_revoked");
        assert_eq!(
            (&requests[0]["allowed"], &requests[0]["ending"]),
            (&json!(true), &json!("cut"))
        );
        assert!(
            !answer.body.windows(9).any(|it| it == b"body\":{\"b"),
            "{shown}"
        );
        let path = format!("{PATH}?after={}", requests[0]["seq"]);
        let rest = world.call(&who, "GET", &path, &[], b"").await.json();
        assert_eq!(rest["requests"].as_array().unwrap().len(), 1);
        let one = world
            .call(&who, "GET", &format!("{PATH}?limit=1"), &[], b"")
            .await
            .json();
        assert_eq!(one["requests"][0]["request_id"], "r-2");
    }
    for (who, code) in [
        (Who::Token("read"), "scope_missing"),
        (Who::Token("revoke"), "scope_missing"),
        (Who::Token("none"), "scope_missing"),
        (Who::Token("all-b"), "unknown_session"),
    ] {
        world.refused(&who, "GET", PATH, &[], b"", code).await;
    }
    for query in [
        "limit=0",
        "limit=1001",
        "after=-1",
        "bodies=1",
        "bodies=",
        "follow=true",
    ] {
        let path = format!("{PATH}?{query}");
        world
            .refused(&Who::Local, "GET", &path, &[], b"", "invalid_query")
            .await;
    }
}

#[tokio::test]
async fn bodies_are_shown_on_the_socket_alone() {
    let world = world(100).await;
    let path = format!("{PATH}?bodies=true");
    for name in ["all", "all-a", "audit"] {
        let who = Who::Token(name);
        world
            .refused(&who, "GET", &path, &[], b"", "bodies_stay_local")
            .await;
    }
    let answer = world.call(&Who::Local, "GET", &path, &[], b"").await.json();
    let part = json!({ "base64": "c2VudCD/", "is_cut": false });
    assert_eq!(answer["requests"][0]["request_body"], part);
    let read = world
        .local_client()
        .requests("s_a", None, true)
        .await
        .unwrap();
    let got = read.requests[1].response_body.as_ref().unwrap();
    assert_eq!(got.base64.0.as_slice(), b"got");
    let read = world
        .client("all")
        .requests("s_a", None, false)
        .await
        .unwrap();
    assert_eq!(
        (read.requests.len(), &read.requests[1].response_body),
        (2, &None)
    );
}

#[tokio::test]
async fn no_body_is_kept_that_was_not_asked_for() {
    let world = world(0).await;
    let path = format!("{PATH}?bodies=true");
    let answer = world.call(&Who::Local, "GET", &path, &[], b"").await.json();
    assert_eq!(answer["kept_body_bytes"], 0);
    assert!(answer["requests"][0].get("request_body").is_none());
}
