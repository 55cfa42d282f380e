//! Tokens that say nothing themselves, and an endpoint that is asked about them; a real TLS server.
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

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use outgate_clock::{Clock, FakeClock};
use outgate_issuer::{IntrospectionConfig, IssuerConfig, IssuerError, Issuers, KeySource};
use outgate_journey::{
    policy::CredentialSource,
    session::{TokenOrigin, TokenVerifier, UnixSeconds},
};
use outgate_testkit::eventually;
use serde_json::{Value, json};
use support::{
    Idp, NOW,
    Refusal::{self, Expired, Invalid},
    Reply, Signer, claims, clock, jwks, patient, present, verify, with,
};

const TOKEN: &str = "2YotnFZFEjr1zCsicMWpAA";
const UNKNOWN: Refusal = Invalid("not known to be active");
const INACTIVE: Refusal = Invalid("not active");

/// An issuer that answers introspection at `/introspect`.
struct Fixture {
    idp: Idp,
    clock: Arc<FakeClock>,
    issuers: Issuers,
}

impl Fixture {
    async fn new(wait: u64) -> Self {
        let (idp, clock) = (Idp::start().await, clock());
        std::fs::write(idp.dir.path().join("secret"), "p@ss word\n").unwrap();
        let issuers = patient(vec![config(&idp)], &clock, wait);
        let fixture = Self {
            idp,
            clock,
            issuers,
        };
        fixture.say(fixture.active());
        fixture
    }

    fn active(&self) -> Value {
        with(claims(&self.idp.issuer()), "active", true)
    }

    fn say(&self, answer: Value) {
        self.idp.set("/introspect", Reply::Json(answer));
    }

    fn calls(&self) -> usize {
        self.idp.count("/introspect")
    }

    async fn present(&self, token: &str) -> Result<(), Refusal> {
        present(&self.issuers, &self.clock, token).await.map(|_| ())
    }
}

fn config(idp: &Idp) -> IssuerConfig {
    IssuerConfig {
        introspection: Some(IntrospectionConfig {
            url: idp.server.url("/introspect"),
            client_id: "out:gate".to_owned(),
            client_secret: CredentialSource::File(idp.dir.path().join("secret")),
            cache_for: Duration::from_secs(30),
            ca: Some(idp.ca()),
        }),
        ..idp.config()
    }
}

#[tokio::test]
async fn a_token_that_its_issuer_calls_active_is_a_session() {
    let fixture = Fixture::new(5000).await;
    assert_eq!(
        verify(&fixture.issuers, TOKEN, NOW).map(|_| ()),
        Err(UNKNOWN)
    );
    let session = present(&fixture.issuers, &fixture.clock, TOKEN)
        .await
        .unwrap();
    let origin = TokenOrigin::External {
        issuer: fixture.idp.issuer().into(),
        subject: "agent-7".into(),
    };
    assert_eq!(session.origin, origin);
    assert_eq!(session.expires, UnixSeconds(NOW + 600));
    assert!(session.session.as_str().starts_with("x_"));

    let asked = fixture.idp.asked();
    let [request] = &asked[..] else {
        panic!("{} requests", asked.len());
    };
    assert_eq!(request.method(), "POST");
    assert_eq!(request.body(), &format!("token={TOKEN}"));
    assert_eq!(
        request.headers()["content-type"],
        "application/x-www-form-urlencoded"
    );
    let sent = request.headers()["authorization"].to_str().unwrap();
    let sent = STANDARD
        .decode(sent.strip_prefix("Basic ").unwrap())
        .unwrap();
    assert_eq!(sent, b"out%3Agate:p%40ss%20word");
}

#[tokio::test]
async fn an_identity_is_the_same_session_by_whatever_token_it_comes() {
    let fixture = Fixture::new(5000).await;
    let signer = Signer::ed25519("1");
    fixture.idp.publish([&signer]);
    let opaque = present(&fixture.issuers, &fixture.clock, TOKEN)
        .await
        .unwrap();
    let signed = signer.token(&claims(&fixture.idp.issuer()));
    let signed = present(&fixture.issuers, &fixture.clock, &signed)
        .await
        .unwrap();
    assert_eq!(opaque.session, signed.session);
}

