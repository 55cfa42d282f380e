//! The explicit proxy on a session's own socket: whoever reaches it is the session, and needs no token to be it.

use outgate_journey::{
    denial::DenyCode,
    record::{Ending, Entry},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::{Outcome, Req, TlsOptions, Way as Proxied};

use crate::world::{K1, World};

fn get(world: &World, way: Proxied, host: &str) -> Req {
    let port = match way {
        Proxied::AbsoluteForm => world.clear.port(),
        Proxied::TunnelH1 | Proxied::TunnelH2 => world.tls.port(),
    };
    Req::get(host, port, "/")
}

#[tokio::test]
async fn a_client_without_any_token_is_attributed_by_the_socket() {
    let world = World::new(Attribution::BySocket).await;
    for way in Proxied::ALL {
        let context = format!("{way:?}");
        let mark = world.mark();
        let response = world
            .proxy
            .send(way, &get(&world, way, "n.test"))
            .await
            .answered();
        assert_eq!(response.status, 200, "{context}");
        let requests = if way == Proxied::AbsoluteForm {
            Entry::AbsoluteForm
        } else {
            Entry::Bumped
        };
        let record = world
            .record(mark, &context, |it| it.entry == requests)
            .await;
        assert_eq!(
            record.session.as_ref(),
            Some(world.session.id()),
            "{context}"
        );
        if way != Proxied::AbsoluteForm {
            let record = world
                .record(mark, &context, |it| it.entry == Entry::Connect)
                .await;
            assert_eq!(
                record.session.as_ref(),
                Some(world.session.id()),
                "{context}"
            );
        }
        // Attributed is not presented; and it is the destination that asks, for the proxy is content.
        let mark = world.mark();
        let outcome = world.proxy.send(way, &get(&world, way, "a.test")).await;
        world
            .assert_denied(mark, &outcome, requests, DenyCode::TokenMissing, &context)
            .await;
        assert_eq!(outcome.response().unwrap().status, 401, "{context}");
        let own = world.proxy.with_proxy_token(&world.token());
        let outcome = own.send(way, &get(&world, way, "a.test")).await;
        assert_eq!(outcome.reason(), Some("token_missing"), "{context}");

        let req = get(&world, way, "a.test").bearer(&world.token());
        assert_eq!(
            world.proxy.send(way, &req).await.answered().status,
            200,
            "{context}"
        );
    }
    let req = get(&world, Proxied::TunnelH1, "pass.test");
    assert_eq!(
        world
            .proxy
            .send(Proxied::TunnelH1, &req)
            .await
            .answered()
            .status,
        200
    );
    world.assert_no_upstream_saw(&world.token());
    world.finish().await;
}

#[tokio::test]
async fn a_foreign_token_does_not_pass_beside_the_socket() {
    let world = World::new(Attribution::BySocket).await;
    let (_, foreign) = world.foreign_token().await;
    let stranger = world.proxy.with_proxy_token(&foreign);
    for way in Proxied::ALL {
        let context = format!("{way:?}");
        let entry = if way == Proxied::AbsoluteForm {
            Entry::AbsoluteForm
        } else {
            Entry::Connect
        };
        let mark = world.mark();
        let outcome = stranger.send(way, &get(&world, way, "n.test")).await;
        world
            .assert_denied(mark, &outcome, entry, DenyCode::SessionMismatch, &context)
            .await;
        world.assert_nothing_dialled(mark, &context);

        let entry = if way == Proxied::AbsoluteForm {
            Entry::AbsoluteForm
        } else {
            Entry::Bumped
        };
        let mark = world.mark();
        let outcome = world
            .proxy
            .send(way, &get(&world, way, "a.test").bearer(&foreign))
            .await;
        world
            .assert_denied(mark, &outcome, entry, DenyCode::SessionMismatch, &context)
            .await;
    }
    world.assert_no_upstream_saw(K1);
    world.finish().await;
}

#[tokio::test]
async fn where_the_token_attributes_the_proxy_asks_for_it() {
    let world = World::new(Attribution::ByToken).await;
    for way in [Proxied::AbsoluteForm, Proxied::TunnelH1] {
        let host = if way == Proxied::AbsoluteForm {
            "n.test"
        } else {
            "pass.test"
        };
        let outcome = world.proxy.send(way, &get(&world, way, host)).await;
        let (Outcome::Answered(response) | Outcome::ConnectRefused(response)) = &outcome else {
            panic!("{way:?}: {outcome:?}");
        };
        assert_eq!(
            (response.status, response.reason()),
            (407, Some("token_missing")),
            "{way:?}"
        );
        let own = world.proxy.with_proxy_token(&world.token());
        assert_eq!(
            own.send(way, &get(&world, way, host))
                .await
                .answered()
                .status,
            200,
            "{way:?}"
        );
    }
    world.finish().await;
}

#[tokio::test]
async fn a_policy_that_comes_between_a_tunnel_and_its_first_bytes_is_judged_by_too() {
    let world = World::new(Attribution::BySocket).await;
    let target = format!("pass.test:{}", world.tls.port());
    let hello = TlsOptions::new("pass.test", "http/1.1");
    for is_dropped in [false, true] {
        let mark = world.mark();
        let tunnel = world.proxy.connect(&target).await.unwrap();
        if is_dropped {
            let next = world.changed(|config| {
                let rule = &mut config["destinations"][3];
                assert_eq!(rule["host"], "pass.test");
                rule["host"] = "elsewhere.test".into();
            });
            world.gateway.take_over(next).unwrap();
        }
        let shaken = world.proxy.handshake(tunnel, &hello).await;
        assert_eq!(shaken.is_err(), is_dropped);
        drop(shaken);
        let record = world
            .record(mark, "the tunnel", |it| it.entry == Entry::Connect)
            .await;
        let is_cut = record.ending == Ending::Cut(DenyCode::PolicyChanged);
        assert_eq!(is_cut, is_dropped, "{record:#?}");
    }
    world.finish().await;
}
