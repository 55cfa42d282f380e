//! What a handler gets, and what it gives back. A handler only acts: who may call it was decided before, and what it did
//! is recorded and answered afterwards, in one place.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::StatusCode;
use outgate_journey::{
    record::{AuditEvent, SessionChange, SessionRecord},
    session::{SessionId, UnixSeconds},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    OperatorApi, code::ErrorCode, identity::Identity, problem::Refusal, text, webhook::Seen,
};
use crate::sessions::SessionView;

/// An authorized call.
pub(crate) struct Call {
    pub(crate) api: Arc<OperatorApi>,
    pub(crate) identity: Identity,
    /// What stands in the path's places, in order, as written.
    pub(crate) places: Vec<String>,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) notes: Arc<Notes>,
}

/// What the record is told of a call whatever becomes of it.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    target: OnceLock<String>,
}

impl Notes {
    pub(crate) fn set_target(&self, target: impl Into<String>) {
        let _ = self.target.set(target.into());
    }

    pub(crate) fn target(&self) -> Option<String> {
        self.target.get().cloned()
    }
}

/// What a handler did.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) status: StatusCode,
    pub(crate) body: Option<Bytes>,
    /// For the record.
    pub(crate) detail: String,
    /// What became of sessions: recorded before the call itself is.
    pub(crate) sessions: Vec<SessionRecord>,
    /// Takes it back, where the record cannot be written. Revocations have none: they stay in effect.
    pub(crate) undo: Option<BoxFuture<'static, ()>>,
    /// The call that must be carried out again when it is repeated, where the record cannot be written.
    pub(crate) remembered: Option<(Arc<Seen>, String)>,
}

/// What every handler gives.
pub(crate) type Outcome = Result<Done, Refusal>;

impl Done {
    /// Something to show.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Outcome {
        let body = serde_json::to_vec(body)
            .map_err(|error| Refusal::from(ErrorCode::InternalFault).because(error.to_string()))?;
        Ok(Self {
            status,
            body: Some(body.into()),
            ..Self::default()
        })
    }

    /// Nothing to show.
    pub(crate) fn empty() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            ..Self::default()
        }
    }

    /// Adds what the record says of it.
    pub(crate) fn noting(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Adds what became of a session.
    pub(crate) fn with(mut self, record: SessionRecord) -> Self {
        self.sessions.push(record);
        self
    }

    /// Adds how to take it back.
    pub(crate) fn or_undo(mut self, undo: impl Future<Output = ()> + Send + 'static) -> Self {
        self.undo = Some(Box::pin(undo));
        self
    }
}

