//! Every route, and every way to call it wrongly: a problem with a stable code, nothing changed, one record.

use serde_json::{Value, json};

use crate::{
    document::{Document, Operation},
    world::{Who, World, token_of},
};

/// A body that the route takes.
fn good_body(operation: &Operation) -> Value {
    match operation.value["operationId"].as_str().unwrap() {
        "deny.add" => json!({"session": "s_a", "reason": "r"}),
        "kill.all" => json!({"reason": "r"}),
        "quota.set" => json!({"sessions": 5}),
        _ => json!({}),
    }
}

/// The account whose only scope is this one.
fn account(scope: &str) -> &'static str {
    match scope {
        "session:create" => "create",
        "session:read" => "read",
        "revoke" => "revoke",
        "policy" => "policy",
        "audit:read" => "audit",
        other => panic!("{other}"),
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.session("s_a", Some("team-a")).await;
    world
}

fn guarded() -> Vec<Operation> {
    let operations = Document::current().operations();
    let guarded: Vec<_> = operations
        .into_iter()
        .filter(|operation| !operation.scopes().is_empty())
        .collect();
    assert!(guarded.len() >= 18, "{}", guarded.len());
    guarded
}

#[tokio::test]
async fn who_has_no_good_credential_gets_nowhere() {
    let world = world().await;
    for operation in guarded() {
        let (method, path) = (operation.method.as_str(), operation.at("s_a"));
        let body = good_body(&operation).to_string();
        let body = if operation.takes_body() {
            body.as_bytes()
        } else {
            b""
        };
        let record = world
            .refused(&Who::Nobody, method, &path, &[], body, "credential_missing")
            .await;
        assert_eq!(
            Some(record.operation),
            operation.value["operationId"].as_str()
        );
        assert_eq!(record.operator.name, "unknown");
        let stranger = Who::Bearer("0123456789abcdef0123456789abcdef".to_owned());
        world
            .refused(&stranger, method, &path, &[], body, "credential_invalid")
            .await;
        let basic = [("authorization", "Basic YTpi")];
        world
            .refused(
                &Who::Nobody,
                method,
                &path,
                &basic,
                body,
                "credential_invalid",
            )
            .await;
    }
}

#[tokio::test]
async fn who_lacks_the_scope_gets_nowhere_and_each_scope_opens_its_own_routes_only() {
    let world = world().await;
    for operation in guarded() {
        let (method, path) = (operation.method.as_str(), operation.at("s_a"));
        let scopes = operation.scopes();
        world
            .refused(
                &Who::Token("none"),
                method,
                &path,
                &[],
                b"",
                "scope_missing",
            )
            .await;
        for other in [
            "session:create",
            "session:read",
            "revoke",
            "policy",
            "audit:read",
        ] {
            if !scopes.iter().any(|scope| scope == other) {
                let who = Who::Token(account(other));
                let record = world
                    .refused(&who, method, &path, &[], b"", "scope_missing")
                    .await;
                assert_eq!(record.operator.name, account(other));
            }
        }
    }
}

#[tokio::test]
async fn what_concerns_all_tenants_is_not_for_who_is_bound_to_one() {
    let world = world().await;
    let (mut everybodys, mut by_id) = (0, 0);
    for operation in guarded() {
        let method = operation.method.as_str();
        let body = good_body(&operation).to_string();
        let body = if operation.takes_body() {
            body.as_bytes()
        } else {
            b""
        };
        if operation.is_everybodys() {
            everybodys += 1;
            let path = operation.at("s_a");
            world
                .refused(
                    &Who::Token("all-a"),
                    method,
                    &path,
                    &[],
                    body,
                    "tenant_bound",
                )
                .await;
        }
        if operation.path.contains("{id}") {
            by_id += 1;
            // Another tenant's session and one that never was: the same answer.
            for id in ["s_a", "s_never"] {
                let path = operation.at(id);
                let body = if operation.path.ends_with("limits") {
                    b"{}"
                } else {
                    body
                };
                let who = Who::Token("all-b");
                let record = world
                    .refused(&who, method, &path, &[], body, "unknown_session")
                    .await;
                assert_eq!(record.target.as_deref(), Some(id));
            }
        }
    }
    assert!(everybodys >= 8 && by_id == 6, "{everybodys} {by_id}");
    for (method, path, body) in [
        (
            "POST",
            "/v1/denylist",
            &br#"{"session":"s_a","reason":"r"}"#[..],
        ),
        ("DELETE", "/v1/denylist?session=s_a", b""),
    ] {
        world
            .refused(
                &Who::Token("all-b"),
                method,
                path,
                &[],
                body,
                "unknown_session",
            )
            .await;
    }
    let body = br#"{"tenant":"team-a"}"#;
    world
        .refused(
            &Who::Token("all-b"),
            "POST",
            "/v1/sessions",
            &[],
            body,
            "tenant_bound",
        )
        .await;
}

