//! Time: what a session may idle and live, and that no clock that is set back makes it longer.

use std::sync::{Arc, Mutex};

use outgate_clock::FakeClock;
use outgate_control::sessions::{DenyTarget, SessionState};
use outgate_journey::session::{SessionEnd, UnixSeconds};

use crate::support::{
    Bench, DAY, HOUR, MINUTE, Machine, START, claims, entry, id, new, rules, standing,
};

#[tokio::test]
async fn a_session_idles_from_its_creation_on_and_is_over_for_good() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let sessions = &bench.sessions;
    sessions.create(new("a")).await.unwrap();
    bench.clock.advance(15 * MINUTE - MINUTE / 60);
    assert_eq!(standing(sessions, &claims("a")), Ok(()));
    bench.clock.advance(MINUTE / 60);
    assert_eq!(standing(sessions, &claims("a")), Err(SessionEnd::Idle));
    sessions.set_rules(rules(None, None));
    assert_eq!(standing(sessions, &claims("a")), Err(SessionEnd::Idle));
    let view = sessions.view(&id("a")).unwrap();
    assert_eq!(view.state, SessionState::Ended);
    let end = view.end.unwrap();
    assert_eq!((end.cause.as_str(), end.by.as_str()), ("idle", "clock"));
}

#[tokio::test]
async fn bytes_and_requests_are_activity_and_a_renewal_is_none() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let sessions = &bench.sessions;
    for name in ["bytes", "requests", "renewed"] {
        sessions.create(new(name)).await.unwrap();
    }
    let stream = sessions.activity(&claims("bytes"));
    for _ in 0..4 {
        bench.clock.advance(10 * MINUTE);
        sessions.tick().await;
        stream.note();
        assert!(!sessions.activity(&claims("requests")).cut().is_cancelled());
        let until = UnixSeconds(START + 4 * 3600);
        let _ = sessions.renewed(&id("renewed"), until).await;
    }
    assert_eq!(standing(sessions, &claims("bytes")), Ok(()));
    assert_eq!(standing(sessions, &claims("requests")), Ok(()));
    assert_eq!(
        standing(sessions, &claims("renewed")),
        Err(SessionEnd::Idle)
    );
    let renewed = sessions
        .renewed(&id("renewed"), claims("renewed").expires)
        .await;
    assert_eq!(renewed.unwrap_err().code(), "session_over");
    assert!(!stream.cut().is_cancelled());
}

#[tokio::test]
async fn a_session_is_over_after_its_lifetime_whatever_it_does() {
    let bench = Bench::new(rules(Some(15 * MINUTE), Some(HOUR))).await;
    let sessions = &bench.sessions;
    let view = sessions.create(new("a")).await.unwrap();
    assert_eq!(view.ends_at_latest, Some(START + 3600));
    let stream = sessions.activity(&claims("a"));
    for _ in 0..5 {
        bench.clock.advance(10 * MINUTE);
        sessions.tick().await;
        stream.note();
    }
    assert_eq!(stream.why(), None);
    assert_eq!(
        sessions.view(&id("a")).unwrap().ends_at_latest,
        Some(START + 3600)
    );
    bench.clock.advance(10 * MINUTE);
    sessions.tick().await;
    assert_eq!(stream.why(), Some(SessionEnd::LifetimeOver));
    assert_eq!(
        standing(sessions, &claims("a")),
        Err(SessionEnd::LifetimeOver)
    );
}

#[tokio::test]
async fn the_round_of_a_second_cuts_what_is_over_and_tells_of_each_once() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let sessions = &bench.sessions;
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = Arc::clone(&told);
    sessions.on_end(move |id, why| telling.lock().unwrap().push((id.to_string(), why)));
    sessions.create(new("a")).await.unwrap();
    sessions.create(new("b")).await.unwrap();
    let stream = sessions.activity(&claims("a"));
    bench.clock.advance(15 * MINUTE);
    for _ in 0..3 {
        sessions.tick().await;
    }
    assert_eq!(stream.why(), Some(SessionEnd::Idle));
    let _ = standing(sessions, &claims("b"));
    let mut told = told.lock().unwrap().clone();
    told.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        told,
        [
            ("a".to_owned(), SessionEnd::Idle),
            ("b".to_owned(), SessionEnd::Idle)
        ]
    );
}

#[tokio::test]
async fn a_disk_that_hangs_lets_nobody_stay() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    bench.sessions.create(new("a")).await.unwrap();
    let stream = bench.sessions.activity(&claims("a"));
    bench.store.hang();
    let sessions = Arc::clone(&bench.sessions);
    let keeping = tokio::spawn(async move { sessions.keep_time().await });
    // Its first round is under way, and waits for the disk.
    tokio::task::yield_now().await;
    assert_eq!(stream.why(), None);
    bench.clock.advance(15 * MINUTE);
    let cut = tokio::time::timeout(MINUTE, stream.cut().cancelled()).await;
    assert!(cut.is_ok());
    assert_eq!(stream.why(), Some(SessionEnd::Idle));
    keeping.abort();
}

#[tokio::test]
async fn a_wall_clock_set_back_a_day_extends_neither_idling_nor_a_lifetime() {
    for (bounds, why) in [
        (rules(Some(15 * MINUTE), None), SessionEnd::Idle),
        (rules(None, Some(15 * MINUTE)), SessionEnd::LifetimeOver),
    ] {
        let bench = Bench::new(bounds).await;
        bench.sessions.create(new("a")).await.unwrap();
        bench.clock.advance(10 * MINUTE);
        bench.clock.set_wall(UnixSeconds(START - DAY));
        assert_eq!(standing(&bench.sessions, &claims("a")), Ok(()));
        bench.clock.advance(5 * MINUTE);
        assert_eq!(standing(&bench.sessions, &claims("a")), Err(why));
    }
}

