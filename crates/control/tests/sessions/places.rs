//! How many sessions there may be.

use outgate_control::sessions::{RegistryError, SessionRules};

use crate::support::{Bench, HOUR, MINUTE, end, new, of_tenant};

fn bounds(sessions: Option<u32>, sessions_per_tenant: Option<u32>) -> SessionRules {
    SessionRules {
        sessions,
        sessions_per_tenant,
        ..SessionRules::default()
    }
}

#[tokio::test]
async fn a_tenant_has_as_many_live_sessions_as_it_may_and_no_other_pays_for_it() {
    let bench = Bench::new(bounds(None, Some(2))).await;
    let sessions = &bench.sessions;
    for name in ["a1", "a2"] {
        sessions.create(of_tenant(name, "a")).await.unwrap();
    }
    let more = sessions.create(of_tenant("a3", "a")).await;
    assert_eq!(more.unwrap_err(), RegistryError::QuotaExceeded { limit: 2 });
    sessions.create(of_tenant("b1", "b")).await.unwrap();
    sessions.create(new("nobodys")).await.unwrap();
    // An ended session makes room, once.
    end(sessions, "a1").await.unwrap();
    end(sessions, "a1").await.unwrap();
    sessions.create(of_tenant("a3", "a")).await.unwrap();
    assert!(sessions.create(of_tenant("a4", "a")).await.is_err());
}

#[tokio::test]
async fn a_session_whose_last_token_ran_out_makes_room() {
    let bench = Bench::new(bounds(Some(1), None)).await;
    bench.sessions.create(new("a")).await.unwrap();
    assert!(bench.sessions.create(new("b")).await.is_err());
    bench.clock.advance(HOUR);
    bench.sessions.tick().await;
    bench.sessions.create(new("b")).await.unwrap();
    bench.clock.advance(MINUTE);
    bench.sessions.tick().await;
    assert_eq!(bench.sessions.quotas().live, 0, "b's token ran out as well");
}

#[tokio::test]
async fn a_tenants_own_number_stands_in_for_the_default_until_it_is_taken_back() {
    let bench = Bench::new(bounds(Some(10), Some(1))).await;
    let sessions = &bench.sessions;
    sessions.set_quota("a", Some(2)).await.unwrap();
    sessions.set_quota("none", Some(0)).await.unwrap();
    for name in ["a1", "a2"] {
        sessions.create(of_tenant(name, "a")).await.unwrap();
    }
    assert!(sessions.create(of_tenant("a3", "a")).await.is_err());
    assert!(sessions.create(of_tenant("n1", "none")).await.is_err());
    let quotas = sessions.quotas();
    assert_eq!((quotas.live, quotas.sessions_per_tenant), (2, Some(1)));
    let a = &quotas.tenants["a"];
    assert_eq!((a.sessions, a.own, a.live), (Some(2), true, 2));
    sessions.set_quota("a", None).await.unwrap();
    let a = &sessions.quotas().tenants["a"];
    assert_eq!((a.sessions, a.own, a.live), (Some(1), false, 2));
}

#[tokio::test]
async fn creations_that_come_in_together_share_the_places_that_there_are() {
    let bench = Bench::new(bounds(None, Some(10))).await;
    let creations = (0..50).map(|number| {
        let sessions = std::sync::Arc::clone(&bench.sessions);
        tokio::spawn(async move { sessions.create(of_tenant(&format!("s{number}"), "a")).await })
    });
    let made = futures_util::future::join_all(creations).await;
    assert_eq!(
        made.into_iter()
            .filter(|made| made.as_ref().unwrap().is_ok())
            .count(),
        10
    );
    assert_eq!(bench.sessions.quotas().tenants["a"].live, 10);
}
