//! Only a verified session token, presented by the request itself, draws a credential.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use outgate_conformance::{K1, K2, Req, Way, World};
use serde_json::{Value, json};

outgate_conformance::scenarios! {
    the_token_is_read_wherever_clients_put_their_key: [S2];
    a_token_on_the_connection_alone_draws_no_credential: [S4];
    a_request_without_a_token_is_refused_or_goes_out_bare: [S4];
    a_tunnel_that_shows_no_request_needs_its_token_at_connect: [S2 S3];
    forged_and_altered_tokens_are_refused: [S1];
    an_expired_token_is_refused_on_every_leg: [S1];
    tokens_of_two_sessions_are_not_mixed: [S1 S4];
    a_forged_claim_field_changes_nothing: [S3];
    the_slot_of_one_destination_never_yields_the_credential_of_another: [I3];
    a_genuine_signature_does_not_excuse_wrong_claims: [S1];
}

async fn the_token_is_read_wherever_clients_put_their_key() {
    let world = World::configured(|config, _| {
        config["sessions"] = json!({ "token_headers": ["x-token"] });
    })
    .await;
    let (_, token) = world.session();
    let basic = |text: String| format!("Basic {}", STANDARD.encode(text));
    for way in Way::ALL {
        for (name, value) in [
            ("authorization", format!("Bearer {token}")),
            ("authorization", format!("bearer {token}")),
            ("authorization", format!("token {token}")),
            ("authorization", token.clone()),
            ("authorization", basic(format!("user:{token}"))),
            ("authorization", basic(format!("{token}:"))),
            ("authorization", basic(format!("{token}:x-oauth-basic"))),
            ("x-api-key", token.clone()),
            ("api-key", token.clone()),
            ("x-goog-api-key", token.clone()),
            ("private-token", token.clone()),
            ("x-token", token.clone()),
        ] {
            let req = world.get(way, "a.test", "/echo").header(name, &value);
            let answer = world.guest().send(way, &req).await.answered();
            let context = format!("{way:?} {name}");
            assert_eq!(answer.status, 200, "{context}: {}", answer.text());
            let seen = world.origin(way).last();
            let keys: Vec<_> = seen.headers.all("x-api-key").collect();
            assert_eq!(keys, [K1], "{context}");
            assert!(!seen.mentions(&token), "{context}: {seen:?}");
        }
    }
    for way in Way::TUNNELS {
        let req = world.get(way, "query.test", &format!("/echo?a=1&key={token}&b=2"));
        let answer = world.guest().send(way, &req).await.answered();
        assert_eq!(answer.status, 200, "{way:?}: {}", answer.text());
        let seen = world.tls.last();
        assert!(
            seen.target.contains(&format!("key={K1}")),
            "{way:?}: {seen:?}"
        );
        assert!(
            seen.target.contains("a=1") && seen.target.contains("b=2"),
            "{way:?}: {seen:?}"
        );
        assert!(!seen.mentions(&token), "{way:?}");
    }
}

async fn a_token_on_the_connection_alone_draws_no_credential() {
    let world = World::new().await;
    let (_, token) = world.session();
    let guest = world.guest().with_proxy_token(&token);
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = guest.send(way, &world.get(way, "a.test", "/")).await;
        world.assert_denied(mark, &outcome, "token_missing", &format!("{way:?}"));
        // Where the rule says so it goes out, with nothing attached.
        let answer = guest
            .send(way, &world.get(way, "optional.test", "/"))
            .await
            .answered();
        assert_eq!(answer.status, 200, "{way:?}");
    }
    world.assert_no_upstream_saw(K1);
    world.assert_no_upstream_saw(&token);
}

async fn a_request_without_a_token_is_refused_or_goes_out_bare() {
    let world = World::new().await;
    for way in Way::ALL {
        for host in ["a.test", "n.test", "rules.test"] {
            let mark = world.mark();
            let outcome = world
                .guest()
                .send(way, &world.get(way, host, "/v1/x"))
                .await;
            world.assert_denied(mark, &outcome, "token_missing", &format!("{way:?} {host}"));
            let answer = outcome.answered();
            // An absolute-form request is on the proxy's leg.
            let (status, field) = if way == Way::AbsoluteForm {
                (407, "proxy-authenticate")
            } else {
                (401, "www-authenticate")
            };
            assert_eq!(answer.status, status, "{way:?} {host}");
            let realms: Vec<_> = answer.headers.all(field).collect();
            assert!(
                realms.iter().any(|value| value.contains("Bearer")),
                "{realms:?}"
            );
            assert!(
                realms.iter().any(|value| value.contains("Basic")),
                "{realms:?}"
            );
        }
        let bare = world.get(way, "optional.test", "/");
        assert_eq!(
            world.guest().send(way, &bare).await.answered().status,
            200,
            "{way:?}"
        );
        let with_own_key = bare.header("x-api-key", "the guest's own");
        let mark = world.mark();
        let outcome = world.guest().send(way, &with_own_key).await;
        if outcome.reason().is_some() {
            world.assert_denied(mark, &outcome, "token_invalid", &format!("{way:?}"));
        }
        world.assert_no_upstream_saw(K1);
    }
}

