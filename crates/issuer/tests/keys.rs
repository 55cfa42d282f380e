//! Where keys come from, when they are asked for, and when they stop counting; against a real TLS server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use outgate_clock::{Clock, FakeClock};
use outgate_issuer::{IssuerConfig, IssuerError, Issuers, KeySource};
use outgate_journey::session::{TokenVerifier, UnixSeconds};
use outgate_testkit::eventually;
use serde_json::{Value, json};
use support::{
    FileIssuer, Idp, NOW,
    Refusal::{self, Expired, Invalid},
    Reply, Signer, b64, claims, clock, jwks, patient, present, state, verify, with,
};

const NOT_KNOWN: Refusal = Invalid("the issuer's keys are not known");
const OUT_OF_DATE: Refusal = Invalid("the issuer's keys are out of date");
const KEY: Refusal = Invalid("unknown key");
const HOUR: Duration = Duration::from_secs(3600);
const APART: Duration = Duration::from_secs(10);

/// Claims that stay good for days.
fn lasting(idp: &Idp) -> Value {
    with(claims(&idp.issuer()), "exp", NOW + 10 * 24 * 3600)
}

async fn outcome(issuers: &Issuers, clock: &FakeClock, token: &str) -> Result<(), Refusal> {
    present(issuers, clock, token).await.map(|_| ())
}

/// Waits for what goes on in the background.
async fn until(what: &str, probe: impl FnMut() -> bool) {
    let mut probe = probe;
    let seen = eventually(Duration::from_secs(5), || probe().then_some(())).await;
    assert!(seen.is_some(), "{what}");
}

#[tokio::test]
async fn keys_are_discovered_when_the_first_token_comes() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::rsa("1", 0));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let token = signer.token(&lasting(&idp));
    assert_eq!(verify(&issuers, &token, NOW).map(|_| ()), Err(NOT_KNOWN));
    assert_eq!(idp.asked().len(), 0, "verifying asks nobody");
    for _ in 0..5 {
        assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    }
    assert_eq!(idp.count("/.well-known/openid-configuration"), 1);
    assert_eq!(idp.count("/jwks"), 1);
    let state = state(&issuers);
    assert_eq!((state.keys, state.fault), (1, None));
    assert_eq!(state.age, Some(Duration::ZERO));
}

#[tokio::test]
async fn keys_are_fetched_ahead_of_any_token() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::rsa("1", 0));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    for _ in 0..3 {
        issuers.refresh().await;
    }
    assert!(verify(&issuers, &signer.token(&lasting(&idp)), NOW).is_ok());
    assert_eq!(idp.count("/jwks"), 1);
}

