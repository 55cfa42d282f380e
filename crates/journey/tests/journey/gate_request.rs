use http::Method;
use outgate_journey::{
    denial::DenyCode::{
        self, AuditUnavailable, AuthorityMismatch, CredentialOverPlaintext, CredentialUnavailable,
        DestinationNotAllowed, MalformedRequest, MethodNotAllowed, PathNotAllowed,
        PlaintextNotAllowed, RateLimited, SessionMismatch, SessionRevoked, TokenExpired,
        TokenInUrl, TokenInvalid, TokenMissing, UpgradeNotSupported,
    },
    inject::CredentialFault,
    limit::Exceeded,
    policy::{Policy, Port, Rule, TokenDemand},
    session::UnixSeconds,
};

use crate::support::{
    Counters, FakePlane, NOW, OLD, ONE, ONE_RENEWED, Store, TWO, Tokens, Vault, get, injecting,
    policy, query_form, requests, rule, to, with_form,
};

fn only_get_v1(rule: &mut Rule) {
    rule.requests
        .allow
        .push(requests(&["GET"], &["/v1/**"], &[]));
}

fn optional(rule: &mut Rule) {
    rule.token = TokenDemand::Optional;
}

/// What happens: a credential's name, nothing attached, or a denial.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    With(&'static str),
    Bare,
    Not(DenyCode),
}
use Sent::{Bare, Not, With};

fn outcome(plane: &FakePlane, policy: &Policy, asked: &crate::support::Asked<'_>) -> Sent {
    match asked.judge(plane, policy) {
        Ok(plan) => match plan.attachment() {
            Some(attachment) => With(String::leak(attachment.lease().clone())),
            None => Bare,
        },
        Err(denial) => Not(denial.code()),
    }
}

#[test]
fn each_stage_speaks_only_when_every_stage_before_it_passed() {
    // Each row repairs what the row above was refused for; everything after it is still broken.
    let policy = policy(vec![injecting("a.test", |rule| {
        only_get_v1(rule);
        rule.plaintext = true;
        rule.ports.push(Port::HTTP);
    })]);
    let mut plane = FakePlane {
        ended: FakePlane::without(&["one"]).ended,
        counters: Counters {
            refuse: Some(Exceeded::Requests {
                retry_after_seconds: 1,
            }),
            ..Counters::default()
        },
        store: Store(false),
        vault: Vault {
            fault: Some(CredentialFault::Unfit),
            ..Vault::default()
        },
        ..FakePlane::default()
    };
    let mut asked = get("x.test", "/v2", &[("upgrade", "h2c")]).in_clear();
    asked.method = Method::POST;
    asked.headers[0] = ("host", "y.test");
    assert_eq!(outcome(&plane, &policy, &asked), Not(AuthorityMismatch));
    asked.headers[0] = ("host", "x.test");
    assert_eq!(outcome(&plane, &policy, &asked), Not(UpgradeNotSupported));
    asked.headers.truncate(1);
    assert_eq!(outcome(&plane, &policy, &asked), Not(DestinationNotAllowed));
    asked.to = to("a.test:80").in_clear();
    asked.headers[0] = ("host", "a.test");
    asked.target = "/v2/eyJ.two.good";
    assert_eq!(outcome(&plane, &policy, &asked), Not(TokenInUrl));
    asked.target = "/v2";
    asked.headers.push(("authorization", "Bearer forged"));
    assert_eq!(outcome(&plane, &policy, &asked), Not(TokenInvalid));
    asked.headers[1] = ("authorization", OLD);
    assert_eq!(outcome(&plane, &policy, &asked), Not(TokenExpired));
    asked.headers.pop();
    assert_eq!(outcome(&plane, &policy, &asked), Not(TokenMissing));
    asked.headers.push(("authorization", ONE));
    assert_eq!(outcome(&plane, &policy, &asked), Not(SessionRevoked));
    plane.ended.ended.clear();
    assert_eq!(outcome(&plane, &policy, &asked), Not(PathNotAllowed));
    asked.target = "/v1/x";
    assert_eq!(outcome(&plane, &policy, &asked), Not(MethodNotAllowed));
    asked.method = Method::GET;
    assert_eq!(outcome(&plane, &policy, &asked), Not(RateLimited));
    plane.counters.refuse = None;
    assert_eq!(
        outcome(&plane, &policy, &asked),
        Not(CredentialOverPlaintext)
    );
    asked.to = to("a.test:443");
    assert_eq!(outcome(&plane, &policy, &asked), Not(AuditUnavailable));
    plane.store = Store(true);
    assert_eq!(outcome(&plane, &policy, &asked), Not(CredentialUnavailable));
    plane.vault.fault = None;
    assert_eq!(outcome(&plane, &policy, &asked), With("a.test-key"));
    assert_eq!(plane.leased(), ["a.test-key"]);
}

