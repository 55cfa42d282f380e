//! Decides whether a trail is what was written: every line's own hash over the bytes as they stand, its link to the
//! line before it, a sequence without gaps across all files, an end that is not before the one that the head file saw,
//! and for every day that is over a signed head of the tree over all records before it.

mod check;
mod chunks;

use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
};

use serde::Serialize;

pub(crate) use self::check::{Checker, Finding, follows, reaches, record_time};
use self::chunks::{Checked, check_all, stands_in};
use crate::{
    chain::{ChainEnd, Hash, LogId},
    day::Day,
    error::{Problem, VerifyError},
    files::{Place, day_head_path, day_heads, trail_files},
    head::Head,
    merkle::Frontier,
    note::{Checkpoint, SignedNote, VerifierKey, origin},
    ocsf::{OwnRecord, Seal},
    replay::read_day_head,
};

const PROGRESS_EVERY: u64 = 1024 * 1024;
/// More threads do not make a disk faster.
const MAX_THREADS: usize = 8;

/// What a trail is verified against.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// The keys whose signatures count. Without any, those count that the trail itself names: then a trail that was
    /// made anew, with another key, verifies.
    pub keys: Vec<VerifierKey>,
    /// How many threads read and hash; by default one a core, at most eight.
    pub threads: Option<NonZeroUsize>,
    /// The oldest files were moved away: what is left need not begin with the log's first record.
    pub archived: bool,
}

/// A trail that verifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file that is written to, or the one that was named.
    pub file: PathBuf,
    /// How many files were read.
    pub files: u64,
    /// The log's random name, in hex.
    pub log_id: String,
    /// Lines, the log's own included.
    pub records: u64,
    /// The `time` of the first record, in milliseconds since 1970.
    pub first: Option<u64>,
    /// The `time` of the last record, in milliseconds since 1970.
    pub last: Option<u64>,
    /// The first line's sequence: 0, unless older files were moved away or one file was named.
    pub first_seq: u64,
    /// The last line's sequence.
    pub last_seq: u64,
    /// The last line's hash, in hex: noted elsewhere, it proves later that nothing before it was changed.
    pub last_hash: String,
    /// The sequence that the head file saw; `None` if a lone file was checked, where a cut end does not show.
    pub head_seq: Option<u64>,
    /// The signed heads that were checked.
    pub heads: u64,
    /// The last day that was sealed, as `YYYY-MM-DD`.
    pub last_day: Option<String>,
    /// The verifier keys that the heads were signed with.
    pub keys: Vec<String>,
    /// Bytes behind the last line break: a record that is being written, or that a killed writer left. Not an end
    /// that the head file saw.
    pub torn_bytes: u64,
}

/// Reads a whole trail. `path` is the audit directory, which must hold a head file, or one file of records; beside the
/// one that is written to, a head file counts if there is one. `progress` is told the bytes read so far, about once a
/// MiB and at the end. A trail that is being written can be verified.
///
/// # Errors
/// [`VerifyError::Broken`] at the first line that is wrong; [`VerifyError::Io`].
pub fn verify(
    path: &Path,
    options: &VerifyOptions,
    mut progress: impl FnMut(u64),
) -> Result<Report, VerifyError> {
    let place = Place::of(path);
    let unreadable = |(path, source)| VerifyError::Io { path, source };
    // Before the records: a writer that is at work only ever moves them ahead of these.
    let head = match place.is_closed_file() {
        true => None,
        false => Head::read(&place.dir)?,
    };
    let signed = match place.lone {
        Some(_) => Vec::new(),
        None => day_heads(&place.dir).map_err(|source| unreadable((place.dir.clone(), source)))?,
    };
    let files = trail_files(&place).map_err(unreadable)?;
    let paths: Vec<PathBuf> = files.iter().map(|file| file.path.clone()).collect();
    let mut trail = Trail::new(&place, head.as_ref(), options, paths);
    let threads = options.threads.unwrap_or_else(default_threads);
    let mut told = 0;
    check_all(files, head.as_ref(), threads, |checked| {
        trail.take(checked)?;
        if trail.bytes >= told + PROGRESS_EVERY {
            told = trail.bytes;
            progress(told);
        }
        Ok(())
    })?;
    progress(trail.bytes);
    let (log, end) = trail.finish()?;
    let keys = trail.check_day_heads(log, &signed)?;
    Ok(trail.report(log, end, keys))
}

fn default_threads() -> NonZeroUsize {
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(MAX_THREADS).map_or(cores, |most| cores.min(most))
}

