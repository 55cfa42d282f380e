//! Operators' tokens: the same checks, and all of the claims.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod support;

use std::{sync::Arc, time::Duration};

use outgate_clock::{Clock, FakeClock};
use outgate_issuer::{
    ClaimsFault, IntrospectionConfig, IssuerConfig, IssuerError, OperatorTokens, claim,
};
use outgate_journey::{policy::CredentialSource, session::UnixSeconds};
use serde_json::json;
use support::{FileIssuer, Idp, NOW, Signer, claims, clock, with};

const AT: UnixSeconds = UnixSeconds(NOW);

fn operators(configs: Vec<IssuerConfig>, clock: &Arc<FakeClock>) -> OperatorTokens {
    OperatorTokens::new(configs, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

#[tokio::test]
async fn a_verified_token_gives_all_of_its_claims() {
    let (idp, clock, signer) = (Idp::start().await, clock(), Signer::rsa("1", 0));
    idp.publish([&signer]);
    let operators = operators(vec![idp.config()], &clock);
    let token = signer.token(&with(
        claims(&idp.issuer()),
        "realm_access",
        json!({ "roles": ["secops"] }),
    ));
    let unknown = ClaimsFault::Invalid("the issuer's keys are not known");
    assert_eq!(operators.verify_claims(&token, AT), Err(unknown));
    operators.prepare(&token, AT).await;
    let found = operators.verify_claims(&token, AT).unwrap();
    assert_eq!((&*found.subject, &*found.token_id), ("agent-7", "t-1"));
    assert_eq!(*found.issuer, *idp.issuer());
    assert_eq!(found.expires, UnixSeconds(NOW + 600));
    assert_eq!(
        claim(&found.claims, "realm_access.roles"),
        Some(&json!(["secops"]))
    );
    let late = operators.verify_claims(&token, UnixSeconds(NOW + 600));
    assert_eq!(late, Err(ClaimsFault::Expired));
    assert_eq!(operators.states()[0].keys, 1);
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    let (signer, stranger) = (Signer::ed25519("1"), Signer::ed25519("1"));
    let file = FileIssuer::new("idp", &support::jwks([&signer]));
    let operators = operators(vec![file.config.clone()], &clock());
    let good = claims("idp");
    assert!(operators.verify_claims(&signer.token(&good), AT).is_ok());
    for (token, why) in [
        (
            signer.token(&with(good.clone(), "aud", "other")),
            "wrong audience",
        ),
        (
            signer.token(&with(good.clone(), "iss", "other")),
            "unknown issuer",
        ),
        (stranger.token(&good), "bad signature"),
        ("an-opaque-token".to_owned(), "not a JWT"),
    ] {
        let refused = operators.verify_claims(&token, AT);
        assert_eq!(refused, Err(ClaimsFault::Invalid(why)));
    }
}

#[test]
fn operators_are_not_introspected() {
    let file = FileIssuer::new("idp", &support::jwks([&Signer::ed25519("1")]));
    let config = IssuerConfig {
        introspection: Some(IntrospectionConfig {
            url: "https://idp.example.org/introspect".to_owned(),
            client_id: "outgate".to_owned(),
            client_secret: CredentialSource::Env("SECRET".to_owned()),
            cache_for: Duration::from_secs(1),
            ca: None,
        }),
        ..file.config.clone()
    };
    let refused = OperatorTokens::new(vec![config.clone()], clock() as Arc<dyn Clock>);
    assert!(matches!(
        refused,
        Err(IssuerError::OperatorIntrospection(_))
    ));
    let operators = operators(vec![file.config.clone()], &clock());
    assert!(operators.replaced(vec![config]).is_err());
    assert!(operators.replaced(Vec::new()).unwrap().is_empty());
}
