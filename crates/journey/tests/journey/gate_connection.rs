use outgate_journey::{
    denial::DenyCode::{
        self, DestinationNotAllowed, EncryptedClientHello, IpLiteral, PolicyChanged,
        PortNotAllowed, ServerNameMismatch, ServerNameMissing, SessionMismatch, SessionRevoked,
        TlsRequired, TokenExpired, TokenInvalid, TokenMissing,
    },
    gate::{
        ConnectionPass, TunnelOpening, TunnelTreatment, judge_connection, judge_opening,
        opening_is_judged,
    },
    policy::{Policy, Posture, Rule, RuleId, TokenDemand, TunnelProtocol},
    session::presented_to_proxy,
};

use crate::support::{
    FakePlane, OLD, ONE, TWO, Tokens, carried_on, code, finished, headers, policy, rule, to,
};

fn pass_through(rule: &mut Rule) {
    rule.posture = Posture::PassThrough;
}

fn optional(rule: &mut Rule) {
    rule.posture = Posture::PassThrough;
    rule.token = TokenDemand::Optional;
}

fn connect(
    plane: &FakePlane,
    policy: &Policy,
    target: &str,
    tokens: &[&str],
) -> Result<ConnectionPass, DenyCode> {
    let fields: Vec<_> = tokens
        .iter()
        .map(|token| ("proxy-authorization", *token))
        .collect();
    let headers = headers(&fields);
    let presented = presented_to_proxy(&headers);
    finished(judge_connection(plane, policy, to(target), &presented))
        .map_err(|denial| denial.code())
}

#[test]
fn a_connection_is_refused_by_the_first_stage_that_fails() {
    let policy = policy(vec![
        rule("bump.test", |_| {}),
        rule("pass.test", pass_through),
        rule("open.test", optional),
        rule("shut.test", |rule| rule.posture = Posture::DenyAll),
        rule("mixed.test", |rule| {
            pass_through(rule);
            rule.plaintext = true;
        }),
    ]);
    let plane = FakePlane::without(&["two"]);
    for (target, tokens, expected) in [
        // authenticate, before everything else: also where the destination is not allowed or needs no token.
        ("unlisted.test:443", &["forged"][..], Some(TokenInvalid)),
        ("unlisted.test:443", &[OLD], Some(TokenExpired)),
        ("unlisted.test:443", &[ONE, TWO], Some(SessionMismatch)),
        ("open.test:443", &["forged"], Some(TokenInvalid)),
        ("bump.test:22", &[OLD], Some(TokenExpired)),
        // denylist, before the destination rule.
        ("unlisted.test:443", &[TWO], Some(SessionRevoked)),
        ("open.test:443", &[TWO], Some(SessionRevoked)),
        ("shut.test:443", &[TWO], Some(SessionRevoked)),
        // the destination rule, before the demand for a token.
        ("unlisted.test:443", &[], Some(DestinationNotAllowed)),
        ("unlisted.test:443", &[ONE], Some(DestinationNotAllowed)),
        ("pass.test:22", &[], Some(PortNotAllowed)),
        ("shut.test:443", &[], Some(DestinationNotAllowed)),
        // A tunnel that will show no request needs its token at once.
        ("pass.test:443", &[], Some(TokenMissing)),
        ("pass.test:443", &[ONE], None),
        ("open.test:443", &[], None),
        ("bump.test:443", &[], None),
        ("mixed.test:443", &[], None),
        ("bump.test:443", &[ONE], None),
    ] {
        let result = connect(&plane, &policy, target, tokens);
        assert_eq!(result.err(), expected, "{target} {tokens:?}");
    }
    // Nothing was looked up for any of them.
    assert!(plane.names.asked.lock().unwrap().is_empty());
}

#[test]
fn a_connection_carries_its_rule_and_its_session() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    let plane = FakePlane::default();
    let pass = connect(&plane, &policy, "a.test:443", &[ONE]).unwrap();
    assert_eq!(pass.session().unwrap().id().as_str(), "one");
    assert_eq!(pass.allowed().rule().id.as_str(), "rule a.test");
    let anonymous = connect(&plane, &policy, "a.test:443", &[]).unwrap();
    assert!(anonymous.session().is_none());
}

