//! What is attached, to what, and what of the guest's own is taken out.

use std::{fs, time::Duration};

use outgate_conformance::{K1, K2, Req, Way, World, destination, eventually, record, within};
use serde_json::json;

outgate_conformance::scenarios! {
    the_guests_own_credentials_are_replaced_never_merged: [I1];
    a_guests_own_key_without_a_token_goes_nowhere: [I1 S4];
    every_form_puts_the_credential_in_its_place: [I2];
    a_token_in_the_url_never_leaves: [I1 S2];
    only_the_injected_parameter_may_hold_a_token: [I1 S2];
    a_field_spelt_with_an_underscore_is_not_a_way_around: [I1];
    a_session_token_never_reaches_an_upstream_in_any_form: [I1];
    a_redirect_is_handed_back_and_draws_nothing_elsewhere: [I3];
    a_credential_goes_out_in_clear_only_where_the_rule_says_so: [I3];
    a_guest_cannot_have_the_injected_field_stripped_as_hop_by_hop: [I1];
    an_inner_request_outside_the_rule_is_refused_on_an_open_connection: [P7 S3];
    sessions_on_pooled_connections_are_never_mixed: [I3];
    a_rotated_credential_file_is_picked_up_without_a_failed_request: [I4 E3];
    a_credential_that_is_not_there_fails_closed: [I4];
    a_guests_own_credential_in_a_trailer_is_taken_out_too: [I1];
}

async fn the_guests_own_credentials_are_replaced_never_merged() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::ALL {
        let req = world
            .get(way, "a.test", "/echo")
            .header("authorization", "Bearer mine")
            .header("authorization", "Basic bWluZTptaW5l")
            .header("x-api-key", &token)
            .header("x-api-key", "mine-too")
            .header("api-key", "mine-three")
            .header("x-goog-api-key", "mine-four")
            .header("x-other", "kept");
        let mark = world.mark();
        let answer = guest.send(way, &req).await.answered();
        assert_eq!(answer.status, 200, "{way:?}: {}", answer.text());
        let seen = world.origin(way).last();
        assert_eq!(
            seen.headers.all("x-api-key").collect::<Vec<_>>(),
            [K1],
            "{way:?}"
        );
        for name in [
            "authorization",
            "proxy-authorization",
            "api-key",
            "x-goog-api-key",
        ] {
            assert_eq!(seen.headers.get(name), None, "{way:?} {name}");
        }
        assert!(
            !seen.mentions("mine") && !seen.mentions("bWluZ"),
            "{way:?}: {seen:?}"
        );
        assert!(!seen.mentions(&token), "{way:?}: {seen:?}");
        assert_eq!(seen.headers.get("x-other"), Some("kept"), "{way:?}");
        let records = world.assert_audited(mark, "k1", &format!("{way:?}"));
        assert_eq!(record::injected(&records[0]), Some("k1"));
    }
}

async fn a_guests_own_key_without_a_token_goes_nowhere() {
    let world = World::new().await;
    for way in Way::ALL {
        for (name, value) in [
            ("authorization", "Bearer mine"),
            ("x-api-key", "mine"),
            ("authorization", "Basic bWluZTptaW5l"),
        ] {
            let mark = world.mark();
            let req = world.get(way, "a.test", "/").header(name, value);
            let outcome = world.guest().send(way, &req).await;
            world.assert_denied(mark, &outcome, "token_invalid", &format!("{way:?} {name}"));
        }
    }
}

async fn every_form_puts_the_credential_in_its_place() {
    let world = World::configured(|config, _| {
        destination(config, "n.test")["inject"] =
            json!({ "credential": "k2", "header": "x-custom", "template": "Key {credential}; v=1", "over_plaintext": true });
    })
    .await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        for (host, name, value) in [
            ("a.test", "x-api-key", K1.to_owned()),
            ("b.test", "authorization", format!("Bearer {K2}")),
            ("n.test", "x-custom", format!("Key {K2}; v=1")),
            (
                "basic.test",
                "authorization",
                "Basic cm9ib3Q6azEtbGl2ZS1RN2Yzdk4wcFh6MkxyVDh3WWI1ZQ==".to_owned(),
            ),
        ] {
            let req = world.get(way, host, "/").header("x-api-key", &token);
            let answer = world.guest().send(way, &req).await.answered();
            assert_eq!(answer.status, 200, "{way:?} {host}: {}", answer.text());
            let seen = world.tls.last();
            assert_eq!(
                seen.headers.all(name).collect::<Vec<_>>(),
                [value],
                "{way:?} {host}"
            );
            assert!(!seen.mentions(&token));
        }
        let req = world
            .get(way, "query.test", "/p?key=theirs&a=b")
            .bearer(&token);
        let outcome = world.guest().send(way, &req).await.answered();
        assert_eq!(outcome.status, 200, "{way:?}: {}", outcome.text());
        let target = world.tls.last().target;
        assert_eq!(target.matches("key=").count(), 1, "{target}");
        assert!(
            target.contains(&format!("key={K1}")) && target.contains("a=b"),
            "{target}"
        );
    }
}

