//! Captured connections and the name server: what names the destination, and what only looks as if it did.

use std::net::SocketAddr;

use outgate_journey::{
    denial::{
        Denial,
        DenyCode::{
            self, AddressDenied, AuthorityMismatch, DestinationNotAllowed, HostInvalid, IpLiteral,
            MalformedRequest, NameNotResolved, ServerNameMissing, SessionRevoked, TokenExpired,
            TokenInvalid, TokenMissing,
        },
    },
    destination::{identify_captured, identify_server_name},
    gate::{judge_dialled_address, judge_name, resolve_name},
    policy::{Policy, Port, Posture, Rule, TokenDemand, TunnelProtocol},
    session::{PresentedToken, TokenSlot},
};

use crate::support::{
    FakePlane, Names, OLD, ONE, ONE_RENEWED, TWO, code, finished, get, headers, injecting, policy,
    query_form, rule, session, with_form,
};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn listener(token: &str) -> [PresentedToken<'_>; 1] {
    [PresentedToken {
        slot: TokenSlot::Listener,
        text: token.into(),
    }]
}

#[test]
fn a_captured_tls_connection_is_for_its_server_name_on_the_dialled_port() {
    for (server_name, expected) in [
        (Some("a.test"), Ok("a.test:8443")),
        (Some("A.Test."), Ok("a.test:8443")),
        (Some("192.0.2.1"), Err(IpLiteral)),
        (Some("a b"), Err(HostInvalid)),
        (Some(""), Err(HostInvalid)),
        (None, Err(ServerNameMissing)),
    ] {
        let named = identify_server_name(server_name, port(8443));
        let named = named.map(|it| it.to_string()).map_err(|it| it.code());
        assert_eq!(named, expected.map(str::to_owned), "{server_name:?}");
    }
}

#[test]
fn a_captured_plain_request_is_for_its_host_field_on_the_dialled_port() {
    for (target, hosts, dialled, expected) in [
        ("/x", &["a.test"][..], 80, Ok("a.test:80")),
        ("/x", &["A.test.:80"], 80, Ok("a.test:80")),
        ("/x", &["a.test:8080"], 8080, Ok("a.test:8080")),
        ("http://a.test/x", &["a.test"], 80, Ok("a.test:80")),
        ("/x", &["a.test"], 8080, Err(AuthorityMismatch)),
        ("/x", &["a.test:81"], 80, Err(AuthorityMismatch)),
        (
            "http://a.test:81/",
            &["a.test:81"],
            80,
            Err(AuthorityMismatch),
        ),
        ("http://a.test/", &["b.test"], 80, Err(AuthorityMismatch)),
        ("https://a.test/", &["a.test"], 443, Err(MalformedRequest)),
        ("/x", &[], 80, Err(MalformedRequest)),
        ("/x", &["a.test", "a.test"], 80, Err(MalformedRequest)),
        ("/x", &["192.0.2.1"], 80, Err(IpLiteral)),
        ("/x", &["[::1]"], 80, Err(IpLiteral)),
        ("/x", &["a.test:"], 80, Err(HostInvalid)),
        ("/x", &["u@a.test"], 80, Err(HostInvalid)),
    ] {
        let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let named = identify_captured(&target.parse().unwrap(), &headers(&fields), port(dialled));
        let named = named.map(|it| it.to_string()).map_err(|it| it.code());
        assert_eq!(
            named,
            expected.map(str::to_owned),
            "{target} {hosts:?} {dialled}"
        );
    }
}

fn names_asked(plane: &FakePlane) -> Vec<String> {
    plane.names.asked.lock().unwrap().clone()
}

