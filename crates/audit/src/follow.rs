//! Reading a trail as it grows, record by record, across its files. Decides where a reader that was away goes on, and
//! says so when what it has not read yet is no longer there. Following is not verifying: it checks only that no number
//! is left out.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    RECORDS_FILE,
    chain::{Line, LogId},
    error::VerifyError,
    files::identity,
    head::Head,
    located::{Located, OpenFile},
    shown::ShownRecord,
};

/// Why a trail cannot be followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// There is no trail, or what is there is none.
    #[error("{0} is not an audit trail")]
    NotALog(PathBuf),
    /// What was not read yet was moved away or removed.
    #[error("record {expected} is no longer there; the oldest is {oldest}")]
    Missing {
        /// The record that would be next.
        expected: u64,
        /// The oldest that there is.
        oldest: u64,
    },
    /// A line is not the record that should stand there; `verify` says more.
    #[error("{path}: record {seq} is not in its place; run `outgate audit verify`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The record.
        seq: u64,
    },
    /// The place to go on from is behind the trail's end: it is one of another log.
    #[error("record {after} is behind the end of this log, which is {last}")]
    Ahead {
        /// The record to go on behind.
        after: u64,
        /// The newest that there is.
        last: u64,
    },
}

impl FollowError {
    /// The stable spelling.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "unreadable",
            Self::NotALog(_) => "not_a_log",
            Self::Missing { .. } => "records_missing",
            Self::Damaged { .. } => "damaged",
            Self::Ahead { .. } => "ahead",
        }
    }
}

/// One record that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Its place in the chain.
    pub seq: u64,
    /// The line as it stands, without its line break.
    pub line: Vec<u8>,
}

impl Followed {
    /// The OCSF event's JSON as it stands.
    #[must_use]
    pub fn record(&self) -> &[u8] {
        Line::split(&self.line).map_or(&[], |line| line.record)
    }

    /// The record for people.
    #[must_use]
    pub fn shown(&self) -> Option<ShownRecord> {
        ShownRecord::parse(self.line.clone())
    }
}

/// A reader of a trail that may still be written to. Reads files, blocking, with bounded memory.
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    log: LogId,
    oldest: u64,
    next_seq: u64,
    open: OpenFile,
    /// `None`: every line as soon as it is whole. Else how far the head file was seen to be.
    durable: Option<Option<u64>>,
}

impl Follow {
    /// From the first record behind `after` (`None`: from the oldest that is there), every line as soon as it is
    /// whole. A power cut can still take such a line back.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn from(dir: &Path, after: Option<u64>) -> Result<Self, FollowError> {
        Self::start(dir, after.map(|after| after.saturating_add(1)), None)
    }

    /// From exactly this record.
    pub(crate) fn at(dir: &Path, seq: u64) -> Result<Self, FollowError> {
        Self::start(dir, Some(seq), None)
    }

    /// As [`from`](Self::from), but only what the head file covers: what is on disk for good, at most 250 ms late.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn durable(dir: &Path, after: Option<u64>) -> Result<Self, FollowError> {
        Self::start(dir, after.map(|after| after.saturating_add(1)), Some(None))
    }

    /// The last records, so many of them, and then what follows.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn last(dir: &Path, records: u64) -> Result<Self, FollowError> {
        let live = Located::live(dir)?;
        let oldest = live.oldest(dir)?;
        let first = live.end()?.saturating_sub(records).max(oldest);
        Self::at(dir, first)
    }

    fn start(
        dir: &Path,
        first: Option<u64>,
        durable: Option<Option<u64>>,
    ) -> Result<Self, FollowError> {
        let live = Located::live(dir)?;
        let oldest = live.oldest(dir)?;
        let end = live.end()?;
        let next_seq = first.unwrap_or(oldest);
        if next_seq > end {
            return Err(FollowError::Ahead {
                after: next_seq.saturating_sub(1),
                last: end.saturating_sub(1),
            });
        }
        let log = live.beginning.log;
        let open = OpenFile::at(dir, next_seq)?;
        Ok(Self {
            dir: dir.to_owned(),
            log,
            oldest,
            next_seq,
            open,
            durable,
        })
    }

    pub(crate) const fn log(&self) -> LogId {
        self.log
    }

    /// The log's random name, in hex.
    #[must_use]
    pub fn log_id(&self) -> String {
        self.log.text()
    }

    /// The oldest record that was there when this was opened.
    #[must_use]
    pub const fn oldest_seq(&self) -> u64 {
        self.oldest
    }

    /// The next record; `None` if there is none yet.
    ///
    /// # Errors
    /// [`FollowError`]; asking again asks for the same record.
    #[expect(
        clippy::should_implement_trait,
        reason = "the end of an iterator is for good; this goes on"
    )]
    pub fn next(&mut self) -> Result<Option<Followed>, FollowError> {
        if !self.may_read()? {
            return Ok(None);
        }
        loop {
            if let Some(line) = self.open.next_line()? {
                return self.take(line).map(Some);
            }
            if self.is_still_written()? {
                return Ok(None);
            }
            // Written between the last look and the moment that the file was closed.
            if let Some(line) = self.open.next_line()? {
                return self.take(line).map(Some);
            }
            self.open = OpenFile::at(&self.dir, self.next_seq)?;
        }
    }

    fn take(&mut self, line: Vec<u8>) -> Result<Followed, FollowError> {
        let seq = self.next_seq;
        if Line::split(&line).map(|line| line.seq) != Some(seq) {
            return Err(self.open.refuse(&line, seq));
        }
        self.next_seq += 1;
        Ok(Followed { seq, line })
    }

    fn may_read(&mut self) -> Result<bool, FollowError> {
        let Some(limit) = &mut self.durable else {
            return Ok(true);
        };
        if limit.is_none_or(|limit| limit < self.next_seq) {
            *limit = last_seq(&self.dir)?;
        }
        Ok(limit.is_some_and(|limit| limit >= self.next_seq))
    }

    fn is_still_written(&self) -> Result<bool, FollowError> {
        let live = self.dir.join(RECORDS_FILE);
        match fs::symlink_metadata(&live) {
            Ok(meta) => Ok(identity(&meta) == self.open.identity),
            Err(source) => Err(FollowError::Io { path: live, source }),
        }
    }
}

/// The newest record that is on disk for good; `None` if nothing is.
///
/// # Errors
/// [`FollowError`].
pub fn last_seq(dir: &Path) -> Result<Option<u64>, FollowError> {
    match Head::read(dir) {
        Ok(head) => Ok(head.map(|head| head.seq)),
        Err(VerifyError::Io { path, source }) => Err(FollowError::Io { path, source }),
        Err(VerifyError::Broken { file, .. }) => Err(FollowError::NotALog(file)),
    }
}
