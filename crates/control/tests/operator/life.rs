//! What the interface does where all is well, over both doors.

use std::sync::atomic::Ordering;

use outgate_clock::Clock;
use outgate_control::{
    client::ClientError,
    operator::{CreateSession, DenyRequest, DenyTargetBody, ErrorCode, SessionStateBody},
};
use outgate_journey::{
    limit_text::LimitsText,
    record::{OperatorKind, SessionChange},
    session::{Denylist, SessionEnd, TokenVerifier, UnixSeconds},
};
use serde_json::json;

use crate::world::{NOW, Who, World};

fn refused(error: ClientError) -> String {
    match error {
        ClientError::Refused { code, .. } => code,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_session_is_created_seen_renewed_limited_and_ended_over_both_doors() {
    let world = World::new().await;
    for client in [world.local_client(), world.client("all")] {
        let wanted = CreateSession {
            ttl_seconds: Some(60),
            labels: [("task".to_owned(), "build".to_owned())].into(),
            container: Some("agent-1".to_owned()),
            policy: Some("read-only".to_owned()),
            limits: Some(LimitsText {
                requests: Some("5/min".to_owned()),
                ..LimitsText::default()
            }),
            tenant: Some("team-a".to_owned()),
        };
        let created = client.create(&wanted).await.unwrap();
        let now = world.clock.unix();
        assert_eq!(created.expires, now.0 + 60);
        let claims = world.keys.verifier().verify(&created.token, now).unwrap();
        assert_eq!(claims.session.as_str(), created.id);
        assert_eq!(claims.terms.policy.as_ref().unwrap().as_str(), "read-only");
        assert_eq!(claims.terms.limits.requests, "5/min".parse().ok());

        let shown = client.show(&created.id).await.unwrap();
        assert_eq!(
            (shown.tenant.as_deref(), shown.state),
            (Some("team-a"), SessionStateBody::Live)
        );
        assert_eq!(shown.labels["task"], "build");
        assert_eq!(shown.limits.requests.as_deref(), Some("5/min"));
        assert_eq!(client.list().await.unwrap().sessions[0], shown);

        world.clock.advance(std::time::Duration::from_secs(1));
        let renewed = client.renew(&created.id, Some(120)).await.unwrap();
        assert_ne!(renewed.token, created.token);
        assert_eq!(renewed.expires, world.clock.unix().0 + 120);
        let fresh = world
            .keys
            .verifier()
            .verify(&renewed.token, world.clock.unix())
            .unwrap();
        assert_eq!(
            (&fresh.session, &fresh.terms),
            (&claims.session, &claims.terms)
        );

        let limits = LimitsText {
            bytes_out: Some(10),
            ..LimitsText::default()
        };
        let limited = client.set_limits(&created.id, &limits).await.unwrap();
        assert_eq!(limited.limits.bytes_out, Some(10));

        assert!(world.sessions.standing(&claims).is_ok());
        let activity = world.sessions.activity(&claims);
        client.end(&created.id).await.unwrap();
        assert!(activity.cut().is_cancelled());
        assert_eq!(world.sessions.standing(&claims), Err(SessionEnd::Ended));
        client.end(&created.id).await.unwrap();
        let over = client.show(&created.id).await.unwrap();
        assert_eq!(over.end.as_ref().unwrap().cause, "ended");
        assert_eq!(
            refused(client.renew(&created.id, None).await.unwrap_err()),
            "session_over"
        );
        // The token is in its answer and nowhere else.
        for token in [&created.token, &renewed.token] {
            assert!(!world.trail.text().contains(token.as_str()));
        }
    }
    let text = world.trail.text();
    assert!(!text.contains("eyJ"), "a token in the records");
}

#[tokio::test]
async fn every_call_is_one_record_with_who_what_and_on_what() {
    let world = World::new().await;
    world.session("s_1", Some("team-a")).await;
    let client = world.client("all-a");
    client.list().await.unwrap();
    client.kill("s_1", Some("leaked")).await.unwrap();
    world.local_client().about().await.unwrap();
    let records = world.trail.actions();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            (
                record.operation,
                record.target.as_deref(),
                record.operator.kind,
                record.status,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("session.list", None, OperatorKind::Token, Some(200)),
            ("session.kill", Some("s_1"), OperatorKind::Token, Some(204)),
            ("gateway.show", None, OperatorKind::Local, Some(200)),
        ]
    );
    assert_eq!(records[1].operator.name, "all-a");
    assert_eq!(records[1].operator.tenant.as_deref(), Some("team-a"));
    assert_eq!(records[1].detail, "leaked");
    assert!(records[1].client.is_some() && records[2].client.is_none());
    assert!(records.iter().all(|record| record.outcome == Ok(())));
    let sessions = world.trail.sessions();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].change, SessionChange::Ended(SessionEnd::Denied));
    assert_eq!(
        world.sessions.list(None)[0].end.as_ref().unwrap().by,
        "token:all-a@team-a"
    );
}