#[tokio::test]
async fn keys_are_fetched_from_the_url_that_is_configured() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::rsa("1", 0));
    idp.set("/elsewhere", Reply::Json(jwks([&signer])));
    let config = IssuerConfig {
        issuer: "an issuer that is no URL".to_owned(),
        keys: KeySource::JwksUrl(idp.server.url("/elsewhere")),
        ..idp.config()
    };
    let issuers = patient(vec![config], &clock, 5000);
    let token = signer.token(&claims("an issuer that is no URL"));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    assert_eq!(idp.asked().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_not_known_is_looked_for_at_once() {
    let (idp, clock) = (Idp::start().await, clock());
    let (old, new) = (Signer::rsa("1", 0), Signer::p256("2"));
    idp.publish([&old]);
    let issuers = idp.issuers(&clock);
    let (of_old, of_new) = (old.token(&lasting(&idp)), new.token(&lasting(&idp)));
    assert_eq!(outcome(&issuers, &clock, &of_old).await, Ok(()));
    idp.publish([&old, &new]);
    clock.advance(APART);
    assert_eq!(outcome(&issuers, &clock, &of_new).await, Ok(()));
    assert_eq!(outcome(&issuers, &clock, &of_old).await, Ok(()));
    assert_eq!(idp.count("/jwks"), 2);
}

#[tokio::test]
async fn a_key_that_was_removed_stops_verifying_also_what_is_remembered() {
    let (idp, clock) = (Idp::start().await, clock());
    let (stolen, new) = (Signer::rsa("1", 0), Signer::rsa("2", 1));
    idp.publish([&stolen]);
    let issuers = idp.issuers(&clock);
    let token = stolen.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    idp.publish([&new]);
    clock.advance(HOUR);
    // Keys of an hour ago are not taken without another look.
    assert_eq!(outcome(&issuers, &clock, &token).await, Err(KEY));
    assert_eq!(
        outcome(&issuers, &clock, &new.token(&lasting(&idp))).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_key_that_was_replaced_under_its_name_stops_verifying() {
    let (idp, clock) = (Idp::start().await, clock());
    let (stolen, new) = (Signer::rsa("same", 0), Signer::rsa("same", 1));
    idp.publish([&stolen]);
    let issuers = idp.issuers(&clock);
    let token = stolen.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    idp.publish([&new]);
    clock.advance(HOUR);
    let refused = outcome(&issuers, &clock, &token).await;
    assert_eq!(refused, Err(Invalid("bad signature")));
}

#[tokio::test]
async fn keys_that_are_merely_old_are_renewed_behind_the_request() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::rsa("1", 0));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let token = signer.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    clock.advance(Duration::from_secs(599));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    assert_eq!(idp.count("/jwks"), 1);
    clock.advance(Duration::from_secs(1));
    idp.set("/jwks", Reply::Silence);
    let begin = Instant::now();
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    assert!(begin.elapsed() < Duration::from_secs(1), "not waited for");
    until("asked again", || idp.count("/jwks") == 2).await;
}

#[tokio::test]
async fn a_server_says_how_long_its_keys_are_fresh_within_bounds() {
    for (control, age, asked_again) in [
        ("max-age=300", 299, false),
        ("max-age=300", 300, true),
        ("max-age=0", 59, false),
        ("no-store", 60, true),
        ("max-age=31536000", 3599, false),
        ("max-age=31536000", 3600, true),
    ] {
        let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
        idp.publish([&signer]);
        idp.set("/jwks", Reply::Cached(jwks([&signer]), control));
        let issuers = idp.issuers(&clock);
        issuers.refresh().await;
        clock.advance(Duration::from_secs(age));
        issuers.refresh().await;
        let expected = if asked_again { 2 } else { 1 };
        assert_eq!(idp.count("/jwks"), expected, "{control} after {age} s");
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_once_in_ten_seconds() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let flood = |name: &str| {
        let tokens: Vec<_> = (0..200)
            .map(|number| {
                let header = with(signer.header(), "kid", format!("{name}-{number}"));
                signer.sign(&header, &lasting(&idp))
            })
            .collect();
        let issuers = issuers.clone();
        let now = clock.unix();
        async move {
            let calls = tokens.iter().map(|token| issuers.prepare(token, now));
            futures_util::future::join_all(calls).await;
            assert!(
                tokens
                    .iter()
                    .all(|token| issuers.verify(token, now).is_err())
            );
        }
    };
    for round in 1..=3 {
        for part in 0..3 {
            flood(&format!("{round}-{part}")).await;
            assert_eq!(idp.count("/jwks"), round, "round {round}");
        }
        clock.advance(APART.checked_sub(Duration::from_millis(1)).unwrap());
        flood("too soon").await;
        assert_eq!(idp.count("/jwks"), round);
        clock.advance(Duration::from_millis(1));
    }
    // Honest tokens do not suffer.
    let begin = Instant::now();
    assert_eq!(
        outcome(&issuers, &clock, &signer.token(&lasting(&idp))).await,
        Ok(())
    );
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_crowd_at_the_start_makes_one_fetch_and_all_of_it_gets_in() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let late = Reply::Late(Duration::from_millis(200), jwks([&signer]));
    idp.set("/jwks", late);
    let issuers = idp.issuers(&clock);
    let tokens: Vec<_> = (0..100)
        .map(|n| signer.token(&with(lasting(&idp), "sub", format!("agent-{n}"))))
        .collect();
    let all =
        futures_util::future::join_all(tokens.iter().map(|token| outcome(&issuers, &clock, token)));
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!(idp.count("/jwks"), 1);
}

#[tokio::test]
async fn a_guest_that_hangs_up_does_not_end_the_fetch() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    idp.set(
        "/jwks",
        Reply::Late(Duration::from_millis(200), jwks([&signer])),
    );
    let issuers = idp.issuers(&clock);
    let token = signer.token(&lasting(&idp));
    let hang_up = tokio::time::timeout(
        Duration::from_millis(50),
        issuers.prepare(&token, UnixSeconds(NOW)),
    );
    assert!(hang_up.await.is_err());
    until("the keys are known", || {
        verify(&issuers, &token, NOW).is_ok()
    })
    .await;
    assert_eq!(idp.count("/jwks"), 1);
}

#[tokio::test]
async fn an_issuer_that_is_slow_holds_nobody_longer_than_is_allowed() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    for path in ["/.well-known/openid-configuration", "/jwks"] {
        idp.publish([&signer]);
        idp.set(path, Reply::Silence);
        let issuers = patient(vec![idp.config()], &clock, 300);
        let begin = Instant::now();
        let token = signer.token(&lasting(&idp));
        assert_eq!(outcome(&issuers, &clock, &token).await, Err(NOT_KNOWN));
        assert!(begin.elapsed() < Duration::from_secs(2), "{path}");
        until("the failure is told", || state(&issuers).fault.is_some()).await;
    }
}

