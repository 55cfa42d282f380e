//! A gateway that follows a control plane.

use std::{sync::Arc, time::Duration};

use outgate_control::sessions::{DenyTarget, DenylistSnapshot, SessionRules};
use outgate_journey::{
    policy::SessionLimits,
    session::{Denylist, SessionEnd},
};

use crate::support::{
    Bench, HOUR, MINUTE, claims, end, entry, external, id, new, rules, standing, token,
};

#[tokio::test]
async fn what_the_control_plane_revokes_is_refused_and_cut_by_the_one_that_follows() {
    let control = Bench::new(SessionRules::default()).await.sessions;
    let gateway = Bench::new(SessionRules::default()).await.sessions;
    let subject = external("x_1", 600);
    let all = [
        claims("a"),
        claims("b"),
        token("c", "t7"),
        subject,
        claims("d"),
    ];
    let open: Vec<_> = all.iter().map(|claims| gateway.activity(claims)).collect();
    let limits = SessionLimits {
        requests: Some("1/min".parse().unwrap()),
        ..SessionLimits::default()
    };
    control.create(new("d")).await.unwrap();
    control
        .set_limits(&id("d"), limits, "oidc:alice")
        .await
        .unwrap();
    control
        .end(&id("a"), SessionEnd::Tripwire, "itself")
        .await
        .unwrap();
    for target in [
        DenyTarget::Session(id("b")),
        DenyTarget::Token("t7".to_owned()),
        DenyTarget::Subject {
            issuer: "https://idp.example.org".to_owned(),
            subject: "x_1".to_owned(),
        },
    ] {
        control.deny(entry(target, None)).await.unwrap();
    }
    let snapshot = control.snapshot();
    assert_eq!(snapshot.version, *control.changes().borrow());
    gateway.apply(&snapshot);

    let why: Vec<_> = open.iter().map(|activity| activity.why()).collect();
    let denied = Some(SessionEnd::Denied);
    assert_eq!(
        why,
        [Some(SessionEnd::Tripwire), denied, denied, denied, None]
    );
    for (claims, why) in all.iter().zip(why) {
        assert_eq!(standing(&gateway, claims).err(), why);
        assert_eq!(gateway.activity(claims).why(), why);
    }
    assert_eq!(
        gateway.standing(&claims("d")).unwrap().as_deref(),
        Some(&limits)
    );
    assert_eq!(standing(&gateway, &token("c", "t8")), Ok(()));
}

#[tokio::test]
async fn a_snapshot_replaces_the_one_before_and_nothing_that_was_revoked_here() {
    let gateway = Bench::new(SessionRules::default()).await.sessions;
    end(&gateway, "here").await.unwrap();
    let control = Bench::new(SessionRules::default()).await.sessions;
    let target = DenyTarget::Session(id("a"));
    control.deny(entry(target.clone(), None)).await.unwrap();
    control.kill_all("breach", "oidc:alice").await.unwrap();
    let open = gateway.activity(&claims("any"));
    gateway.apply(&control.snapshot());
    assert_eq!(open.why(), Some(SessionEnd::KillSwitch));
    assert_eq!(
        standing(&gateway, &claims("any")),
        Err(SessionEnd::KillSwitch)
    );
    control.lift("oidc:alice").await.unwrap();
    gateway.apply(&control.snapshot());
    assert_eq!(standing(&gateway, &claims("any")), Ok(()));
    assert_eq!(standing(&gateway, &claims("a")), Err(SessionEnd::Denied));
    control.undeny(&target).await.unwrap();
    gateway.apply(&control.snapshot());
    assert_eq!(standing(&gateway, &claims("a")), Ok(()));
    gateway.apply(&DenylistSnapshot::default());
    assert_eq!(standing(&gateway, &claims("here")), Err(SessionEnd::Ended));
}

#[tokio::test]
async fn a_snapshot_has_what_a_token_can_still_come_from_and_no_more() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let control = &bench.sessions;
    control.create(new("own")).await.unwrap();
    end(control, "own").await.unwrap();
    end(control, "foreign").await.unwrap();
    let _ = control.activity(&external("x_1", 90_000));
    bench.clock.advance(HOUR);
    control.tick().await;
    let ended = |control: &outgate_control::sessions::Sessions| {
        let mut ids: Vec<_> = control
            .snapshot()
            .ended
            .into_iter()
            .map(|ended| ended.id.to_string())
            .collect();
        ids.sort();
        ids
    };
    // The identity that idled away here may be busy elsewhere: each gateway keeps time for itself.
    assert_eq!(ended(control), ["foreign", "own"]);
    bench.clock.advance(HOUR + Duration::from_secs(1));
    control.tick().await;
    assert_eq!(ended(control), ["foreign"]);
    assert_eq!(standing(control, &claims("own")), Err(SessionEnd::Ended));
}

#[tokio::test]
async fn a_gateway_that_follows_keeps_time_for_sessions_that_were_created_elsewhere() {
    let bench = Bench::new(rules(Some(15 * MINUTE), None)).await;
    let gateway = &bench.sessions;
    let open = gateway.activity(&claims("elsewhere"));
    bench.clock.advance(15 * MINUTE);
    gateway.tick().await;
    assert_eq!(open.why(), Some(SessionEnd::Idle));
    assert_eq!(
        standing(gateway, &claims("elsewhere")),
        Err(SessionEnd::Idle)
    );
    let _: Arc<_> = gateway.activity(&claims("elsewhere"));
}
