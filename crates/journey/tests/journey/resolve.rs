use std::net::SocketAddr;

use outgate_journey::{
    address::{AddressExceptions, DenySet},
    denial::DenyCode::{self, AddressDenied, NameNotResolved},
    gate::resolve_destination,
    policy::{Policy, Rule, SessionLimits},
};

use crate::support::{FakePlane, Names, allowed, finished, policy, rule};

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn resolved(policy: &Policy, names: Names) -> Result<Vec<String>, (DenyCode, String)> {
    let plane = FakePlane {
        names,
        ..FakePlane::default()
    };
    let allowed = allowed(policy, "a.test:443");
    let result = finished(resolve_destination(&plane, policy, allowed));
    assert_eq!(*plane.names.asked.lock().unwrap(), ["a.test"]);
    match result {
        Ok(resolved) => {
            assert_eq!(resolved.allowed().destination().to_string(), "a.test:443");
            Ok(resolved
                .addresses()
                .iter()
                .map(SocketAddr::to_string)
                .collect())
        }
        Err(denial) => {
            assert_eq!(denial.rule().unwrap().as_str(), "rule a.test");
            Err((denial.code(), denial.detail().to_owned()))
        }
    }
}

#[test]
fn only_the_vetted_addresses_are_left_in_the_resolvers_order() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    for (answer, expected) in [
        (&["8.8.8.8"][..], Ok(&["8.8.8.8:443"][..])),
        (
            &["9.9.9.9", "8.8.8.8", "2606:4700::1"],
            Ok(&["9.9.9.9:443", "8.8.8.8:443", "[2606:4700::1]:443"]),
        ),
        (
            &["10.0.0.1", "8.8.8.8", "::1", "169.254.169.254"],
            Ok(&["8.8.8.8:443"]),
        ),
        (&["127.0.0.1"], Err((AddressDenied, "127.0.0.1"))),
        (
            &["10.0.0.1", "::ffff:10.0.0.2"],
            Err((AddressDenied, "::ffff:10.0.0.2")),
        ),
        (&[], Err((NameNotResolved, ""))),
    ] {
        let expected = expected
            .map(|list| list.iter().map(ToString::to_string).collect())
            .map_err(|(code, detail)| (code, detail.to_owned()));
        assert_eq!(
            resolved(&policy, Names::answering(answer)),
            expected,
            "{answer:?}"
        );
    }
}

#[test]
fn a_resolver_that_fails_denies() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    assert_eq!(
        resolved(&policy, Names::failing("no server answered")),
        Err((NameNotResolved, "no server answered".to_owned()))
    );
}

#[test]
fn exceptions_hold_for_their_rule_and_deny_wins() {
    let with = |change: fn(&mut Rule)| policy(vec![rule("a.test", change)]);
    let open = with(|rule| rule.addresses.allow = nets(&["10.0.0.0/8"]));
    let narrowed = with(|rule| {
        rule.addresses = AddressExceptions {
            allow: nets(&["10.0.0.0/8"]),
            deny: nets(&["10.1.1.1/32", "8.8.8.8/32"]),
        };
    });
    for (policy, answer, expected) in [
        (&open, "10.1.1.1", None),
        (&open, "192.168.0.1", Some(AddressDenied)),
        (&narrowed, "10.1.1.2", None),
        (&narrowed, "10.1.1.1", Some(AddressDenied)),
        (&narrowed, "8.8.8.8", Some(AddressDenied)),
        (&narrowed, "8.8.4.4", None),
    ] {
        let code = resolved(policy, Names::answering(&[answer])).err();
        assert_eq!(code.map(|(code, _)| code), expected, "{answer}");
    }
}

#[test]
fn the_gateways_own_listeners_are_never_an_address_of_anything() {
    let open = AddressExceptions {
        allow: nets(&["0.0.0.0/0", "::/0"]),
        deny: Vec::new(),
    };
    let policy = Policy::new(
        vec![rule("a.test", |_| {})],
        DenySet::new(open, [].into()),
        SessionLimits::default(),
        Vec::new(),
    );
    let answer = || Names::answering(&["127.0.0.1"]);
    assert!(resolved(&policy, answer()).is_ok());
    let policy = policy.for_listeners(["127.0.0.1:443".parse().unwrap()].into());
    assert_eq!(
        resolved(&policy, answer()).map_err(|(code, _)| code),
        Err(AddressDenied)
    );
}
