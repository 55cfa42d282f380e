//! Sessions that were given less than the policy has: every way in holds them to it.

use std::{collections::HashMap, num::NonZeroU32, sync::Arc};

use outgate_journey::{
    denial::{
        Denial,
        DenyCode::{self, DenylistStale, DestinationNotAllowed, KillSwitch, PolicyChanged},
    },
    gate::{judge_connection, judge_dialled_address, judge_name},
    policy::{NamedPolicy, Policy, Posture, Rate, SessionBounds, SessionLimits, TunnelProtocol},
    session::{PolicyName, SessionEnd, presented_to_proxy},
};

use crate::support::{
    Ended, FakePlane, Names, ONE, carried_on, code, finished, get, headers, injecting, policy,
    rule, session, to,
};

/// Tokens of one session that is confined to `narrow`, and of one whose policy the file does not have any more.
const CONFINED: &str = "eyJ.one.confined";
const ASTRAY: &str = "eyJ.one.astray";

/// `a.test`, `b.test`, `*.wild.test` and the opaque `db.test:5432`, of which `narrow` has the first and the third.
fn with_narrow() -> Policy {
    let rules = vec![
        injecting("a.test", |_| {}),
        injecting("b.test", |_| {}),
        rule("*.wild.test", |_| {}),
        rule("db.test", |rule| {
            rule.posture = Posture::PassThrough;
            rule.protocol = TunnelProtocol::Opaque;
            rule.ports = vec![to("db.test:5432").port()];
        }),
    ];
    let narrow = NamedPolicy {
        hosts: [&rules[0], &rules[2]]
            .map(|rule| rule.host.clone())
            .to_vec(),
        limits: SessionLimits {
            bytes_out: Some(50),
            ..SessionLimits::default()
        },
    };
    let name = PolicyName::parse("narrow").unwrap();
    policy(rules).with_named(HashMap::from([(name, narrow)]))
}

#[test]
fn every_way_in_confines_a_session_to_its_own_policy() {
    let policy = with_narrow();
    for (host, token, expected) in [
        ("a.test", ONE, Ok(())),
        ("b.test", ONE, Ok(())),
        ("a.test", CONFINED, Ok(())),
        ("x.wild.test", CONFINED, Ok(())),
        ("b.test", CONFINED, Err(DestinationNotAllowed)),
        ("a.test", ASTRAY, Err(DestinationNotAllowed)),
    ] {
        let plane = FakePlane::default();
        let fields = headers(&[("proxy-authorization", token)]);
        let presented = presented_to_proxy(&fields);
        let target = to(&format!("{host}:443"));
        let connection = finished(judge_connection(&plane, &policy, target, &presented));
        let name = finished(judge_name(&plane, &policy, host, &presented));
        let request = get(host, "/", &[("authorization", token)]).judge(&plane, &policy);
        for seen in [connection.map(drop), name.map(drop), request.map(drop)] {
            if let Err(denial) = &seen {
                assert!(denial.rule().unwrap().as_str().starts_with("policies."));
                assert_eq!(denial.session().unwrap().as_str(), "one");
            }
            assert_eq!(
                seen.map_err(|it: Denial| it.code()),
                expected,
                "{host} {token}"
            );
        }
    }
}

#[test]
fn a_request_is_held_to_the_policy_of_the_session_that_its_connection_is_attributed_to() {
    let policy = with_narrow();
    let asked = get("b.test", "/", &[]).attributed_to(CONFINED);
    let denial = asked.judge(&FakePlane::default(), &policy).unwrap_err();
    assert_eq!(denial.code(), DestinationNotAllowed);
}

#[test]
fn an_opaque_destination_is_found_by_its_address_only_for_sessions_that_have_it() {
    let policy = with_narrow();
    for (token, expected) in [(ONE, None), (CONFINED, Some(DestinationNotAllowed))] {
        let plane = FakePlane {
            names: Names::answering(&["93.184.216.34"]),
            ..FakePlane::default()
        };
        let fields = headers(&[("proxy-authorization", token)]);
        let dialled = "93.184.216.34:5432".parse().unwrap();
        let presented = presented_to_proxy(&fields);
        let judged = finished(judge_dialled_address(&plane, &policy, dialled, &presented));
        assert_eq!(code(judged), expected, "{token}");
    }
}

