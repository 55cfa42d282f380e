//! Where a record stands: in which of a trail's files, and where in that file.

use std::{
    fs::File,
    io::{self, BufReader, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{
    RECORDS_FILE,
    chain::{Line, MAX_LINE},
    files::{Beginning, Identity, ReadAt, closed_files, first_line, identity},
    follow::FollowError,
    lines::{buffered, next_bounded},
};

/// Ranges shorter than this are read, not halved.
const SEEK_SPAN: u64 = 4 * MAX_LINE as u64;

/// A file that is read line by line.
#[derive(Debug)]
pub(crate) struct OpenFile {
    reader: BufReader<File>,
    path: PathBuf,
    pub(crate) identity: Identity,
    /// Where the next line begins.
    at: u64,
}

impl OpenFile {
    /// In front of a record, in the file that it stands in, or will.
    pub(crate) fn at(dir: &Path, seq: u64) -> Result<Self, FollowError> {
        let (located, next) = Located::holding(dir, seq)?;
        let (open, is_there) = located.open_at(seq)?;
        match next {
            // A closed file that ends before the record: the one behind it is gone.
            Some(oldest) if !is_there => Err(FollowError::Missing {
                expected: seq,
                oldest,
            }),
            _ => Ok(open),
        }
    }

    /// A whole line, without its line break. One that is not whole may be taken back by a gateway that starts anew, so
    /// nothing of it is kept.
    pub(crate) fn next_line(&mut self) -> Result<Option<Vec<u8>>, FollowError> {
        let mut line = Vec::new();
        next_bounded(&mut self.reader, &mut line).map_err(|source| self.unreadable(source))?;
        if line.pop() != Some(b'\n') {
            self.rewind()?;
            return Ok(None);
        }
        self.at = self.at.saturating_add(len(&line) + 1);
        Ok(Some(line))
    }

    /// Back in front of the line that was read last, which is not the one that should stand there.
    pub(crate) fn refuse(&mut self, line: &[u8], seq: u64) -> FollowError {
        self.at = self.at.saturating_sub(len(line) + 1);
        match self.rewind() {
            Ok(()) => self.damaged(seq),
            Err(error) => error,
        }
    }

    fn rewind(&mut self) -> Result<(), FollowError> {
        let done = self.reader.seek(SeekFrom::Start(self.at)).map(drop);
        done.map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: io::Error) -> FollowError {
        FollowError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, seq: u64) -> FollowError {
        FollowError::Damaged {
            path: self.path.clone(),
            seq,
        }
    }
}

/// A file of a trail, and what its first line says.
pub(crate) struct Located {
    file: File,
    path: PathBuf,
    pub(crate) beginning: Beginning,
}

impl Located {
    fn open(path: PathBuf) -> Result<Self, FollowError> {
        let opened = File::open(&path).and_then(|file| Ok((first_line(&file)?, file)));
        let (first, file) = match opened {
            Ok(opened) => opened,
            Err(source) => return Err(FollowError::Io { path, source }),
        };
        match Beginning::of(&first) {
            Some(beginning) => Ok(Self {
                file,
                path,
                beginning,
            }),
            None => Err(FollowError::NotALog(path)),
        }
    }

    pub(crate) fn live(dir: &Path) -> Result<Self, FollowError> {
        Self::open(dir.join(RECORDS_FILE))
    }

    /// The file that a record stands in, or will, and with what the one behind it begins. The one that is written to is
    /// opened first: a rotation meanwhile cannot hide a record from both looks.
    fn holding(dir: &Path, seq: u64) -> Result<(Self, Option<u64>), FollowError> {
        let live = Self::live(dir)?;
        if live.beginning.seq <= seq {
            return Ok((live, None));
        }
        let mut next = live.beginning.seq;
        for (first, path) in closed_before(dir, next)?.into_iter().rev() {
            if first <= seq {
                return Ok((Self::open(path)?, Some(next)));
            }
            next = first;
        }
        Err(FollowError::Missing {
            expected: seq,
            oldest: next,
        })
    }

    /// The oldest record of the trail that ends in this file.
    pub(crate) fn oldest(&self, dir: &Path) -> Result<u64, FollowError> {
        let closed = closed_before(dir, self.beginning.seq)?;
        Ok(closed
            .first()
            .map_or(self.beginning.seq, |(first, _)| *first))
    }

    /// The number behind the last whole line.
    pub(crate) fn end(&self) -> Result<u64, FollowError> {
        let unreadable = |source| FollowError::Io {
            path: self.path.clone(),
            source,
        };
        let size = self.file.metadata().map_err(unreadable)?.len();
        let mut at = self.seek(size, u64::MAX).map_err(unreadable)?;
        let mut reader = BufReader::new(ReadAt {
            file: &self.file,
            at,
        });
        let (mut line, mut end) = (Vec::new(), self.beginning.seq);
        while at < size {
            let read = next_bounded(&mut reader, &mut line).map_err(unreadable)?;
            match line.strip_suffix(b"\n").map(Line::split) {
                Some(Some(line)) => end = line.seq.saturating_add(1),
                _ => break,
            }
            at = at.saturating_add(u64::try_from(read).unwrap_or(0));
        }
        Ok(end)
    }

    /// A reader in front of a record, and whether it is there; else at the end.
    fn open_at(self, seq: u64) -> Result<(OpenFile, bool), FollowError> {
        let found = self.file.metadata().and_then(|meta| {
            let at = self.seek(meta.len(), seq)?;
            Ok((identity(&meta), at))
        });
        let (identity, at) = match found {
            Ok(found) => found,
            Err(source) => {
                return Err(FollowError::Io {
                    path: self.path,
                    source,
                });
            }
        };
        let mut open = OpenFile {
            reader: buffered(self.file),
            path: self.path,
            identity,
            at,
        };
        open.rewind()?;
        loop {
            let before = open.at;
            let Some(line) = open.next_line()? else {
                return Ok((open, false));
            };
            match Line::split(&line).map(|line| line.seq) {
                Some(found) if found < seq => {}
                Some(found) if found == seq => {
                    open.at = before;
                    open.rewind()?;
                    return Ok((open, true));
                }
                _ => return Err(open.damaged(seq)),
            }
        }
    }

    /// The beginning of a line that is not far ahead of the record, found by halving: numbers only rise.
    fn seek(&self, size: u64, seq: u64) -> io::Result<u64> {
        let (mut low, mut high) = (0, size);
        while high - low > SEEK_SPAN {
            let middle = low + (high - low) / 2;
            let mut reader = BufReader::new(ReadAt {
                file: &self.file,
                at: middle,
            });
            let (mut cut, mut line) = (Vec::new(), Vec::new());
            let skipped = next_bounded(&mut reader, &mut cut)?;
            next_bounded(&mut reader, &mut line)?;
            let found = line.strip_suffix(b"\n").and_then(Line::split);
            match found {
                Some(found) if found.seq <= seq => {
                    low = middle + u64::try_from(skipped).unwrap_or(0);
                }
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

fn closed_before(dir: &Path, seq: u64) -> Result<Vec<(u64, PathBuf)>, FollowError> {
    let mut closed = closed_files(dir).map_err(|source| FollowError::Io {
        path: dir.to_owned(),
        source,
    })?;
    closed.retain(|(first, _)| *first < seq);
    Ok(closed)
}

fn len(line: &[u8]) -> u64 {
    u64::try_from(line.len()).unwrap_or(u64::MAX)
}
