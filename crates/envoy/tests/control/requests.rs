//! ext_authz on a request: inside a tunnel, in absolute form, or captured.

use outgate_journey::{
    denial::DenyCode::{self, *},
    record::{Entry, Verdict},
};

use crate::{
    ask::{Ask, CLIENT, basic},
    world::{UPSTREAM, World},
};

#[tokio::test]
async fn a_request_is_allowed_with_what_envoy_needs_to_carry_it() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("both.test:443", Some(&guest)).await;
    let clear = world.tunnel("both.test:80", Some(&guest)).await;
    let mut captured = Ask::of("transparent-plain", "GET", "both.test", "/a").by(&guest);
    captured.dialled = "192.0.2.1:80".parse().unwrap();
    // (leg, question, its tunnel, target)
    for (leg, ask, inside, port) in [
        (
            "bumped",
            Ask::bumped(&tunnel, "both.test", "/a?b"),
            Some(&tunnel),
            443,
        ),
        (
            "tunnelled-plain",
            Ask::tunnelled_plain(&clear, "both.test", "/"),
            Some(&clear),
            80,
        ),
        (
            "forward",
            Ask::forward("both.test", "/a").proxied_by(&guest),
            None,
            80,
        ),
        (
            "forward",
            Ask::forward("both.test:80", "/a").by(&guest),
            None,
            80,
        ),
        ("transparent-plain", captured, None, 80),
    ] {
        let allowed = world.ask(&ask).await.expect(leg);
        let id = allowed.id().to_owned();
        let mut metadata = allowed.metadata;
        assert!(metadata.remove("record").unwrap() != id, "{leg}");
        assert!(
            metadata.remove("rule").unwrap().ends_with("both.test"),
            "{leg}"
        );
        let expected = [
            ("address", format!("{UPSTREAM}:{port}")),
            ("connection", inside.unwrap_or(&id).clone()),
            ("host", "both.test".to_owned()),
            ("pool", format!("{}/0", guest.id)),
            ("request", id),
            ("session", guest.id.to_string()),
            ("target", format!("both.test:{port}")),
        ];
        let expected = expected.into_iter().map(|(key, it)| (key.to_owned(), it));
        assert_eq!(metadata, expected.collect(), "{leg}");
    }
    assert!(world.records().is_empty());
}

#[tokio::test]
async fn two_sessions_and_two_policies_never_share_a_pool() {
    let world = World::new().await;
    let (one, two) = (world.guest().await, world.guest().await);
    let pool = async |guest: Option<_>| {
        let ask = Ask::forward("optional.test", "/");
        let ask = match guest {
            Some(guest) => ask.by(guest),
            None => ask,
        };
        world.ask(&ask).await.unwrap().metadata["pool"].clone()
    };
    let before = [
        pool(Some(&one)).await,
        pool(Some(&two)).await,
        pool(None).await,
    ];
    assert!(before[0] != before[1] && before[1] != before[2] && before[0] != before[2]);
    assert_eq!(pool(Some(&one)).await, before[0]);
    world.reload(|_| {});
    assert!(!before.contains(&pool(Some(&one)).await));
    assert!(!before.contains(&pool(None).await));
}

#[tokio::test]
async fn what_must_not_leave_is_taken_out_and_nothing_else_is() {
    let world = World::new().await;
    let guest = world.guest().await;
    let bearer = format!("Bearer {}", guest.token);
    let key = world.tunnel("key.test:443", Some(&guest)).await;
    let ask = Ask::bumped(&key, "key.test", "/").fields(&[
        ("authorization", &bearer),
        ("x-api-key", "mine"),
        ("proxy-authorization", &bearer),
        ("x_api_key", "a twin"),
        ("range", "bytes=0-1"),
        ("expect", "100-continue"),
        ("connection", "x-hop, keep-alive"),
        ("keep-alive", "5"),
        ("x-hop", "1"),
        ("x-odd", &guest.token),
        ("accept-encoding", "br, compress"),
        ("cookie", "a=b"),
        ("x-own", "1"),
        ("x-own", "2"),
        ("te", "trailers"),
        ("upgrade", "websocket"),
        ("content-type", "text/plain"),
    ]);
    let allowed = world.ask(&ask).await.unwrap();
    assert_eq!(
        allowed.removed,
        [
            "authorization",
            "expect",
            "keep-alive",
            "proxy-authorization",
            "range",
            "x-api-key",
            "x-hop",
            "x-odd",
            "x_api_key",
        ]
    );
    assert_eq!(allowed.set.len(), 1, "{:?}", allowed.set);
    assert!(
        allowed.set[0].starts_with("accept-encoding: "),
        "{:?}",
        allowed.set
    );
    assert!(!allowed.set[0].contains("compress"), "{:?}", allowed.set);

    // Where nothing is attached, the guest's own key is its business.
    let bare = world.tunnel("bare.test:443", Some(&guest)).await;
    let ask = Ask::bumped(&bare, "bare.test", "/").fields(&[
        ("authorization", "Bearer mine"),
        ("x-api-key", "mine"),
        ("x-odd", &bearer),
        ("proxy-authorization", &bearer),
        ("range", "bytes=0-1"),
        ("accept-encoding", "br, compress"),
    ]);
    let allowed = world.ask(&ask).await.unwrap();
    assert_eq!(allowed.removed, ["proxy-authorization", "x-odd"]);
    assert!(allowed.set.is_empty(), "{:?}", allowed.set);
}

