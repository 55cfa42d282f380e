//! Every way in which a text can pretend to be an issuer's token, and that each is refused for its own reason: a
//! forgery that fails by accident is one that may later succeed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use aws_lc_rs::hmac;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use outgate_issuer::{Algorithm, IssuerConfig, Issuers, SessionPolicy};
use outgate_journey::session::{PolicyName, TokenOrigin};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{
    AUDIENCE, FileIssuer, Material, NOW,
    Refusal::{self, Expired, Invalid},
    Signer, b64, claims, clock, jwks, verify, with,
};

const ISSUER: &str = "https://idp.example.org";
const ALGORITHM: Refusal = Invalid("wrong algorithm");
const CLAIMS: Refusal = Invalid("unacceptable claims");
const ENCODING: Refusal = Invalid("not base64url");
const HEADER: Refusal = Invalid("unacceptable header");
const AUD: Refusal = Invalid("wrong audience");
const KEY: Refusal = Invalid("unknown key");
const SIGNATURE: Refusal = Invalid("bad signature");
const TYPE: Refusal = Invalid("not the type of an identity or access token");
const UNKNOWN: Refusal = Invalid("unknown issuer");

/// An issuer with a key of each kind.
struct Fixture {
    rsa: Signer,
    p256: Signer,
    ed25519: Signer,
    file: FileIssuer,
    issuers: Issuers,
}

impl Fixture {
    fn new() -> Self {
        let (rsa, p256, ed25519) = (Signer::rsa("r", 0), Signer::p256("p"), Signer::ed25519("e"));
        let file = FileIssuer::new(ISSUER, &jwks([&rsa, &p256, &ed25519]));
        let issuers = file.issuers();
        Self {
            rsa,
            p256,
            ed25519,
            file,
            issuers,
        }
    }

    fn refuse_all(&self, table: &[(&str, String, Refusal)]) {
        for (name, token, refusal) in table {
            // Twice: a refusal must not be forgotten, nor turn into something remembered.
            for _ in 0..2 {
                let found = verify(&self.issuers, token, NOW).map(|_| ());
                assert_eq!(found, Err(*refusal), "{name}: {token}");
            }
        }
    }

    fn accept(&self, name: &str, token: &str) {
        for _ in 0..2 {
            let found = verify(&self.issuers, token, NOW);
            assert!(found.is_ok(), "{name}: {found:?}: {token}");
        }
    }
}

fn good() -> Value {
    claims(ISSUER)
}

#[test]
fn a_good_token_of_each_kind_of_key_is_a_session_of_its_issuer() {
    let fixture = Fixture::new();
    for signer in [&fixture.rsa, &fixture.p256, &fixture.ed25519] {
        let token = signer.token(&good());
        let session = verify(&fixture.issuers, &token, NOW).unwrap();
        assert!(session.session.as_str().starts_with("x_"));
        assert_eq!(session.session.as_str().len(), 28);
        assert_eq!(&*session.token_id, "t-1");
        assert_eq!(session.expires.0, NOW + 600);
        let origin = TokenOrigin::External {
            issuer: ISSUER.into(),
            subject: "agent-7".into(),
        };
        assert_eq!(session.origin, origin);
    }
}

#[test]
fn every_algorithm_works_where_it_is_allowed_and_nowhere_else() {
    let (rsa, p256, p384, ed25519) = (
        Signer::rsa("r", 0),
        Signer::p256("p"),
        Signer::p384("q"),
        Signer::ed25519("e"),
    );
    let file = FileIssuer::new(ISSUER, &jwks([&rsa, &p256, &p384, &ed25519]));
    let table = [
        (&rsa, "RS256"),
        (&rsa, "RS384"),
        (&rsa, "RS512"),
        (&rsa, "PS256"),
        (&rsa, "PS384"),
        (&rsa, "PS512"),
        (&p256, "ES256"),
        (&p384, "ES384"),
        (&ed25519, "EdDSA"),
        (&ed25519, "Ed25519"),
    ];
    for (_, allowed) in table {
        let allowed = Algorithm::parse(allowed).unwrap();
        let config = IssuerConfig {
            algorithms: vec![allowed],
            ..file.config.clone()
        };
        let issuers = Issuers::new(vec![config], clock()).unwrap();
        for (signer, name) in table {
            let token = signer.sign(&with(signer.header(), "alg", name), &good());
            let found = verify(&issuers, &token, NOW).map(|_| ());
            let expected = if Algorithm::parse(name) == Some(allowed) {
                Ok(())
            } else {
                Err(ALGORITHM)
            };
            assert_eq!(found, expected, "{name} where {allowed:?} is allowed");
        }
    }
}