/// What is known of a trail up to the piece that was taken last.
struct Trail<'o> {
    place: &'o Place,
    head: Option<&'o Head>,
    options: &'o VerifyOptions,
    paths: Vec<PathBuf>,
    log: Option<LogId>,
    first_seq: u64,
    end: Option<ChainEnd>,
    /// Of the file that is being read.
    lines: u64,
    /// `None` until a trail that does not begin at its beginning comes to its first seal.
    tree: Option<Frontier>,
    seals: Vec<Seal>,
    /// Keys that count although no seal names them.
    further_keys: Vec<VerifierKey>,
    times: (Option<u64>, Option<u64>),
    torn: u64,
    bytes: u64,
}

impl<'o> Trail<'o> {
    fn new(
        place: &'o Place,
        head: Option<&'o Head>,
        options: &'o VerifyOptions,
        paths: Vec<PathBuf>,
    ) -> Self {
        Self {
            place,
            head,
            options,
            paths,
            log: None,
            first_seq: 0,
            end: None,
            lines: 0,
            tree: None,
            seals: Vec::new(),
            further_keys: Vec::new(),
            times: (None, None),
            torn: 0,
            bytes: 0,
        }
    }

    fn take(&mut self, checked: Checked) -> Result<(), VerifyError> {
        if checked.begins.is_some() {
            self.lines = 0;
        }
        if let Some((seq, prev)) = checked.first {
            if let Err(problem) = self.joins(seq, prev) {
                let problem = self.told_apart(problem)?;
                return Err(self.broken(&checked, 0, Some(seq), problem));
            }
            self.begin_file(&checked, seq)?;
        }
        self.follow_tree(&checked)?;
        if let Some((line, found)) = &checked.finding {
            let problem = self.told_apart(found.problem.clone())?;
            return Err(self.broken(&checked, *line, found.seq, problem));
        }
        self.end = checked.end.or(self.end);
        self.lines += checked.lines;
        self.times = (
            self.times.0.or(checked.first_time),
            checked.last_time.or(self.times.1),
        );
        self.torn = checked.torn;
        self.bytes += checked.bytes;
        Ok(())
    }

    /// Whether a line stands where the trail has got to.
    fn joins(&self, seq: u64, prev: Hash) -> Result<(), Problem> {
        match self.end {
            Some(end) => follows(end, seq, prev),
            None if seq > 0 && self.place.lone.is_none() && !self.options.archived => {
                let (expected, found) = (0, seq);
                Err(Problem::Gap { expected, found })
            }
            None => Ok(()),
        }
    }

    /// A file's first line says that it is one of this log, and which.
    fn begin_file(&mut self, checked: &Checked, seq: u64) -> Result<(), VerifyError> {
        let Some(begins) = checked.begins else {
            return Ok(());
        };
        let wrong = |problem| Err(self.broken(checked, 0, Some(seq), problem));
        let own = checked.parts.first().and_then(|(_, own)| own.as_ref());
        let Some((0, OwnRecord::Begins { log, .. })) = own else {
            return wrong(Problem::NotALog);
        };
        if begins.named.is_some_and(|named| named != seq) {
            return wrong(Problem::Misnamed { found: seq });
        }
        match self.log {
            Some(known) if known != *log => return wrong(Problem::Unlinked),
            Some(_) => {}
            None => {
                self.first_seq = seq;
                self.tree = (seq == 0).then(Frontier::default);
            }
        }
        self.log = Some(*log);
        Ok(())
    }

    fn follow_tree(&mut self, checked: &Checked) -> Result<(), VerifyError> {
        for (range, own) in &checked.parts {
            if let Some(tree) = &mut self.tree {
                tree.extend(range);
            }
            match own {
                Some((line, OwnRecord::Sealed(seal))) => {
                    let is_later = self
                        .seals
                        .last()
                        .is_none_or(|last| last.written_on() <= seal.day);
                    let is_right = self.tree.as_ref().is_none_or(|tree| *tree == seal.tree);
                    if !is_later || !is_right {
                        let seq = Some(seal.seq);
                        return Err(self.broken(checked, *line, seq, Problem::SealWrong));
                    }
                    self.tree = Some(seal.tree.clone());
                    self.seals.push((**seal).clone());
                }
                Some((_, OwnRecord::KeyInUse(key))) => self.further_keys.push(key.clone()),
                Some((_, OwnRecord::Begins { .. })) | None => {}
            }
        }
        Ok(())
    }

    /// A sequence that is ahead is a gap, unless the line that is missed stands further on.
    fn told_apart(&self, problem: Problem) -> Result<Problem, VerifyError> {
        match problem {
            Problem::Gap { expected, found } if stands_in(&self.paths, expected)? => {
                Ok(Problem::Reordered { expected, found })
            }
            problem => Ok(problem),
        }
    }