async fn a_token_in_the_url_never_leaves() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for path in [
            format!("/?key={token}"),
            format!("/x/{token}/y"),
            format!("/?a=b&x%2Dtoken={token}"),
            // Made to look like several tokens, or to be decoded twice.
            format!("/x/eyJeyJeyJeyJ{token}"),
            format!("/?a=eyJeyJeyJeyJ{token}"),
            format!("/?a=%2565{}", &token[1..]),
            format!("/?a=%252565{}", &token[1..]),
        ] {
            let mark = world.mark();
            let req = world.get(way, "a.test", &path).bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            world.assert_denied(mark, &outcome, "token_in_url", &format!("{way:?}"));
        }
        // Whichever of its two faults is named, it stays here and is in no record.
        let mark = world.mark();
        let req = world.get(way, "a.test", &format!("/x/%2565{}", &token[1..]));
        let outcome = world.guest().send(way, &req.bearer(&token)).await;
        let code = outcome.reason().expect("a denial").to_owned();
        assert!(
            ["token_in_url", "path_ambiguous"].contains(&code.as_str()),
            "{code}"
        );
        world.assert_denied(mark, &outcome, &code, &format!("{way:?}: encoded twice"));
        let written = serde_json::to_string(&world.records_since(mark)).unwrap();
        assert!(!written.contains(&token[1..]), "{way:?}: {written}");
    }
}

async fn only_the_injected_parameter_may_hold_a_token() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        let fine = world.get(way, "query.test", &format!("/e?x=1&key={token}"));
        assert_eq!(
            world.guest().send(way, &fine).await.answered().status,
            200,
            "{way:?}"
        );
        for path in [
            format!("/e?x={token}&key={token}&KEY={token}"),
            format!("/e?key={token}&KEY={token}"),
            format!("/e?x={token}"),
            format!("/e?key={token}&x=eyJeyJeyJeyJ{token}"),
            format!("/e?key={token}&{token}"),
            format!("/{token}?key={token}"),
        ] {
            let mark = world.mark();
            let req = world.get(way, "query.test", &path).bearer(&token);
            let outcome = world.guest().send(way, &req).await;
            let context = format!("{way:?} {}", path.replace(&token, "TOKEN"));
            world.assert_denied(mark, &outcome, "token_in_url", &context);
        }
    }
    world.assert_no_upstream_saw(&token);
}

async fn a_field_spelt_with_an_underscore_is_not_a_way_around() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for (host, names) in [
            (
                "a.test",
                &["x_api_key", "x_goog_api_key", "x-api_key", "x.api.key"][..],
            ),
            (
                "headers.test",
                &["x_mode", "x_http_method_override", "x_original_url"],
            ),
        ] {
            let mut req = world
                .get(way, host, "/")
                .bearer(&token)
                .header("x-mode", "a");
            for name in names {
                req = req.header(name, "mine");
            }
            let req = req.header("x_other", "kept");
            assert_eq!(world.guest().send(way, &req).await.answered().status, 200);
            let seen = world.origin(way).last();
            assert!(!seen.mentions("mine"), "{way:?} {host}: {seen:?}");
            assert_eq!(seen.headers.get("x_other"), Some("kept"), "{way:?} {host}");
        }
    }
}

