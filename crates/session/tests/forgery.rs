//! Every way in which a text can pretend to be a session token, and that each is refused for its own reason: a forgery
//! that fails by accident is one that may later succeed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use aws_lc_rs::{hmac, signature::KeyPair};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD},
};
use outgate_journey::session::{TokenFault, TokenVerifier};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{
    Fixture, NOW,
    Refusal::{self, Expired, Invalid},
    Stolen, at, claims, unsigned, with,
};

const HEADER: Refusal = Invalid("unacceptable header");
const CLAIMS: Refusal = Invalid("unacceptable claims");
const ALGORITHM: Refusal = Invalid("wrong algorithm");
const SIGNATURE: Refusal = Invalid("bad signature");
const ENCODING: Refusal = Invalid("not base64url");
const LIFE: Refusal = Invalid("lives longer than an hour, or not at all");

fn refuse_all(fixture: &Fixture, table: &[(&str, String, Refusal)]) {
    for (name, token, fault) in table {
        // Twice: a refusal must not be forgotten, nor turn into something remembered.
        for _ in 0..2 {
            assert_eq!(fixture.verify(token, NOW), Err(*fault), "{name}: {token}");
        }
    }
}

#[test]
fn claims_that_this_issuer_could_have_written_are_accepted() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    for claims in [
        claims(),
        with(claims(), "aud", json!(["other", "outgate"])),
        with(claims(), "nbf", NOW.0),
        with(claims(), "iat", NOW.0 + 30),
        with(with(claims(), "iat", NOW.0 - 1800), "nbf", NOW.0 + 30),
        with(claims(), "exp", NOW.0 + 3600),
        with(claims(), "jti", "j".repeat(64)),
        with(claims(), "further", json!({ "nested": [1] })),
    ] {
        let token = key.sign(&key.header(), &claims);
        let accepted = fixture
            .verify(&token, NOW)
            .unwrap_or_else(|fault| panic!("{claims}: {fault:?}"));
        assert_eq!(accepted.session.as_str(), "s_4fz8");
    }
    let token = key.sign(&with(key.header(), "typ", Value::Null), &claims());
    assert!(fixture.verify(&token, NOW).is_ok());
}

#[test]
fn another_algorithm_is_refused() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let mut table = Vec::new();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "eddsa", "EdDSA ", "Ed25519", "RS256", "ES256", "HS512",
    ] {
        let header = with(key.header(), "alg", alg);
        let bare = unsigned(&header.to_string(), &claims().to_string());
        table.push((alg, format!("{bare}."), ALGORITHM));
        table.push((alg, key.sign(&header, &claims()), ALGORITHM));
    }
    let eddsa = unsigned(&key.header().to_string(), &claims().to_string());
    table.push(("EdDSA without a signature", format!("{eddsa}."), SIGNATURE));
    table.push(("the signature left out", eddsa, Invalid("not a JWT")));
    table.push((
        "alg left out",
        key.sign(&with(key.header(), "alg", Value::Null), &claims()),
        HEADER,
    ));
    table.push((
        "alg a list",
        key.sign(&with(key.header(), "alg", json!(["EdDSA"])), &claims()),
        HEADER,
    ));
    refuse_all(&fixture, &table);
}

#[test]
fn the_public_key_is_no_hmac_secret() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let raw = key.pair.public_key().as_ref().to_vec();
    // SubjectPublicKeyInfo of RFC 8410: a fixed prefix, then the key.
    let mut spki = vec![
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    spki.extend(&raw);
    let body = STANDARD.encode(&spki);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let jwks = fixture.ring.jwks();
    let secrets: [(&str, Vec<u8>); 8] = [
        ("raw", raw.clone()),
        (
            "raw in base64url",
            URL_SAFE_NO_PAD.encode(&raw).into_bytes(),
        ),
        ("DER", spki),
        ("PEM", pem.clone().into_bytes()),
        (
            "PEM without its last line feed",
            pem.trim_end().as_bytes().to_vec(),
        ),
        ("JWK", jwks["keys"][0].to_string().into_bytes()),
        ("JWKS", jwks.to_string().into_bytes()),
        ("empty", Vec::new()),
    ];
    for (name, secret) in secrets {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let forge = |alg: &str| {
            let signed = unsigned(
                &with(key.header(), "alg", alg).to_string(),
                &claims().to_string(),
            );
            format!(
                "{signed}.{}",
                URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes()))
            )
        };
        refuse_all(
            &fixture,
            &[
                (name, forge("HS256"), ALGORITHM),
                (name, forge("EdDSA"), SIGNATURE),
            ],
        );
    }
}