    fn broken(
        &self,
        checked: &Checked,
        line: u64,
        seq: Option<u64>,
        problem: Problem,
    ) -> VerifyError {
        VerifyError::Broken {
            file: checked.path.to_path_buf(),
            line: Some(self.lines + line + 1),
            seq,
            problem,
        }
    }

    fn file(&self) -> PathBuf {
        self.paths.last().cloned().unwrap_or_default()
    }

    fn finish(&self) -> Result<(LogId, ChainEnd), VerifyError> {
        let wrong = |problem| VerifyError::Broken {
            file: self.file(),
            line: None,
            seq: None,
            problem,
        };
        let (Some(log), Some(end)) = (self.log, self.end) else {
            return Err(wrong(self.head.map_or(Problem::NotALog, |head| {
                Problem::Truncated { head: head.seq }
            })));
        };
        reaches(end, log, self.head).map_err(wrong)?;
        if self.place.lone.is_none() && self.head.is_none() {
            return Err(wrong(Problem::HeadMissing));
        }
        Ok((log, end))
    }

    /// Every sealed day has its head, of the tree that the records have, by a key that counts; and every head has its
    /// seal. Gives the keys that were used.
    fn check_day_heads(&self, log: LogId, signed: &[Day]) -> Result<Vec<VerifierKey>, VerifyError> {
        let mut used: Vec<VerifierKey> = Vec::new();
        let dir = &self.place.dir;
        let broken = |day, seq, problem| VerifyError::Broken {
            file: day_head_path(dir, day),
            line: None,
            seq,
            problem,
        };
        for seal in &self.seals {
            // The head file moves past a seal once the signed head is in its place, or is about to be.
            let is_due = self.head.is_none_or(|head| head.seq >= seal.seq);
            match self.check_day_head(log, seal) {
                Ok(key) if used.contains(key) => {}
                Ok(key) => used.push(key.clone()),
                Err(Problem::DayHeadMissing) if !is_due || self.place.lone.is_some() => {}
                Err(problem) => return Err(broken(seal.day, Some(seal.seq), problem)),
            }
        }
        for day in signed {
            if self.seals.iter().any(|seal| seal.day == *day) {
                continue;
            }
            match read_day_head(dir, *day) {
                // Of the files that were moved away.
                Some((_, checkpoint)) if checkpoint.size < self.first_seq => {}
                Some(_) => return Err(broken(*day, None, Problem::DayHeadStray)),
                None => return Err(broken(*day, None, Problem::DayHeadWrong)),
            }
        }
        Ok(used)
    }

    fn check_day_head<'s>(
        &'s self,
        log: LogId,
        seal: &'s Seal,
    ) -> Result<&'s VerifierKey, Problem> {
        if !day_head_path(&self.place.dir, seal.day).exists() {
            return Err(Problem::DayHeadMissing);
        }
        let expected = Checkpoint {
            origin: origin(log),
            size: seal.tree.size(),
            root: seal.tree.root(),
        };
        let read = read_day_head(&self.place.dir, seal.day);
        let (text, checkpoint) = read.ok_or(Problem::DayHeadWrong)?;
        if checkpoint != expected {
            return Err(Problem::DayHeadWrong);
        }
        let note = SignedNote::parse(&text).ok_or(Problem::DayHeadWrong)?;
        let named = std::iter::once(&seal.key).chain(&self.further_keys);
        let signed_it = |key: &&VerifierKey| key.signs(&checkpoint.origin) && key.has_signed(&note);
        let key = match self.options.keys.is_empty() {
            true => named.into_iter().find(signed_it),
            false => self.options.keys.iter().find(signed_it),
        };
        key.ok_or(Problem::DayHeadUnsigned)
    }

    fn report(&self, log: LogId, end: ChainEnd, keys: Vec<VerifierKey>) -> Report {
        Report {
            file: self.file(),
            files: u64::try_from(self.paths.len()).unwrap_or(u64::MAX),
            log_id: log.text(),
            records: end.next_seq - self.first_seq,
            first: self.times.0,
            last: self.times.1,
            first_seq: self.first_seq,
            last_seq: end.next_seq.saturating_sub(1),
            last_hash: end.prev.text(),
            head_seq: self.head.map(|head| head.seq),
            heads: u64::try_from(self.seals.len()).unwrap_or(u64::MAX),
            last_day: self.seals.last().map(|seal| seal.day.to_string()),
            keys: keys.iter().map(VerifierKey::to_string).collect(),
            torn_bytes: self.torn,
        }
    }
}
