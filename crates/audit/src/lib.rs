//! The audit trail: one OCSF record per decision, in a file that shows what was done to it.
//!
//! Decides how a record looks ([`to_ocsf`]), in which order it stands (a hash chain over a gapless sequence) and when
//! it counts as written (after `fdatasync`). Refuses to continue a file whose end does not verify, and closes the gate
//! in front of credentials as soon as a record cannot be written.
//!
//! `docs/audit.md` defines the format precisely enough for an independent verifier.

mod chain;
mod error;
#[cfg(test)]
mod faults;
mod head;
mod log;
mod ocsf;
mod open;
mod show;
mod store;
mod text;
mod verify;
mod writer;

pub use error::{AuditError, Problem, VerifyError};
pub use log::{AuditLog, BACKLOG_LIMIT};
pub use ocsf::{OCSF_VERSION, OcsfEvent, to_ocsf};
pub use show::{Records, ShowError, ShownRecord, show};
pub use verify::{Report, verify};

/// The file of records, in the audit directory.
pub const RECORDS_FILE: &str = "audit.jsonl";
/// The file that remembers how far the records went, beside them.
pub const HEAD_FILE: &str = "audit.head";