#[test]
fn a_denied_request_is_neither_counted_nor_given_a_credential() {
    let policy = policy(vec![injecting("a.test", only_get_v1)]);
    let plane = FakePlane::without(&["two"]);
    for (target, token) in [
        ("/v2", ONE),
        ("/v1/x", "forged"),
        ("/v1/x", TWO),
        ("/v1/x", OLD),
    ] {
        let asked = get("a.test", target, &[("x-api-key", token)]);
        assert!(asked.judge(&plane, &policy).is_err());
        assert!(plane.counted().is_empty() && plane.leased().is_empty());
    }
}

#[test]
fn a_credential_is_drawn_only_by_a_token_that_the_request_itself_presents() {
    let policy = policy(vec![
        injecting("key.test", |_| {}),
        injecting("maybe.test", optional),
        rule("bare.test", |_| {}),
        rule("open.test", optional),
    ]);
    let plane = FakePlane::default();
    // (host, connection's token, request's fields, outcome)
    for (host, connection, fields, expected) in [
        (
            "key.test",
            None,
            &[("authorization", ONE)][..],
            With("key.test-key"),
        ),
        (
            "key.test",
            None,
            &[("x-api-key", ONE)],
            With("key.test-key"),
        ),
        ("key.test", None, &[("x-token", ONE)], With("key.test-key")),
        (
            "key.test",
            Some(ONE),
            &[("x-api-key", ONE_RENEWED)],
            With("key.test-key"),
        ),
        ("key.test", Some(ONE), &[], Not(TokenMissing)),
        ("key.test", None, &[], Not(TokenMissing)),
        (
            "key.test",
            None,
            &[("proxy-authorization", ONE)],
            Not(TokenMissing),
        ),
        (
            "key.test",
            None,
            &[("x-session", "one"), ("x-odd", ONE)],
            Not(TokenMissing),
        ),
        (
            "key.test",
            Some(ONE),
            &[("authorization", "Bearer mine")],
            Not(TokenInvalid),
        ),
        ("maybe.test", None, &[], Bare),
        ("maybe.test", Some(ONE), &[], Bare),
        (
            "maybe.test",
            None,
            &[("authorization", ONE)],
            With("maybe.test-key"),
        ),
        (
            "maybe.test",
            None,
            &[("authorization", "mine")],
            Not(TokenInvalid),
        ),
        ("bare.test", None, &[], Not(TokenMissing)),
        ("bare.test", Some(ONE), &[], Bare),
        ("bare.test", None, &[("authorization", ONE)], Bare),
        // A key of the guest's own is its business where nothing is injected, and stands for no session.
        ("bare.test", Some(ONE), &[("authorization", "mine")], Bare),
        (
            "bare.test",
            None,
            &[("authorization", "mine")],
            Not(TokenMissing),
        ),
        // A token that ran out counts on a connection that a fresh one of its session attributes, and on no other.
        ("bare.test", Some(ONE), &[("authorization", OLD)], Bare),
        (
            "bare.test",
            None,
            &[("authorization", OLD)],
            Not(TokenExpired),
        ),
        (
            "bare.test",
            Some(TWO),
            &[("authorization", OLD)],
            Not(TokenExpired),
        ),
        ("open.test", None, &[], Bare),
        ("open.test", None, &[("authorization", "mine")], Bare),
        (
            "open.test",
            None,
            &[("authorization", OLD)],
            Not(TokenExpired),
        ),
    ] {
        let mut asked = get(host, "/", fields);
        if let Some(token) = connection {
            asked = asked.attributed_to(token);
        }
        let seen = outcome(&plane, &policy, &asked);
        assert_eq!(seen, expected, "{host} {connection:?} {fields:?}");
    }
}

