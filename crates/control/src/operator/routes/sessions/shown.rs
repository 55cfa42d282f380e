//! What is shown of sessions: their tokens, once, and everything else.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use outgate_journey::session::{SessionId, Terms, UnixSeconds};
use outgate_session::Minted;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    operator::{
        body::{SessionBody, SessionEndBody, SessionStateBody},
        call::{Call, Done, Outcome},
        code::ErrorCode,
        problem::Refusal,
    },
    sessions::{SessionState, SessionView},
};

/// Signs a token.
pub(super) fn mint(
    call: &Call,
    id: &SessionId,
    terms: &Terms,
    ttl: Duration,
) -> Result<Minted, Refusal> {
    let now: UnixSeconds = call.now();
    let minted = call.api.parts.keys.mint(id, terms, ttl, now);
    minted.map_err(|error| Refusal::from(ErrorCode::KeysUnavailable).because(error.to_string()))
}

/// The one answer that has the token, in a buffer that is wiped when it was sent.
pub(super) fn shown(id: &str, minted: &Minted) -> Outcome {
    #[derive(Serialize)]
    struct Shown<'a> {
        id: &'a str,
        token: &'a str,
        expires: u64,
    }
    let token = minted.token.expose();
    // Sized up front: a buffer that grows leaves an unwiped copy behind.
    let mut body = Zeroizing::new(Vec::with_capacity(token.len() + id.len() + 128));
    let shown = Shown {
        id,
        token,
        expires: minted.expires.0,
    };
    serde_json::to_writer(&mut *body, &shown)
        .map_err(|error| Refusal::from(ErrorCode::InternalFault).because(error.to_string()))?;
    let detail = format!("token {}, until {}", minted.token_id, minted.expires.0);
    Ok(Done {
        status: StatusCode::CREATED,
        body: Some(Bytes::from_owner(body)),
        ..Done::default()
    }
    .noting(detail))
}

impl From<SessionView> for SessionBody {
    fn from(view: SessionView) -> Self {
        Self {
            id: view.id,
            tenant: view.tenant,
            labels: view.labels,
            container: view.container,
            policy: view.policy,
            limits: view.limits,
            created: view.created,
            expires: view.expires,
            last_active: view.last_active,
            ends_at_latest: view.ends_at_latest,
            state: match view.state {
                SessionState::Live => SessionStateBody::Live,
                SessionState::Ended => SessionStateBody::Ended,
                SessionState::Expired => SessionStateBody::Expired,
            },
            end: view.end.map(|end| SessionEndBody {
                cause: end.cause,
                at: end.at,
                by: end.by,
            }),
            issuer: view.issuer,
            subject: view.subject,
            created_by: view.created_by,
        }
    }
}