#[tokio::test]
async fn what_is_public_needs_no_credential_and_leaves_no_record() {
    let world = World::new().await;
    for path in ["/v1/jwks", "/.well-known/jwks.json"] {
        let answer = world.call(&Who::Nobody, "GET", path, &[], b"").await;
        assert_eq!(answer.json(), world.keys.jwks());
    }
    let answer = world
        .call(
            &Who::Nobody,
            "GET",
            "/.well-known/openid-configuration",
            &[],
            b"",
        )
        .await;
    assert_eq!(answer.json()["issuer"], "outgate");
    assert_eq!(
        answer.json()["jwks_uri"],
        "https://gw.example.org:9443/.well-known/jwks.json"
    );
    assert_eq!(
        world
            .call(&Who::Nobody, "GET", "/v1/health", &[], b"")
            .await
            .status,
        200
    );
    assert_eq!(world.trail.actions(), []);
}

#[tokio::test]
async fn who_is_not_ready_says_what_for_and_leaves_no_record_of_being_asked() {
    let world = World::new().await;
    assert_eq!(world.local_client().ready().await.unwrap().status, "ready");
    world.host.stopping.store(true, Ordering::SeqCst);
    for who in [Who::Nobody, Who::Local] {
        let answer = world.call(&who, "GET", "/v1/ready", &[], b"").await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "not_ready"));
        assert_eq!(answer.json()["detail"], "stopping, audit_unavailable");
    }
    assert_eq!(world.local_client().health().await.unwrap().status, "ok");
    assert_eq!(world.trail.actions(), []);
}

#[tokio::test]
async fn the_denylist_is_edited_and_what_it_names_is_refused() {
    let world = World::new().await;
    let client = world.client("revoke");
    world.session("s_1", None).await;
    let reason = "suspicious".to_owned();
    let session = DenyTargetBody {
        session: Some("s_1".to_owned()),
        ..DenyTargetBody::default()
    };
    let deny = DenyRequest {
        session: session.session.clone(),
        reason: reason.clone(),
        ..DenyRequest::default()
    };
    let denied = client.deny(&deny).await.unwrap();
    assert_eq!((denied.by.as_str(), denied.at), ("token:revoke", NOW.0));
    let subject = DenyRequest {
        issuer: Some("https://idp.example.org/a b".to_owned()),
        subject: Some("user/7&x".to_owned()),
        reason,
        until: Some(NOW.0 + 60),
        ..DenyRequest::default()
    };
    client.deny(&subject).await.unwrap();
    assert_eq!(client.denylist().await.unwrap().entries.len(), 2);
    client.undeny(&session).await.unwrap();
    let target = DenyTargetBody {
        issuer: subject.issuer,
        subject: subject.subject,
        ..DenyTargetBody::default()
    };
    client.undeny(&target).await.unwrap();
    assert_eq!(client.denylist().await.unwrap().entries, []);
    assert_eq!(
        refused(client.undeny(&session).await.unwrap_err()),
        "not_denied"
    );
    let changes: Vec<_> = world
        .trail
        .sessions()
        .iter()
        .map(|record| record.change)
        .collect();
    assert_eq!(changes, [SessionChange::Ended(SessionEnd::Denied)]);
}

#[tokio::test]
async fn a_bound_caller_sees_and_touches_its_own_tenants_alone() {
    let world = World::new().await;
    world.session("s_a", Some("team-a")).await;
    world.session("s_b", Some("team-b")).await;
    world.session("s_none", None).await;
    let client = world.client("all-a");
    let listed = client.list().await.unwrap().sessions;
    assert_eq!(
        listed
            .iter()
            .map(|session| session.id.as_str())
            .collect::<Vec<_>>(),
        ["s_a"]
    );
    let created = client.create(&CreateSession::default()).await.unwrap();
    assert_eq!(
        client.show(&created.id).await.unwrap().tenant.as_deref(),
        Some("team-a")
    );
    let everybody = world.client("all");
    let entry = |id: &str| DenyRequest {
        session: Some(id.to_owned()),
        reason: "r".to_owned(),
        ..DenyRequest::default()
    };
    everybody.deny(&entry("s_b")).await.unwrap();
    everybody.deny(&entry("s_a")).await.unwrap();
    assert_eq!(client.denylist().await.unwrap().entries.len(), 1);
    assert_eq!(
        refused(client.deny(&entry("s_none")).await.unwrap_err()),
        "unknown_session"
    );
    let token = DenyRequest {
        token: Some("t_1".to_owned()),
        reason: "r".to_owned(),
        ..DenyRequest::default()
    };
    assert_eq!(
        refused(client.deny(&token).await.unwrap_err()),
        "tenant_bound"
    );
    world.sessions.kill_all("all", "test").await.unwrap();
    let state = client.kill_state().await.unwrap();
    assert_eq!((state.on, state.reason), (true, None));
}