#[test]
fn the_request_is_counted_for_the_session_that_it_or_its_connection_proved() {
    let policy = policy(vec![rule("a.test", optional)]);
    for (asked, counted) in [
        (
            get("a.test", "/", &[("x-api-key", TWO)]),
            &["two under rule a.test"][..],
        ),
        (
            get("a.test", "/", &[]).attributed_to(ONE),
            &["one under rule a.test"],
        ),
        (
            get("a.test", "/", &[("x-api-key", "mine")]).attributed_to(ONE),
            &["one under rule a.test"],
        ),
        (get("a.test", "/", &[]), &[]),
    ] {
        let plane = FakePlane::default();
        assert_eq!(outcome(&plane, &policy, &asked), Bare);
        assert_eq!(plane.counted(), counted, "{:?}", asked.headers);
    }
}

#[test]
fn two_sessions_on_one_connection_are_refused() {
    let policy = policy(vec![
        injecting("key.test", |_| {}),
        rule("bare.test", optional),
    ]);
    let plane = FakePlane::default();
    for host in ["key.test", "bare.test"] {
        let asked = get(host, "/", &[("x-api-key", TWO)]).attributed_to(ONE);
        assert_eq!(outcome(&plane, &policy, &asked), Not(SessionMismatch));
        let both = get(host, "/", &[("x-api-key", TWO), ("authorization", ONE)]);
        assert_eq!(outcome(&plane, &policy, &both), Not(SessionMismatch));
    }
}

#[test]
fn a_session_that_ended_after_its_connect_is_refused_on_its_next_request() {
    let policy = policy(vec![
        injecting("key.test", |_| {}),
        rule("open.test", optional),
    ]);
    let plane = FakePlane::without(&["one"]);
    for host in ["key.test", "open.test"] {
        for fields in [&[][..], &[("x-api-key", ONE)], &[("x-api-key", TWO)]] {
            let asked = get(host, "/", fields).attributed_to(ONE);
            let seen = outcome(&plane, &policy, &asked);
            assert_eq!(seen, Not(SessionRevoked), "{host} {fields:?}");
        }
    }
    assert!(plane.leased().is_empty());
}

#[test]
fn a_connections_token_does_not_outlive_its_expiry_but_a_fresh_one_goes_on() {
    let policy = policy(vec![rule("a.test", |_| {}), rule("open.test", optional)]);
    let at = |now| FakePlane {
        now: UnixSeconds(now),
        ..FakePlane::default()
    };
    let expires = NOW.0 + 500;
    for (now, host, fields, expected) in [
        (expires - 1, "a.test", &[][..], Bare),
        (expires, "a.test", &[], Not(TokenExpired)),
        (expires, "open.test", &[], Not(TokenExpired)),
        (expires, "a.test", &[("x-api-key", ONE_RENEWED)], Bare),
    ] {
        let asked = get(host, "/", fields).attributed_to(ONE);
        assert_eq!(outcome(&at(now), &policy, &asked), expected, "{now} {host}");
    }
}

#[test]
fn a_fault_denies() {
    let policy = policy(vec![injecting("a.test", optional)]);
    let asked = get("a.test", "/", &[("x-api-key", ONE)]);
    let good = FakePlane::default;
    for (plane, expected) in [
        (
            FakePlane {
                tokens: Tokens { broken: true },
                ..good()
            },
            TokenInvalid,
        ),
        (
            FakePlane {
                store: Store(false),
                ..good()
            },
            AuditUnavailable,
        ),
        (
            FakePlane {
                vault: Vault {
                    fault: Some(CredentialFault::Missing("gone".into())),
                    ..Vault::default()
                },
                ..good()
            },
            CredentialUnavailable,
        ),
    ] {
        assert_eq!(outcome(&plane, &policy, &asked), Not(expected));
    }
    assert_eq!(outcome(&good(), &policy, &asked), With("a.test-key"));
}

