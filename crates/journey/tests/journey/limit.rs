use outgate_journey::{
    denial::DenyCode,
    gate::count_connection,
    limit::{Exceeded, admit},
};

use crate::support::{Counters, FakePlane, ONE, allowed, permit, policy, rule, session, to};

fn exceeded() -> [(Exceeded, DenyCode, Option<u64>); 4] {
    let requests = Exceeded::Requests {
        retry_after_seconds: 7,
    };
    [
        (requests, DenyCode::RateLimited, Some(7)),
        (Exceeded::Connections, DenyCode::ConnectionLimit, None),
        (Exceeded::BytesOut, DenyCode::BytesLimit, None),
        (
            Exceeded::DistinctDestinations,
            DenyCode::DestinationsLimit,
            None,
        ),
    ]
}

fn refusing(exceeded: Exceeded) -> FakePlane {
    FakePlane {
        counters: Counters {
            refuse: Some(exceeded),
            ..Counters::default()
        },
        ..FakePlane::default()
    }
}

#[test]
fn a_request_is_counted_for_its_session_under_its_rule() {
    let (plane, policy) = (FakePlane::default(), policy(vec![rule("a.test", |_| {})]));
    let permit = permit(&policy, to("a.test:443"));
    let admission = admit(&plane.counters, &policy, permit, Some(session(ONE))).unwrap();
    assert_eq!(plane.counted(), ["one under rule a.test"]);
    assert_eq!(admission.session().unwrap().id().as_str(), "one");
    assert_eq!(
        admission.permit().allowed().destination().to_string(),
        "a.test:443"
    );
}

#[test]
fn every_limit_has_its_code_and_names_the_rule() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    for (exceeded, code, retry_after) in exceeded() {
        let plane = refusing(exceeded);
        let permit = permit(&policy, to("a.test:443"));
        let request = admit(&plane.counters, &policy, permit, Some(session(ONE))).unwrap_err();
        let of_rule = allowed(&policy, "a.test:443");
        let connection = count_connection(&plane, &policy, &session(ONE), &of_rule).unwrap_err();
        for denial in [request, connection] {
            assert_eq!(denial.code(), code);
            assert_eq!(denial.retry_after_seconds(), retry_after, "{code}");
            assert_eq!(denial.rule().unwrap().as_str(), "rule a.test", "{code}");
        }
    }
}

#[test]
fn a_request_without_a_session_uses_nobodys_budget() {
    let policy = policy(vec![rule("a.test", |_| {})]);
    let plane = refusing(Exceeded::BytesOut);
    let permit = permit(&policy, to("a.test:443"));
    let admission = admit(&plane.counters, &policy, permit, None).unwrap();
    assert!(admission.session().is_none());
    assert!(plane.counted().is_empty());
}

#[test]
fn a_connection_is_counted_for_its_session_and_host() {
    let (plane, policy) = (FakePlane::default(), policy(vec![rule("a.test", |_| {})]));
    let allowed = allowed(&policy, "a.test:443");
    count_connection(&plane, &policy, &session(ONE), &allowed).unwrap();
    assert_eq!(plane.counted(), ["one to a.test:443"]);
}
