//! The end of a log, as it is found when the gateway starts: whether it may be continued, and what the next record
//! follows.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use crate::{
    RECORDS_FILE,
    chain::{Line, LogId, MAX_LINE},
    error::{Problem, VerifyError},
    files::{Beginning, closed_files, first_line},
    head::Head,
    merkle::leaf_hash,
    ocsf::{OwnRecord, Seal},
    replay::rebuild_spine,
    spine::Spine,
    verify::{Checker, Finding, follows, reaches},
};

/// How much of the end is checked when a log is opened: at least this, and back to where the head file stands.
const TAIL: u64 = 4 * MAX_LINE as u64;

/// The end of the file, judged.
pub(crate) struct Tail {
    /// `None` where no line is whole yet.
    pub(crate) beginning: Option<Beginning>,
    pub(crate) whole_bytes: u64,
    /// What stands behind the last line break.
    pub(crate) torn: Option<Vec<u8>>,
    /// What was checked: from the line behind the head file's, or from further ahead.
    lines: Vec<u8>,
    /// Seals that the head file has not seen.
    pub(crate) unsigned: Vec<Seal>,
}

impl Tail {
    pub(crate) fn read(
        file: &File,
        size: u64,
        dir: &Path,
        head: Option<&Head>,
    ) -> Result<Self, VerifyError> {
        let path = &dir.join(RECORDS_FILE);
        let unreadable = |source| VerifyError::Io {
            path: path.to_owned(),
            source,
        };
        let broken = |seq, problem| VerifyError::Broken {
            file: path.to_owned(),
            line: None,
            seq,
            problem,
        };
        let found = |found: Finding| broken(found.seq, found.problem);
        let (lines, torn) = read_back_to(file, size, head).map_err(unreadable)?;
        if torn.len() > MAX_LINE {
            return Err(broken(None, Problem::TooLong));
        }
        let torn_bytes = u64::try_from(torn.len()).unwrap_or(u64::MAX);
        let mut tail = Self {
            beginning: None,
            whole_bytes: size.saturating_sub(torn_bytes),
            torn: (!torn.is_empty()).then_some(torn),
            lines,
            unsigned: Vec::new(),
        };
        if tail.whole_bytes == 0 {
            let closed = closed_files(dir).map_err(unreadable)?;
            return match head {
                Some(head) => Err(broken(None, Problem::Truncated { head: head.seq })),
                None if closed.is_empty() => Ok(tail),
                None => Err(broken(None, Problem::HeadMissing)),
            };
        }
        let beginning = begins(&first_line(file).map_err(unreadable)?).map_err(found)?;
        tail.beginning = Some(beginning);
        let mut checker = Checker::new(head);
        for line in tail.lines.split_inclusive(|b| *b == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let own = checker.take(line).map_err(found)?.own;
            if let Some(OwnRecord::Sealed(seal)) = own
                && head.is_some_and(|head| head.seq < seal.seq)
            {
                tail.unsigned.push(*seal);
            }
        }
        let end = checker.end.ok_or_else(|| broken(None, Problem::TooLong))?;
        reaches(end, beginning.log, head).map_err(|problem| broken(None, problem))?;
        if head.is_none() && end.next_seq > 1 {
            return Err(broken(None, Problem::HeadMissing));
        }
        Ok(tail)
    }

    /// What the next record follows: from where the head file stands, or read again from the last seal.
    pub(crate) fn spine(
        &self,
        dir: &Path,
        log: LogId,
        head: Option<&Head>,
    ) -> Result<Spine, VerifyError> {
        let known = head.and_then(|head| Some((head, head.progress.clone()?)));
        let Some((head, (day, tree))) = known else {
            return rebuild_spine(dir, log);
        };
        let mut spine = Spine::genesis(log, day);
        (spine.tree, spine.end.next_seq, spine.end.prev) = (tree, head.seq + 1, head.hash);
        for line in self.lines.split(|b| *b == b'\n').filter_map(Line::split) {
            if line.seq > head.seq {
                follows(spine.end, line.seq, line.prev).map_err(|problem| VerifyError::Broken {
                    file: dir.join(RECORDS_FILE),
                    line: None,
                    seq: Some(line.seq),
                    problem,
                })?;
                spine.tree.push(leaf_hash(line.hash));
                spine.end = line.end();
            }
        }
        // Of the records behind the head file, a seal moves the day on.
        if let Some(seal) = self.unsigned.last() {
            spine.day = seal.written_on();
        }
        Ok(spine)
    }
}

/// What the first line says. An edit of it is an edit before it is anything else.
fn begins(first: &[u8]) -> Result<Beginning, Finding> {
    Beginning::of(first).ok_or_else(|| Finding {
        seq: Line::split(first).map(|line| line.seq),
        problem: Line::parse(first).err().unwrap_or(Problem::NotALog),
    })
}

/// The whole lines of the end of a file, back to the one behind the head file's or further, and what stands behind
/// their last line break.
fn read_back_to(file: &File, size: u64, head: Option<&Head>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let wanted = head.map_or(0, |head| head.seq.saturating_add(1));
    let mut span = TAIL;
    loop {
        let start = size.saturating_sub(span);
        let mut lines = vec![0; usize::try_from(size.saturating_sub(start)).unwrap_or(0)];
        file.read_exact_at(&mut lines, start)?;
        let whole = lines
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let torn = lines.split_off(whole);
        if start == 0 {
            return Ok((lines, torn));
        }
        // The first one may have lost its beginning.
        let cut = lines
            .iter()
            .position(|b| *b == b'\n')
            .map_or(lines.len(), |at| at + 1);
        lines.drain(..cut);
        let first = lines.split(|b| *b == b'\n').next().and_then(Line::split);
        if head.is_none() || first.is_some_and(|line| line.seq <= wanted) {
            return Ok((lines, torn));
        }
        span = span.saturating_mul(4);
    }
}
