//! What the next record follows: the chain's end, the tree over everything so far, and the day that is open.
//!
//! A record belongs to the day in which it is written, by the gateway's wall clock. A day never goes back: a clock that
//! is set back prolongs the day that is open.

use serde::Serialize;

use crate::{
    chain::{ChainEnd, LogId},
    day::Day,
    head::Head,
    merkle::{Frontier, leaf_hash},
    note::{Checkpoint, VerifierKey, origin},
    ocsf::{LogChange, LogEvent},
};

/// A day that is over, and the head that is to be signed for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DayHead {
    pub(crate) day: Day,
    pub(crate) checkpoint: Checkpoint,
}

impl DayHead {
    pub(crate) fn new(log: LogId, day: Day, tree: &Frontier) -> Self {
        let checkpoint = Checkpoint {
            origin: origin(log),
            size: tree.size(),
            root: tree.root(),
        };
        Self { day, checkpoint }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Spine {
    pub(crate) log: LogId,
    pub(crate) end: ChainEnd,
    pub(crate) tree: Frontier,
    pub(crate) day: Day,
}

impl Spine {
    /// Before the first line of a log.
    pub(crate) fn genesis(log: LogId, today: Day) -> Self {
        Self {
            log,
            end: ChainEnd::genesis(log),
            tree: Frontier::default(),
            day: today,
        }
    }

    /// Appends one line with its line break and moves on.
    pub(crate) fn append<T: Serialize>(
        &mut self,
        out: &mut Vec<u8>,
        record: &T,
    ) -> serde_json::Result<()> {
        self.end.append(out, record)?;
        self.tree.push(leaf_hash(self.end.prev));
        Ok(())
    }

    /// Appends a record of the log about itself.
    pub(crate) fn append_own(
        &mut self,
        out: &mut Vec<u8>,
        time_unix_ms: u64,
        change: &LogChange<'_>,
    ) -> serde_json::Result<()> {
        let event = LogEvent::new(self.log, time_unix_ms, change);
        self.append(out, &event)
    }

    /// Seals the open day if it is over at this time: appends a record of the tree over all records before it, the
    /// first of the day that begins.
    pub(crate) fn turn_day(
        &mut self,
        out: &mut Vec<u8>,
        now_unix_ms: u64,
        key: &VerifierKey,
    ) -> serde_json::Result<Option<DayHead>> {
        let today = Day::of_unix_ms(now_unix_ms);
        if today <= self.day || self.tree.size() == 0 {
            return Ok(None);
        }
        let head = DayHead::new(self.log, self.day, &self.tree);
        let tree = self.tree.clone();
        let sealed = LogChange::Sealed {
            day: self.day,
            tree: &tree,
            key,
        };
        self.append_own(out, now_unix_ms, &sealed)?;
        self.day = today;
        Ok(Some(head))
    }

    /// What the head file says once everything so far is on disk; `None` before the first line.
    pub(crate) fn head(&self) -> Option<Head> {
        Some(Head {
            log: self.log,
            seq: self.end.next_seq.checked_sub(1)?,
            hash: self.end.prev,
            progress: Some((self.day, self.tree.clone())),
        })
    }
}