#[tokio::test]
async fn the_kill_switch_is_pulled_shown_and_lifted() {
    let world = World::new().await;
    let client = world.client("revoke");
    let created = world
        .client("create")
        .create(&CreateSession::default())
        .await
        .unwrap();
    let claims = world.keys.verifier().verify(&created.token, NOW).unwrap();
    let activity = world.sessions.activity(&claims);
    assert!(!client.kill_state().await.unwrap().on);
    let state = client.kill_all("incident 7").await.unwrap();
    assert_eq!(
        (state.on, state.by.as_deref()),
        (true, Some("token:revoke"))
    );
    assert!(activity.cut().is_cancelled());
    assert_eq!(
        world.sessions.standing(&claims),
        Err(SessionEnd::KillSwitch)
    );
    let again = client.kill_all("another").await.unwrap();
    assert_eq!(again.reason.as_deref(), Some("incident 7"));
    let error = world
        .client("create")
        .create(&CreateSession::default())
        .await
        .unwrap_err();
    assert_eq!(refused(error), "kill_switch");
    assert!(!client.lift().await.unwrap().on);
    assert!(world.sessions.standing(&claims).is_ok());
    assert!(!client.lift().await.unwrap().on);
}

#[tokio::test]
async fn quotas_keys_policy_and_the_trail_are_for_who_may() {
    let world = World::new().await;
    let policy = world.client("policy");
    assert_eq!(
        policy.quotas().await.unwrap().sessions_per_tenant,
        Some(100)
    );
    let quota = policy.set_quota("team-a", Some(1)).await.unwrap();
    assert_eq!((quota.sessions, quota.own), (Some(1), true));
    let creator = world.client("all-a");
    creator.create(&CreateSession::default()).await.unwrap();
    let error = creator.create(&CreateSession::default()).await.unwrap_err();
    assert_eq!(refused(error), "quota_exceeded");
    let quota = policy.set_quota("team-a", None).await.unwrap();
    assert_eq!(
        (quota.sessions, quota.own, quota.live),
        (Some(100), false, 1)
    );

    let before = world.keys.jwks();
    let kid = policy.rotate_keys().await.unwrap().kid;
    assert_eq!(world.keys.jwks()["keys"][0]["kid"], kid.as_str());
    assert_eq!(world.keys.jwks()["keys"][1], before["keys"][0]);

    assert_eq!(policy.policy().await.unwrap().text, "version: 1\n");
    policy.reload().await.unwrap();
    world
        .host
        .broken
        .store(true, std::sync::atomic::Ordering::SeqCst);
    match policy.reload().await.unwrap_err() {
        ClientError::Refused { code, detail, .. } => {
            assert_eq!(
                (code.as_str(), detail.as_str()),
                ("reload_refused", "line 3: unknown key")
            );
        }
        other => panic!("{other}"),
    }

    let auditor = world.client("audit");
    assert_eq!(
        auditor.audit_verify().await.unwrap(),
        json!({"verified": true})
    );
    let page = auditor.audit_records(Some(1), 2).await.unwrap().records;
    assert_eq!(
        page.iter().map(|record| record.seq).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(page[0].record["time"], 2);
}

#[tokio::test]
async fn a_providers_token_is_its_subject_with_the_scopes_of_its_groups() {
    let world = World::new().await;
    world.session("s_1", None).await;
    let alice = Who::Bearer("good.oidc.token".to_owned());
    let answer = world
        .call(&alice, "POST", "/v1/sessions/s_1/kill", &[], b"")
        .await;
    assert_eq!(answer.status, 204);
    assert!(!world.is_live("s_1"));
    let record = &world.trail.actions()[0];
    assert_eq!(
        (record.operator.kind, record.operator.name.as_str()),
        (OperatorKind::Oidc, "alice")
    );
    world
        .refused(
            &alice,
            "GET",
            "/v1/policy",
            &[],
            b"",
            ErrorCode::ScopeMissing.as_str(),
        )
        .await;
    let forged = Who::Bearer("forged.oidc.token".to_owned());
    world
        .refused(&forged, "GET", "/v1/kill", &[], b"", "credential_invalid")
        .await;
    // A session's token is no operator's.
    let created = world
        .local_client()
        .create(&CreateSession::default())
        .await
        .unwrap();
    let guest = Who::Bearer(created.token);
    world
        .refused(&guest, "GET", "/v1/kill", &[], b"", "credential_invalid")
        .await;
}

#[tokio::test]
async fn creations_are_bounded_by_their_rate() {
    let world = World::with(|settings| settings.creations = "2/min".parse().ok()).await;
    let client = world.client("all-a");
    for _ in 0..2 {
        client.create(&CreateSession::default()).await.unwrap();
    }
    let answer = world
        .call(&Who::Token("all-a"), "POST", "/v1/sessions", &[], b"")
        .await;
    assert_eq!(answer.code(), "creations_limited");
    assert_eq!(answer.headers["retry-after"], "30");
    world
        .client("all-b")
        .create(&CreateSession::default())
        .await
        .unwrap();
    world.clock.advance(std::time::Duration::from_secs(30));
    client.create(&CreateSession::default()).await.unwrap();
    assert!(world.clock.unix() > UnixSeconds(NOW.0));
}
