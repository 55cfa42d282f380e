//! The lines of a trail, checked piece by piece on several threads. Every line names the one before it, so a piece is
//! checked without what stands in front of it; what is left to do in order is little. Memory is bounded: nobody works
//! further ahead than a few pieces.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use super::check::{Checker, Finding, record_time};
use crate::{
    chain::{ChainEnd, Hash, Line, MAX_LINE},
    error::{Problem, VerifyError},
    files::TrailFile,
    head::Head,
    merkle::{Range, leaf_hash},
    ocsf::OwnRecord,
};

/// How much of a file is checked at a time.
const CHUNK: u64 = 4 * 1024 * 1024;

/// What was found in one piece.
#[derive(Debug)]
pub(super) struct Checked {
    /// Where it stands.
    pub(super) path: Arc<Path>,
    /// What the name of the file says, at its beginning.
    pub(super) begins: Option<FileBegins>,
    /// The number of the first line, and the hash that it follows.
    pub(super) first: Option<(u64, Hash)>,
    pub(super) end: Option<ChainEnd>,
    pub(super) lines: u64,
    /// The leaves, in ranges that end where a record of the log about itself matters.
    pub(super) parts: Vec<(Range, Option<(u64, OwnRecord)>)>,
    /// The first thing that is wrong, and on which line of the piece, from 0.
    pub(super) finding: Option<(u64, Finding)>,
    pub(super) first_time: Option<u64>,
    pub(super) last_time: Option<u64>,
    pub(super) torn: u64,
    pub(super) bytes: u64,
}

/// A file begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileBegins {
    pub(super) named: Option<u64>,
}

/// Checks all lines of the files, and hands on what was found in order until `take` has had enough.
pub(super) fn check_all(
    files: Vec<TrailFile>,
    head: Option<&Head>,
    threads: NonZeroUsize,
    mut take: impl FnMut(Checked) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let queue = Queue::new(files, threads.get().saturating_mul(2));
    thread::scope(|scope| {
        let _stop = StopOnDrop(&queue);
        for _ in 0..threads.get() {
            scope.spawn(|| {
                let _stop = StopOnDrop(&queue);
                let mut buffer = Vec::new();
                while let Some((number, chunk)) = queue.claim() {
                    let checked = chunk.and_then(|chunk| chunk.check(head, &mut buffer));
                    queue.hand_in(number, checked);
                }
            });
        }
        while let Some(checked) = queue.next() {
            take(checked?)?;
        }
        Ok(())
    })
}

/// A piece of a file: the lines whose first byte is in it.
struct Chunk {
    file: Arc<File>,
    path: Arc<Path>,
    begins: Option<FileBegins>,
    is_last_file: bool,
    start: u64,
    end: u64,
    /// Of the file, when it was opened: what is written later is not looked at.
    size: u64,
}

impl Chunk {
    fn check(self, head: Option<&Head>, buffer: &mut Vec<u8>) -> Result<Checked, VerifyError> {
        self.read(buffer).map_err(|source| VerifyError::Io {
            path: self.path.to_path_buf(),
            source,
        })?;
        let mut checked = Checked {
            path: Arc::clone(&self.path),
            begins: self.begins,
            first: None,
            end: None,
            lines: 0,
            parts: Vec::new(),
            finding: None,
            first_time: None,
            last_time: None,
            torn: 0,
            bytes: self.end - self.start,
        };
        let mut checker = Checker::new(head);
        match checked.take_all(self.lines(buffer), &mut checker) {
            // Only the file that is written to may end in the middle of a line.
            Err(Stop::Torn(length)) if self.is_last_file => checked.torn = length,
            Err(Stop::Torn(_)) => checked.wrong(None, Problem::Envelope),
            Err(Stop::Wrong(found)) => checked.wrong(found.seq, found.problem),
            Ok(()) => {}
        }
        checked.end = checker.end;
        Ok(checked)
    }

