//! The policy: its text, and taking a changed file over.

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::operator::{
    body::PolicyText,
    call::{Call, Done, Outcome},
    code::ErrorCode,
    problem::Refusal,
    route::{Access, Gives, Route, schema},
    scope::Scope,
};

const ACCESS: Access = Access::Scoped {
    any_of: &[Scope::Policy],
    every_tenant: true,
};

pub(crate) fn table() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/policy", "policy.show", ACCESS, |call| {
            Box::pin(show(call))
        })
        .about("Shows the text of the configuration in force. No secret stands in it.")
        .giving(Gives::Json(200, schema::<PolicyText>))
        .refusing(&[ErrorCode::PolicyUnreadable]),
        Route::new(
            Method::POST,
            "/v1/policy/reload",
            "policy.reload",
            ACCESS,
            |call| Box::pin(reload(call)),
        )
        .about("Takes the configuration file over as it is on disk, as a whole or not at all.")
        .refusing(&[ErrorCode::ReloadRefused]),
    ]
}

async fn show(call: Call) -> Outcome {
    let host = Arc::clone(&call.api.parts.host);
    let text = Call::blocking(move || host.policy_text())
        .await?
        .map_err(|why| Refusal::from(ErrorCode::PolicyUnreadable).because(why))?;
    Done::json(StatusCode::OK, &PolicyText { text })
}

async fn reload(call: Call) -> Outcome {
    let host = Arc::clone(&call.api.parts.host);
    match Call::blocking(move || host.reload()).await? {
        Ok(()) => Ok(Done::empty()),
        Err(why) => Err(Refusal::saying(ErrorCode::ReloadRefused, why)),
    }
}
