//! Decides whether a trail is what was written: every line's own hash over the bytes as they stand, its link to the
//! line before it, a sequence without gaps, and an end that is not before the one that the head file saw.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    RECORDS_FILE,
    chain::{ChainEnd, Line, LogId, MAX_LINE},
    error::{Problem, VerifyError},
    head::Head,
};

const PROGRESS_EVERY: u64 = 1024 * 1024;

/// A trail that verifies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file that was read.
    pub file: PathBuf,
    /// The log's random name, in hex.
    pub log_id: String,
    /// Lines, the founding one included.
    pub records: u64,
    /// The `time` of the first record, in milliseconds since 1970.
    pub first: Option<u64>,
    /// The `time` of the last record, in milliseconds since 1970.
    pub last: Option<u64>,
    /// The last line's sequence.
    pub last_seq: u64,
    /// The last line's hash, in hex: noted elsewhere, it proves later that nothing before it was changed.
    pub last_hash: String,
    /// The sequence that the head file saw; `None` if a lone file was checked, where a cut end does not show.
    pub head_seq: Option<u64>,
    /// Bytes behind the last line break: a record that is being written, or that a killed writer left. Not an end
    /// that the head file saw.
    pub torn_bytes: u64,
}

/// Reads a whole trail. `path` is the audit directory, which must hold a head file, or a file of records, beside which
/// a head file counts if there is one. `progress` is told the bytes read so far, about once a MiB and at the end. A log
/// that is being written can be verified.
///
/// # Errors
/// [`VerifyError::Broken`] at the first line that is wrong; [`VerifyError::Io`].
pub fn verify(path: &Path, mut progress: impl FnMut(u64)) -> Result<Report, VerifyError> {
    let (file, dir, is_dir) = locate(path);
    // Before the records: a writer that is at work only ever moves them ahead of it.
    let head = Head::read(&dir)?;
    let broken = |line, seq, problem| VerifyError::Broken {
        file: file.clone(),
        line,
        seq,
        problem,
    };
    let mut lines = Lines::open(&file)?;
    let mut checker: Option<Checker<'_>> = None;
    let mut first = None;
    let mut last_record = Vec::new();
    let mut told = 0;
    while let Some(line) = lines.next_line()? {
        let number = Some(line.number);
        if line.too_long {
            return Err(broken(number, None, Problem::TooLong));
        }
        if checker.is_none() {
            first = record_time(line.bytes);
        }
        let checker = match &mut checker {
            Some(checker) => checker,
            None => checker.insert(
                found(line.bytes, head.as_ref()).map_err(|f| broken(number, f.seq, f.problem))?,
            ),
        };
        if let Err(found) = checker.take(line.bytes) {
            let problem = lines.tell_gap_from_reordering(found.problem)?;
            return Err(broken(number, found.seq, problem));
        }
        last_record.clear();
        last_record.extend_from_slice(line.bytes);
        if lines.read >= told + PROGRESS_EVERY {
            told = lines.read;
            progress(told);
        }
    }
    progress(lines.read);
    let Some(checker) = checker else {
        let problem = head.map_or(Problem::NotALog, |head| Problem::Truncated {
            head: head.seq,
        });
        return Err(broken(None, None, problem));
    };
    let end = checker
        .finish()
        .map_err(|found| broken(None, found.seq, found.problem))?;
    if is_dir && head.is_none() {
        return Err(broken(None, None, Problem::HeadMissing));
    }
    Ok(Report {
        log_id: checker.log.text(),
        records: end.next_seq,
        first,
        last: record_time(&last_record),
        last_seq: end.next_seq.saturating_sub(1),
        last_hash: end.prev.text(),
        head_seq: head.map(|head| head.seq),
        torn_bytes: lines.torn,
        file,
    })
}

/// The file of records, the directory that it is in, and whether the directory was named.
pub(crate) fn locate(path: &Path) -> (PathBuf, PathBuf, bool) {
    if path.is_dir() {
        return (path.join(RECORDS_FILE), path.to_owned(), true);
    }
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    (path.to_owned(), dir.to_owned(), false)
}

fn found<'h>(line: &[u8], head: Option<&'h Head>) -> Result<Checker<'h>, Finding> {
    let parsed = Line::parse(line).map_err(|problem| Finding::of(line, problem))?;
    if parsed.seq != 0 {
        return Err(Finding {
            seq: Some(parsed.seq),
            problem: Problem::Gap {
                expected: 0,
                found: parsed.seq,
            },
        });
    }
    let log = founding_log_id(line).ok_or(Finding {
        seq: Some(0),
        problem: Problem::NotALog,
    })?;
    Ok(Checker::from_genesis(log, head))
}

