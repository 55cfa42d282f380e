//! What a restart and a failing disk leave of it.

use std::sync::Arc;

use futures_util::FutureExt;
use outgate_clock::FakeClock;
use outgate_control::sessions::{DenyTarget, SessionRules, SessionState, Sessions};
use outgate_journey::{
    policy::SessionLimits,
    session::{Denylist, SessionEnd, UnixSeconds},
};
use outgate_store::Change;

use crate::support::{
    Bench, HOUR, Machine, START, TestStore, claims, end, entry, external, id, new, of_tenant,
    standing, token,
};

fn limits() -> SessionLimits {
    SessionLimits {
        requests: Some("1/min".parse().unwrap()),
        ..SessionLimits::default()
    }
}

#[tokio::test]
async fn what_was_revoked_is_revoked_after_a_stop_that_nobody_prepared() {
    let machine = Machine::new(SessionRules::default());
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let before = machine.start(&clock).await;
    for name in ["ended", "limited", "denied", "goes-on"] {
        before.create(of_tenant(name, "team-a")).await.unwrap();
    }
    end(&before, "ended").await.unwrap();
    end(&before, "never-seen").await.unwrap();
    before
        .set_limits(&id("limited"), limits(), "oidc:alice")
        .await
        .unwrap();
    before.set_quota("team-a", Some(3)).await.unwrap();
    for target in [
        DenyTarget::Session(id("denied")),
        DenyTarget::Token("t9".to_owned()),
        DenyTarget::Subject {
            issuer: "https://idp.example.org".to_owned(),
            subject: "x_1".to_owned(),
        },
    ] {
        before.deny(entry(target, None)).await.unwrap();
    }
    drop(before);

    let after = machine.start(&clock).await;
    assert_eq!(standing(&after, &claims("ended")), Err(SessionEnd::Ended));
    assert_eq!(
        standing(&after, &claims("never-seen")),
        Err(SessionEnd::Ended)
    );
    assert_eq!(standing(&after, &claims("denied")), Err(SessionEnd::Denied));
    assert_eq!(
        standing(&after, &token("goes-on", "t9")),
        Err(SessionEnd::Denied)
    );
    assert_eq!(
        standing(&after, &external("x_1", 60)),
        Err(SessionEnd::Denied)
    );
    assert_eq!(standing(&after, &claims("goes-on")), Ok(()));
    let set = after.standing(&claims("limited")).unwrap();
    assert_eq!(set.as_deref(), Some(&limits()));
    assert_eq!(after.denied(|_| true).len(), 3);
    let view = after.view(&id("ended")).unwrap();
    assert_eq!(
        (view.state, view.end.unwrap().by.as_str()),
        (SessionState::Ended, "token:ci")
    );
    // Three of the four are live: that is all that the tenant may have.
    assert_eq!(after.quotas().tenants["team-a"].live, 3);
    let more = after.create(of_tenant("more", "team-a")).await;
    assert_eq!(more.unwrap_err().code(), "quota_exceeded");
}

#[tokio::test]
async fn the_kill_switch_is_on_after_a_restart_until_it_is_lifted() {
    let machine = Machine::new(SessionRules::default());
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let first = machine.start(&clock).await;
    let on = first.kill_all("breach", "oidc:alice").await.unwrap();
    drop(first);
    let second = machine.start(&clock).await;
    assert_eq!(second.kill_switch(), Some(on));
    assert_eq!(standing(&second, &claims("a")), Err(SessionEnd::KillSwitch));
    second.lift("oidc:alice").await.unwrap();
    drop(second);
    assert_eq!(machine.start(&clock).await.kill_switch(), None);
}

#[tokio::test]
async fn an_ended_session_is_remembered_for_a_week_and_listed_for_an_hour() {
    let machine = Machine::new(SessionRules::default());
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let sessions = machine.start(&clock).await;
    sessions.create(new("a")).await.unwrap();
    end(&sessions, "a").await.unwrap();
    clock.advance(HOUR);
    sessions.tick().await;
    assert!(sessions.list(None).is_empty());
    clock.advance(HOUR * (24 * 7 - 2));
    sessions.tick().await;
    assert_eq!(standing(&sessions, &claims("a")), Err(SessionEnd::Ended));
    drop(sessions);
    let sessions = machine.start(&clock).await;
    assert!(sessions.list(None).is_empty());
    assert_eq!(standing(&sessions, &claims("a")), Err(SessionEnd::Ended));
    // By now every token that it ever had has run out.
    clock.advance(HOUR);
    sessions.tick().await;
    assert_eq!(standing(&sessions, &claims("a")), Ok(()));
}

#[tokio::test]
async fn a_revocation_that_the_disk_refuses_is_in_force_and_tried_again() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    sessions.create(new("a")).await.unwrap();
    bench.store.set_failing(true);
    let failed = end(sessions, "a").await.unwrap_err();
    assert_eq!(failed.code(), "store_write_failed");
    assert!(failed.to_string().contains("/state/outgate.db"), "{failed}");
    let target = DenyTarget::Token("t9".to_owned());
    assert!(sessions.deny(entry(target.clone(), None)).await.is_err());
    assert!(sessions.kill_all("breach", "oidc:alice").await.is_err());
    assert_eq!(
        standing(sessions, &claims("b")),
        Err(SessionEnd::KillSwitch)
    );
    assert!(sessions.lift("oidc:alice").await.is_err());
    assert!(
        sessions.kill_switch().is_some(),
        "a lift that is not on disk is no lift"
    );
    sessions.tick().await;

    bench.store.set_failing(false);
    let before = bench.store.changes().len();
    sessions.tick().await;
    let changes = bench.store.changes().split_off(before);
    let has = |wanted: fn(&Change) -> bool| changes.iter().any(wanted);
    assert!(has(
        |change| matches!(change, Change::End(ending) if ending.id == id("a"))
    ));
    assert!(has(|change| matches!(change, Change::Deny(_))));
    assert!(has(|change| matches!(change, Change::Kill(_))));
    let before = bench.store.changes().len();
    sessions.tick().await;
    assert_eq!(bench.store.changes().len(), before, "once");
}

