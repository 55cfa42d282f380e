//! Captured plain HTTP: each request's `Host` names its destination, the same chain judges it as on every other way
//! in, and two requests of one connection have nothing in common.

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::{Response, h1::H1, raw};
use outgate_wire::http1::MAX_FIELDS;

use crate::world::{ANYWHERE, K1, K2, SECOND, Way, World};

/// Sends exact bytes to the plain port; the first answer.
async fn say(world: &World, bytes: &str) -> Response {
    let stream = world.dial(ANYWHERE, world.clear.port()).await;
    let mut h1 = H1::new(Box::new(stream));
    let _ = h1.write(bytes.as_bytes()).await;
    tokio::time::timeout(2 * SECOND, h1.read_response("GET"))
        .await
        .expect("an answer in time")
        .unwrap_or_else(|error| panic!("no answer to {bytes:?}: {error}"))
}

#[tokio::test]
async fn an_answer_has_as_many_fields_as_an_envoy_lets_pass() {
    let world = World::new(Attribution::BySocket).await;
    let here = world.clear.port();
    for (fields, status) in [(90, 200), (101, 502)] {
        let target = format!("/fields?n={fields}");
        let request = format!("GET {target} HTTP/1.1\r\nhost: n.test:{here}\r\n\r\n");
        let answer = say(&world, &request).await;
        assert_eq!(answer.status, status, "{fields} fields: {answer:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn the_whole_policy_holds_for_requests_in_clear() {
    use DenyCode as Code;
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        let (here, other) = (world.clear.port(), world.tls.port());
        let bearer = format!("authorization: Bearer {}\r\n", world.token());
        let get =
            |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\n{fields}{bearer}\r\n");
        let host = |host: &str| get("/", &format!("host: {host}:{here}\r\n"));
        let with = |more: &str| get("/", &format!("host: n.test:{here}\r\n{more}"));
        let cases: Vec<(String, Option<Code>)> = vec![
            (host("n.test"), None),
            (with(&"x: 1\r\n".repeat(MAX_FIELDS - 2)), None),
            (
                with(&"x: 1\r\n".repeat(MAX_FIELDS - 1)),
                Some(Code::HeaderTooLarge),
            ),
            (host("a.test"), None),
            (host("A.TEST."), None),
            (host("one.wild.test"), None),
            (get("/v1/x", &format!("host: rules.test:{here}\r\n")), None),
            (
                get(
                    &format!("http://n.test:{here}/"),
                    &format!("host: n.test:{here}\r\n"),
                ),
                None,
            ),
            (
                get(&format!("http://n.test:{here}/"), ""),
                Some(Code::MalformedRequest),
            ),
            (host("b.test"), Some(Code::CredentialOverPlaintext)),
            (host("tlsonly.test"), Some(Code::PlaintextNotAllowed)),
            (host("pass.test"), Some(Code::PortNotAllowed)),
            (host("x.test"), Some(Code::DestinationNotAllowed)),
            (host("closed.test"), Some(Code::DestinationNotAllowed)),
            (host("sub.a.test"), Some(Code::DestinationNotAllowed)),
            (host("two.one.wild.test"), Some(Code::DestinationNotAllowed)),
            (host("wild.test"), Some(Code::DestinationNotAllowed)),
            (host("127.0.0.1"), Some(Code::IpLiteral)),
            (host("2130706433"), Some(Code::IpLiteral)),
            (host("[::1]"), Some(Code::IpLiteral)),
            (host("a%2etest"), Some(Code::HostInvalid)),
            (get("/", "host: a.test\r\n"), Some(Code::AuthorityMismatch)),
            (
                get("/", &format!("host: a.test:{other}\r\n")),
                Some(Code::AuthorityMismatch),
            ),
            (
                get("/", "host: a.test:80\r\n"),
                Some(Code::AuthorityMismatch),
            ),
            (
                get(
                    "/",
                    &format!("host: n.test:{here}\r\nhost: a.test:{here}\r\n"),
                ),
                Some(Code::MalformedRequest),
            ),
            (
                get("/", &format!("host: n.test:{here}, a.test:{here}\r\n")),
                Some(Code::IpLiteral),
            ),
            (
                get("/", &format!("host: user@a.test:{here}\r\n")),
                Some(Code::HostInvalid),
            ),
            (get("/", ""), Some(Code::MalformedRequest)),
            (
                get(
                    &format!("http://a.test:{here}/"),
                    &format!("host: x.test:{here}\r\n"),
                ),
                Some(Code::AuthorityMismatch),
            ),
            (
                get(
                    &format!("http://x.test:{here}/"),
                    &format!("host: a.test:{here}\r\n"),
                ),
                Some(Code::AuthorityMismatch),
            ),
            (
                get(
                    &format!("http://a.test:{other}/"),
                    &format!("host: a.test:{here}\r\n"),
                ),
                Some(Code::AuthorityMismatch),
            ),
            (
                get("http://a.test/", "host: a.test\r\n"),
                Some(Code::AuthorityMismatch),
            ),
            (
                get(
                    &format!("https://a.test:{here}/"),
                    &format!("host: a.test:{here}\r\n"),
                ),
                Some(Code::MalformedRequest),
            ),
            (
                get(
                    &format!("http://u:p@a.test:{here}/"),
                    &format!("host: a.test:{here}\r\n"),
                ),
                Some(Code::MalformedRequest),
            ),
            (
                with(
                    "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n",
                ),
                Some(Code::UpgradeNotSupported),
            ),
            (
                with("content-length: 5\r\ntransfer-encoding: chunked\r\n"),
                Some(Code::MalformedRequest),
            ),
            (
                with("content-length: 5\r\ncontent-length: 6\r\n"),
                Some(Code::MalformedRequest),
            ),
            (with("x: a\r\n  folded\r\n"), Some(Code::MalformedRequest)),
            (
                with("transfer-encoding: xchunked\r\n"),
                Some(Code::MalformedRequest),
            ),
            (with("x: a\ny: b\r\n"), Some(Code::MalformedRequest)),
            (
                get("/v2/x", &format!("host: rules.test:{here}\r\n")),
                Some(Code::PathNotAllowed),
            ),
            (
                get("/v1/../v2", &format!("host: rules.test:{here}\r\n")),
                Some(Code::PathAmbiguous),
            ),
            (
                get("/v1/%2e%2e/v2", &format!("host: rules.test:{here}\r\n")),
                Some(Code::PathAmbiguous),
            ),
            (
                get("/v1/a%2fb", &format!("host: rules.test:{here}\r\n")),
                Some(Code::PathAmbiguous),
            ),
            (
                format!("CONNECT a.test:{other} HTTP/1.1\r\nhost: a.test:{other}\r\n{bearer}\r\n"),
                Some(Code::MalformedRequest),
            ),
        ];
        for (bytes, code) in &cases {
            let context = format!("{attribution:?} {}", bytes.replace(&world.token(), "TOKEN"));
            let mark = world.mark();
            let response = say(&world, bytes).await;
            let Some(code) = code else {
                assert_eq!(
                    (response.status, response.reason()),
                    (200, None),
                    "{context}"
                );
                let record = world
                    .record(mark, &context, |it| it.verdict == Verdict::Allowed)
                    .await;
                assert_eq!(record.entry, Entry::TransparentPlain, "{context}");
                assert_eq!(record.upstream, Some(world.clear.address()), "{context}");
                continue;
            };
            assert_eq!(response.reason(), Some(code.as_str()), "{context}");
            world
                .refusal(mark, Entry::TransparentPlain, *code, &context)
                .await;
            assert_eq!(world.records_since(mark).len(), 1, "{context}");
            world.assert_nothing_sent(mark, &context);
            world.assert_nothing_dialled(mark, &context);
            world.assert_nothing_looked_up(mark, &context);
        }
        let seen = world.clear.seen();
        for seen in &seen {
            let is_a = seen.authority.to_ascii_lowercase().starts_with("a.test");
            assert_eq!(seen.mentions(K1), is_a, "{seen:?}");
        }
        world.assert_no_upstream_saw(K2);
        world.assert_no_upstream_saw(&world.token());
        world.finish().await;
    }
}

#[tokio::test]
async fn two_requests_of_one_connection_are_judged_apart_and_share_no_credential() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        let token = world.token();
        let first = world.get(Way::Clear, "a.test", "/first").bearer(&token);
        let mut channel = world.open(Way::Clear, &first).await.unwrap();
        let mark = world.mark();
        assert_eq!(channel.send(&first).await.answered().status, 200);
        let refused = channel
            .send(&world.get(Way::Clear, "x.test", "/").bearer(&token))
            .await;
        assert_eq!(refused.reason(), Some("destination_not_allowed"));
        let second = world.get(Way::Clear, "n.test", "/second").bearer(&token);
        assert_eq!(channel.send(&second).await.answered().status, 200);
        let refused = channel
            .send(&world.get(Way::Clear, "b.test", "/").bearer(&token))
            .await;
        assert_eq!(refused.reason(), Some("credential_over_plaintext"));
        // The token of the first request speaks for none of the next.
        let outcome = channel
            .send(&world.get(Way::Clear, "a.test", "/third"))
            .await;
        assert_eq!(outcome.reason(), Some("token_missing"));
        assert_eq!(
            channel.send(&first).await.answered().status,
            200,
            "still the same connection"
        );
        drop(channel);

        let seen = world.clear.seen();
        let paths: Vec<_> = seen.iter().map(|seen| seen.target.as_str()).collect();
        assert_eq!(paths, ["/first", "/second", "/first"], "{attribution:?}");
        assert_eq!(seen[0].headers.get("x-api-key"), Some(K1));
        assert!(!seen[1].mentions(K1), "{:?}", seen[1]);
        let hosts: Vec<_> = world
            .records_since(mark)
            .into_iter()
            .map(|record| (record.host.unwrap(), record.verdict == Verdict::Allowed))
            .collect();
        let expected = [
            ("a.test", true),
            ("x.test", false),
            ("n.test", true),
            ("b.test", false),
            ("a.test", false),
        ];
        let expected: Vec<_> = expected.map(|(host, ok)| (host.to_owned(), ok)).into();
        assert_eq!(hosts[..5], expected, "{attribution:?}");
        world.finish().await;
    }
}

