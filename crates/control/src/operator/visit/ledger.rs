//! What is recorded of a call, and what becomes of it where that fails.

use std::time::Duration;

use http::StatusCode;
use outgate_journey::record::{ActionRecord, AuditEvent, OperatorKind};

use super::{NOTHING_DONE, Visit};
use crate::operator::{
    call::{Done, events},
    code::ErrorCode,
    problem::Refusal,
};

/// How long a record may take to be on disk.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// The same where the trail is known to take nothing: whoever revokes must not wait to be told that it is in effect.
const COMMIT_WITHIN_CLOSED: Duration = Duration::from_millis(500);

/// The longest target and detail of a record, in bytes.
const MAX_TARGET: usize = 255;
const MAX_DETAIL: usize = 1024;

fn bounded(mut text: String, most: usize) -> String {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

impl Visit {
    /// Records what was done before it is acknowledged; takes it back, where it can be, if it cannot be recorded.
    pub(super) async fn settle(&self, mut done: Done) -> Result<Done, Refusal> {
        for event in events(std::mem::take(&mut done.sessions)) {
            self.api.parts.audit.note(event);
        }
        let record = self.record(Ok(()), done.status, std::mem::take(&mut done.detail));
        if self.commit(record).await {
            return Ok(done);
        }
        if let Some((seen, id)) = done.remembered.take() {
            seen.forget(&id);
        }
        let refusal = |detail: &'static str| Refusal::saying(ErrorCode::AuditUnavailable, detail);
        match done.undo.take() {
            Some(undo) => {
                undo.await;
                Err(refusal(NOTHING_DONE))
            }
            None if self.changes => Err(refusal("in effect, not recorded").in_effect()),
            None => Err(refusal("nothing is shown that cannot be recorded")),
        }
    }

    /// A revocation that took effect and did not last: that it happened is recorded like a success.
    pub(super) async fn settle_in_effect(&self, refusal: Refusal) -> Refusal {
        let detail = refusal.private.clone().into_owned();
        let record = self.record(Err(refusal.code.as_str()), refusal.status(), detail);
        if self.commit(record).await {
            return refusal;
        }
        Refusal::saying(
            ErrorCode::AuditUnavailable,
            "in effect, not recorded, not on disk",
        )
        .in_effect()
    }

    async fn commit(&self, record: ActionRecord) -> bool {
        let audit = &self.api.parts.audit;
        let within = match audit.is_writable() {
            true => COMMIT_WITHIN,
            false => COMMIT_WITHIN_CLOSED,
        };
        let committed = audit.commit(AuditEvent::Action(Box::new(record)));
        matches!(tokio::time::timeout(within, committed).await, Ok(Ok(())))
    }

    /// Records a refusal. Those that anybody can cause at will are bounded: a flood of them must not fill the trail.
    pub(super) fn note(&self, refusal: &Refusal) {
        let at_will = self.operator.kind == OperatorKind::Nobody
            || matches!(
                refusal.code,
                ErrorCode::TooBusy | ErrorCode::CreationsLimited
            );
        let (code, now) = (refusal.code.as_str(), self.api.parts.clock.monotonic());
        if at_will && !self.api.refusals.admit(code, now) {
            return;
        }
        let detail = refusal.private.clone().into_owned();
        let record = self.record(Err(code), refusal.status(), detail);
        self.api
            .parts
            .audit
            .note(AuditEvent::Action(Box::new(record)));
    }

    fn record(
        &self,
        outcome: Result<(), &'static str>,
        status: StatusCode,
        detail: String,
    ) -> ActionRecord {
        ActionRecord {
            request_id: self.request_id.clone(),
            time_unix_ms: self.time_unix_ms,
            operator: self.operator.clone(),
            client: self.visitor.client(),
            operation: self.operation,
            target: self
                .notes
                .target()
                .map(|target| bounded(target, MAX_TARGET)),
            outcome,
            status: Some(status.as_u16()),
            detail: bounded(detail, MAX_DETAIL),
        }
    }
}
