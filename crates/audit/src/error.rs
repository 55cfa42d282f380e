//! What can go wrong with the trail, said so that an operator knows the file, the line and what was done to it.

use std::{io, path::PathBuf, time::Duration};

use outgate_state::StateError;
use thiserror::Error;

/// Why the log cannot be opened, flushed or closed. Never a client's fault.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The directory or a file beside the records cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The operating system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Another process writes this log.
    #[error("{0} is in use by another gateway")]
    InUse(PathBuf),
    /// What is there does not verify, so nothing is appended to it.
    #[error(
        "the audit trail does not verify and is not continued: {0}; keep the files as evidence, move them to another folder and start again"
    )]
    Damaged(#[source] Box<VerifyError>),
    /// The file is not a key that signs heads.
    #[error(
        "{0} is not an Ed25519 key in PKCS#8 PEM form; move it away and start again with a key of its own"
    )]
    Key(PathBuf),
    /// No random bytes, no key, or no thread.
    #[error("cannot start the audit trail: {0}")]
    Start(&'static str),
    /// Not everything that was accepted is on disk yet; it is kept and written as soon as the store allows.
    #[error("{pending} audit records are not on disk after {waited:?}{}", because(.fault))]
    Pending {
        /// How many.
        pending: usize,
        /// How long was waited.
        waited: Duration,
        /// What the store said last, if it is failing.
        fault: Option<String>,
    },
    /// The writer is gone; only a bug in it can do that.
    #[error("the audit writer has stopped")]
    WriterGone,
}

fn because(fault: &Option<String>) -> String {
    fault
        .as_ref()
        .map(|fault| format!(": {fault}"))
        .unwrap_or_default()
}

/// What is wrong with a line, or with the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Problem {
    /// A line is not JSON.
    #[error("the line is not valid JSON")]
    BadJson,
    /// A line is JSON but not an envelope as this log writes it.
    #[error("the line is not an envelope of this log")]
    Envelope,
    /// A line is longer than any that is written.
    #[error("the line is longer than any record")]
    TooLong,
    /// A line's bytes are not those that its hash was made of.
    #[error("the line was edited: its hash is not that of its bytes")]
    Edited,
    /// Lines are missing.
    #[error("lines are missing: expected sequence {expected}, found {found}")]
    Gap {
        /// The sequence that should stand here.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// Lines stand in another order than they were written in.
    #[error(
        "lines were reordered: expected sequence {expected}, found {found}; {expected} comes later"
    )]
    Reordered {
        /// The sequence that should stand here.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// A line stands here a second time.
    #[error("a line is repeated: expected sequence {expected}, found {found} again")]
    Repeated {
        /// The sequence that should stand here.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// A line is whole but does not follow the one before it.
    #[error("the line does not follow the one before it: it was forged, or comes from another log")]
    Unlinked,
    /// A file's first line neither founds a log nor continues one.
    #[error("the first line neither founds a log nor continues one")]
    NotALog,
    /// A closed file does not begin with the record that its name says.
    #[error("the file begins with sequence {found}, which is not what its name says")]
    Misnamed {
        /// The sequence of its first line.
        found: u64,
    },
    /// The end is missing.
    #[error("the end is missing: the head file saw sequence {head}")]
    Truncated {
        /// The last sequence that the head file saw.
        head: u64,
    },
    /// The line that the head file saw is another.
    #[error("the line is not the one that the head file saw")]
    HeadMismatch,
    /// No head file.
    #[error("the head file is missing, so a cut end would not show")]
    HeadMissing,
    /// Not a head file.
    #[error("the head file is not one of this log")]
    HeadMalformed,
    /// A record seals a day with another tree than that of the records before it.
    #[error("the record seals another tree than that of the records before it")]
    SealWrong,
    /// A day was sealed and its signed head is gone.
    #[error("the day's signed head is missing")]
    DayHeadMissing,
    /// A signed head is of another tree than the trail's.
    #[error("the signed head is of another tree than the one that the trail has at this day")]
    DayHeadWrong,
    /// A head's signature is wrong, or not by a key that counts.
    #[error("the head is not signed by a key that counts")]
    DayHeadUnsigned,
    /// There is a signed head of a day that the trail does not seal.
    #[error("there is a signed head of a day that the trail does not seal: records are missing")]
    DayHeadStray,
}

impl Problem {
    /// The stable spelling.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::Envelope => "bad_envelope",
            Self::TooLong => "line_too_long",
            Self::Edited => "edited",
            Self::Gap { .. } => "gap",
            Self::Reordered { .. } => "reordered",
            Self::Repeated { .. } => "repeated",
            Self::Unlinked => "unlinked",
            Self::NotALog => "not_a_log",
            Self::Truncated { .. } => "truncated",
            Self::HeadMismatch => "head_mismatch",
            Self::HeadMissing => "head_missing",
            Self::HeadMalformed => "head_malformed",
            Self::Misnamed { .. } => "misnamed",
            Self::SealWrong => "seal_wrong",
            Self::DayHeadMissing => "day_head_missing",
            Self::DayHeadWrong => "day_head_wrong",
            Self::DayHeadUnsigned => "day_head_unsigned",
            Self::DayHeadStray => "day_head_stray",
        }
    }
}

/// Why a trail does not verify.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// It was read, and is not what was written.
    #[error("{}{}: {problem}", .file.display(), place(.line, .seq))]
    Broken {
        /// The file.
        file: PathBuf,
        /// The line, from 1, if it is known.
        line: Option<u64>,
        /// The sequence that the line claims, if it is known.
        seq: Option<u64>,
        /// What is wrong.
        problem: Problem,
    },
}

impl VerifyError {
    /// The stable spelling of what is wrong.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "unreadable",
            Self::Broken { problem, .. } => problem.code(),
        }
    }
}

fn place(line: &Option<u64>, seq: &Option<u64>) -> String {
    let mut place = String::new();
    if let Some(line) = line {
        place.push_str(&format!(" line {line}"));
    }
    if let Some(seq) = seq {
        place.push_str(&format!(" (sequence {seq})"));
    }
    place
}