#[test]
fn a_key_that_is_not_ours_is_refused_wherever_it_is_offered() {
    let fixture = Fixture::new();
    let (ours, theirs) = (fixture.newest_key(), Stolen::fresh());
    let unknown = Invalid("unknown key");
    let mut table = vec![
        (
            "their key under its own id",
            theirs.sign(&theirs.header(), &claims()),
            unknown,
        ),
        (
            "their key under our id",
            theirs.sign(&ours.header(), &claims()),
            SIGNATURE,
        ),
        (
            "our key under their id",
            ours.sign(&theirs.header(), &claims()),
            unknown,
        ),
        (
            "no kid",
            ours.sign(&with(ours.header(), "kid", Value::Null), &claims()),
            HEADER,
        ),
        (
            "kid a number",
            ours.sign(&with(ours.header(), "kid", 1), &claims()),
            HEADER,
        ),
    ];
    for kid in [
        "",
        "../../etc/passwd",
        "/dev/null",
        "file:///dev/null",
        "000001-1790000000.pem",
        "000001-1790000000",
        "' OR 1=1 --",
        "https://evil.example/key",
        "*",
    ] {
        table.push((
            kid,
            ours.sign(&with(ours.header(), "kid", kid), &claims()),
            unknown,
        ));
        table.push((
            kid,
            theirs.sign(&with(theirs.header(), "kid", kid), &claims()),
            unknown,
        ));
    }
    for (member, value) in [
        ("jwk", theirs.jwk()),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/chain.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let brought = with(
            with(ours.header(), "kid", theirs.kid.clone()),
            member,
            value.clone(),
        );
        table.push((member, theirs.sign(&brought, &claims()), HEADER));
        table.push((
            member,
            theirs.sign(&with(ours.header(), member, value.clone()), &claims()),
            HEADER,
        ));
        table.push((
            member,
            ours.sign(&with(ours.header(), member, value), &claims()),
            HEADER,
        ));
    }
    refuse_all(&fixture, &table);
}

