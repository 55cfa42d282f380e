//! The denylist: what may do nothing, whatever its token says. A caller who is bound to a tenant may deny its own
//! sessions; tokens and subjects by their name alone are of nobody in particular, and so for callers who are bound to
//! none. What others imposed on a tenant is not the tenant's to lift: it replaces and removes its own entries only.

use std::sync::Arc;

use http::{Method, StatusCode};
use outgate_journey::{
    record::SessionChange,
    session::{SessionEnd, SessionId, UnixSeconds},
};

use super::revoked;
use crate::{
    operator::{
        body::{DenyBody, DenyList, DenyRequest},
        call::{Call, Done, Outcome},
        code::ErrorCode,
        problem::Refusal,
        query::Parameter,
        route::{Access, Gives, Route, Takes, schema},
        scope::Scope,
        text,
    },
    sessions::{DenyEntry, DenyTarget, SessionState},
};

const SEEN_BY: Access = Access::Scoped {
    any_of: &[Scope::SessionRead, Scope::Revoke],
    every_tenant: false,
};
const CHANGED_BY: Access = Access::Scoped {
    any_of: &[Scope::Revoke],
    every_tenant: false,
};

/// The latest end of an entry: what the store keeps. Whoever means longer means never.
const MAX_UNTIL: u64 = i64::MAX.unsigned_abs();

static TARGET: &[Parameter] = &[
    Parameter {
        name: "session",
        about: "A session's id.",
        kind: "string",
    },
    Parameter {
        name: "token",
        about: "A token's id (`jti`).",
        kind: "string",
    },
    Parameter {
        name: "issuer",
        about: "An external issuer, together with `subject`.",
        kind: "string",
    },
    Parameter {
        name: "subject",
        about: "What that issuer calls the session.",
        kind: "string",
    },
];

pub(crate) fn table() -> Vec<Route> {
    use ErrorCode as Code;
    vec![
        Route::new(Method::GET, "/v1/denylist", "deny.list", SEEN_BY, |call| Box::pin(list(call)))
            .about("Lists what is denied, as far as the caller may know of it.")
            .giving(Gives::Json(200, schema::<DenyList>)),
        Route::new(Method::POST, "/v1/denylist", "deny.add", CHANGED_BY, |call| Box::pin(add(call)))
            .about("Denies a session, a token or an issuer's subject, and cuts what it has open. Again: replaces reason and end.")
            .revoking()
            .taking(Takes::Always(schema::<DenyRequest>))
            .giving(Gives::Json(200, schema::<DenyBody>))
            .refusing(&[Code::TokenInText, Code::UntilPassed, Code::TenantBound, Code::UnknownSession, Code::StoreUnavailable]),
        Route::new(Method::DELETE, "/v1/denylist", "deny.remove", CHANGED_BY, |call| Box::pin(remove(call)))
            .about("Takes an entry off the denylist: exactly one of `session`, `token`, or `issuer` with `subject`. A session that was ended stays ended.")
            .query(TARGET)
            .refusing(&[Code::TenantBound, Code::UnknownSession, Code::NotDenied, Code::StoreUnavailable]),
    ]
}

async fn list(call: Call) -> Outcome {
    // A long list takes seconds, for which nobody's revocation waits.
    Call::blocking(move || {
        let visible = |target: &DenyTarget| match (target, call.identity.tenant()) {
            (_, None) => true,
            (DenyTarget::Session(id), Some(_)) => call.own_session(id).is_ok(),
            (_, Some(_)) => false,
        };
        let denied = call.api.parts.sessions.denied(visible);
        let entries = denied.into_iter().map(DenyBody::from).collect();
        Done::json(StatusCode::OK, &DenyList { entries })
    })
    .await?
}

async fn add(call: Call) -> Outcome {
    let wanted: DenyRequest = call.json()?;
    text::required("reason", &wanted.reason)?;
    let target = Named {
        session: wanted.session,
        token: wanted.token,
        issuer: wanted.issuer,
        subject: wanted.subject,
    };
    let target = target.read(ErrorCode::InvalidBody)?;
    if let Some(until) = wanted.until
        && UnixSeconds(until) <= call.now()
    {
        return Err(ErrorCode::UntilPassed.into());
    }
    if wanted.until.is_some_and(|until| until > MAX_UNTIL) {
        return Err(Refusal::saying(
            ErrorCode::InvalidBody,
            "until: at most 9223372036854775807",
        ));
    }
    let entry = deny(&call, target, wanted.reason, wanted.until).await?;
    let (body, records) = entry;
    let mut done = Done::json(StatusCode::OK, &body)?.noting(body.reason);
    done.sessions = records;
    Ok(done)
}

/// Denies what the caller may deny, and says what became of a session by it.
pub(super) async fn deny(
    call: &Call,
    target: DenyTarget,
    reason: String,
    until: Option<u64>,
) -> Result<(DenyBody, Vec<outgate_journey::record::SessionRecord>), Refusal> {
    let mut records = Vec::new();
    allowed(call, &target)?;
    standing_entry(call, &target)?;
    if let DenyTarget::Session(id) = &target
        && let Some(view) = call.api.parts.sessions.view(id)
        && view.state == SessionState::Live
    {
        let change = SessionChange::Ended(SessionEnd::Denied);
        records.push(call.session_record(id, change, Some(&view)));
    }
    let entry = DenyEntry {
        target,
        reason,
        by: call.identity.imposed_by(),
        at: call.now().0,
        until,
    };
    let denied = call.api.parts.sessions.deny(entry).await;
    Ok((revoked(denied)?.into(), records))
}

