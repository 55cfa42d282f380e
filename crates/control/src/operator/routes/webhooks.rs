//! What a verified webhook may do: revoke, and nothing else.

use http::{Method, StatusCode};
use outgate_journey::session::SessionEnd;

use super::{
    denylist::{Named, deny},
    kill::kill_all,
    sessions::end_session,
};
use crate::{
    operator::{
        body::{WebhookAction, WebhookAnswer, WebhookCall},
        call::{Call, Done, Outcome},
        code::ErrorCode,
        problem::Refusal,
        route::{Access, Gives, Route, Takes, schema},
    },
    sessions::DenyTarget,
};

pub(crate) fn table() -> Vec<Route> {
    use ErrorCode as Code;
    vec![
        Route::new(Method::POST, "/v1/webhooks/{name}", "webhook", Access::Signed, |call| Box::pin(act(call)))
            .about(
                "Revokes, for a caller that signs as Standard Webhooks says (`webhook-id`, `webhook-timestamp`, `webhook-signature`). \
                 An id is acted on once: its repeat gets the first answer.",
            )
            .revoking()
            .taking(Takes::Always(schema::<WebhookCall>))
            .giving(Gives::Json(200, schema::<WebhookAnswer>))
            .refusing(&[Code::TokenInText, Code::TenantBound, Code::UnknownSession, Code::StoreUnavailable]),
    ]
}

async fn act(call: Call) -> Outcome {
    let wanted: WebhookCall = call.json()?;
    let reason = call.reason(wanted.reason)?;
    let action = wanted.action;
    let target = Named {
        session: wanted.session,
        token: wanted.token,
        issuer: wanted.issuer,
        subject: wanted.subject,
    };
    let mut done = Done::json(StatusCode::OK, &WebhookAnswer { action })?;
    let detail = match action {
        WebhookAction::End => {
            let DenyTarget::Session(id) = target.read(ErrorCode::InvalidBody)? else {
                return Err(Refusal::saying(
                    ErrorCode::InvalidBody,
                    "end: name a session",
                ));
            };
            call.notes.set_target(id.as_str());
            let view = call.own_session(&id)?;
            let ended = end_session(&call, &id, &view, SessionEnd::Ended, String::new()).await?;
            done.sessions = ended.sessions;
            "end"
        }
        WebhookAction::Deny => {
            let target = target.read(ErrorCode::InvalidBody)?;
            done.sessions = deny(&call, target, reason.clone(), None).await?.1;
            "deny"
        }
        WebhookAction::KillAll => {
            if !target.is_empty() {
                let detail = "kill_all: names nothing else";
                return Err(Refusal::saying(ErrorCode::InvalidBody, detail));
            }
            if call.identity.tenant().is_some() {
                return Err(ErrorCode::TenantBound.into());
            }
            kill_all(&call, &reason).await?;
            "kill_all"
        }
    };
    Ok(done.noting(format!("{detail}: {reason}")))
}
