//! Sessions: create, renew, see, limit, end, kill.

mod shown;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    record::SessionChange,
    session::{PolicyName, SessionEnd, SessionId, Terms},
};
use outgate_session::new_session_id;

use self::shown::{mint, shown};
use super::revoked;
use crate::{
    operator::{
        body::{
            CreateSession, CreatedSession, KillSession, Limits, RenewSession, SessionBody,
            SessionList,
        },
        call::{Call, Done, Outcome},
        code::ErrorCode,
        problem::Refusal,
        route::{Access, Gives, Route, Takes, schema},
        scope::Scope,
        text,
    },
    sessions::{NewSession, SessionView},
};

const MAX_LABELS: usize = 32;

const fn scoped(any_of: &'static [Scope]) -> Access {
    Access::Scoped {
        any_of,
        every_tenant: false,
    }
}

pub(crate) fn table() -> Vec<Route> {
    use ErrorCode as Code;
    vec![
        Route::new(Method::POST, "/v1/sessions", "session.create", scoped(&[Scope::SessionCreate]), |call| Box::pin(create(call)))
            .about("Creates a session and gives its token, this one time.")
            .taking(Takes::Optionally(schema::<CreateSession>))
            .giving(Gives::Json(201, schema::<CreatedSession>))
            .refusing(&[
                Code::InvalidTtl, Code::InvalidLimits, Code::TokenInText, Code::UnknownPolicy, Code::TenantBound, Code::FollowsControlPlane,
                Code::KillSwitchOn,
                Code::QuotaExceeded, Code::CreationsLimited, Code::KeysUnavailable, Code::StoreUnavailable,
            ]),
        Route::new(Method::GET, "/v1/sessions", "session.list", scoped(&[Scope::SessionRead]), |call| Box::pin(list(call)))
            .about("Lists the sessions that the caller may know of, the newest first.")
            .giving(Gives::Json(200, schema::<SessionList>)),
        Route::new(Method::GET, "/v1/sessions/{id}", "session.show", scoped(&[Scope::SessionRead]), |call| Box::pin(show(call)))
            .about("Shows a session.")
            .giving(Gives::Json(200, schema::<SessionBody>))
            .refusing(&[Code::InvalidId, Code::UnknownSession]),
        Route::new(Method::DELETE, "/v1/sessions/{id}", "session.end", scoped(&[Scope::SessionCreate, Scope::Revoke]), |call| Box::pin(end(call)))
            .about("Ends a session: its tokens are refused, and what it has open is cut. Ending it again changes nothing.")
            .revoking()
            .refusing(&[Code::InvalidId, Code::UnknownSession, Code::StoreUnavailable]),
        Route::new(Method::POST, "/v1/sessions/{id}/renew", "session.renew", scoped(&[Scope::SessionCreate]), |call| Box::pin(renew(call)))
            .about("Gives a live session a fresh token; those before it end when they would have.")
            .taking(Takes::Optionally(schema::<RenewSession>))
            .giving(Gives::Json(201, schema::<CreatedSession>))
            .refusing(&[
                Code::InvalidId, Code::InvalidTtl, Code::FollowsControlPlane, Code::UnknownSession, Code::SessionOver, Code::ExternalSession, Code::KillSwitchOn,
                Code::KeysUnavailable, Code::StoreUnavailable,
            ]),
        Route::new(Method::PUT, "/v1/sessions/{id}/limits", "session.limits", scoped(&[Scope::Revoke]), |call| Box::pin(limits(call)))
            .about("Sets a session's limits beside the configuration's own, in place of those that an operator set before.")
            .taking(Takes::Always(schema::<Limits>))
            .giving(Gives::Json(200, schema::<SessionBody>))
            .refusing(&[Code::InvalidId, Code::InvalidLimits, Code::TenantBound, Code::UnknownSession, Code::SessionOver, Code::StoreUnavailable]),
        Route::new(Method::POST, "/v1/sessions/{id}/kill", "session.kill", scoped(&[Scope::Revoke]), |call| Box::pin(kill(call)))
            .about("Ends a session as a revocation, with a reason for the record.")
            .revoking()
            .taking(Takes::Optionally(schema::<KillSession>))
            .refusing(&[Code::InvalidId, Code::TokenInText, Code::UnknownSession, Code::StoreUnavailable]),
    ]
}