#[tokio::test]
async fn an_issuer_that_was_down_is_asked_again_after_ten_seconds() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    let issuers = idp.issuers(&clock);
    let token = signer.token(&lasting(&idp));
    for _ in 0..5 {
        assert_eq!(outcome(&issuers, &clock, &token).await, Err(NOT_KNOWN));
    }
    assert_eq!(idp.asked().len(), 1);
    let fault = state(&issuers).fault.unwrap();
    assert!(fault.contains("404"), "{fault}");
    idp.publish([&signer]);
    clock.advance(APART);
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    assert_eq!(state(&issuers).fault, None);
}

#[tokio::test]
async fn answers_that_are_no_keys_are_refused_and_nothing_of_them_counts() {
    let signer = Signer::ed25519("1");
    let keys = jwks([&signer]);
    let text = |text: String| Reply::Text(StatusCode::OK, text);
    let many = json!({ "keys": vec![signer.jwk(); 129] });
    let padded = with(keys.clone(), "padding", "x".repeat(513 * 1024));
    for (name, reply) in [
        (
            "500",
            Reply::Text(StatusCode::INTERNAL_SERVER_ERROR, keys.to_string()),
        ),
        ("201", Reply::Text(StatusCode::CREATED, keys.to_string())),
        ("404", Reply::Text(StatusCode::NOT_FOUND, keys.to_string())),
        ("a redirect", Reply::Redirect("/good".to_owned())),
        ("HTML", text("<html>keys</html>".to_owned())),
        ("nothing", text(String::new())),
        ("a list", text(keys["keys"].to_string())),
        ("no list", text(r#"{"keys":{}}"#.to_owned())),
        ("no keys", text("{}".to_owned())),
        (
            "a repeated name",
            text(format!(r#"{{"keys":[],"keys":{}}}"#, keys["keys"])),
        ),
        ("two documents", text(format!("{keys}{keys}"))),
        ("too many", Reply::Json(many)),
        ("too long", Reply::Json(padded)),
    ] {
        let (idp, clock) = (Idp::start().await, clock());
        idp.publish([&signer]);
        idp.set("/good", Reply::Json(keys.clone()));
        idp.set("/jwks", reply);
        let issuers = idp.issuers(&clock);
        let token = signer.token(&lasting(&idp));
        assert_eq!(
            outcome(&issuers, &clock, &token).await,
            Err(NOT_KNOWN),
            "{name}"
        );
        assert!(state(&issuers).fault.is_some(), "{name}");
        assert_eq!(idp.count("/good"), 0, "{name}");
    }
}

#[tokio::test]
async fn metadata_are_the_issuers_own_and_lead_nowhere_else() {
    let signer = Signer::ed25519("1");
    let other = Idp::start().await;
    other.publish([&signer]);
    let idp = Idp::start().await;
    let port = idp.server.address.port();
    for (name, value) in [
        ("issuer", json!(format!("{}/", idp.issuer()))),
        ("issuer", json!("https://evil.test")),
        ("issuer", json!([idp.issuer()])),
        ("issuer", Value::Null),
        ("jwks_uri", Value::Null),
        ("jwks_uri", json!(7)),
        ("jwks_uri", json!("/jwks")),
        ("jwks_uri", json!("file:///etc/passwd")),
        ("jwks_uri", json!(format!("http://127.0.0.1:{port}/jwks"))),
        ("jwks_uri", json!(format!("https://localhost:{port}/jwks"))),
        (
            "jwks_uri",
            json!(format!("https://u@127.0.0.1:{port}/jwks")),
        ),
        ("jwks_uri", json!(other.server.url("/jwks"))),
        (
            "jwks_uri",
            json!("https://169.254.169.254/latest/meta-data/"),
        ),
    ] {
        let clock = clock();
        idp.publish([&signer]);
        let metadata = with(idp.metadata(), name, value.clone());
        idp.set("/.well-known/openid-configuration", Reply::Json(metadata));
        let issuers = idp.issuers(&clock);
        let token = signer.token(&lasting(&idp));
        assert_eq!(
            outcome(&issuers, &clock, &token).await,
            Err(NOT_KNOWN),
            "{name}: {value}"
        );
        assert!(state(&issuers).fault.is_some());
        assert_eq!(
            (idp.count("/jwks"), other.asked().len()),
            (0, 0),
            "{name}: {value}"
        );
    }
    let clock = clock();
    idp.set(
        "/.well-known/openid-configuration",
        Reply::Redirect(other.server.url("/.well-known/openid-configuration")),
    );
    let token = signer.token(&lasting(&idp));
    assert_eq!(
        outcome(&idp.issuers(&clock), &clock, &token).await,
        Err(NOT_KNOWN)
    );
    assert_eq!(other.asked().len(), 0);
}

#[tokio::test]
async fn a_path_in_the_issuer_stands_before_the_well_known_one() {
    for slash in ["", "/"] {
        let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
        let issuer = format!("{}/realms/agents{slash}", idp.issuer());
        idp.publish([&signer]);
        idp.set(
            "/realms/agents/.well-known/openid-configuration",
            Reply::Json(with(idp.metadata(), "issuer", issuer.clone())),
        );
        let config = IssuerConfig {
            issuer: issuer.clone(),
            ..idp.config()
        };
        let issuers = patient(vec![config], &clock, 5000);
        let token = signer.token(&claims(&issuer));
        assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()), "{issuer}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_verify_is_not_believed() {
    let (idp, stranger) = (Idp::start().await, Idp::start().await);
    let (clock, signer) = (clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let config = IssuerConfig {
        ca: Some(stranger.ca()),
        ..idp.config()
    };
    let issuers = patient(vec![config], &clock, 5000);
    let token = signer.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Err(NOT_KNOWN));
    assert_eq!(idp.asked().len(), 0);
    assert!(state(&issuers).fault.unwrap().contains("TLS"));
}

#[tokio::test]
async fn unusable_keys_are_left_out_and_the_others_stay_good() {
    let (idp, clock) = (Idp::start().await, clock());
    let (good, other) = (Signer::rsa("good", 0), Signer::p256("bad"));
    let (n, e) = good.rsa_numbers();
    let bad = |name: &str, value: Value| with(other.jwk(), name, value);
    let rsa = |n: &[u8], e: &[u8]| json!({ "kty": "RSA", "kid": "bad", "n": b64(n), "e": b64(e) });
    let unusable = vec![
        json!(null),
        json!("key"),
        json!([]),
        json!({}),
        json!({ "kty": "RSA", "kid": "bad" }),
        json!({ "kty": "new", "kid": "bad", "pub": "AAAA" }),
        json!({ "kty": "OKP", "crv": "X25519", "kid": "bad", "x": b64([1; 32]) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "bad", "x": b64([1; 31]) }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "bad", "x": "AA", "y": "AA" }),
        bad("use", json!("enc")),
        bad("use", json!(7)),
        bad("key_ops", json!(["sign"])),
        bad("key_ops", json!("verify")),
        bad("alg", json!("ES384")),
        bad("alg", json!("ECDH-ES")),
        bad("alg", json!("HS256")),
        bad("alg", json!(7)),
        bad("kid", json!(7)),
        bad("crv", json!("P-384")),
        bad("x", json!(b64([0; 32]))),
        bad("x", json!("!!")),
        bad("y", json!(other.jwk()["x"])),
        bad("y", Value::Null),
        bad("d", json!(b64([1; 32]))),
        rsa(&n[..128], &e),
        rsa(&n[..255], &e),
        rsa(&n, &[]),
        rsa(&n, &[1]),
        rsa(&n, &[2]),
        rsa(&n, &[0]),
        rsa(&n, &[1, 0, 0, 0, 1]),
        rsa(&[], &e),
        rsa(&[0xff; 1025], &e),
    ];
    let count = unusable.len();
    let mut keys = unusable;
    keys.insert(count / 2, good.jwk());
    // A sign byte in front is how some write the number.
    keys.push(with(rsa(&[&[0], &n[..]].concat(), &e), "kid", "padded"));
    idp.publish([&good]);
    idp.set("/jwks", Reply::Json(json!({ "keys": keys })));
    let issuers = idp.issuers(&clock);
    assert_eq!(
        outcome(&issuers, &clock, &good.token(&lasting(&idp))).await,
        Ok(())
    );
    assert_eq!(state(&issuers).keys, 2);
    let padded = with(good.header(), "kid", "padded");
    let padded = good.sign(&padded, &lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &padded).await, Ok(()));
    let refused = outcome(&issuers, &clock, &other.token(&lasting(&idp))).await;
    assert_eq!(refused, Err(KEY));
}

#[tokio::test]
async fn keys_outlive_their_issuer_by_a_day_and_no_longer() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let token = signer.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    for (path, code) in [("/jwks", 503), ("/.well-known/openid-configuration", 200)] {
        let code = StatusCode::from_u16(code).unwrap();
        idp.set(path, Reply::Text(code, String::new()));
    }
    for hour in 1..=24 {
        clock.advance(HOUR);
        assert_eq!(
            outcome(&issuers, &clock, &token).await,
            Ok(()),
            "hour {hour}"
        );
    }
    clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&issuers, &clock, &token).await, Err(OUT_OF_DATE));
    idp.publish([&signer]);
    clock.advance(APART);
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
}

