//! The audit trail of this gateway as what an exporter reads. Where files were moved away before they were sent, it
//! goes on with the oldest record behind the hole; the exporter sees from the numbers what is missing, and says so.

use std::path::{Path, PathBuf};

use outgate_audit::{Follow, FollowError, Followed, last_seq};

use crate::trail::{TrailFault, TrailReader, TrailRecord, TrailStart};

/// A [`TrailReader`] for an audit directory, across its files. Gives what the head file covers.
#[derive(Debug)]
pub struct AuditTrail {
    folder: PathBuf,
    follow: Option<Follow>,
}

impl AuditTrail {
    /// Reads the trail in this directory, which need not exist yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            follow: None,
        }
    }

    fn follow(&self, after: Option<u64>) -> Result<Follow, FollowError> {
        match Follow::durable(&self.folder, after) {
            Err(FollowError::Missing { oldest, .. }) => {
                Follow::durable(&self.folder, oldest.checked_sub(1))
            }
            followed => followed,
        }
    }

    fn read(&mut self) -> Result<Option<Followed>, FollowError> {
        let Some(follow) = &mut self.follow else {
            return Ok(None);
        };
        match follow.next() {
            Err(FollowError::Missing { oldest, .. }) => {
                let mut behind = self.follow(oldest.checked_sub(1))?;
                let record = behind.next();
                self.follow = Some(behind);
                record
            }
            read => read,
        }
    }
}

impl TrailReader for AuditTrail {
    fn open(&mut self, after: Option<u64>) -> Result<TrailStart, TrailFault> {
        self.follow = None;
        let follow = self.follow(after).map_err(fault)?;
        let log_id = follow.log_id();
        self.follow = Some(follow);
        Ok(TrailStart { log_id })
    }

    fn next(&mut self) -> Result<Option<TrailRecord>, TrailFault> {
        let Some(Followed { seq, line }) = self.read().map_err(fault)? else {
            return Ok(None);
        };
        let line = String::from_utf8(line)
            .map_err(|_| TrailFault::Unreadable(format!("record {seq} is not text")))?;
        Ok(Some(TrailRecord { seq, line }))
    }

    fn last_seq(&mut self) -> Result<Option<u64>, TrailFault> {
        last_seq(&self.folder).map_err(fault)
    }
}

fn fault(error: FollowError) -> TrailFault {
    match error {
        FollowError::Ahead { last, .. } => TrailFault::Ahead { last },
        error => TrailFault::Unreadable(error.to_string()),
    }
}