async fn a_session_token_never_reaches_an_upstream_in_any_form() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::ALL {
        for host in ["a.test", "n.test", "optional.test"] {
            let req = world.get(way, host, "/echo").bearer(&token);
            assert_eq!(
                guest.send(way, &req).await.answered().status,
                200,
                "{way:?} {host}"
            );
            let req = world
                .get(way, host, "/echo")
                .bearer(&token)
                .header("x-h", &format!("eyJeyJeyJeyJ{token}"));
            let _ = guest.send(way, &req).await;
            let basic = base64(&format!("user:{token}"));
            let req = world
                .get(way, host, "/echo")
                .header("authorization", &format!("Basic {basic}"));
            assert_eq!(
                guest.send(way, &req).await.answered().status,
                200,
                "{way:?} {host}"
            );
        }
    }
    world.assert_no_upstream_saw(&token);
    for seen in world.tls.seen().iter().chain(&world.plain.seen()) {
        assert_eq!(seen.headers.get("proxy-authorization"), None);
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

async fn a_redirect_is_handed_back_and_draws_nothing_elsewhere() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let to = format!("http://n.test:{}/echo", world.plain.port());
        let before = world.seen();
        let req = world
            .get(way, "a.test", &format!("/redirect?to={to}"))
            .bearer(&token);
        let answer = world.guest().send(way, &req).await.answered();
        assert_eq!(
            (answer.status, answer.headers.get("location")),
            (302, Some(to.as_str())),
            "{way:?}"
        );
        assert_eq!(world.seen(), before + 1, "{way:?}: the gateway followed");
        let retry = world
            .get(Way::AbsoluteForm, "n.test", "/echo")
            .bearer(&token);
        assert_eq!(
            world
                .guest()
                .send(Way::AbsoluteForm, &retry)
                .await
                .answered()
                .status,
            200
        );
        assert!(!world.plain.last().mentions(K1), "{way:?}");
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "x.test", "/echo").bearer(&token))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
    }
}

async fn a_credential_goes_out_in_clear_only_where_the_rule_says_so() {
    let world = World::new().await;
    let (_, token) = world.session();
    let mark = world.mark();
    let req = world.get(Way::AbsoluteForm, "b.test", "/").bearer(&token);
    let outcome = world.guest().send(Way::AbsoluteForm, &req).await;
    world.assert_denied(mark, &outcome, "credential_over_plaintext", "http");
    let req = world.get(Way::AbsoluteForm, "a.test", "/").bearer(&token);
    assert_eq!(
        world
            .guest()
            .send(Way::AbsoluteForm, &req)
            .await
            .answered()
            .status,
        200
    );
    assert!(world.plain.last().mentions(K1));
    world.assert_no_upstream_saw(K2);
}

async fn a_guest_cannot_have_the_injected_field_stripped_as_hop_by_hop() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in [Way::AbsoluteForm, Way::TunnelH1] {
        let req = world
            .get(way, "a.test", "/echo")
            .bearer(&token)
            .header("connection", "x-api-key, host, content-length")
            .header("content-length", "0");
        let outcome = world.guest().send(way, &req).await;
        if outcome.reason().is_none() {
            assert_eq!(outcome.answered().status, 200);
            let seen = world.origin(way).last();
            assert_eq!(seen.headers.get("x-api-key"), Some(K1), "{way:?}");
            assert!(seen.authority.starts_with("a.test"), "{way:?}: {seen:?}");
        }
    }
}

async fn an_inner_request_outside_the_rule_is_refused_on_an_open_connection() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let good = world.get(way, "rules.test", "/v1/x").bearer(&token);
        let mut channel = world.guest().open(way, &good).await.expect("a connection");
        assert_eq!(channel.send(&good).await.answered().status, 200);
        let mark = world.mark();
        let outcome = channel
            .send(&Req {
                path: "/v2/x".into(),
                ..good.clone()
            })
            .await;
        world.assert_denied(mark, &outcome, "path_not_allowed", &format!("{way:?}"));
        let bare = world.get(way, "rules.test", "/v1/x");
        let mut channel = world.guest().open(way, &good).await.expect("a connection");
        assert_eq!(channel.send(&good).await.answered().status, 200);
        let mark = world.mark();
        let outcome = channel.send(&bare).await;
        world.assert_denied(
            mark,
            &outcome,
            "token_missing",
            &format!("{way:?}: the token is per request"),
        );
    }
}

async fn sessions_on_pooled_connections_are_never_mixed() {
    let world = World::new().await;
    let (first_id, first) = world.session();
    let (second_id, second) = world.session();
    for way in Way::ALL {
        let mut tasks = Vec::new();
        for index in 0..24 {
            let token = if index % 2 == 0 { &first } else { &second };
            let req = world
                .get(
                    way,
                    if index % 3 == 0 { "n.test" } else { "a.test" },
                    &format!("/echo?who={index}"),
                )
                .bearer(token)
                .header("x-who", &format!("who-{index}"));
            let guest = world.guest();
            tasks.push((
                index,
                tokio::spawn(async move { guest.send(way, &req).await }),
            ));
        }
        for (index, task) in tasks {
            let answer = within(20, "an answer", task).await.unwrap().answered();
            assert_eq!(answer.status, 200, "{way:?}");
            let echoed = answer.json();
            assert_eq!(echoed["target"], format!("/echo?who={index}"), "{way:?}");
            assert!(answer.text().contains(&format!("who-{index}\"")), "{way:?}");
        }
        // A credential of one host never shows on the other, whatever connection carried it.
        for seen in world.origin(way).seen() {
            let to_a = seen.authority.starts_with("a.test");
            assert_eq!(seen.mentions(K1), to_a, "{way:?}: {seen:?}");
        }
    }
    for id in [first_id, second_id] {
        let all = eventually(Duration::from_secs(3), || {
            let mut records = world.plane().audit_records();
            records.retain(|record| record::names(record, &id));
            (records.len() >= 36).then_some(())
        });
        assert!(all.await.is_some(), "{id}: requests without a record");
    }
}

