//! The ring over time: round trips, rotation, restarts, other rings, other eyes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, thread, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use outgate_journey::session::{Terms, TokenFault, TokenVerifier, UnixSeconds};
use outgate_session::{KeyError, KeyRing, OVERLAP, ROTATE_AFTER, new_session_id};
use support::{Fixture, HALF_HOUR, NOW, Refusal, at, claims, open, session, with};

const DAY: i64 = 24 * 60 * 60;

#[test]
fn what_is_minted_verifies() {
    let fixture = Fixture::new();
    let id = new_session_id();
    let minted = fixture
        .ring
        .mint(&id, &Terms::default(), HALF_HOUR, NOW)
        .unwrap();
    let claims = fixture.verify(minted.token.expose(), NOW).unwrap();
    assert_eq!(claims.session, id);
    assert_eq!(*claims.token_id, *minted.token_id);
    assert_eq!(claims.expires, minted.expires);
    assert_eq!(minted.expires, at(1800));
    assert!(
        minted.token.expose().len() < 512,
        "it has to fit where API keys go"
    );
}

#[test]
fn two_tokens_of_a_session_differ() {
    let fixture = Fixture::new();
    assert_ne!(fixture.mint(), fixture.mint());
}

#[test]
fn a_token_lives_between_a_second_and_an_hour() {
    let fixture = Fixture::new();
    for (millis, allowed) in [
        (0, false),
        (999, false),
        (1000, true),
        (3_600_000, true),
        (3_600_001, false),
    ] {
        let minted = fixture.ring.mint(
            &session(),
            &Terms::default(),
            Duration::from_millis(millis),
            NOW,
        );
        match minted {
            Ok(minted) => assert!(
                allowed && fixture.verify(minted.token.expose(), NOW).is_ok(),
                "{millis}"
            ),
            Err(error) => assert!(
                !allowed && matches!(error, KeyError::TtlOutOfRange(_)),
                "{millis}"
            ),
        }
    }
    assert!(
        fixture
            .ring
            .mint(&session(), &Terms::default(), Duration::MAX, NOW)
            .is_err()
    );
}

#[test]
fn another_library_reads_our_tokens_by_our_jwks() {
    let fixture = Fixture::new();
    fixture.ring.rotate(NOW).unwrap();
    let token = fixture.mint();
    let set: JwkSet = serde_json::from_value(fixture.ring.jwks()).unwrap();
    assert_eq!(set.keys.len(), 2);
    let header = decode_header(&token).unwrap();
    let jwk = set.find(&header.kid.unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["outgate"]);
    validation.set_issuer(&["outgate-test"]);
    // That library looks at the machine's clock; the test's stands still.
    validation.validate_exp = false;
    let decoded =
        decode::<serde_json::Value>(&token, &DecodingKey::from_jwk(jwk).unwrap(), &validation)
            .unwrap();
    assert_eq!(decoded.claims["sub"], "s_4fz8");
    assert_eq!(decoded.claims["exp"], NOW.0 + 1800);
}