#[test]
fn a_token_in_the_url_is_refused_except_in_the_parameter_that_is_replaced() {
    let policy = policy(vec![
        rule("bare.test", |_| {}),
        injecting("header.test", |_| {}),
        injecting("query.test", with_form(query_form("key"))),
    ]);
    let plane = FakePlane::default();
    let own = [("x-api-key", ONE)];
    for (host, target, fields, expected) in [
        ("bare.test", "/x?t=eyJ.one.good", &own[..], Not(TokenInUrl)),
        ("bare.test", "/x/eyJ.one.good/y", &own, Not(TokenInUrl)),
        ("bare.test", "/x/eyJ.one.old", &own, Not(TokenInUrl)),
        ("bare.test", "/x/eyJ.one.forged", &own, Bare),
        ("header.test", "/?key=eyJ.one.good", &own, Not(TokenInUrl)),
        ("header.test", "/?key=eyJ.one.good", &[], Not(TokenInUrl)),
        (
            "query.test",
            "/?key=eyJ.one.good",
            &[],
            With("query.test-key"),
        ),
        (
            "query.test",
            "/eyJ.one.good?key=eyJ.one.good",
            &[],
            Not(TokenInUrl),
        ),
        (
            "query.test",
            "/?x=eyJ.one.good&key=eyJ.one.good",
            &[],
            Not(TokenInUrl),
        ),
        ("query.test", "/?eyJ.one.good=1", &own, Not(TokenInUrl)),
        ("query.test", "/?eyJ.one.good", &own, Not(TokenInUrl)),
        ("bare.test", "/?a=1&b=eyJ.one.good", &own, Not(TokenInUrl)),
        ("query.test", "/?other=1", &[], Not(TokenMissing)),
        ("query.test", "/?key=mine", &[], Not(TokenInvalid)),
    ] {
        let seen = outcome(&plane, &policy, &get(host, target, fields));
        assert_eq!(seen, expected, "{host} {target} {fields:?}");
    }
}

#[test]
fn only_websocket_is_an_upgrade() {
    let policy = policy(vec![rule("a.test", optional)]);
    let plane = FakePlane::default();
    for (method, fields, expected) in [
        (Method::GET, &[("upgrade", "websocket")][..], Bare),
        (Method::GET, &[("upgrade", "WebSocket")], Bare),
        (
            Method::POST,
            &[("upgrade", "websocket")],
            Not(UpgradeNotSupported),
        ),
        (Method::GET, &[("upgrade", "h2c")], Not(UpgradeNotSupported)),
        (
            Method::GET,
            &[("upgrade", "websocket, h2c")],
            Not(UpgradeNotSupported),
        ),
        (
            Method::GET,
            &[("upgrade", "websocket"), ("upgrade", "h2c")],
            Not(UpgradeNotSupported),
        ),
        (Method::GET, &[("upgrade", "")], Not(UpgradeNotSupported)),
    ] {
        let mut asked = get("a.test", "/", fields);
        asked.method = method;
        assert_eq!(outcome(&plane, &policy, &asked), expected, "{fields:?}");
    }
}

#[test]
fn an_inner_request_for_another_host_never_reaches_a_rule() {
    let policy = policy(vec![
        injecting("key.test", |_| {}),
        rule("bare.test", |_| {}),
    ]);
    let plane = FakePlane::default();
    for (connection, host, target, expected) in [
        ("bare.test:443", "key.test", "/", AuthorityMismatch),
        (
            "bare.test:443",
            "bare.test",
            "https://key.test/",
            AuthorityMismatch,
        ),
        ("bare.test:443", "bare.test:8443", "/", AuthorityMismatch),
        ("key.test:443", "bare.test", "/", AuthorityMismatch),
        (
            "key.test:443",
            "key.test",
            "http://key.test:443/",
            AuthorityMismatch,
        ),
        (
            "key.test:443",
            "key.test",
            "https://u:p@key.test/",
            MalformedRequest,
        ),
    ] {
        let mut asked = get("key.test", target, &[("authorization", ONE)]);
        asked.to = to(connection);
        asked.headers[0] = ("host", host);
        let seen = outcome(&plane, &policy, &asked);
        assert_eq!(seen, Not(expected), "{connection} {host} {target}");
    }
    assert!(plane.leased().is_empty());
}

