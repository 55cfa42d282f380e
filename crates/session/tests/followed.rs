//! What a token says its session was given, and the keys of a gateway that follows another one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    session::{PolicyName, Terms, TokenVerifier},
};
use outgate_session::FollowedKeys;
use serde_json::json;
use support::{Fixture, HALF_HOUR, NOW, Refusal, session};

fn narrow() -> Terms {
    let limits = LimitsText {
        requests: Some("3/min".to_owned()),
        bytes_out: Some(1000),
        ..LimitsText::default()
    };
    Terms {
        policy: PolicyName::parse("read-only"),
        limits: SessionLimits::try_from(&limits).unwrap(),
    }
}

#[test]
fn a_token_says_what_its_session_was_given() {
    let fixture = Fixture::new();
    for terms in [Terms::default(), narrow()] {
        let minted = fixture
            .ring
            .mint(&session(), &terms, HALF_HOUR, NOW)
            .unwrap();
        let claims = fixture.verify(minted.token.expose(), NOW).unwrap();
        assert_eq!(claims.terms, terms);
    }
}

#[test]
fn terms_that_cannot_be_read_are_not_taken_for_none() {
    let fixture = Fixture::new();
    for (name, value) in [
        ("policy", json!("no such/name")),
        ("policy", json!(7)),
        ("limits", json!({"requests": "many"})),
        ("limits", json!({"bytes_out": 0})),
        ("limits", json!({"unheard_of": 1})),
        ("limits", json!("none")),
    ] {
        let claims = support::with(support::claims(), name, value.clone());
        let key = fixture.newest_key();
        let token = key.sign(&key.header(), &claims);
        let seen = fixture.verify(&token, NOW);
        assert!(matches!(seen, Err(Refusal::Invalid(_))), "{name} {value}");
    }
}

#[test]
fn followed_keys_verify_what_the_ring_signs_and_nothing_before_they_came() {
    let fixture = Fixture::new();
    let followed = FollowedKeys::new("outgate-test", "outgate");
    let verifier = followed.verifier();
    let token = fixture.mint();
    assert!(verifier.verify(&token, NOW).is_err());
    followed.replace(&fixture.ring.jwks()).unwrap();
    assert_eq!(verifier.verify(&token, NOW).unwrap().session, session());

    fixture.ring.rotate(NOW).unwrap();
    let rotated = fixture.mint();
    assert!(verifier.verify(&rotated, NOW).is_err());
    followed.replace(&fixture.ring.jwks()).unwrap();
    assert!(verifier.verify(&rotated, NOW).is_ok() && verifier.verify(&token, NOW).is_ok());

    // A set without the old key: its tokens are over, remembered or not.
    let mut newest = fixture.ring.jwks();
    newest["keys"].as_array_mut().unwrap().truncate(1);
    followed.replace(&newest).unwrap();
    assert!(verifier.verify(&rotated, NOW).is_ok() && verifier.verify(&token, NOW).is_err());
}

#[test]
fn a_set_with_anything_wrong_in_it_changes_nothing() {
    let fixture = Fixture::new();
    let followed = FollowedKeys::new("outgate-test", "outgate");
    followed.replace(&fixture.ring.jwks()).unwrap();
    let good = fixture.ring.jwks()["keys"][0].clone();
    let with = |name: &str, value: serde_json::Value| {
        let mut key = good.clone();
        key[name] = value;
        json!({"keys": [good.clone(), key]})
    };
    for bad in [
        json!({}),
        json!([]),
        json!({"keys": []}),
        json!({"keys": "all"}),
        json!({"keys": vec![good.clone(); 65]}),
        with("kty", json!("RSA")),
        with("crv", json!("X25519")),
        with("x", json!("AAAA")),
        with("kid", json!("another")),
        with("kid", json!(null)),
    ] {
        assert!(followed.replace(&bad).is_err(), "{bad}");
    }
    assert!(followed.verifier().verify(&fixture.mint(), NOW).is_ok());
}