#[test]
fn a_tunnel_is_closed_when_its_sessions_policy_loses_the_destination() {
    let fields = headers(&[("proxy-authorization", CONFINED)]);
    let presented = presented_to_proxy(&fields);
    let plane = FakePlane::default();
    let policy = with_narrow();
    let judged = judge_connection(&plane, &policy, to("a.test:443"), &presented);
    let pass = finished(judged).unwrap();
    assert_eq!(code(carried_on(&policy, &pass, None)), None);
    let without = with_narrow().with_named(HashMap::new());
    assert_eq!(code(carried_on(&without, &pass, None)), Some(PolicyChanged));
}

fn rate(events: u32) -> Option<Rate> {
    Some(Rate {
        events: NonZeroU32::new(events).unwrap(),
        window_seconds: 60,
    })
}

#[test]
fn all_that_bounds_a_session_holds_at_once() {
    let of_all = SessionLimits {
        requests: rate(100),
        concurrent_connections: Some(9),
        ..SessionLimits::default()
    };
    let own = SessionLimits {
        requests: rate(200),
        concurrent_connections: Some(3),
        bytes_out: Some(70),
        ..SessionLimits::default()
    };
    let bounds = SessionBounds::of([Some(&of_all), None, Some(&own), None]);
    assert_eq!(bounds.requests, [rate(100), None, rate(200), None]);
    assert_eq!(bounds.concurrent_connections, Some(3));
    assert_eq!(bounds.bytes_out, Some(70));
    assert_eq!(bounds.distinct_destinations, None);
    let confined = with_narrow().bounds_of(&session(CONFINED));
    assert_eq!(confined.bytes_out, Some(50));
    assert_eq!(with_narrow().bounds_of(&session(ONE)).bytes_out, None);
}

#[test]
fn what_the_operator_set_since_counts_from_the_next_request_on() {
    let plane = FakePlane {
        ended: Ended {
            limits: Some(Arc::new(SessionLimits {
                bytes_out: Some(1),
                ..SessionLimits::default()
            })),
            ..Ended::default()
        },
        ..FakePlane::default()
    };
    // The session was attributed before the operator said so.
    let asked = get("b.test", "/", &[("authorization", ONE)]).attributed_to(ONE);
    let plan = asked.judge(&plane, &with_narrow()).unwrap();
    let session = plan.admission().session().unwrap();
    assert_eq!(with_narrow().bounds_of(session).bytes_out, Some(1));
}

#[test]
fn a_denylist_that_is_too_old_draws_no_credential_and_closes_nothing_else() {
    let plane = FakePlane {
        ended: Ended {
            stale: true,
            ..Ended::default()
        },
        ..FakePlane::default()
    };
    let policy = with_narrow();
    let with_credential = get("a.test", "/", &[("authorization", ONE)]).judge(&plane, &policy);
    assert_eq!(code(with_credential), Some(DenylistStale));
    let bare = get("x.wild.test", "/", &[]).attributed_to(ONE);
    assert_eq!(code(bare.judge(&plane, &policy)), None);
}

#[test]
fn the_kill_switch_ends_every_session_also_on_open_connections() {
    let plane = FakePlane {
        ended: Ended::by(&["one"], SessionEnd::KillSwitch),
        ..FakePlane::default()
    };
    let expected: Option<DenyCode> = Some(KillSwitch);
    let asked = get("a.test", "/", &[]).attributed_to(ONE);
    assert_eq!(code(asked.judge(&plane, &with_narrow())), expected);
    let asked = get("a.test", "/", &[("authorization", ONE)]);
    assert_eq!(code(asked.judge(&plane, &with_narrow())), expected);
}
