//! Calls that are signed.

use std::time::Duration;

use aws_lc_rs::{
    hmac,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use outgate_clock::Clock;
use outgate_control::operator::{WebhookKeyFile, WebhookSettings};
use outgate_journey::record::OperatorKind;

use crate::world::{Answer, HMAC_SECRET, NOW, Who, World, secret_file};

const END: &[u8] = br#"{"action":"end","session":"s_1"}"#;
const KILL_ALL: &[u8] = br#"{"action":"kill_all","reason":"playbook 4"}"#;
/// A moment after the interface began.
const AT: u64 = NOW.0 + 1;

fn content(id: &str, at: u64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{at}.").as_bytes(), body].concat()
}

fn hmac_of(secret: &[u8], id: &str, at: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, &content(id, at, body));
    format!("v1,{}", STANDARD.encode(tag))
}

async fn world() -> World {
    let world = World::new().await;
    world.session("s_1", Some("team-a")).await;
    world.session("s_2", Some("team-b")).await;
    world.clock.advance(Duration::from_secs(1));
    world
}

fn fields<'a>(id: &'a str, at: &'a str, signature: &'a str) -> [(&'static str, &'a str); 3] {
    [
        ("webhook-id", id),
        ("webhook-timestamp", at),
        ("webhook-signature", signature),
    ]
}

async fn send(world: &World, name: &str, id: &str, at: u64, body: &[u8]) -> Answer {
    let (text, signature) = (at.to_string(), hmac_of(HMAC_SECRET, id, at, body));
    let path = format!("/v1/webhooks/{name}");
    world
        .call(
            &Who::Nobody,
            "POST",
            &path,
            &fields(id, &text, &signature),
            body,
        )
        .await
}

async fn refused(world: &World, name: &str, id: &str, at: u64, body: &[u8], code: &str) {
    let (text, signature) = (at.to_string(), hmac_of(HMAC_SECRET, id, at, body));
    let path = format!("/v1/webhooks/{name}");
    let fields = fields(id, &text, &signature);
    world
        .refused(&Who::Nobody, "POST", &path, &fields, body, code)
        .await;
}

#[tokio::test]
async fn a_signed_call_revokes_and_its_repeat_does_nothing_more() {
    let world = world().await;
    let first = send(&world, "soar", "msg_1", AT, END).await;
    assert_eq!(
        (first.status, first.json()["action"].as_str()),
        (200, Some("end"))
    );
    assert!(!world.is_live("s_1"));
    let state = world.state();
    let again = send(&world, "soar", "msg_1", AT, END).await;
    assert_eq!((again.status, &again.body), (200, &first.body));
    // The same id with another body: still the first answer, and no effect.
    let other = send(&world, "soar", "msg_1", AT, KILL_ALL).await;
    assert_eq!((other.status, &other.body), (200, &first.body));
    assert_eq!(world.state(), state);
    let records = world.trail.actions();
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.operation == "webhook"));
    assert_eq!(
        (records[0].operator.kind, records[0].operator.name.as_str()),
        (OperatorKind::Webhook, "soar")
    );
    assert_eq!(
        (records[0].target.as_deref(), records[1].detail.as_str()),
        (Some("s_1"), "repeats msg_1")
    );
}

#[tokio::test]
async fn a_lifted_switch_is_not_pulled_again_by_a_replay() {
    let world = world().await;
    assert_eq!(
        send(&world, "soar", "msg_1", AT, KILL_ALL).await.status,
        200
    );
    assert_eq!(world.sessions.kill_switch().unwrap().by, "webhook:soar");
    world.sessions.lift("test").await.unwrap();
    world.clock.advance(Duration::from_secs(299));
    assert_eq!(
        send(&world, "soar", "msg_1", AT, KILL_ALL).await.status,
        200
    );
    assert_eq!(world.sessions.kill_switch(), None);
    world.clock.advance(Duration::from_secs(2));
    refused(&world, "soar", "msg_1", AT, KILL_ALL, "webhook_outdated").await;
}