#[tokio::test]
async fn an_issuer_that_is_down_is_waited_for_once() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let issuers = patient(vec![idp.config()], &clock, 400);
    let token = signer.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    idp.set("/.well-known/openid-configuration", Reply::Silence);
    clock.advance(HOUR);
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    until("the failure is told", || state(&issuers).fault.is_some()).await;
    let begin = Instant::now();
    for _ in 0..10 {
        clock.advance(APART);
        assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    }
    assert!(
        begin.elapsed() < Duration::from_millis(300),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_extends_nothing() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let short = signer.token(&claims(&idp.issuer()));
    let long = signer.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &short).await, Ok(()));
    assert_eq!(outcome(&issuers, &clock, &long).await, Ok(()));
    idp.set("/jwks", Reply::Text(StatusCode::BAD_GATEWAY, String::new()));
    clock.advance(Duration::from_secs(599));
    clock.set_wall(UnixSeconds(NOW - 24 * 3600));
    assert_eq!(outcome(&issuers, &clock, &short).await, Ok(()));
    clock.advance(Duration::from_secs(1));
    assert_eq!(outcome(&issuers, &clock, &short).await, Err(Expired));
    clock.advance(24 * HOUR);
    clock.set_wall(UnixSeconds(NOW));
    assert_eq!(outcome(&issuers, &clock, &long).await, Err(OUT_OF_DATE));
}

