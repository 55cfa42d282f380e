//! What happens where the audit trail, or the store, cannot be written.

use std::{sync::atomic::Ordering, time::Duration};

use outgate_control::{client::ClientError, operator::CreateSession};
use outgate_journey::session::SessionId;
use serde_json::json;

use crate::{
    document::Document,
    world::{Who, World},
};

fn told(error: ClientError) -> (String, bool) {
    match error {
        ClientError::Refused {
            code, in_effect, ..
        } => (code, in_effect),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_done_unless_it_revokes() {
    let world = World::new().await;
    world.session("s_a", Some("team-a")).await;
    world.trail.writable.store(false, Ordering::SeqCst);
    let revoking = ["session.end", "session.kill", "deny.add", "kill.all"];
    for operation in Document::current().operations() {
        let name = operation.value["operationId"].as_str().unwrap().to_owned();
        if operation.scopes().is_empty() || revoking.contains(&name.as_str()) {
            continue;
        }
        let body = if operation.takes_body() { "{}" } else { "" };
        let (method, path) = (operation.method.as_str(), operation.at("s_a"));
        let who = Who::Token("all");
        world
            .refused(
                &who,
                method,
                &path,
                &[],
                body.as_bytes(),
                "audit_unavailable",
            )
            .await;
    }
    let client = world.client("all");
    let unrecorded = ("audit_unavailable".to_owned(), true);
    assert_eq!(told(client.end("s_a").await.unwrap_err()), unrecorded);
    assert!(!world.is_live("s_a"));
    assert_eq!(told(client.kill_all("now").await.unwrap_err()), unrecorded);
    assert!(world.sessions.kill_switch().is_some());
    let body = json!({"token": "t_1", "reason": "r"}).to_string();
    let answer = world
        .call(&Who::Local, "POST", "/v1/denylist", &[], body.as_bytes())
        .await;
    assert_eq!(
        (answer.code().as_str(), &answer.json()["in_effect"]),
        ("audit_unavailable", &json!(true))
    );
    assert_eq!(world.sessions.denied(|_| true).len(), 1);
}

#[tokio::test]
async fn what_could_not_be_recorded_in_the_end_is_taken_back() {
    let world = World::new().await;
    world.session("s_a", None).await;
    let client = world.client("all");
    let deny = json!({"token": "t_1", "reason": "r"}).to_string();
    world
        .call(&Who::Local, "POST", "/v1/denylist", &[], deny.as_bytes())
        .await;
    client.kill_all("incident").await.unwrap();
    client.lift().await.unwrap();

    world.trail.failing.store(true, Ordering::SeqCst);
    let refused = ("audit_unavailable".to_owned(), false);
    assert_eq!(
        told(client.create(&CreateSession::default()).await.unwrap_err()),
        refused
    );
    let live: Vec<_> = world
        .sessions
        .list(None)
        .into_iter()
        .filter(|view| view.end.is_none())
        .collect();
    assert_eq!(live.len(), 1, "the session whose token nobody got is over");
    let target = serde_json::from_str(r#"{"token":"t_1"}"#).unwrap();
    assert_eq!(told(client.undeny(&target).await.unwrap_err()), refused);
    assert_eq!(world.sessions.denied(|_| true).len(), 1);
    assert_eq!(
        told(client.set_quota("team-a", Some(3)).await.unwrap_err()),
        refused
    );
    assert!(
        world
            .sessions
            .quotas()
            .tenants
            .get("team-a")
            .is_none_or(|quota| !quota.own)
    );
    let limits = serde_json::from_str(r#"{"bytes_out":5}"#).unwrap();
    assert_eq!(
        told(client.set_limits("s_a", &limits).await.unwrap_err()),
        refused
    );
    let view = world
        .sessions
        .view(&SessionId::parse("s_a").unwrap())
        .unwrap();
    assert_eq!(view.limits.bytes_out, None);
    // What cannot be taken back is told as it is; what only shows shows nothing.
    let in_effect = ("audit_unavailable".to_owned(), true);
    assert_eq!(told(client.rotate_keys().await.unwrap_err()), in_effect);
    assert_eq!(told(client.reload().await.unwrap_err()), in_effect);
    assert_eq!(told(client.list().await.unwrap_err()), refused);

    world.trail.failing.store(false, Ordering::SeqCst);
    client.kill_all("again").await.unwrap();
    world.trail.failing.store(true, Ordering::SeqCst);
    assert_eq!(told(client.lift().await.unwrap_err()), refused);
    assert_eq!(world.sessions.kill_switch().unwrap().reason, "again");
}

#[tokio::test]
async fn a_store_that_fails_refuses_creations_and_holds_no_revocation_up() {
    let world = World::new().await;
    world.session("s_a", None).await;
    world.store.failing.store(true, Ordering::SeqCst);
    let client = world.client("all");
    let error = client.create(&CreateSession::default()).await.unwrap_err();
    assert_eq!(told(error), ("store_unavailable".to_owned(), false));
    assert_eq!(world.sessions.list(None).len(), 1);
    assert_eq!(
        told(client.end("s_a").await.unwrap_err()),
        ("store_unavailable".to_owned(), true)
    );
    assert!(!world.is_live("s_a"));
    assert_eq!(
        told(client.kill_all("r").await.unwrap_err()),
        ("store_unavailable".to_owned(), true)
    );
    assert!(world.sessions.kill_switch().is_some());
    // That it happened is on record, although it did not last.
    let outcomes: Vec<_> = world
        .trail
        .actions()
        .iter()
        .map(|record| record.outcome)
        .collect();
    assert_eq!(outcomes, [Err("store_unavailable"); 3]);
}

#[tokio::test]
async fn a_call_whose_caller_went_away_is_carried_out_and_recorded() {
    let world = World::new().await;
    *world.trail.held.lock().unwrap() = Some("session.create");
    let client = world.client("create");
    let call =
        tokio::spawn(async move { client.create(&CreateSession::default()).await.map(drop) });
    while world.trail.waiting.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    call.abort();
    let _ = call.await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(world.trail.actions(), []);
    world.trail.permits.add_permits(1);
    while world.trail.actions().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(world.trail.actions()[0].outcome, Ok(()));
    assert_eq!(world.sessions.list(None).len(), 1);
}

#[tokio::test]
async fn a_webhook_that_could_not_be_recorded_is_carried_out_again_when_it_is_repeated() {
    use crate::world::NOW;
    let world = World::new().await;
    world.session("s_1", None).await;
    world.clock.advance(Duration::from_secs(1));
    let body = br#"{"action":"end","session":"s_1"}"#;
    let at = (NOW.0 + 1).to_string();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, crate::world::HMAC_SECRET);
    let signed = [format!("m.{at}.").as_bytes(), &body[..]].concat();
    let tag = aws_lc_rs::hmac::sign(&key, &signed);
    let signature = format!(
        "v1,{}",
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag)
    );
    let fields = [
        ("webhook-id", "m"),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    world.trail.failing.store(true, Ordering::SeqCst);
    let answer = world
        .call(&Who::Nobody, "POST", "/v1/webhooks/soar", &fields, body)
        .await;
    assert_eq!(
        (answer.code().as_str(), &answer.json()["in_effect"]),
        ("audit_unavailable", &json!(true))
    );
    assert!(!world.is_live("s_1"));
    world.trail.failing.store(false, Ordering::SeqCst);
    let answer = world
        .call(&Who::Nobody, "POST", "/v1/webhooks/soar", &fields, body)
        .await;
    assert_eq!(answer.status, 200);
    let last = world.trail.actions().pop().unwrap();
    assert_eq!(
        (last.outcome, last.target.as_deref()),
        (Ok(()), Some("s_1"))
    );
    assert!(!last.detail.starts_with("repeats"));
}