async fn a_tunnel_that_shows_no_request_needs_its_token_at_connect() {
    let world = World::configured(|config, places| {
        outgate_conformance::add_destination(
            config,
            json!({ "host": "optional-pass.test", "ports": [places.tls], "token": "optional" }),
        );
        config["resolver"]["hosts"] = json!({ "optional-pass.test": "127.0.0.1", "both.test": "127.0.0.1" });
        // Plain HTTP is served beside TLS that passes through: a tunnel with TLS in it still needs a token.
        outgate_conformance::add_destination(
            config,
            json!({ "host": "both.test", "ports": [places.tls], "plaintext": true, "posture": "pass-through" }),
        );
    })
    .await;
    let mark = world.mark();
    let refused = world
        .guest()
        .connect(&format!("pass.test:{}", world.tls.port()))
        .await;
    let outcome = refused.expect_err("no token");
    world.assert_denied(mark, &outcome, "token_missing", "pass-through");
    let answer = outcome.response().unwrap();
    assert_eq!(answer.status, 407);
    assert!(
        answer.headers.get("proxy-authenticate").is_some(),
        "{answer:?}"
    );
    let forged = world.guest().with_proxy_token("not.a.token");
    for host in ["pass.test", "a.test", "optional-pass.test", "x.test"] {
        let mark = world.mark();
        let outcome = forged
            .connect(&format!("{host}:{}", world.tls.port()))
            .await
            .expect_err(host);
        world.assert_denied(mark, &outcome, "token_invalid", host);
    }
    let open = world
        .guest()
        .connect(&format!("optional-pass.test:{}", world.tls.port()))
        .await;
    assert!(open.is_ok());

    let before = world.tls.connections();
    let mark = world.mark();
    let req = world.get(Way::TunnelH1, "both.test", "/");
    let outcome = world.guest().send(Way::TunnelH1, &req).await;
    world.assert_audited(
        mark,
        "token_missing",
        "TLS through a rule that also serves plain HTTP",
    );
    assert_eq!(
        world.tls.connections(),
        before,
        "dialled without a token: {outcome:?}"
    );
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn read_part(text: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
}

async fn forged_and_altered_tokens_are_refused() {
    use aws_lc_rs::{
        hmac,
        signature::{Ed25519KeyPair, KeyPair},
    };
    let world = World::new().await;
    let (_, token) = world.session();
    let (_, other) = world.session();
    let pieces: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = pieces[..] else {
        panic!("a JWT has three parts")
    };
    let (header, body) = (read_part(head), read_part(claims));
    assert_eq!(header["alg"], "EdDSA");
    for key in ["iss", "aud", "sub", "jti", "exp"] {
        assert!(!body[key].is_null(), "the token has no {key}");
    }
    let life = body["exp"].as_u64().unwrap()
        - body["iat"]
            .as_u64()
            .unwrap_or(body["exp"].as_u64().unwrap());
    assert!(life <= 3600, "a token lives for {life} s");

    let mine = Ed25519KeyPair::generate().unwrap();
    let sign = |header: &Value, body: &Value| {
        let text = format!("{}.{}", part(header), part(body));
        let signature = URL_SAFE_NO_PAD.encode(mine.sign(text.as_bytes()));
        format!("{text}.{signature}")
    };
    let with = |base: &Value, key: &str, value: Value| {
        let mut changed = base.clone();
        changed[key] = value;
        changed
    };
    let public = mine.public_key().as_ref();
    let hs256 = |key: &[u8]| {
        let header = with(&header, "alg", json!("HS256"));
        let text = format!("{}.{}", part(&header), part(&body));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let none = |alg: &str| format!("{}.{claims}.", part(&with(&header, "alg", json!(alg))));
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(public) });
    let longer = with(&body, "exp", json!(body["exp"].as_u64().unwrap() + 86_400));
    let mut flipped = signature.to_owned();
    flipped.replace_range(0..1, if flipped.starts_with('A') { "B" } else { "A" });
    let forgeries = [
        ("alg none", none("none")),
        ("alg None", none("None")),
        (
            "alg none, old signature",
            format!(
                "{}.{claims}.{signature}",
                part(&with(&header, "alg", json!("none")))
            ),
        ),
        ("HS256 with a public key", hs256(public)),
        (
            "HS256 with the kid",
            hs256(header["kid"].as_str().unwrap_or("").as_bytes()),
        ),
        ("HS256 with an empty key", hs256(b"")),
        ("another key, same kid", sign(&header, &body)),
        (
            "another key in jwk",
            sign(&with(&header, "jwk", jwk.clone()), &body),
        ),
        (
            "another key at jku",
            sign(&with(&header, "jku", json!("http://127.0.0.1/jwks")), &body),
        ),
        (
            "kid traversal",
            sign(&with(&header, "kid", json!("../../../../dev/null")), &body),
        ),
        (
            "kid with a NUL",
            sign(&with(&header, "kid", json!("\u{0}")), &body),
        ),
        ("kid a number", sign(&with(&header, "kid", json!(1)), &body)),
        (
            "no kid",
            sign(&json!({ "alg": "EdDSA", "typ": "JWT" }), &body),
        ),
        (
            "longer life",
            format!("{head}.{}.{signature}", part(&longer)),
        ),
        (
            "another session",
            format!(
                "{head}.{}.{signature}",
                part(&with(&body, "sub", json!("s_other")))
            ),
        ),
        (
            "another token's claims",
            format!("{head}.{}.{signature}", other.split('.').nth(1).unwrap()),
        ),
        ("flipped signature", format!("{head}.{claims}.{flipped}")),
        ("no signature", format!("{head}.{claims}.")),
        ("two parts", format!("{head}.{claims}")),
        ("four parts", format!("{token}.x")),
        ("padding", format!("{token}==")),
        ("not base64", "!!!.???.***".to_owned()),
        ("crit", sign(&with(&header, "crit", json!(["b64"])), &body)),
        ("garbage", "a".repeat(9000)),
    ];
    for way in Way::ALL {
        for (what, forged) in &forgeries {
            let mark = world.mark();
            let req = world.get(way, "a.test", "/").bearer(forged);
            let outcome = world.guest().send(way, &req).await;
            world.assert_denied(mark, &outcome, "token_invalid", &format!("{way:?}: {what}"));
        }
        assert_eq!(
            world
                .guest()
                .send(way, &world.get(way, "a.test", "/").bearer(&token))
                .await
                .answered()
                .status,
            200,
            "{way:?}: the genuine one is good"
        );
    }
}

