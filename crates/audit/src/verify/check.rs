//! What can be said of one line, and of one line after another.

use serde::Deserialize;

use crate::{
    chain::{ChainEnd, Hash, Line, LogId},
    error::Problem,
    head::Head,
    ocsf::OwnRecord,
};

/// A line that is wrong.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) seq: Option<u64>,
    pub(crate) problem: Problem,
}

/// A line that is right.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) hash: Hash,
    /// What it says of the log, if it is one of its own records that matter again.
    pub(crate) own: Option<OwnRecord>,
}

/// Checks lines one after another, from any line on.
#[derive(Debug)]
pub(crate) struct Checker<'h> {
    head: Option<&'h Head>,
    /// What the next line must carry; `None` before the first.
    pub(crate) end: Option<ChainEnd>,
}

impl<'h> Checker<'h> {
    pub(crate) const fn new(head: Option<&'h Head>) -> Self {
        Self { head, end: None }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Taken, Finding> {
        let line = Line::parse(bytes).map_err(|problem| Finding {
            seq: Line::split(bytes).map(|line| line.seq),
            problem,
        })?;
        let seq = Some(line.seq);
        let wrong = |problem| Finding { seq, problem };
        if let Some(end) = self.end {
            follows(end, line.seq, line.prev).map_err(wrong)?;
        }
        let seen = self.head.filter(|head| head.seq == line.seq);
        if seen.is_some_and(|head| head.hash != line.hash) {
            return Err(wrong(Problem::HeadMismatch));
        }
        let own = OwnRecord::of(&line).map_err(wrong)?;
        self.end = Some(line.end());
        Ok(Taken {
            seq: line.seq,
            prev: line.prev,
            hash: line.hash,
            own,
        })
    }
}

/// Whether a line stands behind the end of a chain.
pub(crate) fn follows(end: ChainEnd, found: u64, prev: Hash) -> Result<(), Problem> {
    let expected = end.next_seq;
    if found > expected {
        return Err(Problem::Gap { expected, found });
    }
    if found < expected {
        return Err(Problem::Repeated { expected, found });
    }
    match prev == end.prev {
        true => Ok(()),
        false => Err(Problem::Unlinked),
    }
}

/// After the last line: the head file must not have seen more, nor another log.
pub(crate) fn reaches(end: ChainEnd, log: LogId, head: Option<&Head>) -> Result<(), Problem> {
    match head {
        Some(head) if head.log != log => Err(Problem::HeadMalformed),
        Some(head) if head.seq >= end.next_seq => Err(Problem::Truncated { head: head.seq }),
        _ => Ok(()),
    }
}

/// When the record was made, in milliseconds since 1970.
pub(crate) fn record_time(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Timed {
        time: u64,
    }
    serde_json::from_slice::<Timed>(Line::split(line)?.record)
        .ok()
        .map(|timed| timed.time)
}
