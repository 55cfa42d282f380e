//! Revoking is in force before anything is waited for.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use futures_util::FutureExt;
use outgate_control::sessions::{
    DenyTarget, DenylistSnapshot, EndedSession, SessionRules, Sessions,
};
use outgate_journey::session::{Denylist, SessionEnd, UnixSeconds};

use crate::support::{Bench, START, claims, end, entry, external, id, new, standing, token};

const ROUNDS: usize = 5000;

#[tokio::test]
async fn every_revocation_is_in_force_while_the_disk_has_not_answered() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    for name in ["ended", "denied", "token", "all"] {
        sessions.create(new(name)).await.unwrap();
    }
    bench.store.hang();

    let activity = sessions.activity(&claims("ended"));
    assert!(end(sessions, "ended").now_or_never().is_none());
    assert!(activity.cut().is_cancelled());
    assert_eq!(activity.why(), Some(SessionEnd::Ended));
    assert_eq!(standing(sessions, &claims("ended")), Err(SessionEnd::Ended));

    for (target, refused) in [
        (DenyTarget::Session(id("denied")), claims("denied")),
        (DenyTarget::Token("t9".to_owned()), token("token", "t9")),
        (
            DenyTarget::Subject {
                issuer: "https://idp.example.org".to_owned(),
                subject: "x_1".to_owned(),
            },
            external("x_1", 600),
        ),
    ] {
        let activity = sessions.activity(&refused);
        assert!(!activity.cut().is_cancelled());
        assert!(sessions.deny(entry(target, None)).now_or_never().is_none());
        assert_eq!(activity.why(), Some(SessionEnd::Denied));
        assert_eq!(standing(sessions, &refused), Err(SessionEnd::Denied));
    }

    let activity = sessions.activity(&claims("all"));
    assert!(
        sessions
            .kill_all("breach", "oidc:alice")
            .now_or_never()
            .is_none()
    );
    assert_eq!(activity.why(), Some(SessionEnd::KillSwitch));
    assert_eq!(
        standing(sessions, &claims("all")),
        Err(SessionEnd::KillSwitch)
    );
}

#[tokio::test]
async fn whoever_waits_for_the_signal_is_woken_by_the_call_and_finds_the_reason() {
    let bench = Bench::new(SessionRules::default()).await;
    bench.sessions.create(new("a")).await.unwrap();
    let waiters: Vec<_> = (0..50)
        .map(|_| {
            let activity = bench.sessions.activity(&claims("a"));
            tokio::spawn(async move {
                activity.cut().cancelled().await;
                activity.why()
            })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    bench
        .sessions
        .end(&id("a"), SessionEnd::Tripwire, "itself")
        .await
        .unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), Some(SessionEnd::Tripwire));
    }
}

#[tokio::test]
async fn an_ending_touches_no_other_session_and_stays() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    for name in ["a", "b"] {
        sessions.create(new(name)).await.unwrap();
    }
    let other = sessions.activity(&claims("b"));
    end(sessions, "a").await.unwrap();
    sessions
        .end(&id("a"), SessionEnd::Tripwire, "again")
        .await
        .unwrap();
    assert_eq!(standing(sessions, &claims("a")), Err(SessionEnd::Ended));
    assert_eq!(
        standing(sessions, &token("a", "another")),
        Err(SessionEnd::Ended)
    );
    assert_eq!(standing(sessions, &claims("b")), Ok(()));
    assert!(!other.cut().is_cancelled() && other.why().is_none());
    let late = sessions.activity(&claims("a"));
    assert_eq!(
        (late.cut().is_cancelled(), late.why()),
        (true, Some(SessionEnd::Ended))
    );
}

#[tokio::test]
async fn a_session_that_was_never_seen_can_be_ended() {
    let bench = Bench::new(SessionRules::default()).await;
    assert_eq!(standing(&bench.sessions, &claims("unseen")), Ok(()));
    end(&bench.sessions, "unseen").await.unwrap();
    assert_eq!(
        standing(&bench.sessions, &claims("unseen")),
        Err(SessionEnd::Ended)
    );
    assert_eq!(
        bench
            .sessions
            .create(new("unseen"))
            .await
            .unwrap_err()
            .code(),
        "session_exists"
    );
}

