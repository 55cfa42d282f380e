//! The rate-limit service: the rest of a permitted request's journey, once.

use outgate_envoy::render::injection_key;
use outgate_journey::{
    denial::DenyCode::*,
    policy::{CredentialName, InjectionForm},
    record::Verdict,
};

use crate::{
    ask::{Ask, entry, recorded},
    world::World,
};

#[tokio::test]
async fn what_is_attached_is_told_by_the_secrets_name() {
    let world = World::new().await;
    let guest = world.guest().await;
    let header = |name: &'static str, prefix: &str| InjectionForm::Header {
        name: name.parse().unwrap(),
        prefix: prefix.to_owned(),
        suffix: String::new(),
    };
    let robot = InjectionForm::Basic {
        username: "robot".to_owned(),
    };
    for (host, credential, form) in [
        ("key.test", "k1", header("x-api-key", "")),
        ("bearer.test", "k1", header("authorization", "Bearer ")),
        ("basic.test", "k2", robot),
    ] {
        let tunnel = world.tunnel(&format!("{host}:443"), None).await;
        let ask = Ask::bumped(&tunnel, host, "/").by(&guest);
        let (id, attached) = world.admit(&ask).await;
        let expected = injection_key(&CredentialName::new(credential), &form);
        assert_eq!(Some(attached), expected, "{host}");
        world.log("bumped", vec![entry(Some(&id))]).await;
        let record = world.record(&id);
        assert_eq!(
            record.injected,
            Some(CredentialName::new(credential)),
            "{host}"
        );
        assert_eq!(record.verdict, Verdict::Allowed, "{host}");
        assert_eq!(record.session.as_ref(), Some(&guest.id), "{host}");
        assert_eq!(record.token_id.as_deref(), Some(&*guest.token_id), "{host}");
    }
}

#[tokio::test]
async fn nothing_is_attached_but_for_a_request_that_presented_a_token_where_one_is_attached() {
    let world = World::new().await;
    let guest = world.guest().await;
    // (host, whether the tunnel is the guest's, whether the request is)
    for (host, tunnels, own, expected) in [
        ("bare.test", true, false, Ok("none")),
        ("bare.test", false, true, Ok("none")),
        ("optional.test", false, false, Ok("none")),
        ("optional.test", true, false, Ok("none")),
        // A parameter is set by another filter: Envoy's injector writes fields.
        ("query.test", false, true, Ok("none")),
        ("key.test", true, false, Err(TokenMissing)),
        ("basic.test", true, false, Err(TokenMissing)),
        ("query.test", true, false, Err(TokenMissing)),
    ] {
        let tunnel = world
            .tunnel(&format!("{host}:443"), tunnels.then_some(&guest))
            .await;
        let ask = Ask::bumped(&tunnel, host, "/");
        let ask = if own { ask.by(&guest) } else { ask };
        let allowed = world.ask(&ask).await.expect(host);
        match (world.limit(allowed.id()).await, expected) {
            (Ok(attached), Ok(expected)) => assert_eq!(attached, expected, "{host}"),
            (Err(refused), Err(code)) => {
                refused.is(code, i32::from(code.status()), host);
                assert_eq!(refused.field("www-authenticate").len(), 2, "{host}");
                assert_eq!(refused.id(), recorded(allowed.id()), "{host}");
                let record = world.record(allowed.id());
                assert_eq!(record.verdict, Verdict::Denied(code), "{host}");
                assert_eq!(record.injected, None, "{host}");
            }
            (found, _) => panic!("{host}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn a_credential_of_an_optional_token_is_attached_in_clear_only_where_that_is_said() {
    let world = World::new().await;
    let guest = world.guest().await;
    let ask = Ask::forward("optional.test", "/").field("x-api-key", &guest.token);
    let (_, attached) = world.admit(&ask).await;
    assert!(attached.starts_with("injections/k1-"), "{attached}");
    world.reload(|config| {
        config["destinations"][10]["inject"]["over_plaintext"] = false.into();
    });
    let allowed = world.ask(&ask).await.unwrap();
    let refused = world.limit(allowed.id()).await.expect_err("in clear");
    refused.is(CredentialOverPlaintext, 403, "in clear");
}

#[tokio::test]
async fn a_request_that_is_not_known_is_over_every_limit() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let allowed = world.ask(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    let id = allowed.unwrap().id().to_owned();
    for entries in [
        &[][..],
        &[("request", "")],
        &[("request", "00000000-1")],
        &[("session", &*id), ("connection", &id), ("Request", &id)],
        &[("request", guest.id.as_str())],
    ] {
        let refused = world.limit_of(entries).await.expect_err("not known");
        assert_eq!(refused.reason(), "internal_fault", "{entries:?}");
    }
    // None of them was about this one.
    assert_eq!(world.limit(&id).await.expect("it waits"), "none");
}

#[tokio::test]
async fn a_request_is_admitted_once_and_asking_again_changes_nothing_of_what_it_did() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("key.test:443", None).await;
    let ask = Ask::bumped(&tunnel, "key.test", "/").by(&guest);
    let (id, _) = world.admit(&ask).await;
    let refused = world.limit(&id).await.expect_err("twice");
    assert_eq!(refused.reason(), "internal_fault");
    assert!(world.records().is_empty(), "it goes on");
    world.log("bumped", vec![entry(Some(&id))]).await;
    let record = world.record(&id);
    assert_eq!(
        (record.verdict, record.status),
        (Verdict::Allowed, Some(200))
    );
    let refused = world.limit(&id).await.expect_err("it has ended");
    assert_eq!(refused.reason(), "internal_fault");
    assert_eq!(world.records().len(), 1);
}

#[tokio::test]
async fn a_tunnel_is_no_request_and_asking_for_it_does_not_end_it() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
    let refused = world.limit(&tunnel).await.expect_err("no request");
    assert_eq!(refused.reason(), "internal_fault");
    assert!(world.records().is_empty());
    let mut hold = world.hold(&tunnel).await;
    world.end(&guest).await;
    assert_eq!(hold.cut().await.0, "outgate_cut", "it can be cut still");
}

#[tokio::test]
async fn a_request_that_was_refused_stays_refused() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("key.test:443", Some(&guest)).await;
    let allowed = world.ask(&Ask::bumped(&tunnel, "key.test", "/")).await;
    let id = allowed.unwrap().id().to_owned();
    world.limit(&id).await.expect_err("no token of its own");
    let again = world.limit(&id).await.expect_err("again");
    assert_eq!(again.reason(), "internal_fault");
    assert_eq!(world.record(&id).verdict, Verdict::Denied(TokenMissing));
}