async fn create(call: Call) -> Outcome {
    let wanted: CreateSession = call.json_or_default()?;
    call.issues_sessions()?;
    let ttl = lifetime(&call, wanted.ttl_seconds)?;
    let terms = terms(&call, wanted.policy.as_deref(), wanted.limits.as_ref())?;
    let tenant = tenant(&call, wanted.tenant)?;
    check_labels(&wanted.labels)?;
    if let Some(container) = &wanted.container {
        text::required("container", container)?;
    }
    if let Some(rate) = call.api.settings().creations {
        let now = call.api.parts.clock.monotonic();
        call.api.creations.count(tenant.as_deref(), rate, now)?;
    }
    let id = new_session_id();
    call.notes.set_target(id.as_str());
    let minted = mint(&call, &id, &terms, ttl)?;
    let sessions = &call.api.parts.sessions;
    let view = sessions
        .create(NewSession {
            id: id.clone(),
            tenant,
            labels: wanted.labels,
            container: wanted.container,
            terms,
            expires: minted.expires,
            created_by: call.identity.by(),
        })
        .await?;
    let mut record = call.session_record(&id, SessionChange::Began, Some(&view));
    record.token_id = Some(minted.token_id.as_str().into());
    record.expires = Some(minted.expires);
    let ended = call.session_record(&id, SessionChange::Ended(SessionEnd::Ended), Some(&view));
    let (api, by) = (Arc::clone(&call.api), call.identity.by());
    let undo = async move {
        // Nobody has its token. What cannot be written now is tried again by the registry.
        let _ = api.parts.sessions.end(&id, SessionEnd::Ended, &by).await;
        api.note_session(ended);
    };
    Ok(shown(&view.id, &minted)?.with(record).or_undo(undo))
}

async fn list(call: Call) -> Outcome {
    let views = call.api.parts.sessions.list(call.identity.tenant());
    let sessions = views.into_iter().map(SessionBody::from).collect();
    Done::json(StatusCode::OK, &SessionList { sessions })
}

async fn show(call: Call) -> Outcome {
    let (_, view) = call.session()?;
    Done::json(StatusCode::OK, &SessionBody::from(view))
}

async fn end(call: Call) -> Outcome {
    finish(call, SessionEnd::Ended, String::new()).await
}

async fn kill(call: Call) -> Outcome {
    let wanted: KillSession = call.json_or_default()?;
    let reason = call.reason(wanted.reason)?;
    finish(call, SessionEnd::Denied, reason).await
}

async fn finish(call: Call, why: SessionEnd, reason: String) -> Outcome {
    let (id, view) = call.session()?;
    end_session(&call, &id, &view, why, reason).await
}

/// Ends a session that the caller may end.
pub(super) async fn end_session(
    call: &Call,
    id: &SessionId,
    view: &SessionView,
    why: SessionEnd,
    reason: String,
) -> Outcome {
    let done = call
        .api
        .parts
        .sessions
        .end(id, why, &call.identity.by())
        .await;
    revoked(done)?;
    let done = Done::empty().noting(reason);
    Ok(match view.end {
        // It was over before.
        Some(_) => done,
        None => done.with(call.session_record(id, SessionChange::Ended(why), Some(view))),
    })
}

