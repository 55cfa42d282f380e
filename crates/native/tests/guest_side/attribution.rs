//! What a socket says of a connection, and what it does not: it attributes, and it draws no credential.

use outgate_journey::{
    denial::DenyCode,
    record::{DecisionRecord, Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use serde_json::json;

use crate::world::{K1, K2, SECOND, Setup, Way, World};

#[tokio::test]
async fn a_socket_attributes_a_request_but_never_draws_the_credential() {
    let world = World::new(Attribution::BySocket).await;
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = world.send(way, &world.get(way, "a.test", "/")).await;
        world
            .assert_denied(
                mark,
                &outcome,
                way.entry(),
                DenyCode::TokenMissing,
                &format!("{way:?}"),
            )
            .await;
        let response = outcome.answered();
        // The destination asks, not a proxy: a captured client knows of none.
        assert_eq!(response.status, 401, "{way:?}");
        assert!(
            response.headers.get("www-authenticate").is_some(),
            "{way:?}"
        );
        assert!(
            response.headers.get("proxy-authenticate").is_none(),
            "{way:?}"
        );

        for host in ["n.test", "optional.test"] {
            let context = format!("{way:?} {host}");
            let mark = world.mark();
            assert_eq!(
                world
                    .send(way, &world.get(way, host, "/"))
                    .await
                    .answered()
                    .status,
                200,
                "{context}"
            );
            let record = world
                .record(mark, &context, |it| it.entry == way.entry())
                .await;
            assert_eq!(
                record.session.as_ref(),
                Some(world.session.id()),
                "{context}"
            );
            assert_eq!(record.injected, None, "{context}");
        }
        // A key that is no token neither draws the credential nor is carried beside it.
        let mark = world.mark();
        let req = world.get(way, "a.test", "/").header("x-api-key", "mine");
        let outcome = world.send(way, &req).await;
        world
            .assert_denied(
                mark,
                &outcome,
                way.entry(),
                DenyCode::TokenInvalid,
                &format!("{way:?}"),
            )
            .await;
    }
    world.assert_no_upstream_saw(K1);
    world.finish().await;
}

#[tokio::test]
async fn without_a_socket_that_attributes_a_guest_needs_its_token() {
    let world = World::new(Attribution::ByToken).await;
    for way in Way::ALL {
        for host in ["a.test", "n.test"] {
            let context = format!("{way:?} {host}");
            let mark = world.mark();
            let outcome = world.send(way, &world.get(way, host, "/")).await;
            world
                .assert_denied(
                    mark,
                    &outcome,
                    way.entry(),
                    DenyCode::TokenMissing,
                    &context,
                )
                .await;
        }
        let mark = world.mark();
        let context = format!("{way:?} optional");
        assert_eq!(
            world
                .send(way, &world.get(way, "optional.test", "/"))
                .await
                .answered()
                .status,
            200
        );
        let record = world
            .record(mark, &context, |it| it.entry == way.entry())
            .await;
        assert_eq!((record.session, record.injected), (None, None), "{context}");
    }
    let mark = world.mark();
    assert!(
        world.handshake(Way::TlsH1, "pass.test").await.is_err(),
        "passed through for nobody"
    );
    world
        .refusal(
            mark,
            Entry::Transparent,
            DenyCode::TokenMissing,
            "pass.test",
        )
        .await;
    world.assert_nothing_dialled(mark, "pass.test");
    world.assert_nothing_looked_up(mark, "pass.test");
    world.assert_no_upstream_saw(K1);
    world.finish().await;
}

#[tokio::test]
async fn the_requests_own_token_draws_the_credential_of_its_destination_and_no_other() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        let token = world.token();
        for way in Way::ALL {
            let context = format!("{attribution:?} {way:?}");
            let mark = world.mark();
            let req = world.get(way, "a.test", "/").header("x-api-key", &token);
            let response = world.send(way, &req).await.answered();
            assert_eq!(response.status, 200, "{context}");
            // The upstream echoes what it was sent; the guest must not see it.
            let echoed = response.text();
            assert!(
                echoed.contains("x-api-key") && !echoed.contains(K1),
                "{context}: {echoed}"
            );
            assert_eq!(
                world.origin(way).last().headers.get("x-api-key"),
                Some(K1),
                "{context}"
            );
            let record = world
                .record(mark, &context, |it| it.entry == way.entry())
                .await;
            assert_eq!(record.verdict, Verdict::Allowed, "{context}");
            assert_eq!(
                record.session.as_ref(),
                Some(world.session.id()),
                "{context}"
            );
            assert_eq!(record.injected.unwrap().as_str(), "k1", "{context}");

            // In another destination's field it yields that destination's credential, or nothing.
            let req = world.get(way, "n.test", "/").header("x-api-key", &token);
            assert_eq!(
                world.send(way, &req).await.answered().status,
                200,
                "{context}"
            );
            assert!(!world.origin(way).last().mentions(K1), "{context}");
            if way != Way::Clear {
                let req = world.get(way, "b.test", "/").header("x-api-key", &token);
                assert_eq!(
                    world.send(way, &req).await.answered().status,
                    200,
                    "{context}"
                );
                let seen = world.tls.last();
                assert!(
                    seen.mentions(K2) && !seen.mentions(K1),
                    "{context}: {seen:?}"
                );
            }
        }
        world.assert_no_upstream_saw(&token);
        world.finish().await;
    }
}

