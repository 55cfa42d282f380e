//! Reading a trail for people, from its beginning, across its files. Reading is not verifying: that is
//! [`verify`](crate::verify()).

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use thiserror::Error;

use crate::{
    chain::MAX_LINE,
    files::{Place, TrailFile, trail_files},
    lines::{buffered, next_bounded},
    shown::ShownRecord,
};

/// Why a record cannot be shown.
#[derive(Debug, Error)]
pub enum ShowError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The line is not a record; those after it can still be read.
    #[error("{path} line {line}: not an audit record")]
    NotARecord {
        /// The path.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// Opens a trail to read it from its beginning. `path` is the audit directory, which may hold many files, or one file
/// of records.
///
/// # Errors
/// [`ShowError::Io`].
pub fn show(path: &Path) -> Result<Records, ShowError> {
    let files = trail_files(&Place::of(path));
    let mut files = files.map_err(|(path, source)| ShowError::Io { path, source })?;
    files.reverse();
    let mut records = Records { files, open: None };
    records.open_next()?;
    Ok(records)
}

/// The records of a trail, in order. A last line that is still being written is left out.
#[derive(Debug)]
pub struct Records {
    /// The last one first.
    files: Vec<TrailFile>,
    open: Option<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    reader: BufReader<File>,
    path: PathBuf,
    line: u64,
    done: bool,
}

impl Iterator for Records {
    type Item = Result<ShownRecord, ShowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(shown) = self.open.as_mut()?.next() {
                return Some(shown);
            }
            if let Err(error) = self.open_next() {
                return Some(Err(error));
            }
        }
    }
}

impl Records {
    fn open_next(&mut self) -> Result<(), ShowError> {
        self.open = None;
        if let Some(TrailFile { path, open, .. }) = self.files.pop() {
            let file = match open.map_or_else(|| File::open(&path), Ok) {
                Ok(file) => file,
                Err(source) => return Err(ShowError::Io { path, source }),
            };
            self.open = Some(OpenFile {
                reader: buffered(file),
                path,
                line: 0,
                done: false,
            });
        }
        Ok(())
    }
}

impl OpenFile {
    fn next(&mut self) -> Option<Result<ShownRecord, ShowError>> {
        if self.done {
            return None;
        }
        let mut buffer = Vec::new();
        match next_bounded(&mut self.reader, &mut buffer) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(source) => {
                self.done = true;
                return Some(Err(ShowError::Io {
                    path: self.path.clone(),
                    source,
                }));
            }
        }
        self.line += 1;
        if buffer.pop() != Some(b'\n') {
            self.done = true;
            // Too long for a line of ours, or not written to its end yet.
            return (buffer.len() >= MAX_LINE).then(|| Err(self.not_a_record()));
        }
        Some(ShownRecord::parse(buffer).ok_or_else(|| self.not_a_record()))
    }

    fn not_a_record(&self) -> ShowError {
        ShowError::NotARecord {
            path: self.path.clone(),
            line: self.line,
        }
    }
}
