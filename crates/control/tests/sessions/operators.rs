//! What operators see and set.

use outgate_control::sessions::{SessionRules, SessionState};
use outgate_journey::{
    policy::SessionLimits,
    session::{Denylist, PolicyName, SessionId, Terms, UnixSeconds},
};

use crate::support::{Bench, HOUR, MINUTE, START, claims, end, id, new, of_tenant};

fn requests(text: &str) -> SessionLimits {
    SessionLimits {
        requests: Some(text.parse().unwrap()),
        ..SessionLimits::default()
    }
}

#[tokio::test]
async fn a_view_says_what_the_session_was_given_and_what_became_of_it() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    let mut made = of_tenant("a", "team-a");
    made.labels.insert("task".to_owned(), "build".to_owned());
    made.container = Some("c1".to_owned());
    made.terms = Terms {
        policy: PolicyName::parse("read-only"),
        limits: requests("120/min"),
    };
    let view = sessions.create(made).await.unwrap();
    assert_eq!(view.tenant.as_deref(), Some("team-a"));
    assert_eq!(view.policy.as_deref(), Some("read-only"));
    assert_eq!(view.limits.requests.as_deref(), Some("120/min"));
    assert_eq!(
        (view.created, view.expires, view.ends_at_latest),
        (START, START + 3600, None)
    );
    assert_eq!((view.state, &view.end), (SessionState::Live, &None));
    assert_eq!(sessions.view(&id("a")), Some(view));

    bench.clock.advance(10 * MINUTE);
    sessions
        .renewed(&id("a"), UnixSeconds(START + 4000))
        .await
        .unwrap();
    sessions
        .renewed(&id("a"), UnixSeconds(START + 1))
        .await
        .unwrap();
    let _ = sessions.activity(&claims("a"));
    end(sessions, "a").await.unwrap();
    let view = sessions.view(&id("a")).unwrap();
    assert_eq!(
        (view.expires, view.last_active),
        (START + 4000, START + 600)
    );
    assert_eq!(view.state, SessionState::Ended);
    let ended = view.end.unwrap();
    assert_eq!(
        (ended.cause.as_str(), ended.at, ended.by.as_str()),
        ("ended", START + 600, "token:ci")
    );
}

#[tokio::test]
async fn a_tenant_is_shown_its_own_sessions_the_newest_first() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    for (name, tenant) in [("a1", "a"), ("b1", "b"), ("a2", "a")] {
        sessions.create(of_tenant(name, tenant)).await.unwrap();
        bench.clock.advance(MINUTE);
    }
    sessions.create(new("nobodys")).await.unwrap();
    let names = |tenant| -> Vec<String> {
        let views = sessions.list(tenant).into_iter();
        views.map(|view| view.id).collect()
    };
    assert_eq!(names(Some("a")), ["a2", "a1"]);
    assert_eq!(names(Some("c")), [""; 0]);
    assert_eq!(names(None), ["nobodys", "a2", "b1", "a1"]);
}

#[tokio::test]
async fn limits_are_in_force_at_the_next_look() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    sessions.create(new("a")).await.unwrap();
    assert_eq!(sessions.standing(&claims("a")), Ok(None));
    let view = sessions
        .set_limits(&id("a"), requests("1/min"), "oidc:alice")
        .await
        .unwrap();
    assert_eq!(view.limits.requests.as_deref(), Some("1/min"));
    let set = sessions.standing(&claims("a")).unwrap();
    assert_eq!(set.as_deref(), Some(&requests("1/min")));
}

#[tokio::test]
async fn what_is_over_unknown_or_run_out_is_given_nothing_more() {
    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    for name in ["ended", "expired"] {
        sessions.create(new(name)).await.unwrap();
    }
    end(sessions, "ended").await.unwrap();
    bench.clock.advance(HOUR);
    for (name, code) in [
        ("ended", "session_over"),
        ("expired", "session_over"),
        ("unknown", "unknown_session"),
    ] {
        let id: SessionId = id(name);
        let renewed = sessions.renewed(&id, UnixSeconds(START + 9000)).await;
        assert_eq!(renewed.unwrap_err().code(), code, "{name}");
        let limited = sessions
            .set_limits(&id, requests("1/min"), "oidc:alice")
            .await;
        assert_eq!(limited.unwrap_err().code(), code, "{name}");
    }
    assert_eq!(
        sessions.create(new("expired")).await.unwrap_err().code(),
        "session_exists"
    );
}

#[tokio::test]
async fn every_change_that_a_data_plane_must_know_of_moves_the_number() {
    use crate::support::entry;
    use outgate_control::sessions::DenyTarget;

    let bench = Bench::new(SessionRules::default()).await;
    let sessions = &bench.sessions;
    sessions.create(new("a")).await.unwrap();
    let mut changes = sessions.changes();
    let mut moved = |what: &str| {
        assert!(changes.has_changed().unwrap(), "{what}");
        changes.mark_unchanged();
    };
    let target = DenyTarget::Token("t9".to_owned());
    sessions
        .set_limits(&id("a"), requests("1/min"), "oidc:alice")
        .await
        .unwrap();
    moved("limits");
    sessions.deny(entry(target.clone(), None)).await.unwrap();
    moved("deny");
    sessions.undeny(&target).await.unwrap();
    moved("undeny");
    sessions.kill_all("breach", "oidc:alice").await.unwrap();
    moved("kill");
    sessions.lift("oidc:alice").await.unwrap();
    moved("lift");
    end(sessions, "a").await.unwrap();
    moved("end");
    sessions.create(new("b")).await.unwrap();
    assert!(!changes.has_changed().unwrap(), "a creation is none");
}