#[tokio::test]
async fn denying_a_token_cuts_what_it_opened_and_nothing_of_the_sessions_other_tokens() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    sessions.create(new("a")).await.unwrap();
    let (denied, other) = (
        sessions.activity(&token("a", "t1")),
        sessions.activity(&token("a", "t2")),
    );
    let target = DenyTarget::Token("t1".to_owned());
    sessions.deny(entry(target.clone(), None)).await.unwrap();
    assert_eq!(denied.why(), Some(SessionEnd::Denied));
    assert_eq!(other.why(), None);
    assert_eq!(
        standing(sessions, &token("a", "t1")),
        Err(SessionEnd::Denied)
    );
    assert_eq!(standing(sessions, &token("a", "t2")), Ok(()));

    // Off the list it is as good as before, and what was cut stays cut.
    assert!(sessions.undeny(&target).await.unwrap());
    assert!(!sessions.undeny(&target).await.unwrap());
    assert_eq!(standing(sessions, &token("a", "t1")), Ok(()));
    assert!(denied.cut().is_cancelled());
    assert!(!sessions.activity(&token("a", "t1")).cut().is_cancelled());
}

#[tokio::test]
async fn an_issuers_subject_is_denied_by_both_names() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    let subject = |issuer: &str| DenyTarget::Subject {
        issuer: issuer.to_owned(),
        subject: "x_1".to_owned(),
    };
    sessions
        .deny(entry(subject("https://other.example.org"), None))
        .await
        .unwrap();
    assert_eq!(standing(sessions, &external("x_1", 600)), Ok(()));
    sessions
        .deny(entry(subject("https://idp.example.org"), None))
        .await
        .unwrap();
    assert_eq!(
        standing(sessions, &external("x_1", 600)),
        Err(SessionEnd::Denied)
    );
    assert_eq!(standing(sessions, &external("x_2", 600)), Ok(()));
    // A session of ours that has the subject's name is another one.
    assert_eq!(standing(sessions, &claims("x_1")), Ok(()));
}

#[tokio::test]
async fn lifting_the_switch_gives_back_what_was_not_ended_itself() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    for name in ["a", "b"] {
        sessions.create(new(name)).await.unwrap();
    }
    let before = sessions.activity(&claims("a"));
    let on = sessions.kill_all("breach", "oidc:alice").await.unwrap();
    assert_eq!(sessions.kill_all("again", "oidc:bob").await.unwrap(), on);
    assert_eq!(
        (on.by.as_str(), on.reason.as_str()),
        ("oidc:alice", "breach")
    );
    assert_eq!(sessions.kill_switch(), Some(on));

    assert_eq!(
        standing(sessions, &claims("unseen")),
        Err(SessionEnd::KillSwitch)
    );
    assert_eq!(
        sessions.activity(&claims("a")).why(),
        Some(SessionEnd::KillSwitch)
    );
    assert_eq!(
        sessions.create(new("c")).await.unwrap_err().code(),
        "kill_switch"
    );
    let renewed = sessions.renewed(&id("a"), claims("a").expires).await;
    assert_eq!(renewed.unwrap_err().code(), "kill_switch");
    end(sessions, "b").await.unwrap();

    assert!(sessions.lift("oidc:alice").await.unwrap());
    assert!(!sessions.lift("oidc:alice").await.unwrap());
    assert_eq!(sessions.kill_switch(), None);
    assert_eq!(standing(sessions, &claims("a")), Ok(()));
    assert_eq!(standing(sessions, &claims("b")), Err(SessionEnd::Ended));
    assert!(before.cut().is_cancelled());
    assert!(!sessions.activity(&claims("a")).cut().is_cancelled());
}