#[test]
fn tokens_of_another_library_are_accepted() {
    let fixture = Fixture::new();
    let Material::Rsa(pair) = &fixture.rsa.material else {
        unreachable!()
    };
    let pkcs8 =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(*pair).unwrap();
    // PKCS#8 wraps the RSAPrivateKey that the library wants.
    let key = jsonwebtoken::EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]);
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    header.kid = Some("r".to_owned());
    let token = jsonwebtoken::encode(&header, &good(), &key).unwrap();
    fixture.accept("RS256", &token);
}

#[test]
fn another_algorithm_is_refused() {
    let fixture = Fixture::new();
    let mut table = Vec::new();
    for signer in [&fixture.rsa, &fixture.p256, &fixture.ed25519] {
        for alg in [
            "none",
            "None",
            "NONE",
            "nOnE",
            "",
            "rs256",
            "RS256 ",
            "HS256",
            "HS384",
            "HS512",
            "RS1",
            "ES256K",
            "ES512",
            "EdDSA\u{0}",
            "A256GCMKW",
            "PS256",
            "ES384",
        ] {
            let header = with(signer.header(), "alg", alg);
            let bare = format!("{}.{}", b64(header.to_string()), b64(good().to_string()));
            table.push((alg, format!("{bare}."), ALGORITHM));
            table.push((alg, signer.sign(&header, &good()), ALGORITHM));
        }
        let absent = with(signer.header(), "alg", Value::Null);
        table.push(("no algorithm", signer.sign(&absent, &good()), ALGORITHM));
        for odd in [json!(256), json!(["RS256"]), json!({}), json!(true)] {
            let header = with(signer.header(), "alg", odd);
            table.push(("an odd algorithm", signer.sign(&header, &good()), HEADER));
        }
        let unsigned = signer.token(&good());
        let unsigned = unsigned.rsplit_once('.').unwrap().0;
        table.push(("no signature", format!("{unsigned}."), SIGNATURE));
        table.push(("no third part", unsigned.to_owned(), Invalid("not a JWT")));
    }
    fixture.refuse_all(&table);
}

#[test]
fn a_public_key_is_no_shared_secret() {
    let fixture = Fixture::new();
    let (n, _) = fixture.rsa.rsa_numbers();
    let der = fixture.rsa.public_bytes();
    let pem = format!(
        "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
        STANDARD.encode(&der)
    );
    let mut table = Vec::new();
    for secret in [
        Vec::new(),
        n.clone(),
        b64(&n).into_bytes(),
        der,
        pem.into_bytes(),
        fixture.rsa.jwk().to_string().into_bytes(),
        fixture.p256.public_bytes(),
        fixture.ed25519.public_bytes(),
    ] {
        for (alg, digest) in [
            ("HS256", hmac::HMAC_SHA256),
            ("HS384", hmac::HMAC_SHA384),
            ("HS512", hmac::HMAC_SHA512),
        ] {
            for kid in ["r", "p", "e"] {
                let header = json!({ "alg": alg, "typ": "JWT", "kid": kid });
                let message = format!("{}.{}", b64(header.to_string()), b64(good().to_string()));
                let tag = hmac::sign(&hmac::Key::new(digest, &secret), message.as_bytes());
                table.push((alg, format!("{message}.{}", b64(tag)), ALGORITHM));
            }
        }
    }
    fixture.refuse_all(&table);
}

#[test]
fn a_shared_key_in_the_set_verifies_nothing() {
    let secret = b"0123456789abcdef0123456789abcdef";
    let keys = json!({ "keys": [
        { "kty": "oct", "kid": "h", "k": b64(secret), "alg": "HS256", "use": "sig" },
        { "kty": "oct", "kid": "h", "k": b64(secret) },
        Signer::rsa("r", 0).jwk(),
    ] });
    let issuers = FileIssuer::new(ISSUER, &keys).issuers();
    let header = json!({ "alg": "HS256", "kid": "h" });
    let message = format!("{}.{}", b64(header.to_string()), b64(good().to_string()));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret),
        message.as_bytes(),
    );
    let token = format!("{message}.{}", b64(tag));
    assert_eq!(verify(&issuers, &token, NOW).map(|_| ()), Err(ALGORITHM));
}

#[test]
fn a_key_is_used_with_the_algorithm_that_its_issuer_names_and_no_other() {
    let signer = Signer::rsa("r", 0);
    let key = with(signer.jwk(), "alg", "RS256");
    let file = FileIssuer::new(ISSUER, &json!({ "keys": [key] }));
    let config = IssuerConfig {
        algorithms: vec![Algorithm::Rs256, Algorithm::Ps256],
        ..file.config.clone()
    };
    let issuers = Issuers::new(vec![config], clock()).unwrap();
    assert!(verify(&issuers, &signer.token(&good()), NOW).is_ok());
    let token = signer.sign(&with(signer.header(), "alg", "PS256"), &good());
    assert_eq!(verify(&issuers, &token, NOW).map(|_| ()), Err(KEY));
}

