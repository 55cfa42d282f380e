//! Identities of external issuers: known from first sight, bounded, and over as every other session.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use outgate_clock::FakeClock;
use outgate_control::sessions::{SessionRules, SessionState};
use outgate_journey::session::{PolicyName, SessionEnd, UnixSeconds};
use outgate_store::Change;

use crate::support::{
    Bench, HOUR, MINUTE, Machine, START, claims, end, external, id, new, rules, standing,
};

#[tokio::test]
async fn an_identity_is_known_from_first_sight_and_told_of_once() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    let begun = Arc::new(AtomicUsize::new(0));
    let telling = Arc::clone(&begun);
    sessions.on_begin(move |_| {
        telling.fetch_add(1, Ordering::SeqCst);
    });
    assert!(sessions.list(None).is_empty());
    for _ in 0..3 {
        let _ = sessions.activity(&external("x_1", 600));
    }
    let _ = sessions.activity(&external("x_1", 900));
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    let view = sessions.view(&id("x_1")).unwrap();
    assert_eq!(view.issuer.as_deref(), Some("https://idp.example.org"));
    assert_eq!(view.subject.as_deref(), Some("x_1"));
    assert_eq!(
        (view.expires, view.state),
        (START + 900, SessionState::Live)
    );
    end(sessions, "x_1").await.unwrap();
    for expires in [600, 900, 80_000] {
        assert_eq!(
            standing(sessions, &external("x_1", expires)),
            Err(SessionEnd::Ended)
        );
    }
}

#[tokio::test]
async fn an_identity_is_shown_with_the_policy_of_its_latest_token() {
    let bench = Bench::new(SessionRules::default()).await;
    let mut token = external("x_1", 600);
    for name in ["coding", "search"] {
        token.terms.policy = PolicyName::parse(name);
        let _ = bench.sessions.activity(&token);
        let view = bench.sessions.view(&id("x_1")).unwrap();
        assert_eq!(view.policy.as_deref(), Some(name));
    }
    // What was created here is what its operator made it.
    bench.sessions.create(new("a")).await.unwrap();
    let mut token = claims("a");
    token.terms.policy = PolicyName::parse("search");
    let _ = bench.sessions.activity(&token);
    assert_eq!(bench.sessions.view(&id("a")).unwrap().policy, None);
}

#[tokio::test]
async fn what_the_clock_ended_is_over_for_its_tokens_and_a_later_token_begins_anew() {
    let bench = Bench::new(rules(Some(15 * MINUTE), Some(HOUR))).await;
    let sessions = &bench.sessions;
    let old = sessions.activity(&external("x_1", 3000));
    bench.clock.advance(15 * MINUTE);
    sessions.tick().await;
    assert_eq!(old.why(), Some(SessionEnd::Idle));
    for expires in [2000, 3000] {
        assert_eq!(
            standing(sessions, &external("x_1", expires)),
            Err(SessionEnd::Idle)
        );
        assert!(
            sessions
                .activity(&external("x_1", expires))
                .cut()
                .is_cancelled()
        );
    }
    assert_eq!(standing(sessions, &external("x_1", 4000)), Ok(()));
    let fresh = sessions.activity(&external("x_1", 4000));
    assert!(!fresh.cut().is_cancelled());
    // The old tokens do not come back with it.
    assert_eq!(
        standing(sessions, &external("x_1", 3000)),
        Err(SessionEnd::Idle)
    );
    // Nor does an operator's ending leave a way back.
    end(sessions, "x_1").await.unwrap();
    assert!(fresh.cut().is_cancelled());
    assert_eq!(
        standing(sessions, &external("x_1", 9000)),
        Err(SessionEnd::Ended)
    );
}

#[tokio::test]
async fn an_identity_that_an_operator_ended_is_listed_for_an_hour_and_one_that_idled_away_is_not() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let sessions = &bench.sessions;
    let _ = sessions.activity(&external("x_1", 600));
    let _ = sessions.activity(&external("x_2", 600));
    end(sessions, "x_1").await.unwrap();
    bench.clock.advance(HOUR - MINUTE);
    sessions.tick().await;
    let listed = sessions.list(None);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].end.as_ref().unwrap().by, "token:ci");
    bench.clock.advance(MINUTE);
    sessions.tick().await;
    assert!(sessions.list(None).is_empty());
}