#[tokio::test]
async fn a_request_smuggled_behind_another_is_not_served() {
    let world = World::new(Attribution::BySocket).await;
    let port = world.clear.port();
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nhost: n.test:{port}\r\n\r\n");
    for framing in [
        format!(
            "content-length: {}\r\ntransfer-encoding: chunked\r\n",
            smuggled.len()
        ),
        "content-length: 0\r\ncontent-length: 5\r\n".to_owned(),
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(),
        "content-length: +0\r\n".to_owned(),
    ] {
        let mark = world.mark();
        let bytes = format!(
            "POST /outer HTTP/1.1\r\nhost: n.test:{port}\r\n{framing}\r\n0\r\n\r\n{smuggled}"
        );
        let mut stream = world.dial(ANYWHERE, port).await;
        let (answer, closed) = raw::send_and_drain(&mut stream, bytes.as_bytes(), 2 * SECOND).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            closed && answer.matches("HTTP/1.1 ").count() == 1,
            "{framing}: {answer}"
        );
        world
            .refusal(
                mark,
                Entry::TransparentPlain,
                DenyCode::MalformedRequest,
                &framing,
            )
            .await;
        world.assert_nothing_sent(mark, &framing);
    }
    world.finish().await;
}

#[tokio::test]
async fn plain_requests_on_the_port_of_tls_meet_the_same_rules() {
    let world = World::new(Attribution::BySocket).await;
    let port = world.tls.port();
    for (host, code) in [
        ("tlsonly.test", DenyCode::PlaintextNotAllowed),
        ("pass.test", DenyCode::PlaintextNotAllowed),
        ("x.test", DenyCode::DestinationNotAllowed),
    ] {
        let mark = world.mark();
        let stream = world.dial(ANYWHERE, port).await;
        let mut h1 = H1::new(Box::new(stream));
        h1.write(format!("GET / HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let response = h1.read_response("GET").await.unwrap();
        assert_eq!(response.reason(), Some(code.as_str()), "{host}");
        world
            .refusal(mark, Entry::TransparentPlain, code, host)
            .await;
        world.assert_nothing_dialled(mark, host);
    }
    world.finish().await;
}