    /// The piece, with the byte in front of it and enough behind it for its last line.
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let from = self.start.saturating_sub(1);
        let to = self.end.saturating_add(MAX_LINE as u64).min(self.size);
        buffer.resize(usize::try_from(to - from).unwrap_or(0), 0);
        self.file.read_exact_at(buffer, from)
    }

    fn lines<'b>(&self, buffer: &'b [u8]) -> impl Iterator<Item = Piece<'b>> + use<'b> {
        let from = self.start.saturating_sub(1);
        let own = usize::try_from(self.end - from).unwrap_or(usize::MAX);
        let ends_file = from.saturating_add(u64::try_from(buffer.len()).unwrap_or(0)) == self.size;
        // A line that begins at the piece's first byte has its predecessor's break in front of it.
        let mut at = match self.start {
            0 => 0,
            _ => memchr::memchr(b'\n', buffer).map_or(buffer.len(), |at| at + 1),
        };
        std::iter::from_fn(move || {
            if at >= own.min(buffer.len()) {
                return None;
            }
            let rest = buffer.get(at..).unwrap_or_default();
            let Some(length) = memchr::memchr(b'\n', rest) else {
                at = buffer.len();
                return Some(match ends_file && rest.len() <= MAX_LINE {
                    true => Piece::Torn(u64::try_from(rest.len()).unwrap_or(u64::MAX)),
                    false => Piece::TooLong,
                });
            };
            at += length + 1;
            match rest.get(..length) {
                Some(line) if length < MAX_LINE => Some(Piece::Line(line)),
                _ => Some(Piece::TooLong),
            }
        })
    }
}

enum Piece<'b> {
    Line(&'b [u8]),
    /// Bytes behind the last line break.
    Torn(u64),
    TooLong,
}

/// Why a piece is not read to its end.
enum Stop {
    Torn(u64),
    Wrong(Finding),
}

impl Checked {
    fn take_all<'b>(
        &mut self,
        lines: impl Iterator<Item = Piece<'b>>,
        checker: &mut Checker<'_>,
    ) -> Result<(), Stop> {
        let mut last = None;
        let mut range = None;
        let stopped = self.take_each(lines, checker, &mut range, &mut last);
        self.parts.extend(range.map(|range| (range, None)));
        self.last_time = last.and_then(record_time);
        stopped
    }

    fn take_each<'b>(
        &mut self,
        lines: impl Iterator<Item = Piece<'b>>,
        checker: &mut Checker<'_>,
        range: &mut Option<Range>,
        last: &mut Option<&'b [u8]>,
    ) -> Result<(), Stop> {
        for line in lines {
            let line = match line {
                Piece::Line(line) => line,
                Piece::Torn(length) => return Err(Stop::Torn(length)),
                Piece::TooLong => {
                    let (seq, problem) = (None, Problem::TooLong);
                    return Err(Stop::Wrong(Finding { seq, problem }));
                }
            };
            let taken = checker.take(line).map_err(Stop::Wrong)?;
            if self.first.is_none() {
                self.first = Some((taken.seq, taken.prev));
                self.first_time = record_time(line);
            }
            let open = range.get_or_insert(Range::at(taken.seq));
            if let Some(own) = taken.own {
                let before = std::mem::replace(open, Range::at(taken.seq));
                self.parts.push((before, Some((self.lines, own))));
            }
            open.push(leaf_hash(taken.hash));
            self.lines += 1;
            *last = Some(line);
        }
        Ok(())
    }

    fn wrong(&mut self, seq: Option<u64>, problem: Problem) {
        self.finding = Some((self.lines, Finding { seq, problem }));
    }
}

/// Which piece is next, and what was found in those that are done.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    window: u64,
}

struct State {
    /// The last one first.
    files: Vec<TrailFile>,
    open: Option<Chunk>,
    claimed: u64,
    taken: u64,
    done: BTreeMap<u64, Result<Checked, VerifyError>>,
    stopped: bool,
    exhausted: bool,
}