async fn an_expired_token_is_refused_on_every_leg() {
    let world = World::new().await;
    let (_, token) = world.session_with(&["--ttl", "2s"]);
    let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
    let mut open = world
        .guest()
        .open(Way::TunnelH1, &req)
        .await
        .expect("a tunnel");
    assert_eq!(open.send(&req).await.answered().status, 200);
    tokio::time::sleep(std::time::Duration::from_millis(3100)).await;
    let mark = world.mark();
    let outcome = open.send(&req).await;
    world.assert_denied(mark, &outcome, "token_expired", "on a tunnel that is open");
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        world.assert_denied(mark, &outcome, "token_expired", &format!("{way:?}"));
    }
    let mark = world.mark();
    let refused = world
        .guest()
        .with_proxy_token(&token)
        .connect(&format!("pass.test:{}", world.tls.port()))
        .await;
    world.assert_denied(
        mark,
        &refused.expect_err("expired"),
        "token_expired",
        "pass-through",
    );
}

async fn tokens_of_two_sessions_are_not_mixed() {
    let world = World::new().await;
    let (_, first) = world.session();
    let (_, second) = world.session();
    let guest = world.guest().with_proxy_token(&first);
    for way in Way::ALL {
        let mark = world.mark();
        let outcome = guest
            .send(way, &world.get(way, "a.test", "/").bearer(&second))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "session_mismatch",
            &format!("{way:?}: connection and request"),
        );
        let mark = world.mark();
        let req = world
            .get(way, "a.test", "/")
            .bearer(&first)
            .header("x-api-key", &second);
        let outcome = world.guest().send(way, &req).await;
        world.assert_denied(
            mark,
            &outcome,
            "session_mismatch",
            &format!("{way:?}: two fields"),
        );
    }
}