#[test]
fn a_key_id_is_compared_and_never_followed() {
    let fixture = Fixture::new();
    let signer = &fixture.rsa;
    let mut table = Vec::new();
    for kid in [
        "R",
        "r ",
        " r",
        "r\u{0}",
        "",
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "r' --",
        "http://127.0.0.1/key",
        "file:///etc/passwd",
        "$(id)",
        "*",
        "r,p",
        "p",
        "e",
    ] {
        let header = with(signer.header(), "kid", kid);
        table.push((kid, signer.sign(&header, &good()), KEY));
    }
    let long = "r".repeat(257);
    for odd in [
        json!(0),
        json!(["r"]),
        json!({ "r": 1 }),
        json!(true),
        json!(long),
    ] {
        let header = with(signer.header(), "kid", odd);
        table.push(("an odd key id", signer.sign(&header, &good()), HEADER));
    }
    let header = signer.header().to_string().replace("\"r\"", "null");
    table.push((
        "null",
        signer.sign_text(&header, &good().to_string()),
        HEADER,
    ));
    fixture.refuse_all(&table);
}

#[test]
fn a_token_that_names_no_key_means_the_only_one_that_fits() {
    let fixture = Fixture::new();
    for signer in [&fixture.rsa, &fixture.p256] {
        let header = with(signer.header(), "kid", Value::Null);
        fixture.accept("alone of its kind", &signer.sign(&header, &good()));
    }
    let stranger = Signer::rsa("r", 1);
    let header = with(stranger.header(), "kid", Value::Null);
    fixture.refuse_all(&[("a stranger", stranger.sign(&header, &good()), SIGNATURE)]);

    let (one, two) = (Signer::ed25519("1"), Signer::ed25519("2"));
    let issuers = FileIssuer::new(ISSUER, &jwks([&one, &two])).issuers();
    let header = with(one.header(), "kid", Value::Null);
    let token = one.sign(&header, &good());
    assert_eq!(verify(&issuers, &token, NOW).map(|_| ()), Err(KEY));
}

#[test]
fn keys_that_share_a_name_are_all_tried() {
    let (one, two, stranger) = (Signer::p256("k"), Signer::p256("k"), Signer::p256("k"));
    let issuers = FileIssuer::new(ISSUER, &jwks([&one, &two])).issuers();
    assert!(verify(&issuers, &one.token(&good()), NOW).is_ok());
    assert!(verify(&issuers, &two.token(&good()), NOW).is_ok());
    let refused = verify(&issuers, &stranger.token(&good()), NOW).map(|_| ());
    assert_eq!(refused, Err(SIGNATURE));
}