async fn remove(call: Call) -> Outcome {
    let target = Named {
        session: call.parameter("session"),
        token: call.parameter("token"),
        issuer: call.parameter("issuer"),
        subject: call.parameter("subject"),
    };
    let target = target.read(ErrorCode::InvalidQuery)?;
    allowed(&call, &target)?;
    let sessions = Arc::clone(&call.api.parts.sessions);
    let before = standing_entry(&call, &target)?.ok_or(ErrorCode::NotDenied)?;
    if !sessions.undeny(&target).await? {
        return Err(ErrorCode::NotDenied.into());
    }
    let done = Done::empty().noting(format!("was denied by {}", before.by));
    Ok(done.or_undo(async move {
        let _ = sessions.deny(before).await;
    }))
}

/// The entry of the target, if there is one, and if it is the caller's to change. Between this and the change nothing is
/// waited for, so no other call comes between.
fn standing_entry(call: &Call, target: &DenyTarget) -> Result<Option<DenyEntry>, Refusal> {
    match call.api.parts.sessions.denial(target) {
        Some(entry) if !call.identity.may_take_back(&entry.by) => Err(Refusal::saying(
            ErrorCode::TenantBound,
            "the entry was made by an identity that is not of the caller's tenant",
        )),
        entry => Ok(entry),
    }
}

/// Whether the caller may say this of the target; notes it for the record.
fn allowed(call: &Call, target: &DenyTarget) -> Result<(), Refusal> {
    let name = match target {
        DenyTarget::Session(id) => id.to_string(),
        DenyTarget::Token(id) => format!("token {id}"),
        DenyTarget::Subject { issuer, subject } => format!("{subject} of {issuer}"),
    };
    call.notes.set_target(name);
    match (target, call.identity.tenant()) {
        (_, None) => Ok(()),
        (DenyTarget::Session(id), Some(_)) => call.own_session(id).map(drop),
        (_, Some(_)) => Err(ErrorCode::TenantBound.into()),
    }
}

/// A target as it is written: exactly one of three.
pub(super) struct Named {
    pub(super) session: Option<String>,
    pub(super) token: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) subject: Option<String>,
}

impl Named {
    pub(super) const fn is_empty(&self) -> bool {
        matches!(
            self,
            Self {
                session: None,
                token: None,
                issuer: None,
                subject: None
            }
        )
    }

    pub(super) fn read(self, code: ErrorCode) -> Result<DenyTarget, Refusal> {
        let bad = |detail: &'static str| Err(Refusal::saying(code, detail));
        match (self.session, self.token, self.issuer, self.subject) {
            (Some(session), None, None, None) => match SessionId::parse(&session) {
                Some(id) => Ok(DenyTarget::Session(id)),
                None => bad("session: not a session's id"),
            },
            (None, Some(token), None, None) => match text::is_token_id(&token) {
                true => Ok(DenyTarget::Token(token)),
                false => bad("token: not a token's id (`jti`); never give the token itself"),
            },
            (None, None, Some(issuer), Some(subject)) => {
                match text::is_identity(&issuer) && text::is_identity(&subject) {
                    true => Ok(DenyTarget::Subject { issuer, subject }),
                    false => bad("issuer, subject: 1 to 1024 printable characters, no token"),
                }
            }
            _ => bad("name exactly one of `session`, `token`, or `issuer` with `subject`"),
        }
    }
}

impl From<DenyEntry> for DenyBody {
    fn from(entry: DenyEntry) -> Self {
        let mut body = Self {
            session: None,
            token: None,
            issuer: None,
            subject: None,
            reason: entry.reason,
            by: entry.by,
            at: entry.at,
            until: entry.until,
        };
        match entry.target {
            DenyTarget::Session(id) => body.session = Some(id.to_string()),
            DenyTarget::Token(id) => body.token = Some(id.to_string()),
            DenyTarget::Subject { issuer, subject } => {
                body.issuer = Some(issuer.to_string());
                body.subject = Some(subject.to_string());
            }
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_exactly_one_thing_and_never_a_token() {
        let read = |parts: [Option<&str>; 4]| {
            let [session, token, issuer, subject] = parts.map(|part| part.map(str::to_owned));
            let named = Named {
                session,
                token,
                issuer,
                subject,
            };
            named.read(ErrorCode::InvalidBody)
        };
        assert!(read([Some("s_1"), None, None, None]).is_ok());
        assert!(read([None, Some("jti:5/x"), None, None]).is_ok());
        assert!(read([None, None, Some("https://idp.example.org"), Some("user 7")]).is_ok());
        // As long as an issuer's tokens may have it.
        let (longest, longer) = ("u".repeat(1024), "u".repeat(1025));
        assert!(read([None, None, Some("i"), Some(&longest)]).is_ok());
        assert!(read([None, None, Some("i"), Some(&longer)]).is_err());
        for bad in [
            [None, None, None, None],
            [Some("a"), Some("b"), None, None],
            [Some("a b"), None, None, None],
            [Some(""), None, None, None],
            [None, Some(""), None, None],
            [None, Some("eyJhbGciOi.eyJzdWIi.c2ln"), None, None],
            [None, None, Some("i"), None],
            [None, None, None, Some("s")],
            [None, None, Some("i"), Some("a\nb")],
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