#[test]
fn the_jwks_holds_no_private_part() {
    let fixture = Fixture::new();
    let jwks = fixture.ring.jwks();
    let members: Vec<_> = jwks["keys"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
}

#[test]
fn a_rotated_key_verifies_for_a_day_and_is_then_deleted() {
    let fixture = Fixture::new();
    let old = fixture.newest_key();
    let before = fixture.mint();
    assert!(fixture.verify(&before, NOW).is_ok());
    fixture.ring.rotate(NOW).unwrap();
    let after = fixture.mint();
    let kid = |token: &str| decode_header(token).unwrap().kid.unwrap();
    assert_ne!(kid(&before), kid(&after));
    assert!(fixture.verify(&before, NOW).is_ok());
    assert!(fixture.verify(&after, NOW).is_ok());

    // A token of the old key which would outlive it is refused, remembered or not.
    let late = with(
        with(claims(), "iat", at(DAY - 60).0),
        "exp",
        at(DAY + 600).0,
    );
    let late = old.sign(&old.header(), &late);
    assert!(fixture.verify(&late, at(DAY - 1)).is_ok());
    assert_eq!(
        fixture.verify(&late, at(DAY)),
        Err(Refusal::Invalid("signed by a retired key"))
    );

    assert!(!fixture.ring.rotate_if_due(at(DAY - 1)).unwrap());
    assert_eq!(fixture.files().len(), 2);
    assert!(!fixture.ring.rotate_if_due(at(DAY)).unwrap());
    assert_eq!(fixture.files().len(), 1);
    assert_eq!(
        fixture.verify(&late, at(DAY)),
        Err(Refusal::Invalid("unknown key"))
    );
    assert_eq!(fixture.ring.jwks()["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn a_key_is_replaced_when_it_is_90_days_old() {
    let fixture = Fixture::new();
    let due = UnixSeconds(NOW.0 + ROTATE_AFTER.as_secs());
    assert!(!fixture.ring.rotate_if_due(UnixSeconds(due.0 - 1)).unwrap());
    assert!(fixture.ring.rotate_if_due(due).unwrap());
    assert!(!fixture.ring.rotate_if_due(due).unwrap());
    assert_eq!(fixture.files().len(), 2);
    assert!(
        !fixture
            .ring
            .rotate_if_due(UnixSeconds(due.0 + OVERLAP.as_secs()))
            .unwrap()
    );
    assert_eq!(fixture.files().len(), 1);
}

#[test]
fn a_clock_that_went_back_changes_nothing_and_breaks_nothing() {
    let fixture = Fixture::new();
    for earlier in [at(-1), at(-365 * DAY), UnixSeconds(0)] {
        assert!(!fixture.ring.rotate_if_due(earlier).unwrap());
    }
    assert_eq!(fixture.files().len(), 1);
    let before = fixture.mint();
    // An operator's rotation works all the same, and the fresh key is the one that signs, here and after a restart.
    fixture.ring.rotate(at(-365 * DAY)).unwrap();
    let fresh = fixture.newest_key();
    let reopened = open(&fixture.dir(), at(-365 * DAY));
    for ring in [&fixture.ring, &reopened] {
        let minted = ring
            .mint(&session(), &Terms::default(), HALF_HOUR, at(-365 * DAY))
            .unwrap();
        assert_eq!(
            decode_header(minted.token.expose()).unwrap().kid.unwrap(),
            fresh.kid
        );
        assert!(
            fixture
                .verify(minted.token.expose(), at(-365 * DAY))
                .is_ok()
        );
    }
    assert_eq!(
        fixture.verify(&before, at(-365 * DAY)),
        Err(Refusal::Invalid("not valid yet"))
    );
}

#[test]
fn a_clock_that_leaps_ahead_rotates_once() {
    let fixture = Fixture::new();
    assert!(fixture.ring.rotate_if_due(UnixSeconds(u64::MAX)).unwrap());
    for _ in 0..3 {
        assert!(!fixture.ring.rotate_if_due(NOW).unwrap());
        assert!(!fixture.ring.rotate_if_due(at(DAY)).unwrap());
    }
    assert!(
        fixture
            .ring
            .mint(
                &session(),
                &Terms::default(),
                HALF_HOUR,
                UnixSeconds(u64::MAX)
            )
            .is_ok()
    );
}

#[test]
fn a_restart_keeps_every_key_that_still_counts() {
    let fixture = Fixture::new();
    let old = fixture.mint();
    fixture.ring.rotate(NOW).unwrap();
    let new = fixture.mint();
    let reopened = open(&fixture.dir(), NOW).verifier();
    assert!(reopened.verify(&old, NOW).is_ok());
    assert!(reopened.verify(&new, NOW).is_ok());
    let a_day_later = open(&fixture.dir(), at(DAY));
    assert_eq!(a_day_later.jwks()["keys"].as_array().unwrap().len(), 1);
    assert_eq!(fixture.files().len(), 1);
}

#[test]
fn rings_do_not_accept_each_others_tokens() {
    let (one, two) = (Fixture::new(), Fixture::new());
    assert_eq!(
        two.verify(&one.mint(), NOW),
        Err(Refusal::Invalid("unknown key"))
    );
    assert_eq!(
        one.verify(&two.mint(), NOW),
        Err(Refusal::Invalid("unknown key"))
    );
    // Nor do rings that share a folder, and so the keys, but not the name.
    let other = KeyRing::open(&one.dir(), "outgate-test", "elsewhere", NOW).unwrap();
    assert_eq!(
        other.verifier().verify(&one.mint(), NOW),
        Err(TokenFault::Invalid("wrong audience"))
    );
}

#[test]
fn rings_that_open_at_once_are_one_ring() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("keys");
    let rings: Vec<KeyRing> = thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&dir, NOW))).collect();
        starts
            .into_iter()
            .map(|start| start.join().unwrap())
            .collect()
    });
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
    for ring in &rings {
        let minted = ring
            .mint(&session(), &Terms::default(), HALF_HOUR, NOW)
            .unwrap();
        assert!(
            rings
                .iter()
                .all(|other| other.verifier().verify(minted.token.expose(), NOW).is_ok())
        );
    }
}