/// The log's name, from its first line.
pub(crate) fn founding_log_id(line: &[u8]) -> Option<LogId> {
    #[derive(Deserialize)]
    struct Founding<'a> {
        #[serde(borrow)]
        unmapped: Name<'a>,
    }
    #[derive(Deserialize)]
    struct Name<'a> {
        log_id: &'a str,
    }
    let line = Line::parse(line).ok()?;
    let founding: Founding<'_> = serde_json::from_slice(line.record).ok()?;
    let log = LogId::parse(founding.unmapped.log_id)?;
    (line.seq == 0 && line.prev == log.genesis()).then_some(log)
}

fn record_time(line: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Timed {
        time: u64,
    }
    serde_json::from_slice::<Timed>(Line::split(line)?.record)
        .ok()
        .map(|timed| timed.time)
}

/// What is wrong, and which sequence the line claims.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) seq: Option<u64>,
    pub(crate) problem: Problem,
}

impl Finding {
    fn of(line: &[u8], problem: Problem) -> Self {
        Self {
            seq: Line::split(line).map(|line| line.seq),
            problem,
        }
    }
}

/// Follows a chain line by line.
#[derive(Debug)]
pub(crate) struct Checker<'h> {
    log: LogId,
    head: Option<&'h Head>,
    /// What the next line must carry; `None` if any line may come first.
    end: Option<ChainEnd>,
}

impl<'h> Checker<'h> {
    pub(crate) fn from_genesis(log: LogId, head: Option<&'h Head>) -> Self {
        Self {
            log,
            head,
            end: Some(ChainEnd::genesis(log)),
        }
    }

    /// For the end of a long file.
    pub(crate) const fn from_anywhere(log: LogId, head: Option<&'h Head>) -> Self {
        Self {
            log,
            head,
            end: None,
        }
    }

    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        let line = Line::parse(bytes).map_err(|problem| Finding::of(bytes, problem))?;
        let wrong = |problem| {
            Err(Finding {
                seq: Some(line.seq),
                problem,
            })
        };
        if let Some(end) = self.end {
            let (expected, found) = (end.next_seq, line.seq);
            if found > expected {
                return wrong(Problem::Gap { expected, found });
            }
            if found < expected {
                return wrong(Problem::Repeated { expected, found });
            }
            if line.prev != end.prev {
                return wrong(Problem::Unlinked);
            }
        }
        if self
            .head
            .is_some_and(|head| head.seq == line.seq && head.hash != line.hash)
        {
            return wrong(Problem::HeadMismatch);
        }
        self.end = Some(line.end());
        Ok(())
    }

    /// After the last line: the head file must not have seen more, nor another log.
    pub(crate) fn finish(&self) -> Result<ChainEnd, Finding> {
        let end = self.end.unwrap_or_else(|| ChainEnd::genesis(self.log));
        let wrong = |problem| Err(Finding { seq: None, problem });
        match self.head {
            Some(head) if head.log != self.log => wrong(Problem::HeadMalformed),
            Some(head) if head.seq >= end.next_seq => wrong(Problem::Truncated { head: head.seq }),
            _ => Ok(end),
        }
    }
}

/// A file of lines, read with bounded memory.
struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    buffer: Vec<u8>,
    number: u64,
    read: u64,
    torn: u64,
}

struct RawLine<'a> {
    number: u64,
    bytes: &'a [u8],
    too_long: bool,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, VerifyError> {
        let file = File::open(path).map_err(|source| VerifyError::Io {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            reader: BufReader::with_capacity(4 * MAX_LINE, file),
            path: path.to_owned(),
            buffer: Vec::new(),
            number: 0,
            read: 0,
            torn: 0,
        })
    }

    /// The next line that has a line break, without it.
    fn next_line(&mut self) -> Result<Option<RawLine<'_>>, VerifyError> {
        let read =
            next_bounded(&mut self.reader, &mut self.buffer).map_err(|source| VerifyError::Io {
                path: self.path.clone(),
                source,
            })?;
        let read = u64::try_from(read).unwrap_or(u64::MAX);
        self.read = self.read.saturating_add(read);
        let too_long = self.buffer.len() > MAX_LINE;
        let whole = self.buffer.strip_suffix(b"\n");
        if whole.is_none() && !too_long {
            self.torn = read;
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(RawLine {
            number: self.number,
            bytes: whole.unwrap_or_default(),
            too_long,
        }))
    }

    /// A sequence that is ahead is a gap, unless the line that is missed stands further on.
    fn tell_gap_from_reordering(&mut self, problem: Problem) -> Result<Problem, VerifyError> {
        let Problem::Gap { expected, found } = problem else {
            return Ok(problem);
        };
        while let Some(line) = self.next_line()? {
            if Line::parse(line.bytes).is_ok_and(|line| line.seq == expected) {
                return Ok(Problem::Reordered { expected, found });
            }
        }
        Ok(Problem::Gap { expected, found })
    }
}

/// One line with its line break into `buffer`, or one byte more than a line may have.
pub(crate) fn next_bounded(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    reader.take(MAX_LINE as u64 + 1).read_until(b'\n', buffer)
}