/// What a row changes in a good question.
type Change<'a> = Box<dyn Fn(Ask) -> Ask + 'a>;

#[tokio::test]
async fn a_refused_request_inside_a_tunnel_tells_the_guest_why_and_is_recorded_once() {
    let world = World::new().await;
    let (guest, other) = (world.guest().await, world.guest().await);
    let tunnel = world.tunnel("rules.test:443", Some(&guest)).await;
    let others = world.tunnel("key.test:443", Some(&other)).await;
    let nobodys = world.tunnel("rules.test:443", None).await;
    let inside = |id: &str| {
        let id = id.to_owned();
        move |mut ask: Ask| {
            ask.fields.clear();
            ask.field("x-outgate-connection", &id)
        }
    };
    let with = |change: fn(&mut Ask)| {
        Box::new(move |mut ask: Ask| {
            change(&mut ask);
            ask
        })
    };
    let rows: Vec<(&str, Change<'_>, DenyCode, i32)> = vec![
        (
            "no SNI",
            with(|ask| ask.server_name.clear()),
            ServerNameMissing,
            403,
        ),
        (
            "SNI",
            with(|ask| ask.server_name = "key.test".into()),
            ServerNameMismatch,
            421,
        ),
        (
            "an SNI below",
            with(|ask| ask.server_name = "a.rules.test".into()),
            ServerNameMismatch,
            421,
        ),
        (
            "host",
            with(|ask| ask.authority = "key.test".into()),
            AuthorityMismatch,
            421,
        ),
        (
            "port",
            with(|ask| ask.authority = "rules.test:80".into()),
            AuthorityMismatch,
            421,
        ),
        (
            "both",
            with(|ask| {
                ask.authority = "key.test".into();
                ask.server_name = "key.test".into();
            }),
            ServerNameMismatch,
            421,
        ),
        (
            "Host beside :authority",
            Box::new(|ask| ask.field("host", "key.test")),
            MalformedRequest,
            400,
        ),
        (
            "no such tunnel",
            Box::new(inside("1f-1")),
            InternalFault,
            500,
        ),
        (
            "no tunnel",
            with(|ask| ask.fields.clear()),
            InternalFault,
            500,
        ),
        // No guest can say this: Envoy writes the field. If one could, SNI and authority would have to be the other's too.
        (
            "another's tunnel",
            Box::new(inside(&others)),
            ServerNameMismatch,
            421,
        ),
        (
            "h2c",
            Box::new(|ask| ask.field("upgrade", "h2c")),
            UpgradeNotSupported,
            400,
        ),
        (
            "path",
            with(|ask| ask.path = "/v2/x".into()),
            PathNotAllowed,
            403,
        ),
        (
            "dots",
            with(|ask| ask.path = "/v1/../v2".into()),
            PathAmbiguous,
            400,
        ),
        (
            "encoded",
            with(|ask| ask.path = "/v1/%2e%2e/v2".into()),
            PathAmbiguous,
            400,
        ),
        (
            "method",
            with(|ask| ask.method = "DELETE".into()),
            MethodNotAllowed,
            403,
        ),
        (
            "no method",
            with(|ask| ask.method = "GE T".into()),
            MalformedRequest,
            400,
        ),
        (
            "no path",
            with(|ask| ask.path = String::new()),
            MalformedRequest,
            400,
        ),
        (
            "no origin form",
            with(|ask| ask.path = "http://rules.test/".into()),
            MalformedRequest,
            400,
        ),
        (
            "no name",
            Box::new(|ask| ask.field("b\u{e4}d", "1")),
            MalformedRequest,
            400,
        ),
        (
            "no value",
            Box::new(|ask| ask.field("x-bad", "a\nb")),
            MalformedRequest,
            400,
        ),
        ("nobody's", Box::new(inside(&nobodys)), TokenMissing, 401),
        (
            "two sessions",
            Box::new(|ask| ask.by(&other)),
            SessionMismatch,
            403,
        ),
        (
            "in the URL",
            Box::new(|mut ask| {
                ask.path = format!("/v1/x?t={}", guest.token);
                ask
            }),
            TokenInUrl,
            400,
        ),
        (
            "ran out",
            Box::new(|ask| inside(&nobodys)(ask).field("x-api-key", world.expired(&guest))),
            TokenExpired,
            401,
        ),
    ];
    for (what, change, code, status) in rows {
        let ask = change(Ask::bumped(&tunnel, "rules.test", "/v1/x"));
        let Err(refused) = world.ask(&ask).await else {
            panic!("{what}: allowed");
        };
        refused.is(code, status, what);
        let challenges = if status == 401 { 2 } else { 0 };
        assert_eq!(
            refused.field("www-authenticate").len(),
            challenges,
            "{what}"
        );
        assert!(refused.field("proxy-authenticate").is_empty(), "{what}");
        let record = world.record(refused.id());
        assert_eq!(record.verdict, Verdict::Denied(code), "{what}");
        assert_eq!(record.entry, Entry::Bumped, "{what}");
        assert_eq!(record.upstream, None, "{what}");
        assert!(!format!("{record:?}").contains(&guest.token), "{what}");
    }
    assert_eq!(
        world.control.open_exchanges(),
        3,
        "a refused request is kept"
    );
    let good = Ask::bumped(&tunnel, "rules.test", "/v1/x");
    world
        .ask(&good)
        .await
        .expect("what every row changes is good");
}

