//! The kill switch: a state, not an event. While it is on, no session may do anything and none is created; lifting it
//! gives those that were not ended themselves their standing back.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::revoked;
use crate::{
    operator::{
        body::{KillAll, KillState},
        call::{Call, Done, Outcome},
        code::ErrorCode,
        route::{Access, Gives, Route, Takes, schema},
        scope::Scope,
        text,
    },
    sessions::KillSwitch,
};

const EVERYBODYS: Access = Access::Scoped {
    any_of: &[Scope::Revoke],
    every_tenant: true,
};

pub(crate) fn table() -> Vec<Route> {
    use ErrorCode as Code;
    let seen_by = Access::Scoped {
        any_of: &[Scope::SessionRead, Scope::Revoke],
        every_tenant: false,
    };
    vec![
        Route::new(Method::GET, "/v1/kill", "kill.show", seen_by, |call| Box::pin(show(call)))
            .about("Says whether the kill switch is on.")
            .giving(Gives::Json(200, schema::<KillState>)),
        Route::new(Method::POST, "/v1/kill", "kill.all", EVERYBODYS, |call| Box::pin(pull(call)))
            .about("Pulls the kill switch: every session is refused and cut at once, and none is created. Again: the first stays.")
            .revoking()
            .taking(Takes::Always(schema::<KillAll>))
            .giving(Gives::Json(200, schema::<KillState>))
            .refusing(&[Code::TokenInText, Code::StoreUnavailable]),
        Route::new(Method::DELETE, "/v1/kill", "kill.lift", EVERYBODYS, |call| Box::pin(lift(call)))
            .about("Lifts the kill switch. Where it is off, nothing changes.")
            .giving(Gives::Json(200, schema::<KillState>))
            .refusing(&[Code::StoreUnavailable]),
    ]
}

async fn show(call: Call) -> Outcome {
    let switch = call.api.parts.sessions.kill_switch();
    Done::json(
        StatusCode::OK,
        &state(switch.as_ref(), call.identity.tenant().is_none()),
    )
}

async fn pull(call: Call) -> Outcome {
    let wanted: KillAll = call.json()?;
    text::required("reason", &wanted.reason)?;
    let switch = kill_all(&call, &wanted.reason).await?;
    let body = state(Some(&switch), true);
    Ok(Done::json(StatusCode::OK, &body)?.noting(wanted.reason))
}

/// Pulls the switch.
pub(super) async fn kill_all(
    call: &Call,
    reason: &str,
) -> Result<KillSwitch, crate::operator::problem::Refusal> {
    let by = call.identity.by();
    revoked(call.api.parts.sessions.kill_all(reason, &by).await)
}

async fn lift(call: Call) -> Outcome {
    let sessions = Arc::clone(&call.api.parts.sessions);
    let by = call.identity.by();
    let before = sessions.kill_switch();
    sessions.lift(&by).await?;
    let done = Done::json(StatusCode::OK, &state(None, true))?;
    Ok(match before {
        Some(switch) => {
            let detail = format!("was pulled by {}: {}", switch.by, switch.reason);
            done.noting(detail).or_undo(async move {
                let _ = sessions.kill_all(&switch.reason, &switch.by).await;
            })
        }
        None => done.noting("was off").or_undo(async {}),
    })
}

/// Who pulled it and why is for those who may pull it themselves.
fn state(switch: Option<&KillSwitch>, in_full: bool) -> KillState {
    let told = switch.filter(|_| in_full);
    KillState {
        on: switch.is_some(),
        since: switch.map(|switch| switch.since),
        by: told.map(|switch| switch.by.clone()),
        reason: told.map(|switch| switch.reason.clone()),
    }
}