#[test]
fn a_header_of_another_shape_is_refused() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let kid = &key.kid;
    for header in [
        format!(r#"["EdDSA","JWT","{kid}"]"#),
        format!(r#"{{"alg":"none","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"EdDSA","kid":"x","kid":"{kid}"}}"#),
        format!(r#"{{"alg":"Ed\u0044SA","kid":"{kid}"}}"#),
        r#"{"alg":"EdDSA","kid":"\u0000"}"#.to_owned(),
        format!(r#"{{"alg":"EdDSA","kid":"{kid}"}} {{}}"#),
        format!(r#" {{"alg":"EdDSA","kid":"{kid}"}}"#),
        format!("\u{feff}{{\"alg\":\"EdDSA\",\"kid\":\"{kid}\"}}"),
        String::new(),
        "null".to_owned(),
    ] {
        refuse_all(
            &fixture,
            &[(
                &header,
                key.sign_text(&header, &claims().to_string()),
                HEADER,
            )],
        );
    }
    let typed = key.sign(&with(key.header(), "typ", "at+jwt"), &claims());
    refuse_all(&fixture, &[("another type", typed, Invalid("wrong type"))]);
}

#[test]
fn claims_that_this_issuer_would_not_write_are_refused() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let (issuer, audience) = (Invalid("wrong issuer"), Invalid("wrong audience"));
    let (sub, jti) = (
        Invalid("sub is no session id"),
        Invalid("jti is no token id"),
    );
    let early = Invalid("not valid yet");
    let table: Vec<(&str, Value, Refusal)> = vec![
        ("iss", json!("outgate-test "), issuer),
        ("iss", json!("https://evil.example"), issuer),
        ("iss", Value::Null, CLAIMS),
        ("aud", json!("outgate2"), audience),
        ("aud", json!("OUTGATE"), audience),
        ("aud", json!([]), audience),
        ("aud", json!(["a", "b"]), audience),
        ("aud", json!([["outgate"]]), CLAIMS),
        ("aud", Value::Null, CLAIMS),
        ("sub", json!(""), sub),
        ("sub", json!("s_4fz8/../x"), sub),
        ("sub", json!("s".repeat(65)), sub),
        ("sub", Value::Null, CLAIMS),
        ("jti", json!(""), jti),
        ("jti", json!("j".repeat(65)), jti),
        ("jti", json!("a\nb"), jti),
        ("jti", Value::Null, CLAIMS),
        ("exp", Value::Null, CLAIMS),
        ("exp", json!("1790001800"), CLAIMS),
        ("exp", json!(1_790_001_800.5), CLAIMS),
        ("exp", json!(-1), CLAIMS),
        ("exp", json!(u64::MAX), LIFE),
        ("exp", json!(NOW.0 + 3601), LIFE),
        ("exp", json!(NOW.0), LIFE),
        ("exp", json!(0), LIFE),
        ("iat", Value::Null, CLAIMS),
        ("iat", json!(0), LIFE),
        ("iat", json!(NOW.0 + 31), early),
        ("nbf", json!(NOW.0 + 31), early),
        ("nbf", json!(u64::MAX), early),
        ("nbf", json!("soon"), CLAIMS),
    ];
    for (member, value, fault) in table {
        let name = format!("{member}: {value}");
        refuse_all(
            &fixture,
            &[(
                &name,
                key.sign(&key.header(), &with(claims(), member, value)),
                fault,
            )],
        );
    }
}

#[test]
fn a_repeated_claim_is_refused() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let good = claims().to_string();
    for member in ["iss", "aud", "sub", "jti", "iat", "exp"] {
        let first = format!(
            r#"{{"{member}":{},{}"#,
            claims()[member],
            good.strip_prefix('{').unwrap()
        );
        refuse_all(
            &fixture,
            &[(
                member,
                key.sign_text(&key.header().to_string(), &first),
                CLAIMS,
            )],
        );
    }
    let array = json!([
        "outgate-test",
        "outgate",
        "s_4fz8",
        "t_1",
        NOW.0,
        NOW.0 + 60,
        null
    ]);
    refuse_all(
        &fixture,
        &[(
            "members without names",
            key.sign(&key.header(), &array),
            CLAIMS,
        )],
    );
}

#[test]
fn expired_is_said_only_of_a_token_that_was_good() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let past = with(with(claims(), "iat", NOW.0 - 1800), "exp", NOW.0);
    let forged = Stolen::fresh().sign(&key.header(), &past);
    refuse_all(
        &fixture,
        &[
            ("expired", key.sign(&key.header(), &past), Expired),
            ("expired, forged", forged, SIGNATURE),
            (
                "expired, of another issuer",
                key.sign(&key.header(), &with(past, "iss", "x")),
                Invalid("wrong issuer"),
            ),
        ],
    );
}

#[test]
fn one_token_has_one_spelling() {
    let fixture = Fixture::new();
    let token = fixture.mint();
    assert!(fixture.verify(&token, NOW).is_ok());
    let parts: Vec<&str> = token.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let standard = |part: &str| STANDARD.encode(URL_SAFE_NO_PAD.decode(part).unwrap());
    let padded = |part: &str| URL_SAFE.encode(URL_SAFE_NO_PAD.decode(part).unwrap());
    let shape = Invalid("not a JWT");
    let mut table = vec![
        ("nothing", String::new(), shape),
        ("dots", "..".to_owned(), HEADER),
        (
            "a fourth segment",
            format!("{token}.{signature}"),
            SIGNATURE,
        ),
        ("a dot after", format!("{token}."), SIGNATURE),
        ("a dot before", format!(".{token}"), HEADER),
        ("no header", format!(".{claims}.{signature}"), HEADER),
        ("no claims", format!("{header}..{signature}"), SIGNATURE),
        (
            "five segments, as of an encrypted token",
            format!("{header}.a.b.c.{signature}"),
            SIGNATURE,
        ),
        (
            "signature in the standard alphabet",
            format!("{header}.{claims}.{}", standard(signature)),
            ENCODING,
        ),
        (
            "signature padded",
            format!("{header}.{claims}.{}", padded(signature)),
            ENCODING,
        ),
        ("a stray pad", format!("{token}="), ENCODING),
        ("a space before", format!(" {token}"), ENCODING),
        ("a space after", format!("{token} "), ENCODING),
        ("a line feed after", format!("{token}\n"), ENCODING),
        (
            "a tab inside",
            format!("{header}\t.{claims}.{signature}"),
            ENCODING,
        ),
        (
            "a line break inside",
            format!(
                "{header}.{claims}.{}\r\n{}",
                &signature[..40],
                &signature[40..]
            ),
            ENCODING,
        ),
        ("a scheme before", format!("Bearer {token}"), ENCODING),
        ("a NUL after", format!("{token}\0"), ENCODING),
        (
            "signature cut",
            token[..token.len() - 1].to_owned(),
            ENCODING,
        ),
        (
            "long",
            format!("{token}{}", "A".repeat(4096)),
            Invalid("too long"),
        ),
        ("huge", "A".repeat(10 << 20), Invalid("too long")),
    ];
    // 86 characters carry 516 bits for the 512 of a signature: of the last character, four bits must be nought.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet
        .iter()
        .position(|c| *c == *token.as_bytes().last().unwrap())
        .unwrap();
    assert_eq!(last % 16, 0);
    for stray in 1..16 {
        let respelt = format!(
            "{}{}",
            &token[..token.len() - 1],
            char::from(alphabet[last + stray])
        );
        table.push(("stray bits", respelt, ENCODING));
    }
    refuse_all(&fixture, &table);
    for respelt in [token.to_lowercase(), token.to_uppercase()] {
        assert!(
            matches!(fixture.verify(&respelt, NOW), Err(Invalid(_))),
            "{respelt}"
        );
    }
}

#[test]
fn a_good_signature_does_not_excuse_an_oversized_token() {
    let fixture = Fixture::new();
    let key = fixture.newest_key();
    let sized =
        |filler: usize| key.sign(&key.header(), &with(claims(), "filler", "x".repeat(filler)));
    let fitting = (0..4096)
        .rev()
        .map(sized)
        .find(|token| token.len() <= 4096)
        .unwrap();
    assert!(fitting.len() > 4090 && fixture.verify(&fitting, NOW).is_ok());
    refuse_all(&fixture, &[("oversized", sized(3000), Invalid("too long"))]);
}

#[test]
fn parts_of_good_tokens_do_not_add_up_to_another() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.mint(), fixture.mint());
    let (one, two): (Vec<_>, Vec<_>) = (one.split('.').collect(), two.split('.').collect());
    let other = URL_SAFE_NO_PAD.encode(with(claims(), "sub", "s_other").to_string());
    refuse_all(
        &fixture,
        &[
            (
                "claims of one, signature of another",
                format!("{}.{}.{}", one[0], one[1], two[2]),
                SIGNATURE,
            ),
            (
                "claims changed",
                format!("{}.{other}.{}", one[0], one[2]),
                SIGNATURE,
            ),
            (
                "signature zero",
                format!("{}.{}.{}", one[0], one[1], "A".repeat(86)),
                SIGNATURE,
            ),
            (
                "signature empty",
                format!("{}.{}.", one[0], one[1]),
                SIGNATURE,
            ),
        ],
    );
}