#[tokio::test]
async fn a_session_that_ended_since_it_was_asked_for_gets_nothing() {
    let world = World::new().await;
    let (ended, stopped) = (world.guest().await, world.guest().await);
    let tunnel = world.tunnel("key.test:443", None).await;
    let permitted = async |guest| {
        let ask = Ask::bumped(&tunnel, "key.test", "/").by(guest);
        world.ask(&ask).await.unwrap().id().to_owned()
    };
    let first = permitted(&ended).await;
    world.end(&ended).await;
    let refused = world.limit(&first).await.expect_err("ended");
    refused.is(SessionRevoked, 403, "ended");
    assert_eq!(refused.id(), recorded(&first));
    let record = world.record(&first);
    assert_eq!(record.verdict, Verdict::Denied(SessionRevoked));
    assert_eq!(record.session.as_ref(), Some(&ended.id));
    assert!(record.rule.unwrap().ends_with("key.test"));

    let second = permitted(&stopped).await;
    world.sessions().kill_all("a test", "a test").await.unwrap();
    let refused = world.limit(&second).await.expect_err("stopped");
    refused.is(KillSwitch, 403, "stopped");
    assert_eq!(world.record(&second).verdict, Verdict::Denied(KillSwitch));
}

#[tokio::test]
async fn a_rate_that_is_used_up_says_when_it_is_not() {
    let world = World::new().await;
    let (guest, other) = (world.guest().await, world.guest().await);
    let tunnel = world.tunnel("limited.test:443", None).await;
    let ask = |guest| Ask::bumped(&tunnel, "limited.test", "/").by(guest);
    // What is only permitted is not counted.
    for _ in 0..3 {
        world.ask(&ask(&guest)).await.expect("permitted");
    }
    world.admit(&ask(&guest)).await;
    let allowed = world.ask(&ask(&guest)).await.unwrap();
    let refused = world.limit(allowed.id()).await.expect_err("one an hour");
    refused.is(RateLimited, 429, "the second");
    let wait: u64 = refused.field("retry-after")[0].parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert!(
        refused.body["error"]["rule"]
            .as_str()
            .unwrap()
            .ends_with("limited.test")
    );
    let record = world.record(allowed.id());
    assert_eq!(
        (record.verdict, record.status),
        (Verdict::Denied(RateLimited), Some(429))
    );
    // Envoy's own account of the refusal adds no record.
    world.log("bumped", vec![entry(Some(allowed.id()))]).await;
    world.record(allowed.id());
    world.admit(&ask(&other)).await;
}

#[tokio::test]
async fn a_session_whose_bytes_are_used_up_sends_no_more_requests() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let ask = Ask::bumped(&tunnel, "bare.test", "/");
    let (id, _) = world.admit(&ask).await;
    let mut long = entry(Some(&id));
    long.request.as_mut().unwrap().request_body_bytes = 5000;
    world.log("bumped", vec![long]).await;
    let allowed = world.ask(&ask).await.unwrap();
    let refused = world.limit(allowed.id()).await.expect_err("4 KiB");
    refused.is(BytesLimit, 429, "used up");
}

#[tokio::test]
async fn a_request_whose_credential_is_lost_is_refused() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("key.test:443", None).await;
    let ask = Ask::bumped(&tunnel, "key.test", "/").by(&guest);
    let allowed = world.ask(&ask).await.unwrap();
    world.put_credential("k1", None);
    let refused = world.limit(allowed.id()).await.expect_err("it is lost");
    refused.is(CredentialUnavailable, 503, "lost");
    assert_eq!(world.record(allowed.id()).injected, None);
    world.put_credential("k1", Some("another-live-value-Zx81"));
    world.admit(&ask).await;
}

#[tokio::test]
async fn a_request_is_admitted_by_the_policy_that_permitted_it() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("both.test:443", Some(&guest)).await;
    let ask = Ask::bumped(&tunnel, "both.test", "/");
    let before = world.ask(&ask).await.unwrap();
    world.reload(|config| {
        config["destinations"][6]["allow"] = serde_json::json!([{ "methods": ["POST"] }]);
    });
    world.limit(before.id()).await.expect("judged already");
    let refused = world.ask(&ask).await.expect_err("the next one");
    refused.is(MethodNotAllowed, 403, "after the reload");
}