#[tokio::test]
async fn a_change_of_the_configuration_keeps_keys_that_come_from_the_same_place() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::ed25519("1"));
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let token = signer.token(&lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Ok(()));
    idp.set("/jwks", Reply::Silence);
    let changed = IssuerConfig {
        audiences: vec!["outgate".to_owned(), "more".to_owned()],
        ..idp.config()
    };
    let same = issuers.replaced(vec![changed]).unwrap();
    assert!(verify(&same, &token, NOW).is_ok());
    let narrowed = IssuerConfig {
        audiences: vec!["more".to_owned()],
        ..idp.config()
    };
    let narrowed = issuers.replaced(vec![narrowed]).unwrap();
    let refused = verify(&narrowed, &token, NOW).map(|_| ());
    assert_eq!(refused, Err(Invalid("wrong audience")));
    let elsewhere = IssuerConfig {
        keys: KeySource::JwksUrl(idp.server.url("/other")),
        ..idp.config()
    };
    let elsewhere = issuers.replaced(vec![elsewhere]).unwrap();
    assert_eq!(verify(&elsewhere, &token, NOW).map(|_| ()), Err(NOT_KNOWN));
    let none = issuers.replaced(Vec::new()).unwrap();
    assert!(none.is_empty());
    assert!(verify(&none, &token, NOW).is_err());
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_and_a_broken_one_changes_nothing() {
    let (one, two) = (Signer::ed25519("1"), Signer::ed25519("2"));
    let file = FileIssuer::new("file", &jwks([&one]));
    let clock = clock();
    let issuers = patient(vec![file.config.clone()], &clock, 5000);
    let claims = with(claims("file"), "exp", NOW + 10 * 24 * 3600);
    let (of_one, of_two) = (one.token(&claims), two.token(&claims));
    assert_eq!(outcome(&issuers, &clock, &of_one).await, Ok(()));
    let path = file.dir.path().join("keys.json");
    std::fs::write(&path, jwks([&two]).to_string()).unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(outcome(&issuers, &clock, &of_two).await, Ok(()));
    assert_eq!(outcome(&issuers, &clock, &of_one).await, Err(KEY));
    std::fs::write(&path, "{").unwrap();
    clock.advance(Duration::from_secs(60));
    issuers.refresh().await;
    assert_eq!(outcome(&issuers, &clock, &of_two).await, Ok(()));
    assert!(state(&issuers).fault.is_some());
}