async fn renew(call: Call) -> Outcome {
    let wanted: RenewSession = call.json_or_default()?;
    call.issues_sessions()?;
    let (id, view) = call.session()?;
    if view.issuer.is_some() {
        return Err(ErrorCode::ExternalSession.into());
    }
    let ttl = lifetime(&call, wanted.ttl_seconds)?;
    let policy = view.policy.as_deref();
    let terms = Terms {
        policy: policy
            .map(|name| PolicyName::parse(name).ok_or(ErrorCode::InternalFault))
            .transpose()?,
        limits: SessionLimits::try_from(&view.limits)
            .map_err(|fault| Refusal::from(ErrorCode::InternalFault).because(fault.to_string()))?,
    };
    let minted = mint(&call, &id, &terms, ttl)?;
    call.api.parts.sessions.renewed(&id, minted.expires).await?;
    let mut record = call.session_record(&id, SessionChange::Renewed, Some(&view));
    record.token_id = Some(minted.token_id.as_str().into());
    record.expires = Some(minted.expires);
    // Taken back by not being handed out: a later end without a token gives nobody anything.
    Ok(shown(&view.id, &minted)?.with(record).or_undo(async {}))
}

async fn limits(call: Call) -> Outcome {
    let wanted: LimitsText = call.json()?;
    let limits = session_limits(&wanted)?;
    let (id, view) = call.session()?;
    let before = SessionLimits::try_from(&view.limits)
        .map_err(|fault| Refusal::from(ErrorCode::InternalFault).because(fault.to_string()))?;
    let bound = call.identity.tenant().is_some();
    call.api.ceilings.admit(&id, &before, &limits, bound)?;
    let by = call.identity.by();
    let sessions = Arc::clone(&call.api.parts.sessions);
    let view = revoked(sessions.set_limits(&id, limits, &by).await)?;
    let done = Done::json(StatusCode::OK, &SessionBody::from(view))?;
    Ok(done.or_undo(async move {
        let _ = sessions.set_limits(&id, before, &by).await;
    }))
}

fn lifetime(call: &Call, wanted: Option<u64>) -> Result<Duration, Refusal> {
    let longest = call.api.parts.host.ttl();
    let ttl = wanted.map_or(longest, Duration::from_secs);
    if ttl.is_zero() || ttl > longest {
        let most = longest.as_secs();
        let detail = format!("ttl_seconds: 1 to {most} (sessions.ttl)");
        return Err(Refusal::saying(ErrorCode::InvalidTtl, detail));
    }
    Ok(ttl)
}

fn session_limits(text: &LimitsText) -> Result<SessionLimits, Refusal> {
    SessionLimits::try_from(text)
        .map_err(|fault| Refusal::saying(ErrorCode::InvalidLimits, fault.to_string()))
}

fn terms(call: &Call, policy: Option<&str>, limits: Option<&LimitsText>) -> Result<Terms, Refusal> {
    let policy = policy
        .map(|name| {
            PolicyName::parse(name)
                .filter(|name| call.api.parts.host.has_policy(name))
                .ok_or(ErrorCode::UnknownPolicy)
        })
        .transpose()?;
    let limits = limits.map(session_limits).transpose()?.unwrap_or_default();
    Ok(Terms { policy, limits })
}

/// Whose the session will be: the caller's own tenant, or, for a caller who is bound to none, whatever it says.
fn tenant(call: &Call, wanted: Option<String>) -> Result<Option<String>, Refusal> {
    if let Some(wanted) = &wanted
        && !text::is_tenant(wanted)
    {
        let detail = "tenant: 1 to 64 letters, digits and `_.:@-`";
        return Err(Refusal::saying(ErrorCode::InvalidBody, detail));
    }
    match (call.identity.tenant(), wanted) {
        (Some(own), Some(wanted)) if own != wanted => Err(Refusal::saying(
            ErrorCode::TenantBound,
            "tenant: not the caller's own",
        )),
        (Some(own), _) => Ok(Some(own.to_owned())),
        (None, wanted) => Ok(wanted),
    }
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if labels.len() > MAX_LABELS {
        let detail = format!("labels: at most {MAX_LABELS}");
        return Err(Refusal::saying(ErrorCode::InvalidBody, detail));
    }
    labels.iter().try_for_each(|(key, value)| {
        text::required("a label's key", key)?;
        text::plain("a label", value)
    })
}