#[tokio::test]
async fn bodies_of_a_wrong_form_are_refused_on_every_route() {
    let world = world().await;
    let document = Document::current();
    for operation in guarded() {
        let (method, path) = (operation.method.as_str(), operation.at("s_a"));
        let who = Who::Local;
        let large = vec![b' '; 70 * 1024];
        world
            .refused(&who, method, &path, &[], &large, "body_too_large")
            .await;
        if !operation.takes_body() {
            world
                .refused(&who, method, &path, &[], b"{}", "invalid_body")
                .await;
            continue;
        }
        let form = [("content-type", "application/x-www-form-urlencoded")];
        world
            .refused(&who, method, &path, &form, b"a=b", "unsupported_media_type")
            .await;
        for bad in [
            "[]",
            "null",
            "5",
            "\"text\"",
            "{",
            "{} {}",
            "not json",
            "{\"a\"}",
            "\u{feff}{}",
        ] {
            world
                .refused(&who, method, &path, &[], bad.as_bytes(), "invalid_body")
                .await;
        }
        let mut unknown = good_body(&operation);
        unknown["surprise"] = json!(1);
        let text = unknown.to_string();
        world
            .refused(&who, method, &path, &[], text.as_bytes(), "invalid_body")
            .await;
        // A value of no field's type, in each field.
        let schema = document.body_schema(&operation);
        let name = schema["$ref"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        let schemas: Value = serde_json::from_str(&outgate_control::operator::openapi()).unwrap();
        let fields = schemas["components"]["schemas"][&name]["properties"].clone();
        for field in fields.as_object().unwrap().keys() {
            for wrong in [json!([["x"]]), json!(-1.5), json!(true)] {
                let mut body = good_body(&operation);
                body[field] = wrong;
                let text = body.to_string();
                world
                    .refused(&who, method, &path, &[], text.as_bytes(), "invalid_body")
                    .await;
            }
        }
    }
}

#[tokio::test]
async fn ids_and_queries_of_a_wrong_form_are_refused_on_every_route() {
    let world = world().await;
    let long = "x".repeat(65);
    for operation in guarded() {
        let method = operation.method.as_str();
        let body = good_body(&operation).to_string();
        let body = if operation.takes_body() {
            body.as_bytes()
        } else {
            b""
        };
        if operation.path.contains("{id}") {
            for id in [&long, "a%20b", "..", "a.b.c", "%00", "s_a%2fkill"] {
                let path = operation.at(id);
                let record = world
                    .refused(&Who::Local, method, &path, &[], body, "invalid_id")
                    .await;
                assert_eq!(record.target, None);
            }
        }
        let path = format!("{}?surprise=1", operation.at("s_a"));
        world
            .refused(&Who::Local, method, &path, &[], body, "invalid_query")
            .await;
    }
    let body = br#"{"sessions":1}"#;
    world
        .refused(
            &Who::Local,
            "PUT",
            "/v1/quotas/a%2Fb",
            &[],
            body,
            "invalid_id",
        )
        .await;
}

#[tokio::test]
async fn routes_and_methods_that_are_not_there_are_told_to_operators_only() {
    let world = world().await;
    for path in [
        "/",
        "/v1",
        "/v1/sessions/",
        "/v1/sessions/s_a/kill/x",
        "//v1/sessions",
        "/metrics",
    ] {
        world
            .refused(&Who::Token("none"), "GET", path, &[], b"", "unknown_route")
            .await;
        world
            .refused(&Who::Nobody, "GET", path, &[], b"", "credential_missing")
            .await;
    }
    for (method, path) in [
        ("PATCH", "/v1/sessions"),
        ("HEAD", "/v1/sessions"),
        ("DELETE", "/v1/jwks"),
    ] {
        let answer = world
            .call(&Who::Token("none"), method, path, &[], b"")
            .await;
        assert_eq!(answer.status, 405);
        assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
        world
            .refused(&Who::Nobody, "PATCH", path, &[], b"", "credential_missing")
            .await;
    }
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused_by_name() {
    let world = world().await;
    let labels: serde_json::Map<String, Value> =
        (0..33).map(|n| (n.to_string(), json!("x"))).collect();
    let token = "eyJhbGciOi.eyJzdWIi.c2ln";
    let cases = [
        (
            "POST",
            "/v1/sessions",
            json!({"ttl_seconds": 0}),
            "invalid_ttl",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"ttl_seconds": 1801}),
            "invalid_ttl",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"policy": "unheard-of"}),
            "unknown_policy",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"policy": "a b"}),
            "unknown_policy",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"limits": {"requests": "0/s"}}),
            "invalid_limits",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"limits": {"bytes_out": 0}}),
            "invalid_limits",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"limits": {"requets": "5/s"}}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"limits": ["5/s"]}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"tenant": "a b"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"tenant": ""}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"labels": labels}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"labels": {"a": "x".repeat(257)}}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"labels": {"a": "\u{1b}[2J"}}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"labels": {"": "x"}}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"labels": {"key": token}}),
            "token_in_text",
        ),
        (
            "POST",
            "/v1/sessions",
            json!({"container": "a\nb"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/sessions/s_a/renew",
            json!({"ttl_seconds": 1801}),
            "invalid_ttl",
        ),
        (
            "PUT",
            "/v1/sessions/s_a/limits",
            json!({"connections": "many"}),
            "invalid_limits",
        ),
        (
            "POST",
            "/v1/sessions/s_a/kill",
            json!({"reason": token}),
            "token_in_text",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"reason": "r"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"session": "s_a", "token": "t", "reason": "r"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"issuer": "i", "reason": "r"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"session": "a b", "reason": "r"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"token": token, "reason": "r"}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"session": "s_a", "reason": " "}),
            "invalid_body",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"session": "s_a", "reason": "r", "until": 5}),
            "until_passed",
        ),
        (
            "POST",
            "/v1/denylist",
            json!({"session": "s_a", "reason": "r", "until": 9_223_372_036_854_775_808u64}),
            "invalid_body",
        ),
        ("POST", "/v1/kill", json!({"reason": ""}), "invalid_body"),
        ("POST", "/v1/kill", json!({}), "invalid_body"),
        ("PUT", "/v1/quotas/team-a", json!({}), "invalid_body"),
        (
            "PUT",
            "/v1/quotas/team-a",
            json!({"sessions": -1}),
            "invalid_body",
        ),
    ];
    for (method, path, body, code) in cases {
        let text = body.to_string();
        let record = world
            .refused(&Who::Local, method, path, &[], text.as_bytes(), code)
            .await;
        assert!(!format!("{record:?}").contains("eyJ"), "{record:?}");
    }
    for (method, path, code) in [
        ("DELETE", "/v1/denylist", "invalid_query"),
        (
            "DELETE",
            "/v1/denylist?session=s_a&token=t",
            "invalid_query",
        ),
        (
            "DELETE",
            "/v1/denylist?session=s_a&session=s_a",
            "invalid_query",
        ),
        ("DELETE", "/v1/denylist?session=%zz", "invalid_query"),
        ("DELETE", "/v1/denylist?session=s_a", "not_denied"),
        ("GET", "/v1/audit/records?limit=0", "invalid_query"),
        ("GET", "/v1/audit/records?limit=1001", "invalid_query"),
        ("GET", "/v1/audit/records?after=-1", "invalid_query"),
        (
            "GET",
            "/v1/audit/records?after=99999999999999999999",
            "invalid_query",
        ),
        ("GET", "/v1/audit/records?after=", "invalid_query"),
    ] {
        world
            .refused(&Who::Local, method, path, &[], b"", code)
            .await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_recorded_once() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = world().await;
    let long = format!(
        "GET /v1/kill HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    let cases = [
        "GET /v1/kill HTTP/9.9\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "GET /v1 kill HTTP/1.1\r\n\r\n",
        &long,
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let mut stream = world.connect().await;
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "case {number}");
        // The record may come a moment after the end of the connection.
        for _ in 0..1000 {
            if world.trail.actions().len() > number {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let records = world.trail.actions();
        assert_eq!(records.len(), number + 1, "case {number}");
        assert_eq!(records[number].outcome, Err("malformed_request"));
        assert_eq!(records[number].operation, "connect");
    }
}

#[tokio::test]
async fn a_head_of_two_minds_is_refused_on_both_doors() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = world().await;
    let bearer = format!("authorization: Bearer {}", crate::world::token_of("all"));
    let good = "host: a\r\ncontent-length: 2\r\n\r\n{}";
    let cases = [
        (good, None),
        (
            "host: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            None,
        ),
        (
            "host: a\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 0\r\n\r\n",
            None,
        ),
        ("content-length: 2\r\n\r\n{}", Some("400")),
        (
            "host: a\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}",
            Some("400"),
        ),
        (
            "host: a\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
            Some("400"),
        ),
        (
            "host: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            Some("400"),
        ),
        (
            "host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            Some("400"),
        ),
        ("host: a\ncontent-length: 2\r\n\r\n{}", Some("400")),
    ];
    for (rest, status) in cases {
        for local in [true, false] {
            // Behind a good one on the same connection, and alone.
            for first in ["", good] {
                let sessions = world.sessions.list(None).len();
                let head = format!("POST /v1/sessions HTTP/1.1\r\n{bearer}\r\n");
                let first = match first {
                    "" => String::new(),
                    first => format!("{head}content-type: application/json\r\n{first}"),
                };
                let text = format!("{head}connection: close\r\n{rest}");
                let mut stream: Box<dyn crate::world::Stream> = if local {
                    Box::new(
                        tokio::net::UnixStream::connect(world.socket())
                            .await
                            .unwrap(),
                    )
                } else {
                    Box::new(world.connect().await)
                };
                let mut answer = Vec::new();
                if !first.is_empty() {
                    stream.write_all(first.as_bytes()).await.unwrap();
                    let mut answered = [0; 16 * 1024];
                    let count = stream.read(&mut answered).await.unwrap();
                    assert!(answered[..count].starts_with(b"HTTP/1.1 201"));
                }
                let expected = sessions + usize::from(!first.is_empty());
                let before = world.trail.actions().len();
                stream.write_all(text.as_bytes()).await.unwrap();
                let _ = stream.read_to_end(&mut answer).await;
                let answer = String::from_utf8_lossy(&answer);
                let made = world.sessions.list(None).len() - expected;
                let records = world.trail.actions().split_off(before);
                assert_eq!(records.len(), 1, "{text}");
                match status {
                    None => assert_eq!((made, answer.get(9..12)), (1, Some("201")), "{text}"),
                    Some(status) => {
                        assert_eq!((made, answer.get(9..12)), (0, Some(status)), "{text}");
                        assert!(answer.contains("connection: close"), "{answer}");
                        assert!(answer.contains(r#""code":"malformed_request""#), "{answer}");
                        assert_eq!(records[0].outcome, Err("malformed_request"));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn an_operators_own_secrets_are_taken_nowhere_and_written_nowhere() {
    let world = world().await;
    let token = token_of("revoke");
    for secret in [
        token.as_str(),
        "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    ] {
        let path = format!("/v1/sessions/{}", secret.replace('=', "%3D"));
        let labels = json!({"labels": {"key": secret}}).to_string();
        let container = json!({"container": secret}).to_string();
        let reason = json!({"session": "s_a", "reason": format!("is it {secret}")}).to_string();
        let query = format!("/v1/denylist?token={secret}");
        for (method, path, body) in [
            ("GET", path.as_str(), ""),
            ("POST", "/v1/sessions", &labels),
            ("POST", "/v1/sessions", &container),
            ("POST", "/v1/denylist", &reason),
            ("DELETE", query.as_str(), ""),
        ] {
            let record = world
                .refused(
                    &Who::Local,
                    method,
                    path,
                    &[],
                    body.as_bytes(),
                    "token_in_text",
                )
                .await;
            let written = format!("{record:?}");
            assert!(!written.contains(secret), "{method} {path}: {written}");
        }
    }
}

#[tokio::test]
async fn two_credentials_are_none() {
    let world = world().await;
    let one = format!("Bearer {}", crate::world::token_of("all"));
    let fields = [("authorization", one.as_str())];
    world
        .refused(
            &Who::Token("all"),
            "GET",
            "/v1/kill",
            &fields,
            b"",
            "credential_invalid",
        )
        .await;
}

#[tokio::test]
async fn a_gateway_that_follows_another_issues_nothing_and_revokes_all_the_same() {
    let world = world().await;
    world
        .host
        .follows
        .store(true, std::sync::atomic::Ordering::SeqCst);
    for path in ["/v1/sessions", "/v1/sessions/s_a/renew", "/v1/keys/rotate"] {
        world
            .refused(&Who::Local, "POST", path, &[], b"", "follows_control_plane")
            .await;
    }
    world.local_client().end("s_a").await.unwrap();
    assert!(!world.is_live("s_a"));
}