impl Call {
    /// The time to judge by.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.api.parts.clock.unix()
    }

    /// Sessions and keys are the control plane's, where this gateway follows one.
    pub(crate) fn issues_sessions(&self) -> Result<(), Refusal> {
        match self.api.parts.host.issues_sessions() {
            true => Ok(()),
            false => Err(ErrorCode::FollowsControlPlane.into()),
        }
    }

    /// The body, an object of this form.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        parse(&self.body)
    }

    /// The body, or what an absent one stands for.
    pub(crate) fn json_or_default<T: DeserializeOwned + Default>(&self) -> Result<T, Refusal> {
        if self.body.is_empty() {
            Ok(T::default())
        } else {
            self.json()
        }
    }

    /// A parameter of the query; the route's table says which there are.
    pub(crate) fn parameter(&self, name: &'static str) -> Option<String> {
        let found = self.query.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone())
    }

    /// The session that the path names: one of this gateway, that the caller may know of.
    pub(crate) fn session(&self) -> Result<(SessionId, SessionView), Refusal> {
        let id = self
            .places
            .first()
            .and_then(|text| SessionId::parse(text))
            .ok_or(ErrorCode::InvalidId)?;
        self.notes.set_target(id.as_str());
        let view = self.own_session(&id)?;
        Ok((id, view))
    }

    /// A session, if the caller may know of it. Another tenant's is as unknown as one that never was.
    pub(crate) fn own_session(&self, id: &SessionId) -> Result<SessionView, Refusal> {
        let own = |view: &SessionView| {
            let tenant = self.identity.tenant();
            tenant.is_none() || view.tenant.as_deref() == tenant
        };
        let view = self.api.parts.sessions.view(id).filter(own);
        view.ok_or_else(|| ErrorCode::UnknownSession.into())
    }

    /// A reason, checked; what is recorded in the place of an absent one.
    pub(crate) fn reason(&self, reason: Option<String>) -> Result<String, Refusal> {
        let reason = reason.unwrap_or_default();
        text::plain("reason", &reason)?;
        Ok(reason)
    }

    /// The record of what became of a session.
    pub(crate) fn session_record(
        &self,
        id: &SessionId,
        change: SessionChange,
        view: Option<&SessionView>,
    ) -> SessionRecord {
        SessionRecord {
            time_unix_ms: self.api.parts.clock.wall_ms(),
            session: id.clone(),
            change,
            token_id: None,
            expires: None,
            issuer: view.and_then(|view| view.issuer.as_deref().map(Into::into)),
            subject: view.and_then(|view| view.subject.as_deref().map(Into::into)),
            policy: view.and_then(|view| view.policy.clone()),
            by: self.identity.operator.clone(),
        }
    }

    /// Runs what blocks on files beside the thread that answers.
    pub(crate) async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Refusal::from(ErrorCode::InternalFault).because(error.to_string()))
    }
}

/// Reads a body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    // Without this, a list of the members' values would do for an object.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Refusal::saying(
            ErrorCode::InvalidBody,
            "the body is no JSON object",
        ));
    }
    serde_json::from_slice(body).map_err(|error| {
        // What is wrong may quote what was sent, so only the caller is told.
        let place = format!("line {}, column {}", error.line(), error.column());
        let detail: String = error.to_string().chars().take(300).collect();
        Refusal::saying(ErrorCode::InvalidBody, detail).because(place)
    })
}

/// The events of what a call did to sessions.
pub(crate) fn events(records: Vec<SessionRecord>) -> impl Iterator<Item = AuditEvent> {
    records
        .into_iter()
        .map(|record| AuditEvent::Session(Box::new(record)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::body::CreateSession;

    #[test]
    fn only_objects_without_unknown_or_repeated_fields_are_bodies() {
        for bad in [
            "",
            "[]",
            "[60]",
            "null",
            "5",
            "\"x\"",
            "{",
            "{}{}",
            "{\"x\":1}",
            "{\"ttl_seconds\":\"60\"}",
            "{\"ttl_seconds\":-1}",
            "{\"ttl_seconds\":1.5}",
            "{\"ttl_seconds\":1,\"ttl_seconds\":2}",
            "{\"labels\":[]}",
            "{\"labels\":{\"a\":1}}",
            "{\"labels\":{\"a\":\"1\",\"a\":\"2\"}}",
            "{\"labels\":null}",
            "{\"limits\":{\"bytes_out\":1,\"bytes_out\":2}}",
            "{\"limits\":[\"1/s\"]}",
            "{\"limits\":{\"requets\":\"1/s\"}}",
            "{\"tenant\":5}",
        ] {
            let parsed = parse::<CreateSession>(bad.as_bytes());
            assert_eq!(parsed.unwrap_err().code, ErrorCode::InvalidBody, "{bad}");
        }
        let good = parse::<CreateSession>(b" {\"ttl_seconds\":60,\"limits\":{\"bytes_out\":5}}");
        assert_eq!(good.unwrap().limits.unwrap().bytes_out, Some(5));
    }

    #[test]
    fn what_a_body_held_is_not_in_the_record_of_its_refusal() {
        let refusal = parse::<CreateSession>(b"{\"ttl_seconds\":\"s3cret\"}").unwrap_err();
        assert!(!refusal.private.contains("s3cret"));
        assert_eq!(refusal.private, "line 1, column 23");
    }
}
