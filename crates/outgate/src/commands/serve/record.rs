//! What becomes of sessions without an operator's doing, as it is recorded.

use std::sync::Arc;

use outgate_audit::AuditLog;
use outgate_clock::Clock;
use outgate_control::sessions::Sessions;
use outgate_journey::{
    record::{AuditEvent, AuditSink, SessionChange, SessionRecord},
    session::{SessionEnd, SessionId, TokenClaims, TokenOrigin},
};
use outgate_plane::clock;

use super::core::Core;

/// Records what the clocks end, and identities that are seen for the first time. What operators do is recorded where
/// they do it.
pub(super) fn record_sessions(sessions: &Sessions, audit: &AuditLog) {
    let trail = audit.clone();
    sessions.on_end(move |session, end| {
        trail.record(session_event(session, SessionChange::Ended(end), None));
    });
    let trail = audit.clone();
    sessions.on_begin(move |claims| {
        trail.record(session_event(
            &claims.session,
            SessionChange::Began,
            Some(claims),
        ));
    });
}

/// What became of a session without an operator's doing.
fn session_event(
    session: &SessionId,
    change: SessionChange,
    claims: Option<&TokenClaims>,
) -> AuditEvent {
    let external = claims.and_then(|claims| match &claims.origin {
        TokenOrigin::External { issuer, subject } => Some((issuer, subject)),
        TokenOrigin::Own => None,
    });
    let time_unix_ms = clock::machine().wall_ms();
    AuditEvent::Session(Box::new(SessionRecord {
        token_id: claims.map(|claims| Arc::clone(&claims.token_id)),
        expires: claims.map(|claims| claims.expires),
        issuer: external.map(|(issuer, _)| Arc::clone(issuer)),
        subject: external.map(|(_, subject)| Arc::clone(subject)),
        policy: claims.and_then(|claims| Some(claims.terms.policy.as_ref()?.to_string())),
        ..SessionRecord::by_itself(session, change, time_unix_ms)
    }))
}

/// Ends a session for what another gateway saw it do.
pub(super) fn end_for_anomaly(core: &Arc<Core>, session: SessionId, by: String) {
    let end = SessionEnd::Tripwire;
    core.audit
        .record(session_event(&session, SessionChange::Ended(end), None));
    let core = Arc::clone(core);
    let ending = async move {
        if let Err(error) = core.sessions.end(&session, end, &by).await {
            tracing::error!(%error, %session, "the session is cut, and its end is not on disk yet");
        }
    };
    tokio::spawn(ending);
}
