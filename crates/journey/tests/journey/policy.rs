use std::num::NonZeroU16;

use outgate_journey::{
    denial::DenyCode::{self, DestinationNotAllowed, PlaintextNotAllowed, PortNotAllowed},
    policy::{Policy, Port, Posture, Rule},
};

use crate::support::{policy, rule, to};

fn port(number: u16) -> Port {
    Port::new(number).unwrap()
}

fn on(ports: &[u16]) -> impl FnOnce(&mut Rule) {
    let ports = ports.iter().map(|number| port(*number)).collect();
    |rule| rule.ports = ports
}

/// Which rule lets a target through, or why none does. Targets that begin with `http:` are in clear.
fn verdict(policy: &Policy, target: &str) -> Result<String, DenyCode> {
    let destination = match target.strip_prefix("http:") {
        Some(clear) => to(clear).in_clear(),
        None => to(target),
    };
    policy
        .allow(destination)
        .map(|allowed| allowed.rule().id.to_string())
        .map_err(|denial| denial.code())
}

#[test]
fn an_empty_policy_lets_nothing_out() {
    let policy = policy(Vec::new());
    assert!(policy.is_empty() && policy.rules().next().is_none());
    for target in ["a.test:443", "http:a.test:80", "localhost:443"] {
        assert_eq!(verdict(&policy, target), Err(DestinationNotAllowed));
    }
}

#[test]
fn an_exact_name_goes_before_a_wildcard_and_does_not_fall_through_to_it() {
    let policy = policy(vec![
        rule("*.a.test", on(&[443, 8443])),
        rule("api.a.test", on(&[443])),
        rule("shut.a.test", |rule| rule.posture = Posture::DenyAll),
        rule("b.test", |_| {}),
    ]);
    for (target, expected) in [
        ("api.a.test:443", Ok("rule api.a.test")),
        ("API.A.test.:443", Ok("rule api.a.test")),
        // The wildcard has this port; the exact rule speaks for the name all the same.
        ("api.a.test:8443", Err(PortNotAllowed)),
        ("shut.a.test:443", Err(DestinationNotAllowed)),
        ("other.a.test:8443", Ok("rule *.a.test")),
        ("a.test:443", Err(DestinationNotAllowed)),
        ("x.y.a.test:443", Err(DestinationNotAllowed)),
        ("xa.test:443", Err(DestinationNotAllowed)),
        ("a.test.evil.test:443", Err(DestinationNotAllowed)),
        ("b.test:443", Ok("rule b.test")),
        ("sub.b.test:443", Err(DestinationNotAllowed)),
        ("test:443", Err(DestinationNotAllowed)),
    ] {
        assert_eq!(
            verdict(&policy, target),
            expected.map(str::to_owned),
            "{target}"
        );
    }
}

#[test]
fn rules_for_one_name_are_told_apart_by_their_ports() {
    let policy = policy(vec![
        rule("a.test", on(&[443])),
        rule("a.test", |rule| {
            on(&[8443, 9443])(rule);
            rule.id = outgate_journey::policy::RuleId::new("second");
        }),
    ]);
    assert_eq!(policy.len(), 2);
    assert_eq!(policy.rules().count(), 2);
    for (target, expected) in [
        ("a.test:443", Ok("rule a.test")),
        ("a.test:8443", Ok("second")),
        ("a.test:9443", Ok("second")),
        ("a.test:22", Err(PortNotAllowed)),
        ("a.test:44", Err(PortNotAllowed)),
    ] {
        assert_eq!(
            verdict(&policy, target),
            expected.map(str::to_owned),
            "{target}"
        );
    }
}

#[test]
fn plain_http_needs_a_rule_that_says_so() {
    let policy = policy(vec![
        rule("tls.test", on(&[443, 80])),
        rule("clear.test", |rule| {
            on(&[443, 80])(rule);
            rule.plaintext = true;
        }),
    ]);
    for (target, expected) in [
        ("http:tls.test:80", Err(PlaintextNotAllowed)),
        ("http:tls.test:443", Err(PlaintextNotAllowed)),
        ("tls.test:80", Ok("rule tls.test")),
        ("http:clear.test:80", Ok("rule clear.test")),
        ("clear.test:443", Ok("rule clear.test")),
        ("http:clear.test:81", Err(PortNotAllowed)),
        ("http:no.test:80", Err(DestinationNotAllowed)),
    ] {
        assert_eq!(
            verdict(&policy, target),
            expected.map(str::to_owned),
            "{target}"
        );
    }
}

#[test]
fn a_denial_names_the_rule_only_where_a_rule_decided() {
    let policy = policy(vec![
        rule("a.test", |_| {}),
        rule("shut.test", |rule| rule.posture = Posture::DenyAll),
    ]);
    for (target, named) in [
        ("x.test:443", None),
        ("a.test:22", None),
        ("shut.test:443", Some("rule shut.test")),
    ] {
        let denial = policy.allow(to(target)).unwrap_err();
        assert_eq!(denial.rule().map(|id| id.as_str()), named, "{target}");
    }
}

#[test]
fn a_port_is_1_to_65535() {
    assert!(Port::new(0).is_none());
    for number in [1, 443, u16::MAX] {
        assert_eq!(port(number).get(), NonZeroU16::new(number).unwrap().get());
    }
}