#[test]
fn a_name_is_looked_up_only_for_a_live_session_and_only_if_a_rule_lets_it_out() {
    let policy = policy(vec![
        rule("a.test", |_| {}),
        rule("*.wild.test", |_| {}),
        rule("shut.test", |rule| rule.posture = Posture::DenyAll),
    ]);
    for (name, token, expected) in [
        ("a.test", ONE, Ok("rule a.test")),
        ("A.TEST.", ONE, Ok("rule a.test")),
        ("x.wild.test", ONE, Ok("rule *.wild.test")),
        ("secret.a.test", ONE, Err(DestinationNotAllowed)),
        ("x.y.wild.test", ONE, Err(DestinationNotAllowed)),
        ("wild.test", ONE, Err(DestinationNotAllowed)),
        ("shut.test", ONE, Err(DestinationNotAllowed)),
        ("unlisted.test", ONE, Err(DestinationNotAllowed)),
        ("192.0.2.1", ONE, Err(IpLiteral)),
        ("a b.test", ONE, Err(HostInvalid)),
        // authenticate and denylist come before everything else.
        ("unlisted.test", OLD, Err(TokenExpired)),
        ("unlisted.test", "forged", Err(TokenInvalid)),
        ("a.test", TWO, Err(SessionRevoked)),
    ] {
        let plane = FakePlane::without(&["two"]);
        let judged =
            finished(judge_name(&plane, &policy, name, &listener(token))).and_then(|pass| {
                finished(resolve_name(&plane, &policy, &pass))?;
                Ok(pass)
            });
        let seen = judged.as_ref().map(|pass| pass.rule().unwrap().as_str());
        assert_eq!(seen.map_err(Denial::code), expected, "{name} {token}");
        assert_eq!(
            names_asked(&plane).len(),
            usize::from(expected.is_ok()),
            "{name}"
        );
    }
}

#[test]
fn a_name_is_answered_with_addresses_that_may_be_dialled_only() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    for (names, expected) in [
        (
            Names::answering(&["93.184.216.34", "10.0.0.1", "2606:2800::1", "93.184.216.34"]),
            Ok(vec!["93.184.216.34", "2606:2800::1"]),
        ),
        (
            Names::answering(&["127.0.0.1", "fd00::1"]),
            Err(AddressDenied),
        ),
        (Names::answering(&[]), Err(NameNotResolved)),
        (Names::failing("no server"), Err(NameNotResolved)),
    ] {
        let plane = FakePlane {
            names,
            ..FakePlane::default()
        };
        let pass = finished(judge_name(&plane, &policy, "a.test", &listener(ONE))).unwrap();
        let told = finished(resolve_name(&plane, &policy, &pass));
        if let Err(denial) = &told {
            assert_eq!(denial.session().unwrap().as_str(), "one");
        }
        let seen = told
            .map(|addresses| addresses.iter().map(ToString::to_string).collect())
            .map_err(|denial| denial.code());
        let expected: Result<Vec<String>, DenyCode> =
            expected.map(|list| list.into_iter().map(str::to_owned).collect());
        assert_eq!(seen, expected);
    }
}

fn opaque(rule: &mut Rule) {
    rule.posture = Posture::PassThrough;
    rule.protocol = TunnelProtocol::Opaque;
    rule.ports = vec![port(22)];
}