#[tokio::test]
async fn a_token_of_another_session_does_not_pass_on_a_sessions_socket() {
    let world = World::new(Attribution::BySocket).await;
    let (_, foreign) = world.foreign_token().await;
    for way in Way::ALL {
        for host in ["a.test", "n.test", "optional.test"] {
            let context = format!("{way:?} {host}");
            let mark = world.mark();
            let outcome = world
                .send(way, &world.get(way, host, "/").bearer(&foreign))
                .await;
            world
                .assert_denied(
                    mark,
                    &outcome,
                    way.entry(),
                    DenyCode::SessionMismatch,
                    &context,
                )
                .await;
        }
        // Its own beside it does not help.
        let mark = world.mark();
        let req = world
            .get(way, "a.test", "/")
            .bearer(&foreign)
            .header("x-api-key", &world.token());
        let outcome = world.send(way, &req).await;
        world
            .assert_denied(
                mark,
                &outcome,
                way.entry(),
                DenyCode::SessionMismatch,
                "both",
            )
            .await;
    }
    world.finish().await;

    // On a socket that says nothing, a token is whose it is.
    let world = World::new(Attribution::ByToken).await;
    let (id, foreign) = world.foreign_token().await;
    for way in Way::ALL {
        let mark = world.mark();
        let req = world.get(way, "a.test", "/").bearer(&foreign);
        assert_eq!(
            world.send(way, &req).await.answered().status,
            200,
            "{way:?}"
        );
        let record = world
            .record(mark, "foreign", |it| it.entry == way.entry())
            .await;
        assert_eq!(record.session, Some(id.clone()), "{way:?}");
    }
    world.finish().await;
}

#[tokio::test]
async fn an_older_token_of_the_session_is_good_where_the_socket_vouches_for_it_and_nowhere_else() {
    let short = |attribution| {
        World::with(Setup::new(attribution).config(|config, _| {
            config["sessions"] = json!({ "ttl": "1s" });
        }))
    };
    let (strict, vouching) =
        tokio::join!(short(Attribution::ByToken), short(Attribution::BySocket));
    let (vouched, (_, foreign)) = (vouching.token(), vouching.foreign_token().await);
    let old = strict.token();
    let kept = vouching.get(Way::TlsH1, "a.test", "/").bearer(&vouched);
    let mut tunnel = vouching.open(Way::TlsH1, &kept).await.unwrap();
    assert_eq!(tunnel.send(&kept).await.answered().status, 200);
    until_expired(&strict, &old).await;
    for way in Way::ALL {
        let mark = strict.mark();
        let outcome = strict
            .send(way, &strict.get(way, "a.test", "/").bearer(&old))
            .await;
        strict
            .assert_denied(
                mark,
                &outcome,
                way.entry(),
                DenyCode::TokenExpired,
                &format!("{way:?}"),
            )
            .await;
        // The session lives: its fresh token is good.
        let req = strict.get(way, "a.test", "/").bearer(&strict.token());
        assert_eq!(
            strict.send(way, &req).await.answered().status,
            200,
            "{way:?}"
        );
    }
    strict.finish().await;

    let (world, old) = (vouching, vouched);
    // The foreign one was minted last.
    until_expired(&world, &foreign).await;
    for way in Way::ALL {
        let context = format!("{way:?}");
        let mark = world.mark();
        let req = world.get(way, "a.test", "/").bearer(&old);
        assert_eq!(
            world.send(way, &req).await.answered().status,
            200,
            "{context}"
        );
        assert_eq!(
            world.origin(way).last().headers.get("x-api-key"),
            Some(K1),
            "{context}"
        );
        let drawn = |it: &DecisionRecord| it.entry == way.entry() && it.injected.is_some();
        world.record(mark, &context, drawn).await;
        // The socket vouches for its own session alone.
        let mark = world.mark();
        let outcome = world
            .send(way, &world.get(way, "a.test", "/").bearer(&foreign))
            .await;
        world
            .assert_denied(
                mark,
                &outcome,
                way.entry(),
                DenyCode::TokenExpired,
                &context,
            )
            .await;
    }
    // A tunnel outlives the token that it was opened with.
    assert_eq!(tunnel.send(&kept).await.answered().status, 200);
    world.assert_no_upstream_saw(&old);
    drop(tunnel);
    world.finish().await;
}

async fn until_expired(world: &World, token: &str) {
    let req = world.get(Way::Clear, "a.test", "/").bearer(token);
    for _ in 0..160 {
        if world.send(Way::Clear, &req).await.reason() == Some("token_expired") {
            return;
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    panic!("the token is good for ever");
}