async fn a_forged_claim_field_changes_nothing() {
    let world = World::new().await;
    let (id, token) = world.session();
    let (ended, _) = world.session();
    world.plane().session_end(&ended);
    for way in Way::ALL {
        let claims = |req: Req| {
            req.header("x-session-id", &ended)
                .header("x-outgate-session", &ended)
                .header("x-jwt-claim-sub", &ended)
                .header("x-forwarded-for", "127.0.0.1")
                .header("x-deny-reason", "none")
        };
        let mark = world.mark();
        let outcome = world
            .guest()
            .send(way, &claims(world.get(way, "a.test", "/")))
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "token_missing",
            &format!("{way:?}: claims without a token"),
        );
        let mark = world.mark();
        let answer = world
            .guest()
            .send(way, &claims(world.get(way, "a.test", "/").bearer(&token)))
            .await;
        assert_eq!(answer.answered().status, 200, "{way:?}");
        world.assert_audited(mark, &id, "the token's session is the one in the record");
    }
}

async fn the_slot_of_one_destination_never_yields_the_credential_of_another() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::TUNNELS {
        for (host, field, own, foreign) in [
            ("a.test", "authorization", K1, K2),
            ("b.test", "x-api-key", K2, K1),
            ("one.wild.test", "authorization", K2, K1),
        ] {
            let before = world.tls.count();
            let value = if field == "authorization" {
                format!("Bearer {token}")
            } else {
                token.clone()
            };
            let req = world.get(way, host, "/").header(field, &value);
            assert_eq!(
                world.guest().send(way, &req).await.answered().status,
                200,
                "{host}"
            );
            let seen = &world.tls.seen()[before];
            assert!(
                seen.mentions(own) && !seen.mentions(foreign),
                "{way:?} {host}: {seen:?}"
            );
        }
    }
}

/// Tokens with a genuine signature whose claims are wrong: only the holder of the key can make these.
async fn a_genuine_signature_does_not_excuse_wrong_claims() {
    use aws_lc_rs::signature::Ed25519KeyPair;
    let world = World::new().await;
    let (_, token) = world.session();
    let gateway = world.plane().gateway();
    let pieces: Vec<&str> = token.split('.').collect();
    let (header, body) = (read_part(pieces[0]), read_part(pieces[1]));
    let key = std::fs::read_dir(gateway.state().join("keys"))
        .expect("the folder of the token keys")
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok())
        .find(|text| text.contains("PRIVATE KEY"))
        .expect("a signing key");
    let der: String = key.lines().filter(|line| !line.starts_with('-')).collect();
    let key = Ed25519KeyPair::from_pkcs8(&STANDARD.decode(der).unwrap()).unwrap();
    let sign = |change: &dyn Fn(&mut Value)| {
        let mut body = body.clone();
        change(&mut body);
        let text = format!("{}.{}", part(&header), part(&body));
        format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()))
        )
    };
    let exp = body["exp"].as_u64().unwrap();
    let remove = |key: &'static str| {
        move |body: &mut Value| {
            body.as_object_mut().unwrap().remove(key);
        }
    };
    let set = |key: &'static str, value: Value| move |body: &mut Value| body[key] = value.clone();
    let unchanged = sign(&|_| {});
    let cases = [
        ("no exp", sign(&remove("exp")), "token_invalid"),
        ("no sub", sign(&remove("sub")), "token_invalid"),
        ("no aud", sign(&remove("aud")), "token_invalid"),
        ("no iss", sign(&remove("iss")), "token_invalid"),
        (
            "another aud",
            sign(&set("aud", json!("another"))),
            "token_invalid",
        ),
        (
            "another iss",
            sign(&set("iss", json!("another"))),
            "token_invalid",
        ),
        (
            "nbf in the future",
            sign(&set("nbf", json!(exp + 600))),
            "token_invalid",
        ),
        (
            "over 60 minutes",
            sign(&set("exp", json!(exp + 100_000))),
            "token_invalid",
        ),
        (
            "exp as text",
            sign(&set("exp", json!(exp.to_string()))),
            "token_invalid",
        ),
        (
            "sub with a path",
            sign(&set("sub", json!("../../x"))),
            "token_invalid",
        ),
        (
            "expired",
            sign(&|body| {
                body["exp"] = json!(1_700_000_000);
                body["iat"] = json!(1_699_999_000);
                body["nbf"] = json!(1_699_999_000);
            }),
            "token_expired",
        ),
    ];
    for way in Way::ALL {
        let req = world.get(way, "a.test", "/").bearer(&unchanged);
        assert_eq!(
            world.guest().send(way, &req).await.answered().status,
            200,
            "the method works"
        );
        for (what, forged, code) in &cases {
            let mark = world.mark();
            let req = world.get(way, "a.test", "/").bearer(forged);
            let outcome = world.guest().send(way, &req).await;
            world.assert_denied(mark, &outcome, code, &format!("{way:?}: {what}"));
        }
    }
}
