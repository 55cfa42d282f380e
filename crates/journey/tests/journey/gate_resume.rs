//! A request that is judged in two steps: permitted, and a moment later counted and given its credential.

use http::{Method, Uri};
use outgate_journey::{
    denial::{
        Denial,
        DenyCode::{
            AuditUnavailable, CredentialUnavailable, DenylistStale, PathNotAllowed, RateLimited,
            SessionIdle, SessionRevoked, TokenMissing,
        },
    },
    gate::{PermittedRequest, RequestEvidence, permit_request, resume_request},
    inject::{CredentialFault, InjectionPlan},
    limit::Exceeded,
    policy::{Policy, Rule, TokenDemand},
    session::SessionEnd,
};

use crate::support::{
    Asked, Counters, Ended, FakePlane, ONE, Store, TWO, Vault, code, finished, get, headers,
    injecting, policy, requests, rule,
};

fn only_v1(rule: &mut Rule) {
    rule.requests
        .allow
        .push(requests(&["GET"], &["/v1/**"], &[]));
}

fn permit(
    plane: &FakePlane,
    policy: &Policy,
    asked: &Asked<'_>,
) -> Result<PermittedRequest, Denial> {
    let target: Uri = asked.target.parse().unwrap();
    finished(permit_request(
        plane,
        policy,
        &RequestEvidence {
            destination: &asked.to,
            attributed: asked.attributed.as_ref(),
            method: &asked.method,
            target: &target,
            headers: &headers(&asked.headers),
        },
    ))
}

fn attached(plan: &InjectionPlan<String>) -> Option<&str> {
    plan.attachment()
        .map(|attachment| attachment.lease().as_str())
}

#[test]
fn what_is_only_permitted_is_neither_counted_nor_given_a_credential() {
    let policy = policy(vec![injecting("a.test", only_v1)]);
    let plane = FakePlane {
        counters: Counters {
            refuse: Some(Exceeded::Requests {
                retry_after_seconds: 1,
            }),
            ..Counters::default()
        },
        store: Store(false),
        ..FakePlane::default()
    };
    let asked = get("a.test", "/v1/x", &[("x-api-key", ONE)]);
    let permitted = permit(&plane, &policy, &asked).unwrap();
    assert_eq!(permitted.session().unwrap().id().as_str(), "one");
    let allowed = permitted.permit().allowed();
    assert_eq!(allowed.destination().to_string(), "a.test:443");
    assert_eq!(allowed.rule().id.as_str(), "rule a.test");
    assert!(plane.counted().is_empty() && plane.leased().is_empty());
}

#[test]
fn the_two_steps_say_together_what_the_one_says() {
    let policy = policy(vec![
        injecting("a.test", only_v1),
        injecting("maybe.test", |rule| rule.token = TokenDemand::Optional),
        rule("bare.test", |_| {}),
    ]);
    let fields: [&[(&str, &str)]; 5] = [
        &[],
        &[("authorization", ONE)],
        &[("x-api-key", TWO)],
        &[("authorization", "Bearer forged")],
        &[("upgrade", "h2c")],
    ];
    for host in ["a.test", "maybe.test", "bare.test", "x.test"] {
        for fields in fields {
            for target in ["/v1/x", "/v2", "/v1/eyJ.two.good"] {
                for connection in [None, Some(ONE)] {
                    let mut asked = get(host, target, fields);
                    if let Some(token) = connection {
                        asked = asked.attributed_to(token);
                    }
                    let once = FakePlane::default();
                    let at_once = asked.judge(&once, &policy);
                    let twice = FakePlane::default();
                    let in_steps = permit(&twice, &policy, &asked)
                        .and_then(|permitted| resume_request(&twice, &policy, permitted));
                    let context = format!("{host} {fields:?} {target} {connection:?}");
                    match (&at_once, &in_steps) {
                        (Ok(one), Ok(two)) => assert_eq!(attached(one), attached(two), "{context}"),
                        (one, two) => {
                            assert_eq!(one.as_ref().err(), two.as_ref().err(), "{context}")
                        }
                    }
                    assert_eq!(once.counted(), twice.counted(), "{context}");
                    assert_eq!(once.leased(), twice.leased(), "{context}");
                }
            }
        }
    }
}