#[tokio::test]
async fn a_refused_request_outside_tunnels_is_challenged_by_whom_it_asked() {
    let world = World::new().await;
    let guest = world.guest().await;
    let captured =
        |authority: &str, path: &str| Ask::of("transparent-plain", "GET", authority, path);
    // (question, code, status, entry)
    for (ask, code, status) in [
        (Ask::forward("x.test", "/"), DestinationNotAllowed, 403),
        (Ask::forward("key.test", "/"), PortNotAllowed, 403),
        (Ask::forward("bare.test:443", "/"), PlaintextNotAllowed, 403),
        (Ask::forward("10.0.0.7", "/"), IpLiteral, 403),
        (Ask::forward("both.test", "/"), TokenMissing, 407),
        (
            Ask::forward("both.test", "/").field("proxy-authorization", "Bearer no"),
            TokenInvalid,
            407,
        ),
        (
            Ask::forward("both.test", "/").field("host", "x.test"),
            AuthorityMismatch,
            421,
        ),
        (
            Ask::forward("rules.test", "/v2").by(&guest),
            PathNotAllowed,
            403,
        ),
        // The proxy knows whose it is: what is wrong is what the destination was to get.
        (
            Ask::forward("optional.test", "/")
                .proxied_by(&guest)
                .field("x-api-key", "mine"),
            TokenInvalid,
            401,
        ),
        (captured("x.test", "/"), DestinationNotAllowed, 403),
        (captured("both.test", "/"), TokenMissing, 401),
        (
            captured("both.test", "/").proxied_by(&guest),
            TokenMissing,
            401,
        ),
        (
            captured("both.test:81", "/").by(&guest),
            AuthorityMismatch,
            421,
        ),
        (captured("10.0.0.7", "/"), IpLiteral, 403),
    ] {
        let leg = ask.leg.unwrap();
        let context = format!("{leg} {} {code}", ask.authority);
        let Err(refused) = world.ask(&ask).await else {
            panic!("{context}: allowed");
        };
        refused.is(code, status, &context);
        let challenged = |name| refused.field(name).len();
        let expected = match status {
            401 => (0, 2),
            407 => (2, 0),
            _ => (0, 0),
        };
        let found = (
            challenged("proxy-authenticate"),
            challenged("www-authenticate"),
        );
        assert_eq!(found, expected, "{context}");
        let record = world.record(refused.id());
        assert_eq!(record.verdict, Verdict::Denied(code), "{context}");
        let entry = match leg {
            "forward" => Entry::AbsoluteForm,
            _ => Entry::TransparentPlain,
        };
        assert_eq!(record.entry, entry, "{context}");
        assert_eq!(record.client.to_string(), CLIENT, "{context}");
    }
}