struct StopOnDrop<'q>(&'q Queue);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        // A worker that is out of pieces has nothing to stop.
        state.stopped |= !state.exhausted || thread::panicking();
        self.0.changed.notify_all();
    }
}

impl Queue {
    fn new(mut files: Vec<TrailFile>, window: usize) -> Self {
        files.reverse();
        Self {
            state: Mutex::new(State {
                files,
                open: None,
                claimed: 0,
                taken: 0,
                done: BTreeMap::new(),
                stopped: false,
                exhausted: false,
            }),
            changed: Condvar::new(),
            window: u64::try_from(window).unwrap_or(1).max(1),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self) -> Option<(u64, Result<Chunk, VerifyError>)> {
        let too_far = |state: &mut State| {
            let is_over = state.stopped || state.exhausted;
            !is_over && state.claimed - state.taken >= self.window
        };
        let mut state = self
            .changed
            .wait_while(self.state(), too_far)
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped || state.exhausted {
            return None;
        }
        let chunk = state.next_chunk();
        state.exhausted = !matches!(chunk, Some(Ok(_)));
        if state.exhausted {
            self.changed.notify_all();
        }
        let number = state.claimed;
        state.claimed += u64::from(chunk.is_some());
        Some((number, chunk?))
    }

    fn hand_in(&self, number: u64, checked: Result<Checked, VerifyError>) {
        self.state().done.insert(number, checked);
        self.changed.notify_all();
    }

    /// The next piece in order; `None` after the last.
    fn next(&self) -> Option<Result<Checked, VerifyError>> {
        let not_yet = |state: &mut State| {
            let is_over = state.exhausted && state.taken == state.claimed;
            !state.stopped && !is_over && !state.done.contains_key(&state.taken)
        };
        let mut state = self
            .changed
            .wait_while(self.state(), not_yet)
            .unwrap_or_else(PoisonError::into_inner);
        let number = state.taken;
        let checked = state.done.remove(&number)?;
        state.taken += 1;
        self.changed.notify_all();
        Some(checked)
    }
}

impl State {
    fn next_chunk(&mut self) -> Option<Result<Chunk, VerifyError>> {
        loop {
            if let Some(open) = &mut self.open {
                let (start, size) = (open.end, open.size);
                if start < size {
                    open.end = start.saturating_add(CHUNK).min(size);
                    let chunk = Chunk {
                        file: Arc::clone(&open.file),
                        path: Arc::clone(&open.path),
                        begins: open.begins.take(),
                        start,
                        ..*open
                    };
                    return Some(Ok(chunk));
                }
            }
            let TrailFile { path, named, open } = self.files.pop()?;
            match Self::open(&path, open) {
                Ok((file, size)) => {
                    self.open = Some(Chunk {
                        file: Arc::new(file),
                        path: Arc::from(path),
                        begins: Some(FileBegins { named }),
                        is_last_file: self.files.is_empty(),
                        start: 0,
                        end: 0,
                        size,
                    });
                }
                Err(source) => return Some(Err(VerifyError::Io { path, source })),
            }
        }
    }

    fn open(path: &Path, open: Option<File>) -> io::Result<(File, u64)> {
        let file = open.map_or_else(|| File::open(path), Ok)?;
        let size = file.metadata()?.len();
        Ok((file, size))
    }
}

/// Whether the record that is missed stands further on in one of the files.
pub(super) fn stands_in(files: &[PathBuf], seq: u64) -> Result<bool, VerifyError> {
    let mut line = Vec::new();
    for path in files {
        let unreadable = |source| VerifyError::Io {
            path: path.clone(),
            source,
        };
        let mut reader = crate::lines::buffered(File::open(path).map_err(unreadable)?);
        while crate::lines::next_bounded(&mut reader, &mut line).map_err(unreadable)? > 0 {
            let whole = line.strip_suffix(b"\n").unwrap_or_default();
            if Line::split(whole).is_some_and(|line| line.seq == seq) && Line::parse(whole).is_ok()
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