async fn a_rotated_credential_file_is_picked_up_without_a_failed_request() {
    let world = World::configured(|config, places| {
        let file = places.folder.join("rotating");
        fs::write(&file, "old-key-4f9a8b7c6d5e\n").unwrap();
        config["credentials"]["rotating"] = json!({ "from": { "file": file } });
        destination(config, "n.test")["inject"] =
            json!({ "credential": "rotating", "header": "x-api-key", "over_plaintext": true });
    })
    .await;
    let (_, token) = world.session();
    let file = world.folder.path().join("rotating");
    let mut channels = Vec::new();
    for way in Way::ALL {
        let req = world.get(way, "n.test", "/").bearer(&token);
        channels.push((
            way,
            req.clone(),
            world.guest().open(way, &req).await.expect("a connection"),
        ));
    }
    let mut rotated_at = None;
    for round in 0..200 {
        for (way, req, channel) in &mut channels {
            let answer = channel.send(req).await.answered();
            assert_eq!(
                answer.status,
                200,
                "{way:?}, round {round}: {}",
                answer.text()
            );
        }
        if round == 3 {
            let next = world.folder.path().join("rotating.next");
            fs::write(&next, "new-key-0a1b2c3d4e5f\n").unwrap();
            fs::rename(&next, &file).unwrap();
        }
        let keys: Vec<bool> = channels
            .iter()
            .map(|(way, ..)| world.origin(*way).last().mentions("new-key-0a1b2c3d4e5f"))
            .collect();
        if keys.iter().all(|new| *new) {
            rotated_at = Some(round);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(rotated_at.is_some(), "the new key was never sent");
    for (way, req, channel) in &mut channels {
        assert_eq!(channel.send(req).await.answered().status, 200);
        assert!(
            world.origin(*way).last().mentions("new-key-0a1b2c3d4e5f"),
            "{way:?}: it stays"
        );
    }
    // Lost, it fails closed; back again, it works.
    fs::remove_file(&file).unwrap();
    let req = world.get(Way::TunnelH1, "n.test", "/").bearer(&token);
    let mut outcome = world.guest().send(Way::TunnelH1, &req).await;
    for _ in 0..100 {
        if outcome.reason().is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        outcome = world.guest().send(Way::TunnelH1, &req).await;
    }
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "n.test", "/").bearer(&token))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "credential_unavailable",
            &format!("{way:?}"),
        );
    }
    for seen in world.tls.seen().iter().chain(&world.plain.seen()) {
        let keys: Vec<_> = seen.headers.all("x-api-key").collect();
        assert_eq!(keys.len(), 1, "{seen:?}");
    }
}

async fn a_credential_that_is_not_there_fails_closed() {
    let world = World::configured(|config, places| {
        config["credentials"]["later"] = json!({ "from": { "file": places.folder.join("later") } });
        fs::write(places.folder.join("later"), "bad\nvalue\r\nx: y\n").unwrap();
        destination(config, "n.test")["inject"] =
            json!({ "credential": "later", "header": "x-api-key", "over_plaintext": true });
    })
    .await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "n.test", "/").bearer(&token))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "credential_unavailable",
            &format!("{way:?}: line breaks in it"),
        );
        let answer = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        assert_eq!(
            answer.answered().status,
            200,
            "{way:?}: another credential is not touched"
        );
    }
}

async fn a_guests_own_credential_in_a_trailer_is_taken_out_too() {
    use outgate_conformance::{Headers, ReqBody};
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let trailers = Headers(vec![
            ("x-api-key".into(), "mine-in-a-trailer".into()),
            ("authorization".into(), format!("Bearer {token}")),
        ]);
        let req = world
            .get(way, "a.test", "/upload")
            .method("POST")
            .bearer(&token)
            .body(ReqBody::WithTrailers(b"body".to_vec(), trailers));
        let outcome = within(5, "an answer", world.guest().send(way, &req)).await;
        let seen = world.origin(way).seen();
        for seen in &seen {
            assert!(
                !seen.mentions("mine-in-a-trailer"),
                "{way:?}: {outcome:?} {seen:?}"
            );
            assert!(!seen.mentions(&token), "{way:?}: {outcome:?} {seen:?}");
        }
    }
}