fn by_address(
    plane: &FakePlane,
    policy: &Policy,
    dialled: &str,
    presented: &[PresentedToken<'_>],
) -> Result<String, DenyCode> {
    let dialled: SocketAddr = dialled.parse().unwrap();
    finished(judge_dialled_address(plane, policy, dialled, presented))
        .map(|pass| pass.allowed().destination().to_string())
        .map_err(|denial| denial.code())
}

#[test]
fn a_dialled_address_stands_for_the_one_opaque_destination_that_has_it() {
    let one = policy(vec![
        rule("git.test", opaque),
        rule("a.test", |rule| rule.ports.push(port(2222))),
        rule("*.wild.test", opaque),
    ]);
    let plane = FakePlane::default();
    let good = "93.184.216.34:22";
    assert_eq!(
        by_address(&plane, &one, good, &listener(ONE)),
        Ok("git.test:22".to_owned())
    );
    for (dialled, token, expected) in [
        ("93.184.216.35:22", ONE, IpLiteral),
        ("93.184.216.34:23", ONE, IpLiteral),
        // A TLS rule is chosen by the server name, never by the address.
        ("93.184.216.34:2222", ONE, IpLiteral),
        (good, OLD, TokenExpired),
        (good, "forged", TokenInvalid),
    ] {
        assert_eq!(
            by_address(&plane, &one, dialled, &listener(token)),
            Err(expected),
            "{dialled}"
        );
    }
    assert_eq!(by_address(&plane, &one, good, &[]), Err(TokenMissing));
    let optional = policy(vec![rule("git.test", |rule| {
        opaque(rule);
        rule.token = TokenDemand::Optional;
    })]);
    assert!(by_address(&plane, &optional, good, &[]).is_ok());
    let two = policy(vec![rule("git.test", opaque), rule("hub.test", opaque)]);
    assert_eq!(
        by_address(&plane, &two, good, &listener(ONE)),
        Err(IpLiteral)
    );
    let denied = FakePlane {
        names: Names::answering(&["10.0.0.1"]),
        ..FakePlane::default()
    };
    assert_eq!(
        by_address(&denied, &one, "10.0.0.1:22", &listener(ONE)),
        Err(IpLiteral)
    );
}

#[test]
fn the_socket_that_a_connection_arrived_on_never_draws_a_credential() {
    let policy = policy(vec![
        injecting("a.test", |_| {}),
        injecting("q.test", with_form(query_form("key"))),
    ]);
    let plane = FakePlane::default();
    for (host, target, expected) in [
        ("a.test", "/", TokenMissing),
        ("q.test", "/?key=mine", TokenInvalid),
    ] {
        let asked = get(host, target, &[]).attributed_to(ONE);
        assert_eq!(code(asked.judge(&plane, &policy)), Some(expected), "{host}");
    }
    assert!(plane.leased().is_empty());
}

#[test]
fn a_token_that_ran_out_draws_the_credential_only_beside_a_fresh_one_of_its_session() {
    let policy = policy(vec![injecting("a.test", |_| {})]);
    for (connection, expected) in [
        (Some(ONE_RENEWED), None),
        (Some(TWO), Some(TokenExpired)),
        (None, Some(TokenExpired)),
    ] {
        let plane = FakePlane::default();
        let mut asked = get("a.test", "/", &[("authorization", OLD)]);
        if let Some(token) = connection {
            asked = asked.attributed_to(token);
        }
        assert_eq!(
            code(asked.judge(&plane, &policy)),
            expected,
            "{connection:?}"
        );
        assert_eq!(plane.leased().len(), usize::from(expected.is_none()));
    }
    // Ended is ended, however fresh the tokens are.
    let plane = FakePlane::without(&["one"]);
    let asked = get("a.test", "/", &[("authorization", OLD)]).attributed_to(ONE_RENEWED);
    assert_eq!(code(asked.judge(&plane, &policy)), Some(SessionRevoked));
}

#[test]
fn an_open_policy_serves_what_no_rule_covers_and_nothing_that_a_rule_does() {
    let open = rule("any.test", |rule| rule.plaintext = true);
    let policy = policy(vec![
        rule("a.test", |_| {}),
        rule("shut.test", |rule| rule.posture = Posture::DenyAll),
    ])
    .open_to_all(open, 7);
    let bounds = policy.bounds_of(&session(ONE));
    assert_eq!(bounds.distinct_destinations, Some(7));
    for (target, expected) in [
        ("a.test:443", Ok("rule a.test")),
        ("other.test:443", Ok("rule any.test")),
        ("other.test:22", Err(DenyCode::PortNotAllowed)),
        ("a.test:22", Err(DenyCode::PortNotAllowed)),
        ("shut.test:443", Err(DestinationNotAllowed)),
    ] {
        let allowed = policy.allow(crate::support::to(target));
        let seen = allowed.as_ref().map(|it| it.rule().id.as_str());
        assert_eq!(seen.map_err(Denial::code), expected, "{target}");
    }
}