#[test]
fn plain_http_walks_the_same_way() {
    let policy = policy(vec![
        injecting("tls.test", |rule| rule.ports.push(Port::HTTP)),
        injecting("clear.test", |rule| {
            only_get_v1(rule);
            rule.ports.push(Port::HTTP);
            rule.plaintext = true;
        }),
    ]);
    let plane = FakePlane::without(&["two"]);
    for (host, target, token, expected) in [
        ("tls.test", "/", ONE, PlaintextNotAllowed),
        ("clear.test", "/v1/x", ONE, CredentialOverPlaintext),
        ("clear.test", "/v2", ONE, PathNotAllowed),
        ("clear.test", "/v1/x", TWO, SessionRevoked),
        ("clear.test", "/v1/x", "mine", TokenInvalid),
        ("other.test", "/v1/x", ONE, DestinationNotAllowed),
    ] {
        let asked = get(host, target, &[("x-api-key", token)]).in_clear();
        let seen = outcome(&plane, &policy, &asked);
        assert_eq!(seen, Not(expected), "{host} {target} {token}");
    }
}

#[test]
fn every_denial_after_the_destination_rule_names_the_rule() {
    let policy = policy(vec![injecting("a.test", only_get_v1)]);
    let plane = FakePlane::without(&["two"]);
    for (target, fields) in [
        ("/v1/x", &[][..]),
        ("/v1/x", &[("x-api-key", "mine")]),
        ("/v1/x", &[("x-api-key", TWO)]),
        ("/v1/eyJ.one.good", &[("x-api-key", ONE)]),
        ("/v2", &[("x-api-key", ONE)]),
    ] {
        let denial = get("a.test", target, fields)
            .judge(&plane, &policy)
            .unwrap_err();
        let rule = denial.rule().map(|id| id.as_str());
        assert_eq!(rule, Some("rule a.test"), "{}", denial.code());
    }
}

#[test]
fn every_denial_of_a_known_session_names_the_session() {
    let policy = policy(vec![injecting("a.test", only_get_v1)]);
    let plane = FakePlane::without(&["two"]);
    let expired = FakePlane {
        now: UnixSeconds(NOW.0 + 500),
        ..FakePlane::default()
    };
    let good = FakePlane::default();
    for (plane, asked, session) in [
        (&plane, get("a.test", "/v1/x", &[("x-api-key", TWO)]), "two"),
        (
            &plane,
            get("a.test", "/v1/x", &[]).attributed_to(TWO),
            "two",
        ),
        (&plane, get("a.test", "/v2", &[("x-api-key", ONE)]), "one"),
        (
            &plane,
            get("a.test", "/v1/x", &[]).attributed_to(ONE),
            "one",
        ),
        (
            &expired,
            get("a.test", "/v1/x", &[]).attributed_to(ONE),
            "one",
        ),
        (
            &good,
            get("a.test", "/v1/x", &[("x-api-key", ONE)]).attributed_to(TWO),
            "two",
        ),
    ] {
        let denial = asked.judge(plane, &policy).unwrap_err();
        let named = denial.session().map(|id| id.as_str());
        assert_eq!(named, Some(session), "{}", denial.code());
    }
    // What did not verify says nothing about whose it is; what ran out does.
    for (token, session) in [("eyJ.one.forged", None), (OLD, Some("one"))] {
        let asked = get("a.test", "/v1/x", &[("x-api-key", token)]);
        let denial = asked.judge(&plane, &policy).unwrap_err();
        assert_eq!(denial.session().map(|id| id.as_str()), session);
    }
}