#[test]
fn verifiers_survive_rotations_under_load() {
    let fixture = Fixture::new();
    let tokens: Vec<String> = (0..20).map(|_| fixture.mint()).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for token in tokens.iter().cycle().take(400) {
                    assert!(fixture.verify(token, NOW).is_ok());
                }
            });
        }
        for _ in 0..10 {
            fixture.ring.rotate(NOW).unwrap();
        }
    });
}

#[test]
fn keys_are_private_and_a_key_that_others_can_read_is_refused_by_name() {
    let fixture = Fixture::new();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let file = fixture.files().remove(0);
    assert_eq!((mode(&fixture.dir()), mode(&file)), (0o700, 0o600));
    for exposed in [0o644, 0o640, 0o604, 0o660] {
        fs::set_permissions(&file, fs::Permissions::from_mode(exposed)).unwrap();
        let message = KeyRing::open(&fixture.dir(), "i", "a", NOW)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(&format!("chmod 600 {}", file.display())),
            "{message}"
        );
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(KeyRing::open(&fixture.dir(), "i", "a", NOW).is_ok());
    fs::set_permissions(fixture.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let message = KeyRing::open(&fixture.dir(), "i", "a", NOW)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(&format!("chmod 700 {}", fixture.dir().display())),
        "{message}"
    );
}

#[test]
fn a_file_that_is_no_key_is_refused_by_name_and_left_alone() {
    for (name, content) in [
        ("000002-1790000000.pem", "not a key"),
        ("000002-1790000000.pem", ""),
        ("mine.pem", "not a key"),
        ("2.pem", ""),
    ] {
        let fixture = Fixture::new();
        let path = fixture.dir().join(name);
        outgate_state::write_private_atomic(&path, content.as_bytes()).unwrap();
        let error = KeyRing::open(&fixture.dir(), "i", "a", NOW).unwrap_err();
        assert!(
            matches!(&error, KeyError::Unreadable { path: named, .. } if *named == path),
            "{error}"
        );
        assert!(fixture.ring.rotate(NOW).is_err());
        assert!(
            fixture.verify(&fixture.mint(), NOW).is_ok(),
            "the ring goes on as it was"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
    let fixture = Fixture::new();
    fs::write(fixture.dir().join(".000002-1.pem.77-0.tmp"), "half a key").unwrap();
    fs::write(fixture.dir().join("README"), "for people").unwrap();
    assert!(KeyRing::open(&fixture.dir(), "i", "a", NOW).is_ok());
}

#[test]
fn nothing_shows_a_token_or_a_key() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let minted = fixture
        .ring
        .mint(&session(), &Terms::default(), HALF_HOUR, NOW)
        .unwrap();
    let claims = fixture.verify(minted.token.expose(), NOW).unwrap();
    let faults = [
        fixture.verify("a.b.c", NOW),
        fixture.verify(&format!("{}x", minted.token.expose()), NOW),
    ];
    let shown = format!(
        "{:?} {:?} {:?} {claims:?} {faults:?} {:#?} {:?}",
        fixture.ring,
        fixture.verifier,
        minted,
        minted.token,
        fixture.ring.jwks().to_string()
    );
    let pem = fs::read_to_string(&fixture.files()[0]).unwrap();
    let secrets = minted
        .token
        .expose()
        .split('.')
        .skip(1)
        .chain(pem.lines().filter(|line| !line.starts_with('-')));
    for secret in secrets.filter(|secret| !secret.is_empty()) {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(
        shown.contains(&key.kid),
        "the public id of a key may be shown: {shown}"
    );
}

#[test]
fn a_ring_in_memory_signs_what_it_alone_verifies() {
    let one = KeyRing::in_memory("outgate-test", "outgate", NOW).unwrap();
    let other = KeyRing::in_memory("outgate-test", "outgate", NOW).unwrap();
    let minted = one
        .mint(&session(), &Terms::default(), HALF_HOUR, NOW)
        .unwrap();
    let token = minted.token.expose();
    assert!(one.verifier().verify(token, NOW).is_ok());
    assert_eq!(
        other.verifier().verify(token, NOW),
        Err(TokenFault::Invalid("unknown key"))
    );
    let later = at(i64::try_from(ROTATE_AFTER.as_secs()).unwrap() * 2);
    assert!(!one.rotate_if_due(later).unwrap());
}
