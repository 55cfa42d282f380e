//! Who is let in, and what the service is told of it.

use std::time::Duration;

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_plane::clock::unix_now;
use outgate_testkit::message::{Req, ReqBody};
use serde_json::{Value, json};

use crate::{
    idp::{Idp, Signer, with},
    world::{AUDIENCE, ISSUER, Options, World, echoed, reason, sent},
};

#[tokio::test]
async fn a_good_token_lets_in_and_the_service_is_told_who_calls_and_nothing_else() {
    let world = World::new().await;
    let bearer = format!("Authorization: Bearer {}", world.token());
    let lines = [
        bearer.as_str(),
        "X-Outgate-Subject: root",
        "x_outgate_subject: root",
        "X-Outgate-Anything: 1",
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Host: evil.test",
        "X-Forwarded-User: root",
        "Forwarded: for=10.0.0.1",
        "X-Real-IP: 10.0.0.1",
        "X-Original-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "Keep-Alive: timeout=5",
        "X-Hop: 1",
        "Connection: keep-alive, X-Hop",
        "Proxy-Authorization: Basic YTpi",
        "X-Mine: kept",
    ];
    let response = world.get("/a/b?c=d%2F", &lines).await;
    let echo = echoed(&response);
    assert_eq!(echo["target"], "/a/b?c=d%2F");
    for (name, expected) in [
        ("x-outgate-subject", &["ann"][..]),
        ("x-outgate-issuer", &[ISSUER]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &["agent.test"]),
        ("host", &[&world.service.address.to_string()]),
        ("x-mine", &["kept"]),
    ] {
        assert_eq!(sent(&echo, name), expected, "{name}");
    }
    for name in [
        "authorization",
        "x_outgate_subject",
        "x-outgate-anything",
        "x-forwarded-user",
        "forwarded",
        "x-real-ip",
        "x-original-url",
        "x-http-method-override",
        "keep-alive",
        "connection",
        "x-hop",
        "proxy-authorization",
    ] {
        assert_eq!(sent(&echo, name), [""; 0], "{name}");
    }
    assert_eq!(response.headers.get("x-from-service"), Some("1"));
    assert_eq!(response.headers.get("alt-svc"), None);
    let record = &world.records(1).await[0];
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(record.entry, Entry::Inbound);
    let caller = record.caller.as_ref().unwrap();
    assert_eq!((&*caller.issuer, &*caller.subject), (ISSUER, "ann"));
    assert_eq!(record.token_id.as_deref(), Some("t-1"));
    assert_eq!(record.upstream, Some(world.service.address));
    assert_eq!(record.path.as_deref(), Some("/a/b"));
    assert_eq!(record.host.as_deref(), Some("agent.test"));
    assert_eq!(
        Some(record.request_id.as_str()),
        response.headers.get("x-request-id")
    );
    assert_eq!(sent(&echo, "x-request-id"), [record.request_id.as_str()]);
}

#[tokio::test]
async fn the_token_goes_on_only_where_the_file_says_so_and_only_if_it_verified() {
    let world = World::in_clear(json!({ "forward_token": true })).await;
    let token = format!("Bearer {}", world.token());
    let line = format!("authorization: {token}");
    let echo = echoed(&world.get("/x", &[&line]).await);
    assert_eq!(sent(&echo, "authorization"), [token]);
    assert_eq!(sent(&echo, "x-forwarded-proto"), ["http"]);
    let echo = echoed(
        &world
            .get("/healthz", &["authorization: Bearer forged"])
            .await,
    );
    assert_eq!(sent(&echo, "authorization"), [""; 0]);
    assert_eq!(sent(&echo, "x-outgate-subject"), [""; 0]);
    assert_eq!(world.records(2).await[0].entry, Entry::InboundPlain);
}

