//! Reading the tree again from the files: from the last seal in front of a record, which holds the tree as it was.

use std::{fs, path::Path};

use crate::{
    chain::{Line, LogId},
    day::Day,
    error::{Problem, VerifyError},
    files::{day_head_path, day_heads},
    follow::{Follow, FollowError},
    merkle::leaf_hash,
    note::{Checkpoint, MAX_NOTE, SignedNote},
    ocsf::{OwnRecord, Seal},
    spine::Spine,
    verify::record_time,
};

/// The text of a day's signed head, and what it says; `None` if it is none.
pub(crate) fn read_day_head(dir: &Path, day: Day) -> Option<(String, Checkpoint)> {
    let path = day_head_path(dir, day);
    if fs::metadata(&path).ok()?.len() > MAX_NOTE {
        return None;
    }
    let note = fs::read_to_string(path).ok()?;
    let checkpoint = Checkpoint::parse(SignedNote::parse(&note)?.text)?;
    Some((note, checkpoint))
}

/// The tree over all records in front of `seq` that the newest seal up to it holds: from there on, leaves are to be
/// read. Without a seal, the empty tree.
pub(crate) fn tree_before(dir: &Path, seq: u64) -> Result<Option<Seal>, FollowError> {
    let days = day_heads(dir).map_err(|source| FollowError::Io {
        path: dir.to_owned(),
        source,
    })?;
    for day in days.into_iter().rev() {
        // A head that does not lead to its seal is for `verify` to judge; an older one does as well.
        let Some((_, checkpoint)) = read_day_head(dir, day) else {
            continue;
        };
        if checkpoint.size > seq || checkpoint.size == 0 {
            continue;
        }
        let mut follow = match Follow::at(dir, checkpoint.size) {
            Err(FollowError::Ahead { .. } | FollowError::Missing { .. }) => continue,
            follow => follow?,
        };
        let line = follow
            .next()?
            .map(|followed| followed.line)
            .unwrap_or_default();
        let own = Line::split(&line).map(|line| OwnRecord::of(&line));
        if let Some(Ok(Some(OwnRecord::Sealed(seal)))) = own {
            return Ok(Some(*seal));
        }
    }
    Ok(None)
}

/// What the next record follows, read again from the last seal: for a log whose head file does not say it.
pub(crate) fn rebuild_spine(dir: &Path, log: LogId) -> Result<Spine, VerifyError> {
    let failed = |error| as_verify_error(dir, error);
    let seal = tree_before(dir, u64::MAX).map_err(failed)?;
    let mut spine = Spine::genesis(log, Day::of_unix_ms(0));
    let mut linked = true;
    if let Some(seal) = seal {
        spine.day = seal.written_on();
        spine.end.next_seq = seal.seq;
        spine.tree = seal.tree;
        // What it must follow was not read.
        linked = false;
    }
    let mut follow = Follow::at(dir, spine.end.next_seq).map_err(failed)?;
    let (mut sealed, mut last) = (!linked, Vec::new());
    while let Some(followed) = follow.next().map_err(failed)? {
        let broken = |problem| VerifyError::Broken {
            file: dir.to_owned(),
            line: None,
            seq: Some(followed.seq),
            problem,
        };
        let line = Line::parse(&followed.line).map_err(broken)?;
        if linked && line.prev != spine.end.prev {
            return Err(broken(Problem::Unlinked));
        }
        if let Some(OwnRecord::Sealed(seal)) = OwnRecord::of(&line).map_err(broken)? {
            (spine.day, sealed) = (seal.written_on(), true);
        }
        spine.tree.push(leaf_hash(line.hash));
        (spine.end, linked) = (line.end(), true);
        last = followed.line;
    }
    // A log that was never sealed is all one day, and that is the day of its last record.
    if !sealed {
        spine.day = Day::of_unix_ms(record_time(&last).unwrap_or(0));
    }
    Ok(spine)
}

/// The log of a directory.
pub(crate) fn founded_log(dir: &Path) -> Result<LogId, VerifyError> {
    Follow::from(dir, None)
        .map(|follow| follow.log())
        .map_err(|error| as_verify_error(dir, error))
}

fn as_verify_error(dir: &Path, error: FollowError) -> VerifyError {
    let broken = |file: &Path, seq, problem| VerifyError::Broken {
        file: file.to_owned(),
        line: None,
        seq,
        problem,
    };
    match error {
        FollowError::Io { path, source } => VerifyError::Io { path, source },
        FollowError::NotALog(path) => broken(&path, None, Problem::NotALog),
        FollowError::Missing { expected, oldest } => {
            let found = oldest;
            broken(dir, Some(found), Problem::Gap { expected, found })
        }
        FollowError::Damaged { path, seq } => broken(&path, Some(seq), Problem::Envelope),
        FollowError::Ahead { last, .. } => broken(dir, None, Problem::Truncated { head: last }),
    }
}
