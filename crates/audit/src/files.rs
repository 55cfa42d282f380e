//! The names of a trail's files. The file that is written to is always there, under one name; a closed one is named
//! after its first record. Whoever opens the first before listing the others has the whole trail, however often it is
//! rotated meanwhile: what is closed later begins where the open one does.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    DAY_HEADS_FOLDER, RECORDS_FILE,
    chain::{Line, LogId, MAX_LINE},
    day::Day,
    ocsf::OwnRecord,
};

/// A file, whatever it is called.
pub(crate) type Identity = (u64, u64);

/// Which file this is.
pub(crate) fn identity(meta: &fs::Metadata) -> Identity {
    (meta.dev(), meta.ino())
}

/// The name of the closed file whose first record this is.
pub(crate) fn closed_name(first_seq: u64) -> String {
    format!("audit-{first_seq:012}.jsonl")
}

/// The first record's number of a closed file's name.
pub(crate) fn closed_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    let seq = digits.parse().ok()?;
    (closed_name(seq) == name).then_some(seq)
}

/// The closed files of a directory, the oldest first.
pub(crate) fn closed_files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut closed = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(seq) = name.to_str().and_then(closed_seq) {
            closed.push((seq, dir.join(name)));
        }
    }
    closed.sort_unstable();
    Ok(closed)
}

/// The signed heads of a directory, the oldest first.
pub(crate) fn day_heads(dir: &Path) -> io::Result<Vec<Day>> {
    let mut days = Vec::new();
    let entries = match fs::read_dir(dir.join(DAY_HEADS_FOLDER)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(days),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let day = name
            .to_str()
            .and_then(|name| name.strip_suffix(".checkpoint"));
        days.extend(day.and_then(Day::parse));
    }
    days.sort_unstable();
    Ok(days)
}

/// The signed head of a day.
pub(crate) fn day_head_path(dir: &Path, day: Day) -> PathBuf {
    dir.join(DAY_HEADS_FOLDER).join(format!("{day}.checkpoint"))
}

/// What a path to verify or show means: the whole trail of a directory, or one file of records.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    /// The one file that was named; `None`: the whole trail.
    pub(crate) lone: Option<PathBuf>,
}

impl Place {
    pub(crate) fn of(path: &Path) -> Self {
        if path.is_dir() {
            return Self {
                dir: path.to_owned(),
                lone: None,
            };
        }
        let dir = path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Self {
            dir: dir.to_owned(),
            lone: Some(path.to_owned()),
        }
    }

    /// Whether only a file was named that the head file says nothing about.
    pub(crate) fn is_closed_file(&self) -> bool {
        let name = self.lone.as_deref().and_then(Path::file_name);
        name.and_then(|name| name.to_str())
            .is_some_and(|name| closed_seq(name).is_some())
    }
}

/// One file of a trail.
#[derive(Debug)]
pub(crate) struct TrailFile {
    pub(crate) path: PathBuf,
    /// The first record, by its name.
    pub(crate) named: Option<u64>,
    /// Opened already, if it is the one that may still be written to.
    pub(crate) open: Option<File>,
}

/// The files of a trail in order, and with whom to blame what cannot be read.
pub(crate) fn trail_files(place: &Place) -> Result<Vec<TrailFile>, (PathBuf, io::Error)> {
    let live = place.lone.clone().unwrap_or(place.dir.join(RECORDS_FILE));
    let file = File::open(&live).map_err(|source| (live.clone(), source))?;
    let mut files = Vec::new();
    if place.lone.is_none() {
        let first = first_seq(&file).map_err(|source| (live.clone(), source))?;
        let closed = closed_files(&place.dir).map_err(|source| (place.dir.clone(), source))?;
        for (seq, path) in closed {
            if first.is_none_or(|first| seq < first) {
                let named = Some(seq);
                files.push(TrailFile {
                    path,
                    named,
                    open: None,
                });
            }
        }
    }
    let named = live
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(closed_seq);
    files.push(TrailFile {
        path: live,
        named,
        open: Some(file),
    });
    Ok(files)
}

/// What a file's first line says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Beginning {
    pub(crate) log: LogId,
    pub(crate) seq: u64,
    pub(crate) time_unix_ms: u64,
}

impl Beginning {
    pub(crate) fn of(line: &[u8]) -> Option<Self> {
        let line = Line::parse(line).ok()?;
        match OwnRecord::of(&line) {
            Ok(Some(OwnRecord::Begins { log, time })) => Some(Self {
                log,
                seq: line.seq,
                time_unix_ms: time,
            }),
            _ => None,
        }
    }
}

/// The first line of a file without its line break; empty if there is none.
pub(crate) fn first_line(file: &File) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let from_start = ReadAt { file, at: 0 };
    BufReader::with_capacity(4096, from_start)
        .take(MAX_LINE as u64)
        .read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        line.clear();
    }
    Ok(line)
}

fn first_seq(file: &File) -> io::Result<Option<u64>> {
    Ok(Line::split(&first_line(file)?).map(|line| line.seq))
}

/// Reads a shared file from a place of its own.
#[derive(Debug)]
pub(crate) struct ReadAt<'a> {
    pub(crate) file: &'a File,
    pub(crate) at: u64,
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(self.file, buffer, self.at)?;
        self.at += u64::try_from(read).unwrap_or(0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_file_is_named_after_its_first_record() {
        for seq in [0, 7, 999_999_999_999, 1_000_000_000_000, u64::MAX] {
            assert_eq!(closed_seq(&closed_name(seq)), Some(seq));
        }
        for name in [
            "audit.jsonl",
            "audit-7.jsonl",
            "audit-0000000000007.jsonl",
            "audit-00000000000x.jsonl",
            "audit-000000000007.jsonl.gz",
        ] {
            assert_eq!(closed_seq(name), None, "{name}");
        }
    }
}