#[tokio::test]
async fn every_token_that_does_not_verify_is_refused_with_its_reason() {
    let world = World::new().await;
    let (claims, now) = (world.claims(), unix_now().0);
    let stranger = Signer::p256("1");
    let signed = |claims: &Value| format!("Bearer {}", world.signer.token(claims));
    let good = signed(&claims);
    let rows = [
        (vec![], 401, "bearer_missing"),
        (vec!["Basic YTpi".to_owned()], 401, "bearer_missing"),
        (vec!["Bearer".to_owned()], 401, "bearer_invalid"),
        (vec!["Bearer nonsense".to_owned()], 401, "bearer_invalid"),
        (vec![good.clone(), good.clone()], 400, "bearer_repeated"),
        (vec![format!("{good}, {good}")], 401, "bearer_invalid"),
        (
            vec![signed(&with(claims.clone(), "aud", "other"))],
            401,
            "bearer_invalid",
        ),
        (
            vec![signed(&with(claims.clone(), "iss", "https://evil.test"))],
            401,
            "bearer_invalid",
        ),
        (
            vec![signed(&with(claims.clone(), "exp", now - 1))],
            401,
            "bearer_expired",
        ),
        (
            vec![signed(&with(claims.clone(), "exp", Value::Null))],
            401,
            "bearer_invalid",
        ),
        (
            vec![signed(&with(claims.clone(), "nbf", now + 300))],
            401,
            "bearer_invalid",
        ),
        (
            vec![signed(&with(claims.clone(), "sub", Value::Null))],
            401,
            "bearer_invalid",
        ),
        (
            vec![format!("Bearer {}", stranger.token(&claims))],
            401,
            "bearer_invalid",
        ),
        (
            vec![format!(
                "Bearer {}",
                world.signer.sign(&json!({ "alg": "none" }), &claims)
            )],
            401,
            "bearer_invalid",
        ),
    ];
    for (fields, status, code) in &rows {
        let lines: Vec<String> = fields
            .iter()
            .map(|it| format!("Authorization: {it}"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let response = world.get("/x", &lines).await;
        assert_eq!(
            (response.status, reason(&response).as_str()),
            (*status, *code),
            "{fields:?}"
        );
        let challenges: Vec<&str> = response.headers.all("www-authenticate").collect();
        let [challenge] = challenges[..] else {
            panic!("{challenges:?}");
        };
        assert!(
            challenge.starts_with("Bearer realm=\"outgate\""),
            "{challenge}"
        );
        let error = match *code {
            "bearer_missing" => None,
            "bearer_repeated" => Some("error=\"invalid_request\""),
            _ => Some("error=\"invalid_token\""),
        };
        assert_eq!(challenge.contains("error="), error.is_some(), "{challenge}");
        assert!(
            error.is_none_or(|error| challenge.contains(error)),
            "{challenge}"
        );
    }
    assert_eq!(world.service.asked(), 0);
    for record in world.records(rows.len()).await {
        assert!(matches!(record.verdict, Verdict::Denied(_)));
        assert_eq!(record.rule.as_deref(), Some("inbound[0]"));
        assert_eq!(record.caller, None);
    }
}

#[tokio::test]
async fn keys_that_cannot_be_had_let_nobody_in_and_keys_that_come_let_in() {
    let issuer = Idp::start().await;
    let keys = json!({ "issuers": [{ "issuer": issuer.issuer(), "audience": AUDIENCE, "ca": issuer.ca() }] });
    let world = World::with(Options {
        keys,
        ..Options::default()
    })
    .await;
    let claims = with(world.claims(), "iss", issuer.issuer());
    let line = format!("Authorization: Bearer {}", world.signer.token(&claims));
    let refused = world.get("/x", &[&line]).await;
    assert_eq!(
        (refused.status, reason(&refused).as_str()),
        (503, "issuer_unavailable")
    );
    assert_eq!(world.service.asked(), 0);
    issuer.publish([&world.signer]);
    // Ten seconds lie between two fetches, whoever asks.
    let mut last = refused;
    for _ in 0..150 {
        last = world.get("/x", &[&line]).await;
        if last.status == 200 {
            break;
        }
        assert_eq!(reason(&last), "issuer_unavailable");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(sent(&echoed(&last), "x-outgate-issuer"), [issuer.issuer()]);
}

#[tokio::test]
async fn over_http2_the_same_holds() {
    let world = World::new().await;
    let mut h2 = world.h2().await;
    let ask = |path: &str| Req::get("agent.test", 443, path);
    let refused = h2.send(&ask("/x")).await.answered();
    assert_eq!(
        (refused.status, reason(&refused).as_str()),
        (401, "bearer_missing")
    );
    let token = world.token();
    let posted = ask("/x")
        .method("POST")
        .bearer(&token)
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-outgate-subject", "root")
        .body(ReqBody::Zeros(300_000));
    let echo = echoed(&h2.send(&posted).await.answered());
    assert_eq!(echo["body"], 300_000);
    assert_eq!(echo["version"], "HTTP/1.1");
    assert_eq!(sent(&echo, "cookie"), ["a=1; b=2"]);
    assert_eq!(sent(&echo, "x-outgate-subject"), ["ann"]);
    assert_eq!(sent(&echo, "x-forwarded-host"), ["agent.test:443"]);
    let twice = ask("/x").bearer(&token).bearer(&token);
    assert_eq!(reason(&h2.send(&twice).await.answered()), "bearer_repeated");
    let other = ask("/x").bearer(&token).header("host", "other.test");
    assert_eq!(
        reason(&h2.send(&other).await.answered()),
        "authority_mismatch"
    );
}

#[tokio::test]
async fn a_service_that_speaks_http2_gets_http2() {
    let world = World::in_clear(json!({ "http2": true })).await;
    let line = format!("Authorization: Bearer {}", world.token());
    let echo = echoed(&world.get("/x?y", &[&line]).await);
    assert_eq!(echo["version"], "HTTP/2.0");
    assert_eq!(echo["target"], "/x?y");
    assert_eq!(echo["authority"], json!(world.service.address.to_string()));
    assert_eq!(sent(&echo, "host"), [""; 0]);
    let upgrade = ["Connection: upgrade", "Upgrade: websocket", line.as_str()];
    assert_eq!(
        reason(&world.get("/ws", &upgrade).await),
        "upgrade_not_supported"
    );
}

#[tokio::test]
async fn a_service_that_is_away_or_silent_is_said_to_be() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let world = World::in_clear(json!({ "to": format!("http://{address}") })).await;
    let line = format!("Authorization: Bearer {}", world.token());
    let response = world.get("/x", &[&line]).await;
    assert_eq!(
        (response.status, reason(&response).as_str()),
        (502, "upstream_unreachable")
    );
    // Refused first, whether or not there is a service.
    assert_eq!(reason(&world.get("/x", &[]).await), "bearer_missing");
    let record = &world.records(2).await[0];
    assert_eq!(
        record.verdict,
        Verdict::Denied(DenyCode::UpstreamUnreachable)
    );
    assert!(record.caller.is_some());

    let silent = World::with(Options {
        is_tls: false,
        timeouts: json!({ "response": "300ms" }),
        ..Options::default()
    })
    .await;
    let line = format!("Authorization: Bearer {}", silent.token());
    let response = silent.get("/hang", &[&line]).await;
    assert_eq!(
        (response.status, reason(&response).as_str()),
        (504, "upstream_timeout")
    );
}

#[tokio::test]
async fn tls_to_the_service_is_verified() {
    let world = World::in_clear(json!({})).await;
    let options = Options {
        is_tls: false,
        keys: json!({ "to": format!("https://localhost:{}", world.service.address.port()) }),
        ..Options::default()
    };
    let next = world.reconfigured(&options);
    let prepared = world.listener.prepare(&next.inbound[0], None).unwrap();
    world.listener.put_in_force(prepared);
    let line = format!("Authorization: Bearer {}", world.token());
    let response = world.get("/x", &[&line]).await;
    assert_eq!(
        (response.status, reason(&response).as_str()),
        (502, "upstream_tls_failed")
    );
    assert_eq!(world.service.asked(), 0);
}