#[tokio::test]
async fn what_is_not_signed_for_this_moment_does_nothing() {
    let world = world().await;
    let good = hmac_of(HMAC_SECRET, "m", AT, KILL_ALL);
    let (at, path) = (AT.to_string(), "/v1/webhooks/soar");
    let other_secret = hmac_of(b"fedcba9876543210fedcba9876543210", "m", AT, KILL_ALL);
    let other_body = hmac_of(HMAC_SECRET, "m", AT, END);
    let other_id = hmac_of(HMAC_SECRET, "n", AT, KILL_ALL);
    let other_time = hmac_of(HMAC_SECRET, "m", AT + 1, KILL_ALL);
    let as_ed25519 = good.replacen("v1,", "v1a,", 1);
    let cut = &good[..good.len() - 4];
    for signature in [
        &other_secret,
        &other_body,
        &other_id,
        &other_time,
        &as_ed25519,
        cut,
        "",
        "v1",
        "v1,",
        "v2,AAAA",
        &good[3..],
    ] {
        let fields = fields("m", &at, signature);
        world
            .refused(
                &Who::Nobody,
                "POST",
                path,
                &fields,
                KILL_ALL,
                "webhook_unverified",
            )
            .await;
    }
    for missing in 0..3 {
        let mut fields = fields("m", &at, &good).to_vec();
        fields.remove(missing);
        world
            .refused(
                &Who::Nobody,
                "POST",
                path,
                &fields,
                KILL_ALL,
                "webhook_unverified",
            )
            .await;
    }
    let mut twice = fields("m", &at, &good).to_vec();
    twice.push(("webhook-signature", &good));
    world
        .refused(
            &Who::Nobody,
            "POST",
            path,
            &twice,
            KILL_ALL,
            "webhook_unverified",
        )
        .await;
    for spelling in [
        format!("+{at}"),
        format!("{at} "),
        format!("0x{AT:x}"),
        format!("{at}.0"),
        "-1".to_owned(),
    ] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, HMAC_SECRET);
        let signed = [format!("m.{}.", spelling.trim()).as_bytes(), KILL_ALL].concat();
        let signature = format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)));
        let fields = fields("m", &spelling, &signature);
        if spelling.trim() != at {
            world
                .refused(
                    &Who::Nobody,
                    "POST",
                    path,
                    &fields,
                    KILL_ALL,
                    "webhook_unverified",
                )
                .await;
        }
    }
    refused(
        &world,
        "unheard-of",
        "m",
        AT,
        KILL_ALL,
        "webhook_unverified",
    )
    .await;
    // An operator's own token does not stand in for a signature.
    world
        .refused(
            &Who::Token("all"),
            "POST",
            path,
            &[],
            KILL_ALL,
            "webhook_unverified",
        )
        .await;
    world
        .refused(
            &Who::Local,
            "POST",
            path,
            &[],
            KILL_ALL,
            "webhook_unverified",
        )
        .await;
}

#[tokio::test]
async fn a_timestamp_is_of_this_moment_and_of_this_process() {
    let world = world().await;
    // What the process before may have carried out is not carried out again.
    refused(&world, "soar", "m", NOW.0, KILL_ALL, "webhook_outdated").await;
    world.clock.advance(Duration::from_secs(1000));
    let now = world.clock.unix().0;
    for at in [now - 301, now + 301, 0, u64::MAX] {
        refused(&world, "soar", "m", at, KILL_ALL, "webhook_outdated").await;
    }
    // A wall clock that is set back makes nothing young again.
    world.clock.set_wall(NOW);
    refused(&world, "soar", "m", now - 301, KILL_ALL, "webhook_outdated").await;
    assert_eq!(send(&world, "soar", "m", now - 300, END).await.status, 200);
    assert_eq!(send(&world, "soar", "n", now + 300, END).await.status, 200);
}