#[test]
fn a_verifier_without_keys_denies_every_token() {
    let policy = policy(vec![rule("a.test", optional)]);
    let plane = FakePlane {
        tokens: Tokens { broken: true },
        ..FakePlane::default()
    };
    let result = connect(&plane, &policy, "a.test:443", &[ONE]);
    assert_eq!(result.err(), Some(TokenInvalid));
}

const fn hello(server_name: Option<&str>, encrypted_client_hello: bool) -> TunnelOpening<'_> {
    TunnelOpening::Tls {
        server_name,
        encrypted_client_hello,
    }
}

#[test]
fn the_first_bytes_must_be_what_the_rule_carries_and_name_the_tunnels_host() {
    let bump: fn(&mut Rule) = |_| {};
    let plain: fn(&mut Rule) = |rule| rule.plaintext = true;
    let ech: fn(&mut Rule) = |rule| {
        pass_through(rule);
        rule.encrypted_client_hello = true;
    };
    let mixed: fn(&mut Rule) = |rule| {
        pass_through(rule);
        rule.plaintext = true;
    };
    let (own, other) = (Some("a.test"), Some("x.test"));
    use TunnelTreatment::{Bump, PassThrough, PlainHttp};
    for (number, (change, token, opening, expected)) in [
        (bump, true, hello(own, false), Ok(Bump)),
        (bump, false, hello(Some("A.TEST"), false), Ok(Bump)),
        (bump, true, hello(own, true), Ok(Bump)),
        (bump, true, hello(other, false), Err(ServerNameMismatch)),
        (bump, true, hello(Some("10.0.0.1"), false), Err(IpLiteral)),
        (bump, true, hello(None, false), Err(ServerNameMissing)),
        (bump, true, TunnelOpening::NotTls, Err(TlsRequired)),
        (plain, true, TunnelOpening::NotTls, Ok(PlainHttp)),
        (plain, true, hello(own, false), Ok(Bump)),
        (plain, true, hello(None, false), Err(ServerNameMissing)),
        (pass_through, true, hello(own, false), Ok(PassThrough)),
        (
            pass_through,
            true,
            hello(own, true),
            Err(EncryptedClientHello),
        ),
        (
            pass_through,
            true,
            hello(other, false),
            Err(ServerNameMismatch),
        ),
        (
            pass_through,
            true,
            hello(None, false),
            Err(ServerNameMissing),
        ),
        (pass_through, true, TunnelOpening::NotTls, Err(TlsRequired)),
        (ech, true, hello(own, true), Ok(PassThrough)),
        (ech, true, hello(other, true), Err(ServerNameMismatch)),
        (optional, false, hello(own, false), Ok(PassThrough)),
        (mixed, false, TunnelOpening::NotTls, Ok(PlainHttp)),
        (mixed, false, hello(own, false), Err(TokenMissing)),
        (mixed, true, hello(own, false), Ok(PassThrough)),
    ]
    .into_iter()
    .enumerate()
    {
        let policy = policy(vec![rule("a.test", change)]);
        let tokens: &[&str] = if token { &[ONE] } else { &[] };
        let pass = connect(&FakePlane::default(), &policy, "a.test:443", tokens).unwrap();
        let result = judge_opening(&pass, opening).map_err(|denial| {
            assert_eq!(denial.rule().unwrap().as_str(), "rule a.test");
            denial.code()
        });
        assert_eq!(result, expected, "case {number}: {opening:?}");
    }
}

#[test]
fn only_an_opaque_tunnel_is_carried_unseen() {
    assert!(opening_is_judged(&rule("a.test", |_| {})));
    assert!(opening_is_judged(&rule("a.test", pass_through)));
    assert!(!opening_is_judged(&rule("a.test", |rule| {
        rule.protocol = TunnelProtocol::Opaque;
    })));
}

/// A tunnel to `a.test` under a rule changed by `then`.
fn passed(then: impl FnOnce(&mut Rule)) -> ConnectionPass {
    let policy = policy(vec![rule("a.test", then)]);
    connect(&FakePlane::default(), &policy, "a.test:443", &[ONE]).unwrap()
}

