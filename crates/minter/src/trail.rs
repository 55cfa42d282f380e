//! Where mints are recorded: before the leaf is handed out, or there is none (A3).

use std::{pin::Pin, time::Duration};

use outgate_audit::AuditLog;
use outgate_journey::{
    inject::AuditGate,
    record::{AuditEvent, AuditSink},
};

/// How long a record may take to be on disk before the mint is refused.
const WITHIN: Duration = Duration::from_secs(5);

/// A future that is sent between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A record that is not known to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit trail cannot be written")]
pub struct Unwritable;

/// An audit trail that says when a record is on disk.
pub trait Trail: AuditSink + AuditGate + Send + Sync {
    /// Hands a record in, and waits until it is on disk, and all that were handed in before it.
    ///
    /// # Errors
    /// [`Unwritable`]; the record may be written later all the same.
    fn commit(&self, event: AuditEvent) -> BoxFuture<'static, Result<(), Unwritable>>;
}

impl Trail for AuditLog {
    fn commit(&self, event: AuditEvent) -> BoxFuture<'static, Result<(), Unwritable>> {
        let committed = Self::commit(self, event, WITHIN);
        Box::pin(async move {
            committed.await.map_err(|error| {
                tracing::error!(%error, "a record of a leaf is not on disk, so there is no leaf");
                Unwritable
            })
        })
    }
}
