//! What is kept of what sessions asked for, and when it is gone.

use std::sync::Arc;

use outgate_control::sessions::{Bodies, BodyStart, SessionRules, Sessions, ViewRules};
use outgate_journey::record::{DecisionRecord, Entry};

use crate::support::{Bench, HOUR, claims, end, external, id, new};

fn record(session: Option<&str>, number: u64) -> Arc<DecisionRecord> {
    let client = "198.51.100.7:40123".parse().unwrap();
    let mut record = DecisionRecord::begin(format!("r-{number}"), number, Entry::Bumped, client);
    record.session = session.map(id);
    record.path = Some("/".repeat(1000));
    Arc::new(record)
}

fn bodies(bytes: usize) -> Option<Bodies> {
    let body = || BodyStart {
        bytes: vec![b'x'; bytes].into(),
        is_cut: true,
    };
    Some(Bodies {
        request: body(),
        response: body(),
    })
}

const fn view(requests: usize, bodies: usize, memory: usize) -> SessionRules {
    SessionRules {
        idle: None,
        lifetime: None,
        sessions_per_tenant: None,
        sessions: None,
        view: ViewRules {
            requests,
            bodies,
            memory,
        },
    }
}

async fn bench(rules: SessionRules) -> Bench {
    let bench = Bench::new(rules).await;
    for name in ["a", "b", "c"] {
        bench.sessions.create(new(name)).await.unwrap();
    }
    bench
}

fn numbers(sessions: &Sessions, name: &str) -> Vec<u64> {
    let found = sessions.requests(&id(name), None, 1000);
    found.iter().map(|it| it.record.time_unix_ms).collect()
}

#[tokio::test]
async fn a_session_pushes_out_its_own_past_alone() {
    let bench = bench(view(3, 0, 1 << 20)).await;
    let sessions = &bench.sessions;
    sessions.note_request(&record(Some("b"), 0), None);
    for number in 1..=10 {
        sessions.note_request(&record(Some("a"), number), bodies(10));
    }
    assert_eq!(numbers(sessions, "a"), [8, 9, 10]);
    assert_eq!(numbers(sessions, "b"), [0]);
    let latest = sessions.requests(&id("a"), None, 2);
    assert_eq!(latest[0].record.time_unix_ms, 9);
    assert_eq!(latest[0].bodies, None, "bodies are off");
    let after = sessions.requests(&id("a"), Some(latest[0].seq), 1);
    assert_eq!(after[0].record.time_unix_ms, 10);
    assert!(
        sessions
            .requests(&id("a"), Some(after[0].seq), 9)
            .is_empty()
    );
    // Of nobody, and of nobody that is known.
    sessions.note_request(&record(None, 1), None);
    sessions.note_request(&record(Some("z"), 1), None);
    assert!(numbers(sessions, "z").is_empty());
}

#[tokio::test]
async fn all_sessions_together_keep_within_their_memory_and_the_oldest_go_first() {
    let bench = bench(view(100, 4096, 100_000)).await;
    let sessions = &bench.sessions;
    sessions.note_request(&record(Some("c"), 0), None);
    for number in 1..=200 {
        let name = if number % 2 == 0 { "a" } else { "b" };
        sessions.note_request(&record(Some(name), number), bodies(4096));
    }
    assert!(numbers(sessions, "c").is_empty());
    let (a, b) = (numbers(sessions, "a"), numbers(sessions, "b"));
    // About 10 kB each.
    assert!((4..=10).contains(&(a.len() + b.len())), "{a:?} {b:?}");
    assert_eq!((a.last(), b.last()), (Some(&200), Some(&199)));
    // One that alone is too large leaves nothing behind.
    sessions.note_request(&record(Some("c"), 300), bodies(200_000));
    assert!(
        ["a", "b", "c"]
            .iter()
            .all(|name| numbers(sessions, name).is_empty())
    );
    sessions.note_request(&record(Some("c"), 301), None);
    assert_eq!(numbers(sessions, "c"), [301]);
}

#[tokio::test]
async fn what_other_rules_do_not_keep_is_gone_at_once() {
    let bench = bench(view(10, 100, 1 << 20)).await;
    let sessions = &bench.sessions;
    for number in 0..10 {
        sessions.note_request(&record(Some("a"), number), bodies(100));
    }
    let held = sessions.requests(&id("a"), None, 1).remove(0).bodies;
    assert_eq!(held.unwrap().request.bytes.len(), 100);
    sessions.set_rules(view(4, 0, 1 << 20));
    let found = sessions.requests(&id("a"), None, 1000);
    assert!(found.len() == 4 && found.iter().all(|it| it.bodies.is_none()));
    sessions.set_rules(view(4, 100, 1 << 20));
    let found = sessions.requests(&id("a"), None, 1000);
    assert!(
        found.iter().all(|it| it.bodies.is_none()),
        "they do not come back"
    );
    sessions.set_rules(view(0, 0, 1 << 20));
    assert!(numbers(sessions, "a").is_empty());
    sessions.note_request(&record(Some("a"), 1), None);
    assert!(numbers(sessions, "a").is_empty());
    assert_eq!(
        Sessions::in_memory(bench.clock.clone()).view_rules(),
        ViewRules::default()
    );
}

#[tokio::test]
async fn it_goes_with_its_session() {
    let bench = bench(view(10, 0, 1 << 20)).await;
    let sessions = &bench.sessions;
    let _ = sessions.activity(&external("x_1", 60));
    let _ = sessions.activity(&claims("a"));
    for name in ["a", "x_1"] {
        sessions.note_request(&record(Some(name), 1), None);
    }
    end(sessions, "a").await.unwrap();
    sessions.note_request(&record(Some("a"), 2), None);
    bench.clock.advance(HOUR / 2);
    sessions.tick().await;
    assert_eq!(numbers(sessions, "a"), [1, 2], "as long as it is listed");
    assert!(numbers(sessions, "x_1").is_empty());
    bench.clock.advance(HOUR);
    sessions.tick().await;
    assert!(sessions.view(&id("a")).is_none() && numbers(sessions, "a").is_empty());
}
