//! The audit trail: one OCSF record for everything that was decided, in files that show what was done to them.
//!
//! Decides how a record looks ([`to_ocsf`]), in which order it stands (a hash chain over a gapless sequence, across
//! files), when it counts as written (after `fdatasync`), and what is signed (once a day, the head of a Merkle tree
//! over all records). Refuses to continue a file whose end does not verify, and closes the gate in front of
//! credentials as soon as a record cannot be written.
//!
//! `docs/audit.md` defines the formats precisely enough for an independent verifier.

mod chain;
mod day;
mod error;
#[cfg(test)]
mod faults;
mod files;
mod follow;
mod head;
mod lines;
mod located;
mod log;
mod merkle;
mod note;
mod ocsf;
mod open;
mod progress;
mod proof;
mod replay;
mod show;
mod shown;
mod spine;
mod store;
mod tail;
mod text;
mod verify;
mod writer;

pub use day::utc;
pub use error::{AuditError, Problem, VerifyError};
pub use follow::{Follow, FollowError, Followed, last_seq};
pub use log::{AuditLog, AuditOptions, BACKLOG_LIMIT, Rotation, SLOW_AFTER};
pub use note::{AuditKey, KEY_FILE, NotAVerifierKey, VerifierKey, verifier_key};
pub use ocsf::{OCSF_VERSION, OcsfEvent, to_ocsf};
pub use proof::{Proof, ProofError, prove};
pub use show::{Records, ShowError, show};
pub use shown::{ShownRecord, ShownVerdict};
pub use verify::{Report, VerifyOptions, verify};

/// The file of records that is written to, in the audit directory.
pub const RECORDS_FILE: &str = "audit.jsonl";
/// The file that remembers how far the records went, beside them.
pub const HEAD_FILE: &str = "audit.head";
/// The folder of the signed heads, beside them.
pub const DAY_HEADS_FOLDER: &str = "audit-heads";