#[tokio::test]
async fn only_the_legs_inside_tunnels_hear_of_one_and_only_of_a_tunnel() {
    let world = World::new().await;
    let (guest, other) = (world.guest().await, world.guest().await);
    let tunnel = world.tunnel("both.test:80", Some(&other)).await;
    let claiming = Ask::forward("both.test", "/").field("x-outgate-connection", &tunnel);
    let refused = world.ask(&claiming).await.expect_err("nobody's");
    refused.is(TokenMissing, 407, "a claim on the forward leg");
    let allowed = world.ask(&claiming.proxied_by(&guest)).await.unwrap();
    assert_eq!(allowed.metadata["session"], guest.id.to_string());
    assert_eq!(allowed.metadata["connection"], allowed.metadata["request"]);
    // A request is no tunnel.
    for ask in [
        Ask::bumped(allowed.id(), "both.test", "/").proxied_by(&guest),
        Ask::tunnelled_plain(allowed.id(), "both.test", "/").proxied_by(&guest),
    ] {
        let refused = world.ask(&ask).await.expect_err("no tunnel");
        refused.is(InternalFault, 500, ask.leg.unwrap());
    }
}

#[tokio::test]
async fn a_request_inside_a_tunnel_is_recorded_as_the_tunnels_clients() {
    let world = World::new().await;
    let tunnel = world.tunnel("bare.test:443", None).await;
    let mut ask = Ask::bumped(&tunnel, "bare.test", "/private?q=1");
    ask.protocol = "HTTP/2";
    let refused = world.ask(&ask).await.expect_err("nobody's");
    let record = world.record(refused.id());
    assert_eq!(record.client.to_string(), CLIENT);
    assert_eq!(
        record.path.as_deref(),
        Some("/private"),
        "the query has no place there"
    );
    assert_eq!(record.http_version, Some("HTTP/2"));
    assert_eq!(
        (record.host.as_deref(), record.port),
        (Some("bare.test"), Some(443))
    );
}

#[tokio::test]
async fn a_token_is_taken_wherever_a_service_expects_its_key() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("key.test:443", None).await;
    let token = guest.token.as_str();
    for (name, value) in [
        ("authorization", format!("Bearer {token}")),
        ("authorization", basic("x-access-token", token)),
        ("x-api-key", token.to_owned()),
    ] {
        let ask = Ask::bumped(&tunnel, "key.test", "/").field(name, &value);
        let allowed = world.ask(&ask).await.expect(name);
        assert_eq!(allowed.metadata["session"], guest.id.to_string(), "{name}");
        assert!(allowed.removed.contains(&name.to_owned()), "{name}");
    }
    let ask = Ask::bumped(&tunnel, "key.test", "/").field("x-somewhere", token);
    let refused = world.ask(&ask).await.expect_err("not a place for keys");
    refused.is(TokenMissing, 401, "x-somewhere");
}

#[tokio::test]
async fn a_tunnel_serves_no_request_of_a_session_that_has_ended() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let ask = Ask::bumped(&tunnel, "bare.test", "/");
    world.ask(&ask).await.expect("it goes on");
    world.end(&guest).await;
    let refused = world.ask(&ask).await.expect_err("it has ended");
    refused.is(SessionRevoked, 403, "ended");
    let record = world.record(refused.id());
    assert_eq!(record.session.as_ref(), Some(&guest.id));
}

#[tokio::test]
async fn envoy_must_not_have_read_another_sessions_token() {
    let world = World::new().await;
    let (guest, other) = (world.guest().await, world.guest().await);
    let tunnel = world.tunnel("both.test:443", Some(&guest)).await;
    let connect = Ask::connect("both.test:443").proxied_by(&guest);
    let bumped = Ask::bumped(&tunnel, "both.test", "/").by(&guest);
    let forward = Ask::forward("both.test", "/").proxied_by(&guest);
    for (ask, place) in [
        (connect, "proxy"),
        (bumped, "request"),
        (forward.clone(), "proxy"),
        (forward.by(&guest), "request"),
    ] {
        let leg = ask.leg.unwrap();
        let verified = |session: &str| Ask {
            verified: vec![(place, session.to_owned())],
            ..ask.clone()
        };
        world.ask(&verified(guest.id.as_str())).await.expect(leg);
        let refused = world.ask(&verified(other.id.as_str())).await.unwrap_err();
        refused.is(InternalFault, 500, leg);
    }
    // What nobody verified here says nothing: a guest's own key for a destination that wants no token of ours.
    let mut own = Ask::forward("optional.test", "/");
    own.verified = vec![("request", "another".to_owned())];
    world.ask(&own).await.unwrap();
}

#[tokio::test]
async fn a_client_is_known_though_its_request_cannot_be_read() {
    let world = World::new().await;
    let mut ask = Ask::forward("both.test", "/");
    ask.method = "NO SUCH".to_owned();
    world
        .ask(&ask)
        .await
        .unwrap_err()
        .is(MalformedRequest, 400, "");
    assert_eq!(world.records()[0].client.to_string(), CLIENT);
}