#[tokio::test]
async fn a_webhook_revokes_in_its_tenant_and_does_nothing_else() {
    let world = world().await;
    refused(&world, "soar-a", "1", AT, KILL_ALL, "tenant_bound").await;
    refused(
        &world,
        "soar-a",
        "2",
        AT,
        br#"{"action":"end","session":"s_2"}"#,
        "unknown_session",
    )
    .await;
    refused(
        &world,
        "soar-a",
        "3",
        AT,
        br#"{"action":"deny","token":"t_1"}"#,
        "tenant_bound",
    )
    .await;
    for (id, bad) in [
        &br#"{"action":"lift"}"#[..],
        br#"{"action":"end"}"#,
        br#"{"action":"end","token":"t"}"#,
        br#"{"action":"kill_all","session":"s_1"}"#,
        br#"{"action":"end","session":"s_1","tenant":"x"}"#,
        br#"["end","s_1"]"#,
        b"{",
    ]
    .iter()
    .enumerate()
    {
        refused(&world, "soar", &format!("bad{id}"), AT, bad, "invalid_body").await;
    }
    let body = br#"{"action":"deny","session":"s_1","reason":"r"}"#;
    assert_eq!(send(&world, "soar-a", "4", AT, body).await.status, 200);
    assert_eq!(
        world.sessions.denied(|_| true)[0].by,
        "webhook:soar-a@team-a"
    );
}

#[tokio::test]
async fn one_of_several_signatures_is_enough_and_each_key_has_its_own_kind() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let public = format!("whpk_{}", STANDARD.encode(pair.public_key()));
    let spki = [
        &[
            0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
        ],
        pair.public_key().as_ref(),
    ]
    .concat();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(spki)
    );
    let dir = tempfile::tempdir().unwrap();
    let world = World::with(|settings| {
        for (name, text) in [("ed", &public), ("ed-pem", &pem)] {
            settings.webhooks.push(WebhookSettings {
                name: name.to_owned(),
                key: WebhookKeyFile::Public(secret_file(dir.path().join(name), text)),
                tenant: None,
            });
        }
    })
    .await;
    world.session("s_1", None).await;
    world.clock.advance(Duration::from_secs(1));
    let (at, hmac) = (AT.to_string(), hmac_of(HMAC_SECRET, "m", AT, END));
    let signature = STANDARD.encode(pair.sign(&content("m", AT, END)));
    let ed = format!("v1a,{signature}");
    for (name, signatures) in [
        ("ed", ed.clone()),
        ("ed-pem", format!("v1,AAAA {hmac} v9,x {ed}")),
        ("soar", format!("{ed} {hmac}")),
    ] {
        let fields = fields("m", &at, &signatures);
        let answer = world
            .call(
                &Who::Nobody,
                "POST",
                &format!("/v1/webhooks/{name}"),
                &fields,
                END,
            )
            .await;
        assert_eq!(answer.status, 200, "{name}");
    }
    // The public key as a shared secret, which everybody could sign with.
    let forged = hmac_of(pair.public_key().as_ref(), "f", AT, KILL_ALL);
    for signature in [
        forged.clone(),
        forged.replacen("v1,", "v1a,", 1),
        format!("v1,{signature}"),
    ] {
        let fields = fields("f", &at, &signature);
        world
            .refused(
                &Who::Nobody,
                "POST",
                "/v1/webhooks/ed",
                &fields,
                KILL_ALL,
                "webhook_unverified",
            )
            .await;
    }
}

#[tokio::test]
async fn the_example_of_the_page_for_operators_verifies() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operator.md");
    let text = std::fs::read_to_string(page).unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().to_owned()
    };
    assert_eq!(
        value("secret  "),
        format!("whsec_{}", STANDARD.encode(HMAC_SECRET))
    );
    let (id, at) = (value("webhook-id  "), value("webhook-timestamp  "));
    let (signature, body) = (value("webhook-signature  "), value("body  "));
    let world = world().await;
    world.clock.advance(Duration::from_secs(
        at.parse::<u64>().unwrap() - NOW.0 + 600,
    ));
    let fields = fields(&id, &at, &signature);
    let path = "/v1/webhooks/soar";
    let body = body.as_bytes();
    // Signed well, and out of date by now.
    let code = "webhook_outdated";
    world
        .refused(&Who::Nobody, "POST", path, &fields, body, code)
        .await;
    let other = [body, b" "].concat();
    let code = "webhook_unverified";
    world
        .refused(&Who::Nobody, "POST", path, &fields, &other, code)
        .await;
}