#[test]
fn a_session_that_ended_between_the_steps_is_neither_counted_nor_given_a_credential() {
    let policy = policy(vec![injecting("a.test", |_| {}), rule("bare.test", |_| {})]);
    for (end, expected) in [
        (SessionEnd::Ended, SessionRevoked),
        (SessionEnd::Idle, SessionIdle),
    ] {
        for asked in [
            get("a.test", "/", &[("x-api-key", ONE)]),
            get("bare.test", "/", &[]).attributed_to(ONE),
        ] {
            let mut plane = FakePlane::default();
            let permitted = permit(&plane, &policy, &asked).unwrap();
            plane.ended = Ended::by(&["one"], end);
            let denial = resume_request(&plane, &policy, permitted).unwrap_err();
            assert_eq!(denial.code(), expected);
            assert_eq!(denial.session().unwrap().as_str(), "one");
            assert!(denial.rule().unwrap().as_str().starts_with("rule "));
            assert!(plane.counted().is_empty() && plane.leased().is_empty());
            // Another session's end is not this one's.
            plane.ended = Ended::default();
            let permitted = permit(&plane, &policy, &asked).unwrap();
            plane.ended = Ended::by(&["two"], end);
            assert!(resume_request(&plane, &policy, permitted).is_ok());
        }
    }
}

#[test]
fn whatever_changed_between_the_steps_counts_as_it_is_at_the_second() {
    let policy = policy(vec![injecting("a.test", |_| {})]);
    let asked = get("a.test", "/", &[("x-api-key", ONE)]);
    let changes: [(fn(&mut FakePlane), _); 4] = [
        (
            |plane| {
                plane.counters.refuse = Some(Exceeded::Requests {
                    retry_after_seconds: 7,
                });
            },
            RateLimited,
        ),
        (|plane| plane.ended.stale = true, DenylistStale),
        (|plane| plane.store = Store(false), AuditUnavailable),
        (
            |plane| {
                plane.vault = Vault {
                    fault: Some(CredentialFault::Unfit),
                    ..Vault::default()
                };
            },
            CredentialUnavailable,
        ),
    ];
    for (change, expected) in changes {
        let mut plane = FakePlane::default();
        let permitted = permit(&plane, &policy, &asked).unwrap();
        change(&mut plane);
        let denial = resume_request(&plane, &policy, permitted).unwrap_err();
        assert_eq!(denial.code(), expected);
        assert_eq!(denial.session().unwrap().as_str(), "one", "{expected}");
        if expected == RateLimited {
            assert_eq!(denial.retry_after_seconds(), Some(7));
        }
        assert!(plane.leased().is_empty(), "{expected}");
    }
}

#[test]
fn the_second_step_remembers_who_presented_the_token() {
    let policy = policy(vec![
        injecting("a.test", |_| {}),
        injecting("maybe.test", |rule| rule.token = TokenDemand::Optional),
    ]);
    let plane = FakePlane::default();
    // (question, what is attached)
    for (asked, expected) in [
        (
            get("a.test", "/", &[("x-api-key", ONE)]),
            Ok(Some("a.test-key")),
        ),
        (
            get("a.test", "/", &[]).attributed_to(ONE),
            Err(TokenMissing),
        ),
        (get("maybe.test", "/", &[]), Ok(None)),
        (get("maybe.test", "/", &[]).attributed_to(ONE), Ok(None)),
        (
            get("maybe.test", "/", &[("x-api-key", ONE)]),
            Ok(Some("maybe.test-key")),
        ),
    ] {
        let permitted = permit(&plane, &policy, &asked).unwrap();
        let plan = resume_request(&plane, &policy, permitted);
        let found = match &plan {
            Ok(plan) => Ok(attached(plan)),
            Err(denial) => Err(denial.code()),
        };
        assert_eq!(found, expected, "{} {:?}", asked.to, asked.headers);
    }
}

#[test]
fn a_request_that_is_not_permitted_has_no_second_step() {
    let policy = policy(vec![injecting("a.test", only_v1)]);
    let plane = FakePlane::without(&["two"]);
    let mut post = get("a.test", "/v1/x", &[("x-api-key", ONE)]);
    post.method = Method::POST;
    assert!(permit(&plane, &policy, &post).is_err());
    for (target, fields, expected) in [
        ("/v2", &[("x-api-key", ONE)][..], PathNotAllowed),
        ("/v1/x", &[("x-api-key", TWO)], SessionRevoked),
        ("/v1/x", &[], TokenMissing),
    ] {
        let refused = permit(&plane, &policy, &get("a.test", target, fields));
        assert_eq!(code(refused), Some(expected), "{target}");
    }
}
