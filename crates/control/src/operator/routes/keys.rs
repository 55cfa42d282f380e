//! The signing keys: rotation, and their public halves for everybody.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::operator::{
    body::RotatedKey,
    call::{Call, Done, Outcome},
    code::ErrorCode,
    problem::Refusal,
    route::{Access, Gives, Route, schema},
    scope::Scope,
};

const JWKS: &str = "The public keys that verify session tokens, as a JWK set (RFC 7517).";

pub(crate) fn table() -> Vec<Route> {
    let rotated_by = Access::Scoped {
        any_of: &[Scope::Policy],
        every_tenant: true,
    };
    vec![
        Route::new(
            Method::POST,
            "/v1/keys/rotate",
            "key.rotate",
            rotated_by,
            |call| Box::pin(rotate(call)),
        )
        .about("Makes a fresh key that signs from here on; the one before verifies for a day more.")
        .giving(Gives::Json(200, schema::<RotatedKey>))
        .refusing(&[ErrorCode::FollowsControlPlane, ErrorCode::KeysUnavailable]),
        Route::new(
            Method::GET,
            "/v1/jwks",
            "key.list",
            Access::Public,
            |call| Box::pin(list(call)),
        )
        .about(JWKS)
        .giving(Gives::Anything("A JWK set.")),
        Route::new(
            Method::GET,
            "/.well-known/jwks.json",
            "key.list.well_known",
            Access::Public,
            |call| Box::pin(list(call)),
        )
        .about(JWKS)
        .giving(Gives::Anything("A JWK set.")),
        Route::new(
            Method::GET,
            "/.well-known/openid-configuration",
            "key.discovery",
            Access::Public,
            |call| Box::pin(discovery(call)),
        )
        .about("Says where the public keys are (OpenID Connect Discovery).")
        .giving(Gives::Anything(
            "An OpenID provider's metadata, as far as it concerns verification.",
        )),
    ]
}

async fn rotate(call: Call) -> Outcome {
    call.issues_sessions()?;
    let (keys, now) = (Arc::clone(&call.api.parts.keys), call.now());
    let rotated = Call::blocking(move || {
        keys.rotate(now).map_err(|error| error.to_string())?;
        Ok::<_, String>(newest(&keys.jwks()))
    });
    let kid = rotated
        .await?
        .map_err(|why| Refusal::from(ErrorCode::KeysUnavailable).because(why))?;
    call.notes.set_target(format!("key {kid}"));
    Done::json(StatusCode::OK, &RotatedKey { kid })
}

async fn list(call: Call) -> Outcome {
    Done::json(StatusCode::OK, &call.api.parts.keys.jwks())
}

async fn discovery(call: Call) -> Outcome {
    let settings = call.api.settings();
    let base = settings.public_url.as_deref().unwrap_or_default();
    let body = json!({
        "issuer": settings.issuer,
        "jwks_uri": format!("{base}/.well-known/jwks.json"),
        "id_token_signing_alg_values_supported": ["EdDSA"],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
    });
    Done::json(StatusCode::OK, &body)
}

/// The id of the key that signs: a ring lists it first.
fn newest(jwks: &Value) -> String {
    let kid = jwks.pointer("/keys/0/kid").and_then(Value::as_str);
    kid.unwrap_or_default().to_owned()
}