/// Whether a tunnel under a rule changed by `then` goes on when the rule is changed by `now`.
fn carried(then: impl FnOnce(&mut Rule), now: impl FnOnce(&mut Rule)) -> bool {
    let held = passed(then);
    match carried_on(&policy(vec![rule("a.test", now)]), &held, None) {
        Ok(()) => true,
        Err(denial) => {
            assert_eq!(denial.code(), PolicyChanged);
            false
        }
    }
}

fn unchanged(_: &mut Rule) {}

fn with_exception(rule: &mut Rule) {
    rule.addresses.allow = vec!["10.0.0.0/8".parse().unwrap()];
}

fn with_denied_range(rule: &mut Rule) {
    rule.addresses.deny = vec!["8.8.8.0/24".parse().unwrap()];
}

fn with_ech(rule: &mut Rule) {
    rule.encrypted_client_hello = true;
}

fn opaque(rule: &mut Rule) {
    pass_through(rule);
    rule.protocol = TunnelProtocol::Opaque;
}

#[test]
fn a_later_policy_closes_tunnels_that_it_would_not_carry_in_the_same_way() {
    let other_port = |rule: &mut Rule| rule.ports = vec![to("a.test:8443").port()];
    assert!(!carried(unchanged, other_port));
    assert!(!carried(unchanged, |rule| rule.posture = Posture::DenyAll));
    assert!(!carried(unchanged, pass_through));
    assert!(!carried(pass_through, unchanged));
    assert!(!carried(pass_through, opaque));
    assert!(!carried(optional, pass_through));
    assert!(!carried(with_exception, unchanged));
    assert!(!carried(unchanged, with_denied_range));
    assert!(!carried(with_ech, unchanged));
    assert!(!carried(pass_through, |rule| {
        pass_through(rule);
        rule.requests.deny.push(Default::default());
    }));
    let held = passed(unchanged);
    let empty = carried_on(&policy(Vec::new()), &held, None);
    assert_eq!(code(empty), Some(PolicyChanged));
}

#[test]
fn a_later_policy_leaves_tunnels_alone_whose_treatment_is_the_same() {
    assert!(carried(unchanged, unchanged));
    assert!(carried(pass_through, optional));
    assert!(carried(unchanged, with_ech));
    assert!(carried(with_exception, with_exception));
    assert!(carried(unchanged, |rule| rule.plaintext = true));
    assert!(carried(unchanged, |rule| rule.id = RuleId::new("renamed")));
    // Requests are judged one by one: a narrower rule is met by the next one.
    assert!(carried(unchanged, |rule| rule
        .requests
        .deny
        .push(Default::default())));
    // The name may be covered by another rule: what counts is how it is served.
    let held = passed(unchanged);
    let by_wildcard = policy(vec![rule("*.test", unchanged)]);
    assert_eq!(code(carried_on(&by_wildcard, &held, None)), None);
}

#[test]
fn a_refused_connection_of_a_known_session_names_the_session() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    let plane = FakePlane::without(&["two"]);
    for (target, token, session) in [
        ("a.test:443", TWO, Some("two")),
        ("unlisted.test:443", ONE, Some("one")),
        ("a.test:22", ONE, Some("one")),
        ("unlisted.test:443", "eyJ.one.forged", None),
    ] {
        let headers = headers(&[("proxy-authorization", token)]);
        let presented = presented_to_proxy(&headers);
        let denial =
            finished(judge_connection(&plane, &policy, to(target), &presented)).unwrap_err();
        let named = denial.session().map(|id| id.as_str());
        assert_eq!(named, session, "{target} {token}");
    }
}

#[test]
fn a_tunnel_ends_when_its_address_is_denied() {
    let held = passed(unchanged);
    let again = policy(vec![rule("a.test", |_| {})]);
    let dialled = |text: &str| Some(text.parse().unwrap());
    assert_eq!(
        code(carried_on(&again, &held, dialled("8.8.8.8:443"))),
        None
    );
    let inwards = carried_on(&again, &held, dialled("10.0.0.7:443"));
    assert_eq!(code(inwards), Some(PolicyChanged));
}