#[tokio::test]
async fn credentials_are_drawn_only_while_the_denylist_is_fresh() {
    let bench = Bench::new(SessionRules::default()).await;
    assert!(bench.sessions.is_fresh());
    bench.sessions.fresh_while(|| false);
    assert!(!bench.sessions.is_fresh());
}

/// The moment between the first look at a session and its being open: whoever revokes then does not find it open yet.
#[test]
fn nothing_stays_open_that_was_revoked_while_it_was_opened() {
    let clock = Arc::new(outgate_clock::FakeClock::at(UnixSeconds(START)));
    let sessions = Arc::new(Sessions::in_memory(clock));
    let revoking = Arc::downgrade(&sessions);
    sessions.on_begin(move |claims| {
        let sessions = revoking.upgrade().unwrap();
        let name = claims.session.as_str();
        let target = match name {
            "ended" => return end(&sessions, name).now_or_never().unwrap().unwrap(),
            "killed" => {
                let killed = sessions.kill_all("breach", "oidc:alice").now_or_never();
                return drop(killed.unwrap().unwrap());
            }
            "followed" => {
                return sessions.apply(&DenylistSnapshot {
                    ended: vec![EndedSession {
                        id: id(name),
                        cause: SessionEnd::Ended,
                    }],
                    ..DenylistSnapshot::default()
                });
            }
            "token" => DenyTarget::Token(claims.token_id.to_string()),
            "session" => DenyTarget::Session(id(name)),
            _ => return,
        };
        let denied = sessions.deny(entry(target, None)).now_or_never();
        drop(denied.unwrap().unwrap());
    });
    let denied = SessionEnd::Denied;
    for (name, why) in [
        ("untouched", None),
        ("ended", Some(SessionEnd::Ended)),
        ("token", Some(denied)),
        ("session", Some(denied)),
        ("followed", Some(SessionEnd::Ended)),
        ("killed", Some(SessionEnd::KillSwitch)),
    ] {
        // A token id of its own: the denied token of one would refuse the next at the first look.
        let activity = sessions.activity(&token(name, name));
        assert_eq!(activity.why(), why, "{name}");
        assert_eq!(activity.cut().is_cancelled(), why.is_some(), "{name}");
    }
    // What was cut before anybody held it is not handed out again.
    assert_eq!(sessions.lift("oidc:alice").now_or_never(), Some(Ok(true)));
    assert_eq!(sessions.activity(&token("killed", "killed")).why(), None);
}

/// Revoking and opening at the same moment, over and over: whichever comes first, nothing is left open.
#[test]
fn nothing_stays_open_that_was_opened_while_it_was_revoked() {
    let clock = Arc::new(outgate_clock::FakeClock::at(UnixSeconds(START)));
    let sessions = Arc::new(Sessions::in_memory(clock));
    let meet = Arc::new(Barrier::new(2));
    let claims_of = |round: usize| match round % 2 {
        0 => claims(&format!("s{round}")),
        _ => external(&format!("s{round}"), 600),
    };
    let opening = {
        let (sessions, meet) = (Arc::clone(&sessions), Arc::clone(&meet));
        thread::spawn(move || {
            let open = |round| {
                meet.wait();
                sessions.activity(&claims_of(round))
            };
            (0..ROUNDS).map(open).collect::<Vec<_>>()
        })
    };
    for round in 0..ROUNDS {
        let claims = claims_of(round);
        let name = claims.session.as_str();
        let (of_token, of_session) = (
            DenyTarget::Token(claims.token_id.to_string()),
            DenyTarget::Session(id(name)),
        );
        meet.wait();
        let deny = |target| sessions.deny(entry(target, None)).now_or_never().map(drop);
        let done = match round % 3 {
            0 => end(&sessions, name).now_or_never().map(drop),
            // The token's id is that of many sessions: only that of an identity is its own.
            1 if round % 2 == 1 => deny(of_token),
            _ => deny(of_session),
        };
        assert!(done.is_some(), "without a store nothing is waited for");
    }
    for (round, activity) in opening.join().unwrap().iter().enumerate() {
        assert!(activity.cut().is_cancelled(), "round {round}");
    }
}