#[tokio::test]
async fn whatever_is_not_a_good_answer_is_a_refusal() {
    let fixture = Fixture::new(5000).await;
    let active = fixture.active();
    for (number, (answer, refusal)) in [
        (json!({ "active": false }), INACTIVE),
        (with(active.clone(), "active", false), INACTIVE),
        (
            with(active.clone(), "iss", "https://evil.test"),
            Invalid("wrong issuer"),
        ),
        (
            with(active.clone(), "iss", json!([fixture.idp.issuer()])),
            Invalid("wrong issuer"),
        ),
        (
            with(active.clone(), "aud", "other"),
            Invalid("wrong audience"),
        ),
        (
            with(active.clone(), "aud", Value::Null),
            Invalid("wrong audience"),
        ),
        (with(active.clone(), "exp", Value::Null), Invalid("no exp")),
        (
            with(active.clone(), "exp", "soon"),
            Invalid("exp is no time"),
        ),
        (with(active.clone(), "exp", NOW), Expired),
        (
            with(active.clone(), "nbf", NOW + 31),
            Invalid("not valid yet"),
        ),
        (
            with(active.clone(), "sub", Value::Null),
            Invalid("no session claim, or no text in it"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        fixture.say(answer.clone());
        let token = format!("{TOKEN}-{number}");
        assert_eq!(fixture.present(&token).await, Err(refusal), "{answer}");
        // And it is remembered as that.
        let asked = fixture.calls();
        assert_eq!(fixture.present(&token).await, Err(refusal), "{answer}");
        assert_eq!(fixture.calls(), asked, "{answer}");
    }
    fixture.say(with(active, "iss", Value::Null));
    assert_eq!(
        fixture.present(TOKEN).await,
        Ok(()),
        "the endpoint is the issuer's own"
    );
}

#[tokio::test]
async fn what_is_no_answer_refuses_and_is_not_remembered() {
    let fixture = Fixture::new(5000).await;
    let active = fixture.active();
    let repeated = active.to_string().replacen('{', r#"{"active":false,"#, 1);
    let text = |code: StatusCode, text: &str| Reply::Text(code, text.to_owned());
    let good = active.to_string();
    for (name, reply) in [
        ("401", text(StatusCode::UNAUTHORIZED, &good)),
        ("500", text(StatusCode::INTERNAL_SERVER_ERROR, &good)),
        ("201", text(StatusCode::CREATED, &good)),
        ("a redirect", Reply::Redirect("/jwks".to_owned())),
        ("HTML", text(StatusCode::OK, "<html>active</html>")),
        ("a list", Reply::Json(json!([active]))),
        (
            "no word",
            Reply::Json(with(active.clone(), "active", Value::Null)),
        ),
        (
            "a text",
            Reply::Json(with(active.clone(), "active", "true")),
        ),
        ("a number", Reply::Json(with(active.clone(), "active", 1))),
        ("a repeated name", text(StatusCode::OK, &repeated)),
        (
            "too long",
            Reply::Json(with(active.clone(), "x", "x".repeat(600 * 1024))),
        ),
    ] {
        fixture.idp.set("/introspect", reply);
        assert_eq!(fixture.present(TOKEN).await, Err(UNKNOWN), "{name}");
        fixture.clock.advance(Duration::from_secs(1));
    }
    fixture.say(active);
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
}

#[tokio::test]
async fn an_answer_is_believed_for_as_long_as_is_configured() {
    let fixture = Fixture::new(5000).await;
    for _ in 0..5 {
        assert_eq!(fixture.present(TOKEN).await, Ok(()));
    }
    assert_eq!(fixture.calls(), 1);
    fixture.say(json!({ "active": false }));
    fixture.clock.advance(Duration::from_secs(28));
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
    assert_eq!(fixture.calls(), 1);
    fixture.clock.advance(Duration::from_secs(2));
    assert_eq!(
        verify(&fixture.issuers, TOKEN, NOW + 30).map(|_| ()),
        Err(UNKNOWN)
    );
    assert_eq!(fixture.present(TOKEN).await, Err(INACTIVE));
    assert_eq!(fixture.calls(), 2);
    fixture.say(fixture.active());
    fixture.clock.advance(Duration::from_secs(30));
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
}

#[tokio::test]
async fn an_answer_that_is_about_to_lapse_is_renewed_before_it_is_needed() {
    let fixture = Fixture::new(5000).await;
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
    fixture.clock.advance(Duration::from_millis(29_500));
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
    assert_eq!(fixture.calls(), 2);
    fixture.clock.advance(Duration::from_secs(1));
    assert!(verify(&fixture.issuers, TOKEN, NOW + 30).is_ok());
}

#[tokio::test]
async fn no_answer_is_believed_beyond_a_minute_or_the_tokens_end() {
    let (idp, clock) = (Idp::start().await, clock());
    std::fs::write(idp.dir.path().join("secret"), "s3cr3t").unwrap();
    let mut config = config(&idp);
    config.introspection.as_mut().unwrap().cache_for = Duration::from_secs(86400);
    let issuers = patient(vec![config], &clock, 5000);
    let fixture = Fixture {
        idp,
        clock,
        issuers,
    };
    fixture.say(with(fixture.active(), "exp", NOW + 20));
    assert_eq!(fixture.present("ends-in-20-seconds").await, Ok(()));
    fixture.say(fixture.active());
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
    fixture.idp.set(
        "/introspect",
        Reply::Text(StatusCode::BAD_GATEWAY, String::new()),
    );
    fixture.clock.advance(Duration::from_secs(20));
    // The wall clock goes back, and nothing lives longer for it.
    fixture.clock.set_wall(UnixSeconds(NOW - 3600));
    assert_eq!(fixture.present("ends-in-20-seconds").await, Err(Expired));
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
    fixture.clock.advance(Duration::from_secs(40));
    assert_eq!(fixture.present(TOKEN).await, Err(UNKNOWN));
}

#[tokio::test]
async fn a_crowd_with_one_token_makes_one_call() {
    let fixture = Fixture::new(5000).await;
    let late = Reply::Late(Duration::from_millis(200), fixture.active());
    fixture.idp.set("/introspect", late);
    let crowd = (0..100).map(|_| fixture.present(TOKEN));
    let found = futures_util::future::join_all(crowd).await;
    assert!(found.iter().all(Result::is_ok), "{found:?}");
    assert_eq!(fixture.calls(), 1);
}

#[tokio::test]
async fn a_guest_that_hangs_up_does_not_end_the_call() {
    let fixture = Fixture::new(5000).await;
    let late = Reply::Late(Duration::from_millis(200), fixture.active());
    fixture.idp.set("/introspect", late);
    let prepared = fixture.issuers.prepare(TOKEN, UnixSeconds(NOW));
    let hang_up = tokio::time::timeout(Duration::from_millis(50), prepared);
    assert!(hang_up.await.is_err());
    let known = eventually(Duration::from_secs(5), || {
        verify(&fixture.issuers, TOKEN, NOW).ok()
    });
    assert!(known.await.is_some());
    assert_eq!(fixture.calls(), 1);
}

#[tokio::test]
async fn a_flood_of_tokens_meets_a_bounded_number_of_calls() {
    let fixture = Fixture::new(800).await;
    // The connection stands before the flood, or its handshake would hold the flood back.
    assert_eq!(fixture.present(TOKEN).await, Ok(()));
    fixture.idp.set("/introspect", Reply::Silence);
    let tokens: Vec<_> = (0..2000).map(|n| format!("{TOKEN}-{n}")).collect();
    let begin = Instant::now();
    let flood = futures_util::future::join_all(tokens.iter().map(|token| fixture.present(token)));
    // Counted before the first of them is given up, which lets the next one in.
    let count = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        fixture.calls() - 1
    };
    let (found, calls) = tokio::join!(flood, count);
    assert!(found.iter().all(|one| *one == Err(UNKNOWN)));
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert!((1..=32).contains(&calls), "{calls}");
}

#[tokio::test]
async fn an_endpoint_that_is_down_refuses_at_once_and_is_left_alone_for_a_second() {
    let fixture = Fixture::new(5000).await;
    fixture.idp.set(
        "/introspect",
        Reply::Text(StatusCode::BAD_GATEWAY, String::new()),
    );
    for number in 0..20 {
        let refused = fixture.present(&format!("{TOKEN}-{number}")).await;
        assert_eq!(refused, Err(UNKNOWN));
    }
    assert_eq!(fixture.calls(), 1);
    fixture.say(fixture.active());
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.present(TOKEN).await, Ok(()));

    let gone = Fixture::new(500).await;
    assert_eq!(gone.present(TOKEN).await, Ok(()));
    let Fixture {
        idp,
        clock,
        issuers,
    } = gone;
    idp.server.stop().await;
    assert!(
        present(&issuers, &clock, TOKEN).await.is_ok(),
        "still believed"
    );
    clock.advance(Duration::from_secs(30));
    let refused = present(&issuers, &clock, TOKEN).await.map(|_| ());
    assert_eq!(refused, Err(UNKNOWN));
}

#[tokio::test]
async fn a_token_that_upsets_the_endpoint_shuts_nobody_else_out() {
    let fixture = Fixture::new(5000).await;
    for reply in [
        Reply::Text(StatusCode::BAD_REQUEST, String::new()),
        Reply::Text(StatusCode::OK, "<html>".to_owned()),
    ] {
        fixture.idp.set("/introspect", reply);
        let asked = fixture.calls();
        for _ in 0..5 {
            assert_eq!(fixture.present("an-odd-token").await, Err(UNKNOWN));
        }
        assert_eq!(fixture.calls(), asked + 1);
        fixture.say(fixture.active());
        assert_eq!(fixture.present(&format!("{TOKEN}-{asked}")).await, Ok(()));
        fixture.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(fixture.present("an-odd-token").await, Ok(()));
}

#[tokio::test]
async fn a_token_that_is_slow_to_be_judged_is_refused_in_time() {
    let fixture = Fixture::new(300).await;
    fixture.idp.set("/introspect", Reply::Silence);
    let begin = Instant::now();
    assert_eq!(fixture.present(TOKEN).await, Err(UNKNOWN));
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn nothing_but_a_bearer_token_is_shown_to_the_endpoint() {
    let fixture = Fixture::new(5000).await;
    let signer = Signer::ed25519("1");
    fixture.idp.publish([&signer]);
    let good = claims(&fixture.idp.issuer());
    let of_another = signer.token(&with(good.clone(), "iss", "https://other.example.org"));
    let unsigned = signer.sign(&with(signer.header(), "alg", "none"), &good);
    let cut = signer.token(&good).rsplit_once('.').unwrap().0.to_owned();
    for token in [
        String::new(),
        "short".to_owned(),
        "with a space".to_owned(),
        "a\"quote\"in-it".to_owned(),
        "a&token=b".to_owned(),
        "x".repeat(5000),
        of_another,
        unsigned,
        cut,
        signer.token(&good),
    ] {
        let _ = fixture.present(&token).await;
        assert_eq!(fixture.calls(), 0, "{token}");
    }
}

#[tokio::test]
async fn a_secret_that_was_changed_counts_without_a_restart() {
    let fixture = Fixture::new(5000).await;
    let path = fixture.idp.dir.path().join("secret");
    let sent = |nth: usize| {
        let asked = fixture.idp.asked();
        let value = asked[nth].headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        let bytes = STANDARD
            .decode(value.strip_prefix("Basic ").unwrap())
            .unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(fixture.present("opaque-1").await, Ok(()));
    std::fs::write(&path, "second\r\n").unwrap();
    assert_eq!(fixture.present("opaque-2").await, Ok(()));
    assert_eq!(sent(0), "out%3Agate:p%40ss%20word");
    assert_eq!(sent(1), "out%3Agate:second");
    std::fs::write(&path, "\n").unwrap();
    assert_eq!(fixture.present("opaque-3").await, Err(UNKNOWN));
    std::fs::remove_file(&path).unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.present("opaque-3").await, Err(UNKNOWN));
    assert_eq!(fixture.calls(), 2, "without a secret nobody is asked");
}

#[tokio::test]
async fn at_most_one_issuer_is_shown_tokens_that_do_not_say_whose_they_are() {
    let (one, two) = (Idp::start().await, Idp::start().await);
    let configs = vec![config(&one), config(&two)];
    let refused = Issuers::new(configs, clock() as Arc<dyn Clock>).unwrap_err();
    assert!(
        matches!(refused, IssuerError::SeveralIntrospections(..)),
        "{refused}"
    );
    let mut plaintext = config(&one);
    plaintext.introspection.as_mut().unwrap().url = "http://127.0.0.1/introspect".to_owned();
    let refused = Issuers::new(vec![plaintext], clock() as Arc<dyn Clock>).unwrap_err();
    assert!(
        matches!(refused, IssuerError::Plaintext { .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn without_introspection_an_opaque_token_is_refused() {
    let idp = Idp::start().await;
    let clock = clock();
    let issuers = idp.issuers(&clock);
    let refused = present(&issuers, &clock, TOKEN).await.map(|_| ());
    assert_eq!(refused, Err(Invalid("not a JWT")));
    assert_eq!(idp.asked().len(), 0);
}

#[tokio::test]
async fn the_endpoints_certificate_must_be_of_its_own_roots() {
    let (idp, stranger, clock) = (Idp::start().await, Idp::start().await, clock());
    std::fs::write(idp.dir.path().join("secret"), "s3cr3t").unwrap();
    let mut config = config(&idp);
    config.keys = KeySource::JwksFile(idp.dir.path().join("keys.json"));
    std::fs::write(
        idp.dir.path().join("keys.json"),
        jwks([&Signer::ed25519("1")]).to_string(),
    )
    .unwrap();
    config.introspection.as_mut().unwrap().ca = Some(stranger.ca());
    let issuers = patient(vec![config], &clock, 5000);
    let refused = present(&issuers, &clock, TOKEN).await.map(|_| ());
    assert_eq!(refused, Err(UNKNOWN));
    assert_eq!(idp.asked().len(), 0);
}