#[test]
fn time_decides_again_on_every_look() {
    let fixture = Fixture::new();
    let token = fixture.mint();
    for _ in 0..2 {
        assert_eq!(
            fixture.verify(&token, at(-31)),
            Err(Invalid("not valid yet"))
        );
        assert!(fixture.verify(&token, at(-30)).is_ok());
        assert!(fixture.verify(&token, at(1799)).is_ok());
        assert_eq!(fixture.verify(&token, at(1800)), Err(Expired));
        let claims = fixture.verify(&token, at(1799)).unwrap();
        let fault = fixture.verifier.verify(&token, at(1800));
        assert_eq!(fault, Err(TokenFault::Expired(claims)));
    }
}

proptest! {
    #[test]
    fn no_text_is_a_token(text in "\\PC{0,300}", dotted in "[A-Za-z0-9_.-]{0,300}") {
        thread_local!(static FIXTURE: Fixture = Fixture::new());
        FIXTURE.with(|fixture| {
            prop_assert!(matches!(fixture.verify(&text, NOW), Err(Invalid(_))));
            prop_assert!(matches!(fixture.verify(&dotted, NOW), Err(Invalid(_))));
            Ok(())
        })?;
    }

    #[test]
    fn no_token_survives_a_change(
        at in any::<prop::sample::Index>(),
        with in prop_oneof!["[A-Za-z0-9_.=-]", "\\PC"],
        change in 0..4,
    ) {
        thread_local!(static MINTED: (Fixture, String) = {
            let fixture = Fixture::new();
            let token = fixture.mint();
            (fixture, token)
        });
        MINTED.with(|(fixture, token)| {
            let (head, tail) = token.split_at(at.index(token.len()));
            let changed = match change {
                0 => format!("{head}{with}{}", &tail[1..]),
                1 => format!("{head}{with}{tail}"),
                2 => format!("{head}{}", &tail[1..]),
                _ => head.to_owned(),
            };
            let verdict = fixture.verify(&changed, NOW);
            prop_assert_eq!(verdict.is_ok(), changed == *token, "{}", changed);
            Ok(())
        })?;
    }
}