#[tokio::test]
async fn a_wall_clock_set_forward_ends_nothing_that_is_running() {
    let bench = Bench::new(rules(Some(15 * MINUTE), Some(HOUR))).await;
    bench.sessions.create(new("a")).await.unwrap();
    bench.clock.set_wall(UnixSeconds(START + 365 * DAY));
    bench.sessions.tick().await;
    assert_eq!(standing(&bench.sessions, &claims("a")), Ok(()));

    // And set back again it has not become younger by it, as one that was forgotten meanwhile would be.
    bench.clock.set_wall(UnixSeconds(START));
    for _ in 0..6 {
        let _ = bench.sessions.activity(&claims("a"));
        bench.clock.advance(10 * MINUTE);
    }
    assert_eq!(
        standing(&bench.sessions, &claims("a")),
        Err(SessionEnd::LifetimeOver)
    );
}

#[tokio::test]
async fn a_restart_with_the_clock_set_back_a_day_extends_neither_idling_nor_a_lifetime() {
    for (bounds, why) in [
        (rules(Some(15 * MINUTE), None), SessionEnd::Idle),
        (rules(None, Some(15 * MINUTE)), SessionEnd::LifetimeOver),
    ] {
        let machine = Machine::new(bounds);
        let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
        let before = machine.start(&clock).await;
        before.create(new("a")).await.unwrap();
        clock.advance(10 * MINUTE);
        before.tick().await;
        drop(before);

        // Neither the clock nor the one who made it knows of the floor.
        let clock = Arc::new(FakeClock::at(UnixSeconds(START - DAY)));
        let after = machine.start(&clock).await;
        assert_eq!(standing(&after, &claims("a")), Ok(()));
        clock.advance(5 * MINUTE);
        assert_eq!(standing(&after, &claims("a")), Err(why));
    }
}

#[tokio::test]
async fn time_goes_on_while_the_gateway_is_down() {
    let machine = Machine::new(rules(Some(15 * MINUTE), None));
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let before = machine.start(&clock).await;
    before.create(new("a")).await.unwrap();
    before.create(new("b")).await.unwrap();
    clock.advance(10 * MINUTE);
    let _ = before.activity(&claims("b"));
    before.close().await.unwrap();

    let clock = Arc::new(FakeClock::at(UnixSeconds(START + 16 * 60)));
    let after = machine.start(&clock).await;
    assert_eq!(standing(&after, &claims("a")), Err(SessionEnd::Idle));
    assert_eq!(standing(&after, &claims("b")), Ok(()));
    let view = after.view(&id("b")).unwrap();
    assert_eq!((view.created, view.last_active), (START, START + 600));
}

#[tokio::test]
async fn an_entry_of_the_denylist_lapses_when_it_said_and_no_clock_moves_that() {
    let bench = Bench::new(rules(None, None)).await;
    let sessions = &bench.sessions;
    let target = DenyTarget::Session(id("a"));
    for until in [START, START - 5] {
        let passed = sessions.deny(entry(target.clone(), Some(until))).await;
        assert_eq!(passed.unwrap_err().code(), "until_passed");
    }
    let made = sessions
        .deny(entry(target.clone(), Some(START + 600)))
        .await
        .unwrap();
    assert_eq!(made.at, START);
    // Set forward it is not over early, set back it is not over late.
    bench.clock.set_wall(UnixSeconds(START + DAY));
    assert_eq!(standing(sessions, &claims("a")), Err(SessionEnd::Denied));
    bench.clock.set_wall(UnixSeconds(START - DAY));
    bench.clock.advance(10 * MINUTE - MINUTE / 60);
    assert_eq!(standing(sessions, &claims("a")), Err(SessionEnd::Denied));
    let mut changes = sessions.changes();
    changes.mark_unchanged();
    bench.clock.advance(MINUTE / 60);
    assert_eq!(standing(sessions, &claims("a")), Ok(()));
    assert!(sessions.denied(|_| true).is_empty());
    sessions.tick().await;
    assert!(
        changes.has_changed().unwrap(),
        "gateways that follow are told"
    );
}

#[tokio::test]
async fn an_entry_is_in_force_for_as_long_as_it_said_on_the_clock_that_it_was_made_by() {
    let bench = Bench::new(rules(None, None)).await;
    let sessions = &bench.sessions;
    bench.clock.set_wall(UnixSeconds(START + DAY));
    let target = DenyTarget::Session(id("a"));
    let until = Some(START + DAY + 600);
    sessions.deny(entry(target, until)).await.unwrap();
    bench.clock.set_wall(UnixSeconds(START));
    bench.clock.advance(10 * MINUTE - MINUTE / 60);
    assert_eq!(standing(sessions, &claims("a")), Err(SessionEnd::Denied));
    bench.clock.advance(MINUTE / 60);
    assert_eq!(standing(sessions, &claims("a")), Ok(()));
}

#[tokio::test]
async fn a_restart_with_the_clock_set_back_extends_no_entry_of_the_denylist() {
    let machine = Machine::new(rules(None, None));
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let before = machine.start(&clock).await;
    let target = DenyTarget::Token("t1".to_owned());
    before.deny(entry(target, Some(START + 600))).await.unwrap();
    clock.advance(5 * MINUTE);
    before.tick().await;
    drop(before);
    let clock = Arc::new(FakeClock::at(UnixSeconds(START - DAY)));
    let after = machine.start(&clock).await;
    assert_eq!(standing(&after, &claims("a")), Err(SessionEnd::Denied));
    clock.advance(5 * MINUTE);
    assert_eq!(standing(&after, &claims("a")), Ok(()));
}