#[tokio::test]
async fn the_token_that_finds_its_identity_idle_begins_anew_if_it_is_a_later_one() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let old = bench.sessions.activity(&external("x_1", 3000));
    bench.clock.advance(15 * MINUTE);
    // No round of a second came first.
    let fresh = bench.sessions.activity(&external("x_1", 4000));
    assert_eq!(old.why(), Some(SessionEnd::Idle));
    assert!(!fresh.cut().is_cancelled());
}

#[tokio::test]
async fn a_flood_of_identities_takes_no_more_memory_than_there_is_room_for() {
    let bench = Bench::new(SessionRules {
        sessions: Some(100),
        ..rules(Some(15 * MINUTE), None)
    })
    .await;
    let sessions = &bench.sessions;
    for number in 0..5000 {
        let activity = sessions.activity(&external(&format!("x_{number}"), 600));
        assert_eq!(activity.cut().is_cancelled(), number >= 100, "{number}");
    }
    assert_eq!(sessions.list(None).len(), 100);
    assert_eq!(
        standing(sessions, &external("x_4000", 600)),
        Err(SessionEnd::Denied)
    );
    // Those that are known go on, and so do sessions of our own.
    assert_eq!(standing(sessions, &external("x_7", 600)), Ok(()));
    assert_eq!(standing(sessions, &claims("own")), Ok(()));

    // When their tokens have run out they are swept, and there is room again.
    bench.clock.advance(12 * MINUTE);
    sessions.tick().await;
    assert!(sessions.list(None).is_empty());
    assert!(
        !sessions
            .activity(&external("x_4000", 1600))
            .cut()
            .is_cancelled()
    );
}

#[tokio::test]
async fn a_stream_that_outlives_its_token_is_not_lost_sight_of() {
    let bench = Bench::new(rules(None, Some(HOUR))).await;
    let sessions = &bench.sessions;
    let stream = sessions.activity(&external("x_1", 60));
    bench.clock.advance(30 * MINUTE);
    sessions.tick().await;
    assert_eq!(stream.why(), None);
    assert_eq!(
        sessions.view(&id("x_1")).unwrap().state,
        SessionState::Expired
    );
    bench.clock.advance(30 * MINUTE);
    sessions.tick().await;
    assert_eq!(stream.why(), Some(SessionEnd::LifetimeOver));
}

#[tokio::test]
async fn an_identity_is_as_old_after_a_restart_as_before() {
    let machine = Machine::new(rules(None, Some(HOUR)));
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let before = machine.start(&clock).await;
    let _ = before.activity(&external("x_1", 7200));
    clock.advance(40 * MINUTE);
    before.tick().await;
    drop(before);
    let after = machine.start(&clock).await;
    clock.advance(20 * MINUTE);
    assert_eq!(
        standing(&after, &external("x_1", 7200)),
        Err(SessionEnd::LifetimeOver)
    );
    after.tick().await;
    drop(after);
    let after = machine.start(&clock).await;
    assert_eq!(
        standing(&after, &external("x_1", 7200)),
        Err(SessionEnd::LifetimeOver)
    );
    assert_eq!(standing(&after, &external("x_1", 9000)), Ok(()));
}

#[tokio::test]
async fn identities_are_written_to_disk_once_a_minute_and_taken_off_it_when_they_are_gone() {
    let bench = Bench::new(SessionRules::default()).await;
    let _ = bench.sessions.activity(&external("x_1", 100));
    bench.clock.advance(MINUTE);
    bench.sessions.tick().await;
    bench.clock.advance(2 * MINUTE);
    bench.sessions.tick().await;
    let changes = bench.store.changes();
    let tracked =
        |change: &&Change| matches!(change, Change::Track(stored) if stored.id == id("x_1"));
    assert_eq!(changes.iter().filter(tracked).count(), 1);
    assert!(changes.contains(&Change::Forget(vec![id("x_1")])));
}