#[test]
fn a_key_that_the_token_brings_along_is_refused() {
    let fixture = Fixture::new();
    let stranger = Signer::rsa("r", 1);
    let mut table = Vec::new();
    for signer in [&stranger, &fixture.rsa] {
        let header = with(signer.header(), "jwk", signer.jwk());
        table.push(("jwk", signer.sign(&header, &good()), HEADER));
    }
    // These only describe; whoever signs with a stranger's key is refused for the signature.
    for (name, value) in [
        ("jku", json!("https://127.0.0.1:1/keys")),
        ("x5u", json!("https://127.0.0.1:1/chain")),
        ("x5c", json!(["AAAA"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
        ("cty", json!("JWT")),
    ] {
        let header = with(stranger.header(), name, value.clone());
        table.push((name, stranger.sign(&header, &good()), SIGNATURE));
        let header = with(fixture.rsa.header(), name, value);
        fixture.accept(name, &fixture.rsa.sign(&header, &good()));
    }
    fixture.refuse_all(&table);
}

#[test]
fn a_header_that_changes_what_is_verified_is_refused() {
    let fixture = Fixture::new();
    let signer = &fixture.ed25519;
    let mut table = Vec::new();
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
        ("typ", json!(["JWT"])),
    ] {
        table.push((
            name,
            signer.sign(&with(signer.header(), name, value), &good()),
            HEADER,
        ));
    }
    for typ in [
        "logout+jwt",
        "dpop+jwt",
        "secevent+jwt",
        "application/kb+jwt",
        "",
        "JWT ",
    ] {
        table.push((
            typ,
            signer.sign(&with(signer.header(), "typ", typ), &good()),
            TYPE,
        ));
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "JOSE"] {
        fixture.accept(
            typ,
            &signer.sign(&with(signer.header(), "typ", typ), &good()),
        );
    }
    fixture.accept(
        "no type",
        &signer.sign(&with(signer.header(), "typ", Value::Null), &good()),
    );
    fixture.refuse_all(&table);
}

#[test]
fn a_repeated_name_is_refused_wherever_it_stands() {
    let fixture = Fixture::new();
    let signer = &fixture.ed25519;
    let (header, body) = (signer.header().to_string(), good().to_string());
    let grown = |text: &str, more: &str| format!("{},{more}}}", text.strip_suffix('}').unwrap());
    let mut table = Vec::new();
    for more in [
        r#""alg":"EdDSA""#,
        r#""kid":"e""#,
        r#""x":1,"x":2"#,
        r#""x":{"y":1,"y":1}"#,
    ] {
        table.push((more, signer.sign_text(&grown(&header, more), &body), HEADER));
    }
    for more in [
        r#""sub":"agent-7""#,
        r#""sub":"root""#,
        r#""\u0073ub":"root""#,
        r#""aud":"other""#,
        r#""exp":1"#,
        r#""iss":"https://idp.example.org""#,
        r#""x":1,"x":1"#,
        r#""x":[{"y":1,"y":2}]"#,
    ] {
        table.push((more, signer.sign_text(&header, &grown(&body, more)), CLAIMS));
    }
    fixture.refuse_all(&table);
    fixture.accept(
        "one more",
        &signer.sign_text(&header, &grown(&body, r#""x":{"sub":"root"}"#)),
    );
}

#[test]
fn what_is_no_json_object_is_refused() {
    let fixture = Fixture::new();
    let signer = &fixture.ed25519;
    let header = signer.header().to_string();
    let mut table = Vec::new();
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
    for body in [
        "",
        "null",
        "[]",
        "\"x\"",
        "{",
        "{}{}",
        "{} ",
        "{'a':1}",
        &deep,
        "\u{feff}{}",
    ] {
        let refusal = if body == "{} " { UNKNOWN } else { CLAIMS };
        table.push((body, signer.sign_text(&header, body), refusal));
    }
    let array = json!([ISSUER, AUDIENCE, "agent-7", NOW + 600]).to_string();
    table.push(("an array", signer.sign_text(&header, &array), CLAIMS));
    fixture.refuse_all(&table);
}

#[test]
fn a_token_has_three_parts_in_one_spelling() {
    let fixture = Fixture::new();
    let token = fixture.rsa.token(&good());
    let parts: Vec<_> = token.split('.').collect();
    let [head, body, signature] = parts[..] else {
        unreachable!()
    };
    let not_a_token = Invalid("not a token");
    let table = [
        ("nothing", String::new(), not_a_token),
        ("dots", "..".to_owned(), not_a_token),
        ("a space in front", format!(" {token}"), not_a_token),
        ("a line break behind", format!("{token}\n"), ENCODING),
        (
            "a space inside",
            format!("{head}.{body}. {signature}"),
            ENCODING,
        ),
        ("a fourth part", format!("{token}.{signature}"), ENCODING),
        ("five parts", format!("{token}.{signature}.x"), ENCODING),
        ("padding", format!("{token}="), ENCODING),
        (
            "padding inside",
            format!("{head}.{body}==.{signature}"),
            ENCODING,
        ),
        ("two parts", format!("{head}.{body}"), Invalid("not a JWT")),
        ("one part", head.to_owned(), Invalid("not a JWT")),
        (
            "no header",
            format!(".{body}.{signature}"),
            Invalid("not a JWT"),
        ),
        (
            "percent",
            format!("{head}%2E{body}.{signature}"),
            not_a_token,
        ),
        ("Bearer", format!("Bearer {token}"), not_a_token),
        ("a NUL", format!("{token}\u{0}"), ENCODING),
    ];
    fixture.refuse_all(&table);

    // The last character of a 256-byte signature holds four bits that mean nothing.
    let mut bits = token.clone();
    let last = bits.pop().unwrap();
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        let found = verify(&fixture.issuers, &format!("{bits}{other}"), NOW).map(|_| ());
        assert_eq!(found.is_ok(), other == last, "{other}: {found:?}");
    }
    let padded = URL_SAFE.encode(b"{\"alg\":\"RS256\",\"kid\":\"r\"} ");
    assert!(padded.ends_with('='));
    let padded = format!("{padded}.{body}.{signature}");
    assert!(verify(&fixture.issuers, &padded, NOW).is_err());
}

#[test]
fn a_huge_token_is_refused_unread() {
    let fixture = Fixture::new();
    let fits = fixture
        .ed25519
        .token(&with(good(), "groups", "g".repeat(11 * 1024)));
    assert!((14 * 1024..=16 * 1024).contains(&fits.len()));
    fixture.accept("large", &fits);
    let huge = fixture
        .ed25519
        .token(&with(good(), "groups", "g".repeat(12 * 1024)));
    fixture.refuse_all(&[
        ("huge", huge, Invalid("too long")),
        ("dots", ".".repeat(1 << 20), Invalid("too long")),
        ("braces", b64("{".repeat(1 << 20)), Invalid("too long")),
    ]);
}

#[test]
fn a_signature_that_is_not_over_this_text_is_refused() {
    let fixture = Fixture::new();
    let mut table = Vec::new();
    for signer in [&fixture.rsa, &fixture.p256, &fixture.ed25519] {
        let token = signer.token(&good());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(signature)
            .unwrap();
        let other = signer.token(&with(good(), "sub", "root"));
        let body = other.split('.').nth(1).unwrap();
        let head = token.split('.').next().unwrap();
        for (name, signature) in [
            ("empty", Vec::new()),
            ("one byte", vec![0]),
            ("zeros", vec![0; bytes.len()]),
            ("ones", vec![0xff; bytes.len()]),
            ("cut", bytes[..bytes.len() - 1].to_vec()),
            ("grown", [&bytes[..], &[0]].concat()),
            ("twice", [&bytes[..], &bytes].concat()),
        ] {
            table.push((name, format!("{message}.{}", b64(signature)), SIGNATURE));
        }
        table.push((
            "other claims",
            format!("{head}.{body}.{signature}"),
            SIGNATURE,
        ));
    }
    // ECDSA as X.509 writes it, which is another spelling of a good signature (RFC 7518 section 3.4 has one).
    let Material::P256(_) = &fixture.p256.material else {
        unreachable!()
    };
    let token = fixture.p256.token(&good());
    let (message, _) = token.rsplit_once('.').unwrap();
    let raw = fixture.p256.signature("ES256", message.as_bytes());
    let integer = |half: &[u8]| [&[2, 33, 0][..], half].concat();
    let body = [integer(&raw[..32]), integer(&raw[32..])].concat();
    let der = [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat();
    table.push(("DER", format!("{message}.{}", b64(der)), SIGNATURE));
    fixture.refuse_all(&table);
}

#[test]
fn a_stranger_is_refused_whatever_it_copies() {
    let fixture = Fixture::new();
    fixture.refuse_all(&[
        ("RSA", Signer::rsa("r", 1).token(&good()), SIGNATURE),
        ("P-256", Signer::p256("p").token(&good()), SIGNATURE),
        ("Ed25519", Signer::ed25519("e").token(&good()), SIGNATURE),
        (
            "P-256 under RSA's name",
            Signer::p256("r").token(&good()),
            KEY,
        ),
        ("P-384", Signer::p384("p").token(&good()), ALGORITHM),
    ]);
}

#[test]
fn an_issuer_is_compared_byte_for_byte() {
    let fixture = Fixture::new();
    let mut table = Vec::new();
    for iss in [
        json!("https://idp.example.org/"),
        json!("https://IDP.example.org"),
        json!("http://idp.example.org"),
        json!("https://idp.example.org:443"),
        json!("https://idp.example.org "),
        json!("https://idp.example.org\u{0}"),
        json!("https://idp.example.org.evil.test"),
        json!(""),
        json!([ISSUER]),
        json!({ "0": ISSUER }),
        json!(7),
        Value::Null,
    ] {
        let token = fixture.rsa.token(&with(good(), "iss", iss));
        table.push(("iss", token, UNKNOWN));
    }
    fixture.refuse_all(&table);
}

#[test]
fn one_issuer_cannot_speak_for_another() {
    let (a, b) = (Signer::rsa("k", 0), Signer::rsa("k", 1));
    let only_b = Signer::ed25519("b");
    let file_a = FileIssuer::new("https://a.example.org", &jwks([&a]));
    let file_b = FileIssuer::new("https://b.example.org", &jwks([&b, &only_b]));
    let issuers =
        Issuers::new(vec![file_a.config.clone(), file_b.config.clone()], clock()).unwrap();
    let (of_a, of_b) = (
        claims("https://a.example.org"),
        claims("https://b.example.org"),
    );
    let session = |token: &str| verify(&issuers, token, NOW).map(|found| found.session.clone());
    assert_ne!(
        session(&a.token(&of_a)).unwrap(),
        session(&b.token(&of_b)).unwrap()
    );
    assert_eq!(session(&b.token(&of_a)), Err(SIGNATURE));
    assert_eq!(session(&a.token(&of_b)), Err(SIGNATURE));
    assert_eq!(session(&only_b.token(&of_a)), Err(KEY));
}

#[test]
fn an_audience_is_one_of_ours_exactly() {
    let fixture = Fixture::new();
    let mut table = Vec::new();
    for aud in [
        json!("Outgate"),
        json!("outgate "),
        json!("outgate/"),
        json!("https://outgate"),
        json!("out"),
        json!("outgate,other"),
        json!(""),
        json!([]),
        json!(["other"]),
        json!([["outgate"]]),
        json!(["outgate", 7]),
        json!(["outgate", null]),
        json!({ "outgate": true }),
        json!(7),
        Value::Null,
    ] {
        table.push(("aud", fixture.rsa.token(&with(good(), "aud", aud)), AUD));
    }
    fixture.refuse_all(&table);
    for aud in [
        json!(["outgate"]),
        json!(["other", "outgate"]),
        json!("outgate"),
    ] {
        fixture.accept("aud", &fixture.rsa.token(&with(good(), "aud", aud)));
    }
    let config = IssuerConfig {
        audiences: vec!["first".to_owned(), "second".to_owned()],
        ..fixture.file.config.clone()
    };
    let issuers = Issuers::new(vec![config], clock()).unwrap();
    for (aud, taken) in [("first", true), ("second", true), ("outgate", false)] {
        let token = fixture.rsa.token(&with(good(), "aud", aud));
        assert_eq!(verify(&issuers, &token, NOW).is_ok(), taken, "{aud}");
    }
}

#[test]
fn a_token_is_good_from_its_beginning_up_to_its_end() {
    let fixture = Fixture::new();
    let early = Invalid("not valid yet");
    let lasting = |name: &str, time: u64| with(good(), name, time);
    for (claims, now, expected) in [
        (lasting("exp", NOW + 1), NOW, Ok(())),
        (lasting("exp", NOW), NOW, Err(Expired)),
        (lasting("exp", NOW - 1), NOW, Err(Expired)),
        (lasting("exp", 0), NOW, Err(Expired)),
        (lasting("exp", u64::MAX), NOW, Ok(())),
        (lasting("nbf", NOW + 30), NOW, Ok(())),
        (lasting("nbf", NOW + 31), NOW, Err(early)),
        (lasting("iat", NOW + 30), NOW, Ok(())),
        (lasting("iat", NOW + 31), NOW, Err(early)),
        (lasting("nbf", u64::MAX), NOW, Err(early)),
        (good(), NOW + 599, Ok(())),
        (good(), NOW + 600, Err(Expired)),
        (good(), 0, Err(early)),
        (with(lasting("iat", 0), "nbf", Value::Null), NOW, Ok(())),
        (with(good(), "exp", json!(1_790_000_000.9)), NOW - 1, Ok(())),
        (
            with(good(), "exp", json!(1_790_000_000.9)),
            NOW,
            Err(Expired),
        ),
    ] {
        let token = fixture.ed25519.token(&claims);
        for _ in 0..2 {
            let found = verify(&fixture.issuers, &token, now).map(|_| ());
            assert_eq!(found, expected, "{claims} at {now}");
        }
    }
    let both_absent = with(with(good(), "nbf", Value::Null), "iat", Value::Null);
    fixture.accept("only exp", &fixture.ed25519.token(&both_absent));
}

#[test]
fn a_remembered_token_ends_when_it_would_have_ended() {
    let fixture = Fixture::new();
    let token = fixture.rsa.token(&good());
    let at = |now: u64| verify(&fixture.issuers, &token, now).map(|_| ());
    assert_eq!(at(NOW), Ok(()));
    assert_eq!(at(NOW + 599), Ok(()));
    assert_eq!(at(NOW + 600), Err(Expired));
    assert_eq!(at(NOW - 91), Err(Invalid("not valid yet")));
}

#[test]
fn a_token_without_an_end_is_refused() {
    let fixture = Fixture::new();
    let mut table = vec![(
        "none",
        fixture.rsa.token(&with(good(), "exp", Value::Null)),
        Invalid("no exp"),
    )];
    for odd in [
        json!("1790000600"),
        json!(-1),
        json!(true),
        json!([NOW + 600]),
        json!({}),
    ] {
        for (name, refusal) in [
            ("exp", Invalid("exp is no time")),
            ("nbf", Invalid("nbf is no time")),
            ("iat", Invalid("iat is no time")),
        ] {
            let token = fixture.rsa.token(&with(good(), name, odd.clone()));
            table.push((name, token, refusal));
        }
    }
    let header = fixture.rsa.header().to_string();
    let null = good()
        .to_string()
        .replace(&format!("\"exp\":{}", NOW + 600), "\"exp\":null");
    table.push((
        "null",
        fixture.rsa.sign_text(&header, &null),
        Invalid("exp is no time"),
    ));
    fixture.refuse_all(&table);
}

#[test]
fn a_token_may_be_as_old_as_the_owner_says() {
    let fixture = Fixture::new();
    let config = IssuerConfig {
        max_age: Some(std::time::Duration::from_secs(300)),
        ..fixture.file.config.clone()
    };
    let issuers = Issuers::new(vec![config], clock()).unwrap();
    let at = |claims: &Value, now: u64| {
        verify(&issuers, &fixture.rsa.token(claims), now).map(|found| found.expires.0)
    };
    assert_eq!(at(&good(), NOW), Ok(NOW + 240));
    assert_eq!(at(&good(), NOW + 239), Ok(NOW + 240));
    assert_eq!(at(&good(), NOW + 240), Err(Expired));
    assert_eq!(at(&with(good(), "exp", NOW + 10), NOW), Ok(NOW + 10));
    assert_eq!(
        at(&with(good(), "iat", Value::Null), NOW),
        Err(Invalid("no iat"))
    );
    assert_eq!(
        at(&with(good(), "iat", u64::MAX), NOW),
        Err(Invalid("not valid yet"))
    );
}

#[test]
fn the_session_is_a_claim_with_text_in_it() {
    let fixture = Fixture::new();
    let missing = Invalid("no session claim, or no text in it");
    let unfit = Invalid("the session claim is empty, too long or not printable");
    let mut table = Vec::new();
    for (sub, refusal) in [
        (Value::Null, missing),
        (json!(7), missing),
        (json!(["agent-7"]), missing),
        (json!({ "id": "agent-7" }), missing),
        (json!(true), missing),
        (json!(""), unfit),
        (json!("agent\n7"), unfit),
        (json!("agent\u{0}7"), unfit),
        (json!("a".repeat(1025)), unfit),
    ] {
        table.push(("sub", fixture.rsa.token(&with(good(), "sub", sub)), refusal));
    }
    fixture.refuse_all(&table);
    fixture.accept(
        "long",
        &fixture.rsa.token(&with(good(), "sub", "a".repeat(1024))),
    );
    fixture.accept(
        "any letters",
        &fixture.rsa.token(&with(good(), "sub", "agent ü/7")),
    );
}

#[test]
fn one_identity_is_one_session_and_never_one_of_ours() {
    let fixture = Fixture::new();
    let session = |claims: Value| {
        let token = fixture.rsa.token(&claims);
        verify(&fixture.issuers, &token, NOW)
            .unwrap()
            .session
            .to_string()
    };
    let first = session(good());
    assert_eq!(first, session(with(good(), "jti", "t-2")));
    assert_ne!(first, session(with(good(), "sub", "agent-8")));
    assert_ne!(first, session(with(good(), "sub", "agent-7 ")));
    // What a subject is called cannot make it look like a session of ours.
    assert!(session(with(good(), "sub", "s_4fz8")).starts_with("x_"));
    // SHA-256 of "https://idp.example.org", NUL, "agent-7": an id is a promise to whoever wrote it down.
    assert_eq!(first, "x_05gskv3e6p6gz0w3jdnwgq3yg3");
}

#[test]
fn a_token_has_a_name_even_where_its_issuer_gave_it_none() {
    let fixture = Fixture::new();
    let id = |claims: Value| {
        let token = fixture.rsa.token(&claims);
        verify(&fixture.issuers, &token, NOW)
            .unwrap()
            .token_id
            .to_string()
    };
    assert_eq!(id(good()), "t-1");
    let mut named = std::collections::HashSet::new();
    for jti in [
        Value::Null,
        json!(7),
        json!(""),
        json!("with space"),
        json!("line\nbreak"),
        json!("j".repeat(129)),
    ] {
        let id = id(with(good(), "jti", jti));
        assert!(id.starts_with("t_") && id.len() == 28, "{id}");
        assert!(named.insert(id));
    }
}

#[test]
fn a_kubernetes_service_account_token_is_a_session_of_its_pod() {
    let signer = Signer::rsa("Zw1Ry9Cbfr3oA1gJXsSaZh9uJJYTXWkLGYYy8Vnb1jA", 0);
    let issuer = "https://kubernetes.default.svc.cluster.local";
    let file = FileIssuer::new(
        issuer,
        &json!({ "keys": [
        with(signer.jwk(), "alg", "RS256"),
    ] }),
    );
    // As the API server writes a projected token: audiences are a list, and there is no `typ`.
    let claims = json!({
        "aud": ["outgate"],
        "exp": NOW + 3607,
        "iat": NOW,
        "iss": issuer,
        "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
        "kubernetes.io": {
            "namespace": "agents",
            "node": { "name": "node-1", "uid": "646e7c5e-32d6-4d42-9dbd-e504e6cbe6b1" },
            "pod": { "name": "agent-0", "uid": "5e0bd49b-f040-43b0-99b7-22765a53f7f3" },
            "serviceaccount": { "name": "agent", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798" },
            "warnafter": NOW + 3600,
        },
        "nbf": NOW,
        "sub": "system:serviceaccount:agents:agent",
    });
    let token = signer.sign(&json!({ "alg": "RS256", "kid": signer.kid }), &claims);
    for (path, subject) in [
        ("sub", "system:serviceaccount:agents:agent"),
        (
            "kubernetes.io.pod.uid",
            "5e0bd49b-f040-43b0-99b7-22765a53f7f3",
        ),
    ] {
        let config = IssuerConfig {
            session_claim: path.to_owned(),
            policy: SessionPolicy::One(PolicyName::parse("read-only").unwrap()),
            ..file.config.clone()
        };
        let issuers = Issuers::new(vec![config], clock()).unwrap();
        let session = verify(&issuers, &token, NOW).unwrap();
        let origin = TokenOrigin::External {
            issuer: issuer.into(),
            subject: subject.into(),
        };
        assert_eq!(session.origin, origin);
        assert_eq!(&*session.token_id, "ea28ed49-2e11-4280-9ec5-bc3d1d84661a");
        assert_eq!(session.terms.policy.as_ref().unwrap().as_str(), "read-only");
    }
}

#[test]
fn each_service_account_has_its_own_policy_and_session_and_no_other_has_any() {
    let issuer = "https://kubernetes.default.svc.cluster.local";
    for signer in [Signer::rsa("r", 0), Signer::p256("p")] {
        let file = FileIssuer::new(issuer, &jwks([&signer]));
        let map = [("team-a/agent", "coding"), ("team-b/agent", "search")];
        let map = map.map(|(key, name)| (key.to_owned(), PolicyName::parse(name).unwrap()));
        let config = IssuerConfig {
            // Coarser than what policies are chosen by, and the same in all of these.
            session_claim: "aud".to_owned(),
            policy: SessionPolicy::ByClaim {
                claims: vec![
                    "kubernetes.io.namespace".to_owned(),
                    "kubernetes.io.serviceaccount.name".to_owned(),
                ],
                map: map.into(),
            },
            ..file.config.clone()
        };
        let issuers = Issuers::new(vec![config], clock()).unwrap();
        let judged = |namespace: Value, account: Value| {
            let mut claims = with(claims(issuer), "aud", AUDIENCE);
            claims["kubernetes.io"] =
                json!({ "namespace": namespace, "serviceaccount": { "name": account } });
            verify(&issuers, &signer.token(&claims), NOW)
        };
        let (a, b) = ("team-a".into(), "team-b".into());
        let (a, b) = (
            judged(a, "agent".into()).unwrap(),
            judged(b, "agent".into()).unwrap(),
        );
        let names = [&a, &b].map(|it| it.terms.policy.as_ref().unwrap().as_str());
        assert_eq!(names, ["coding", "search"]);
        assert_ne!(a.session, b.session);
        for (namespace, account) in [("team-a", "other"), ("team-c", "agent")] {
            let found = judged(namespace.into(), account.into()).map(|_| ());
            assert_eq!(found, Err(Invalid("no policy is for what it claims")));
        }
        for (namespace, account) in [
            (Value::Null, "agent".into()),
            ("team-a".into(), json!(["agent"])),
            ("team-a".into(), "".into()),
            ("".into(), "team-a/agent".into()),
        ] {
            let found = judged(namespace, account).map(|_| ());
            let missing = "a claim that its policy is chosen by is missing";
            assert_eq!(found, Err(Invalid(missing)));
        }
    }
}

#[test]
fn a_spiffe_identity_document_is_a_session_of_its_workload() {
    let signer = Signer::p256("svid-1");
    // As a SPIFFE trust bundle writes it.
    let key = with(signer.jwk(), "use", "jwt-svid");
    let bundle = json!({ "keys": [key], "spiffe_sequence": 3, "spiffe_refresh_hint": 300 });
    let issuers = FileIssuer::new("https://spire.example.org", &bundle).issuers();
    let claims = json!({
        "iss": "https://spire.example.org", "aud": ["outgate"], "exp": NOW + 300, "iat": NOW,
        "sub": "spiffe://example.org/ns/agents/sa/agent",
    });
    let header = with(signer.header(), "typ", "JOSE");
    assert!(verify(&issuers, &signer.sign(&header, &claims), NOW).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_pass(text in ".{0,200}", json in any::<[u8; 40]>()) {
        let (rsa, p256) = (Signer::rsa("r", 0), Signer::p256("p"));
        let issuers = FileIssuer::new(ISSUER, &jwks([&rsa, &p256])).issuers();
        prop_assert!(verify(&issuers, &text, NOW).is_err());
        let parts = format!("{}.{}.{}", b64(&text), b64(json), b64(&text));
        prop_assert!(verify(&issuers, &parts, NOW).is_err());
    }
}

#[test]
fn no_single_change_to_a_good_token_passes() {
    let fixture = Fixture::new();
    for signer in [&fixture.rsa, &fixture.p256, &fixture.ed25519] {
        let token = signer.token(&good());
        let bytes = token.as_bytes();
        for place in 0..bytes.len() {
            for other in [bytes[place] ^ 1, bytes[place] ^ 2, b'.', b'A', b'='] {
                let mut changed = bytes.to_vec();
                changed[place] = other;
                let changed = String::from_utf8(changed).unwrap();
                let found = verify(&fixture.issuers, &changed, NOW);
                assert_eq!(found.is_ok(), changed == token, "{place}: {changed}");
            }
            let mut cut = bytes.to_vec();
            cut.remove(place);
            let cut = String::from_utf8(cut).unwrap();
            assert!(
                verify(&fixture.issuers, &cut, NOW).is_err(),
                "{place}: {cut}"
            );
        }
    }
}