#[tokio::test]
async fn what_is_tried_again_is_what_is_in_force_by_then() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    let target = DenyTarget::Token("t9".to_owned());
    bench.store.set_failing(true);
    assert!(sessions.deny(entry(target.clone(), None)).await.is_err());
    assert!(sessions.undeny(&target).await.is_err());
    bench.store.set_failing(false);
    sessions.tick().await;
    let changes = bench.store.changes();
    assert!(
        !changes
            .iter()
            .any(|change| matches!(change, Change::Deny(_)))
    );
    assert!(changes.contains(&Change::Undeny(target)));
}

#[tokio::test]
async fn a_session_that_the_disk_refuses_does_not_exist() {
    let bench = Bench::new(SessionRules {
        sessions: Some(1),
        ..SessionRules::default()
    })
    .await;
    bench.store.set_failing(true);
    assert_eq!(
        bench.sessions.create(new("a")).await.unwrap_err().code(),
        "store_write_failed"
    );
    assert!(bench.sessions.view(&id("a")).is_none());
    bench.store.set_failing(false);
    bench.sessions.create(new("a")).await.unwrap();
    let renewed = {
        bench.store.set_failing(true);
        bench
            .sessions
            .renewed(&id("a"), UnixSeconds(START + 7200))
            .await
    };
    assert_eq!(renewed.unwrap_err().code(), "store_write_failed");
    assert_eq!(bench.sessions.view(&id("a")).unwrap().expires, START + 3600);
}

#[tokio::test]
async fn whoever_stops_waiting_has_still_revoked() {
    let machine = Machine::new(SessionRules::default());
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let before = machine.start(&clock).await;
    {
        // Polled once, as by a connection that goes away.
        let ending = end(&before, "a");
        let _ = futures_util::FutureExt::now_or_never(ending);
    }
    before.close().await.unwrap();
    let after = machine.start(&clock).await;
    assert_eq!(standing(&after, &claims("a")), Err(SessionEnd::Ended));
}

#[tokio::test]
async fn limits_of_an_identity_that_is_not_on_disk_yet_are_there_after_a_restart() {
    let machine = Machine::new(SessionRules::default());
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let before = machine.start(&clock).await;
    let _ = before.activity(&external("x_1", 600));
    before
        .set_limits(&id("x_1"), limits(), "oidc:alice")
        .await
        .unwrap();
    drop(before);
    let after = machine.start(&clock).await;
    let set = after.standing(&external("x_1", 600)).unwrap();
    assert_eq!(set.as_deref(), Some(&limits()));
}

#[tokio::test]
async fn a_store_that_cannot_be_read_means_no_registry() {
    let store = TestStore::default();
    store.set_failing(true);
    let clock = Arc::new(FakeClock::at(UnixSeconds(START)));
    let opened = Sessions::open(Arc::new(store), SessionRules::default(), clock).await;
    let error = opened.err().unwrap();
    assert_eq!(error.code(), "store_write_failed");
    assert!(error.to_string().contains("/state/outgate.db"), "{error}");
}

#[tokio::test]
async fn an_earlier_change_that_is_written_does_not_pass_for_a_later_one() {
    let bench = Bench::new(SessionRules::default()).await;
    let target = DenyTarget::Session(id("a"));
    bench.store.take_time();
    let for_a_while = bench
        .sessions
        .deny(entry(target.clone(), Some(START + 300)));
    let for_ever = async {
        bench.store.set_failing(true);
        bench.sessions.deny(entry(target.clone(), None)).await
    };
    let (first, second) = tokio::join!(for_a_while, for_ever);
    first.unwrap();
    second.unwrap_err();
    bench.store.set_failing(false);
    bench.sessions.tick().await;
    let changes = bench.store.changes();
    assert!(
        changes.iter().rev().any(
            |it| matches!(it, Change::Deny(denial) if denial.entry.target == target && denial.lapses.is_none())
        ),
        "{changes:?}"
    );
}

#[tokio::test]
async fn what_a_save_that_was_stopped_had_taken_on_is_saved_by_the_next() {
    let bench = Bench::new(SessionRules::default()).await;
    bench.store.set_failing(true);
    let denied = bench
        .sessions
        .deny(entry(DenyTarget::Session(id("a")), None));
    denied.await.unwrap_err();
    bench.store.set_failing(false);
    bench.store.hang();
    assert!(bench.sessions.tick().now_or_never().is_none());
    bench
        .store
        .hangs
        .store(false, std::sync::atomic::Ordering::SeqCst);
    bench.sessions.close().await.unwrap();
    let changes = bench.store.changes();
    assert!(
        changes.iter().any(|it| matches!(it, Change::Deny(_))),
        "{changes:?}"
    );
}
