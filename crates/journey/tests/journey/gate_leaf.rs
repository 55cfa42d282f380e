//! Which names may have a leaf that leaves the process.

use outgate_journey::{
    denial::DenyCode,
    gate::judge_leaf,
    policy::{Port, Posture, TunnelProtocol},
};

use crate::support::{policy, rule};

#[test]
fn a_leaf_is_for_a_canonical_name_that_some_rule_bumps() {
    let policy = policy(vec![
        rule("bumped.test", |_| {}),
        rule("*.wild.test", |_| {}),
        rule("xn--bcher-kva.test", |_| {}),
        rule("passed.test", |rule| rule.posture = Posture::PassThrough),
        rule("opaque.test", |rule| {
            rule.posture = Posture::PassThrough;
            rule.protocol = TunnelProtocol::Opaque;
        }),
        rule("denied.test", |rule| rule.posture = Posture::DenyAll),
        rule("denied.wild.test", |rule| rule.posture = Posture::DenyAll),
        rule("mixed.test", |rule| rule.posture = Posture::PassThrough),
        rule("mixed.test", |rule| {
            rule.ports = vec![Port::new(8443).unwrap()];
        }),
    ]);
    for name in [
        "bumped.test",
        "a.wild.test",
        "xn--bcher-kva.test",
        "mixed.test",
    ] {
        assert_eq!(judge_leaf(&policy, name).unwrap().as_str(), name);
    }
    let long = "a".repeat(254);
    for (name, code) in [
        ("other.test", DenyCode::DestinationNotAllowed),
        ("wild.test", DenyCode::DestinationNotAllowed),
        ("b.a.wild.test", DenyCode::DestinationNotAllowed),
        ("x.bumped.test", DenyCode::DestinationNotAllowed),
        ("passed.test", DenyCode::DestinationNotAllowed),
        ("opaque.test", DenyCode::DestinationNotAllowed),
        ("denied.test", DenyCode::DestinationNotAllowed),
        ("denied.wild.test", DenyCode::DestinationNotAllowed),
        ("BUMPED.test", DenyCode::HostInvalid),
        ("bumped.test.", DenyCode::HostInvalid),
        ("bücher.test", DenyCode::HostInvalid),
        ("XN--bcher-kva.test", DenyCode::HostInvalid),
        ("*.wild.test", DenyCode::HostInvalid),
        ("*", DenyCode::HostInvalid),
        ("", DenyCode::HostInvalid),
        (".", DenyCode::HostInvalid),
        ("bumped.test\0", DenyCode::HostInvalid),
        (" bumped.test", DenyCode::HostInvalid),
        ("../bumped.test", DenyCode::HostInvalid),
        ("credentials/bumped.test", DenyCode::HostInvalid),
        (long.as_str(), DenyCode::HostInvalid),
        ("127.0.0.1", DenyCode::IpLiteral),
        ("0x7f000001", DenyCode::IpLiteral),
        ("::1", DenyCode::IpLiteral),
        ("[::1]", DenyCode::IpLiteral),
        ("bumped.test:443", DenyCode::IpLiteral),
    ] {
        assert_eq!(
            judge_leaf(&policy, name).unwrap_err().code(),
            code,
            "{name:?}"
        );
    }
}

#[test]
fn a_name_that_is_only_passed_through_is_refused_by_its_rule() {
    let policy = policy(vec![rule("passed.test", |rule| {
        rule.posture = Posture::PassThrough;
    })]);
    let denial = judge_leaf(&policy, "passed.test").unwrap_err();
    assert_eq!(denial.rule().unwrap().as_str(), "rule passed.test");
    assert_eq!(denial.detail(), "the host is not bumped");
}