#[tokio::test]
async fn no_token_makes_the_gateway_call_anybody_but_its_issuer() {
    let (idp, lure) = (Idp::start().await, Idp::start().await);
    let (signer, stranger, clock) = (Signer::rsa("1", 0), Signer::rsa("9", 1), clock());
    idp.publish([&signer]);
    lure.publish([&stranger]);
    let issuers = idp.issuers(&clock);
    for name in ["jku", "x5u"] {
        let header = with(stranger.header(), name, lure.server.url("/jwks"));
        let token = stranger.sign(&header, &lasting(&idp));
        assert_eq!(outcome(&issuers, &clock, &token).await, Err(KEY));
    }
    let header = with(stranger.header(), "kid", lure.server.url("/jwks"));
    let token = stranger.sign(&header, &lasting(&idp));
    assert_eq!(outcome(&issuers, &clock, &token).await, Err(KEY));
    let token = stranger.token(&claims(&lure.issuer()));
    let unknown = outcome(&issuers, &clock, &token).await;
    assert_eq!(unknown, Err(Invalid("unknown issuer")));
    assert_eq!(lure.asked().len(), 0);
}

#[tokio::test]
async fn tokens_that_cannot_be_taken_make_no_call() {
    let (idp, signer, clock) = (Idp::start().await, Signer::rsa("1", 0), clock());
    idp.publish([&signer]);
    let issuers = idp.issuers(&clock);
    let good = lasting(&idp);
    for token in [
        String::new(),
        "sk-ant-api03-AAAAAAAAAAAA".to_owned(),
        "x".repeat(20_000),
        signer.sign(&with(signer.header(), "alg", "none"), &good),
        signer.sign(&with(signer.header(), "alg", "HS256"), &good),
        signer.sign(&with(signer.header(), "crit", json!(["x"])), &good),
        signer.token(&with(good.clone(), "iss", "https://other.example.org")),
        signer.token(&with(good, "padding", "x".repeat(20_000))),
    ] {
        assert!(outcome(&issuers, &clock, &token).await.is_err());
    }
    assert_eq!(idp.asked().len(), 0);
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    let file = FileIssuer::new("file", &jwks([&Signer::ed25519("1")]));
    let base = || file.config.clone();
    let write = |name: &str, text: &str| {
        let path = file.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        KeySource::JwksFile(path)
    };
    let keys = |keys: KeySource| IssuerConfig { keys, ..base() };
    let named = |issuer: &str| IssuerConfig {
        issuer: issuer.to_owned(),
        keys: KeySource::Discovery,
        ca: None,
        ..base()
    };
    let new = |configs: Vec<IssuerConfig>| Issuers::new(configs, clock() as Arc<dyn Clock>);
    assert!(new(vec![base()]).is_ok());
    assert!(new(Vec::new()).unwrap().is_empty());
    for (configs, matches) in [
        (
            vec![base(), base()],
            (|fault| matches!(fault, IssuerError::Twice(_))) as fn(&IssuerError) -> bool,
        ),
        (
            vec![IssuerConfig {
                issuer: String::new(),
                ..base()
            }],
            |fault| matches!(fault, IssuerError::Name),
        ),
        (
            vec![IssuerConfig {
                audiences: Vec::new(),
                ..base()
            }],
            |fault| matches!(fault, IssuerError::NoAudience(_)),
        ),
        (
            vec![IssuerConfig {
                session_claim: String::new(),
                ..base()
            }],
            |fault| matches!(fault, IssuerError::NoClaim(_)),
        ),
        (vec![keys(write("empty", ""))], |fault| {
            matches!(fault, IssuerError::File { .. })
        }),
        (vec![keys(write("none", r#"{"keys":[]}"#))], |fault| {
            matches!(fault, IssuerError::File { .. })
        }),
        (
            vec![keys(KeySource::JwksFile(file.dir.path().to_owned()))],
            |fault| matches!(fault, IssuerError::File { .. }),
        ),
        (
            vec![keys(KeySource::JwksFile("/nowhere/keys.json".into()))],
            |fault| matches!(fault, IssuerError::File { .. }),
        ),
        (
            vec![keys(KeySource::JwksUrl("http://127.0.0.1/jwks".to_owned()))],
            |fault| matches!(fault, IssuerError::Plaintext { .. }),
        ),
        (
            vec![keys(KeySource::JwksUrl("file:///keys".to_owned()))],
            |fault| matches!(fault, IssuerError::Url { .. }),
        ),
        (vec![named("idp.example.org")], |fault| {
            matches!(fault, IssuerError::Url { .. })
        }),
        (vec![named("http://idp.example.org")], |fault| {
            matches!(fault, IssuerError::Plaintext { .. })
        }),
        (vec![named("https://idp.example.org/?tenant=a")], |fault| {
            matches!(fault, IssuerError::Url { .. })
        }),
        (
            vec![IssuerConfig {
                ca: Some("/nowhere/ca.pem".into()),
                ..named("https://idp.example.org")
            }],
            |fault| matches!(fault, IssuerError::Client { .. }),
        ),
    ] {
        let shown = format!("{configs:?}");
        let fault = new(configs).unwrap_err();
        assert!(matches(&fault), "{fault:?}: {shown}");
    }
}
