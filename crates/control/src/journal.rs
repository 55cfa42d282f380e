//! The sessions' journal: what was created and what was ended, a line each, on disk before it is acknowledged, so
//! that a session that was ended stays ended whatever is restarted.
//!
//! A torn last line was never acknowledged and is dropped. Any other line that cannot be read is an error: a
//! denylist with a hole in it is not loaded.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Entry {
    /// A session began.
    Create {
        /// Its id.
        id: String,
        /// Seconds since 1970.
        at: u64,
        /// When its last token ends.
        expires: u64,
        /// The operator's labels.
        labels: BTreeMap<String, String>,
    },
    /// A session was ended.
    End {
        /// Its id.
        id: String,
        /// Seconds since 1970.
        at: u64,
    },
}

impl Entry {
    fn is_worth_keeping(&self, now: u64) -> bool {
        match self {
            Self::Create { expires, .. } => *expires > now,
            Self::End { at, .. } => at.saturating_add(KEEP_ENDED_SECONDS) > now,
        }
    }
}

/// How long an ended session is remembered: far longer than any of its tokens can live.
pub const KEEP_ENDED_SECONDS: u64 = 24 * 3600;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not an entry.
    #[error(
        "{path}:{line}: not a journal entry; restore the file from a copy, or remove it to forget all sessions"
    )]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Journal {
    /// Reads the journal, drops what is over, and opens it for appending.
    ///
    /// # Errors
    /// [`JournalError`]; nothing was changed then.
    pub fn open(path: &Path, now: u64) -> Result<(Self, Vec<Entry>), JournalError> {
        let failed = |source| JournalError::Io {
            path: path.to_owned(),
            source,
        };
        let entries = Self::read(path, now)?;
        let file = rewrite(path, &entries).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok((
            Self {
                path: path.to_owned(),
                file,
                length,
            },
            entries,
        ))
    }

    /// Reads what is worth keeping, and changes nothing. No file is an empty journal.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn read(path: &Path, now: u64) -> Result<Vec<Entry>, JournalError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(JournalError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let mut entries = parse(path, &text)?;
        entries.retain(|entry| entry.is_worth_keeping(now));
        Ok(entries)
    }

    /// A journal whose every append fails.
    #[cfg(test)]
    pub(crate) fn read_only(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: File::open(path).unwrap(),
            length: 0,
        }
    }

    /// Appends an entry; on return it is on disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]; then the entry is not part of the journal.
    pub fn append(&mut self, entry: &Entry) -> Result<(), JournalError> {
        let line = to_line(entry);
        let result = self
            .file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data());
        if let Err(source) = result {
            // Half a line would make the next one unreadable.
            let _ = self.file.set_len(self.length);
            return Err(JournalError::Io {
                path: self.path.clone(),
                source,
            });
        }
        self.length += line.len() as u64;
        Ok(())
    }
}

fn to_line(entry: &Entry) -> String {
    // Strings and numbers always serialise.
    serde_json::to_string(entry).unwrap_or_default() + "\n"
}

fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, JournalError> {
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text.get(..whole).unwrap_or_default().lines().enumerate();
    lines
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|_| JournalError::Corrupt {
                path: path.to_owned(),
                line: index + 1,
            })
        })
        .collect()
}

/// Writes the kept entries beside the file and puts them in its place.
fn rewrite(path: &Path, entries: &[Entry]) -> io::Result<File> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    for entry in entries {
        file.write_all(to_line(entry).as_bytes())?;
    }
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    // Appending, whatever the position: a truncation after a failed write moves the end.
    OpenOptions::new().append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: &str, at: u64) -> Entry {
        Entry::End {
            id: id.to_owned(),
            at,
        }
    }

    #[test]
    fn what_was_appended_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.jsonl");
        let (mut journal, entries) = Journal::open(&path, 100).unwrap();
        assert_eq!(entries, []);
        journal.append(&end("a", 100)).unwrap();
        journal.append(&end("b", 101)).unwrap();
        assert_eq!(
            Journal::open(&path, 102).unwrap().1,
            [end("a", 100), end("b", 101)]
        );
    }

    #[test]
    fn a_torn_last_line_is_dropped_and_any_other_bad_line_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.jsonl");
        std::fs::write(&path, to_line(&end("a", 1)) + "{\"op\":\"end\",\"id").unwrap();
        assert_eq!(Journal::open(&path, 2).unwrap().1, [end("a", 1)]);
        std::fs::write(&path, format!("nonsense\n{}", to_line(&end("a", 1)))).unwrap();
        assert!(matches!(
            Journal::open(&path, 2),
            Err(JournalError::Corrupt { line: 1, .. })
        ));
    }

    #[test]
    fn what_is_over_is_forgotten_and_an_ended_session_is_remembered_longer_than_a_token_lives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.jsonl");
        std::fs::write(&path, to_line(&end("a", 10))).unwrap();
        assert_eq!(Journal::open(&path, 10 + 12 * 3600).unwrap().1.len(), 1);
        assert_eq!(
            Journal::open(&path, 10 + KEEP_ENDED_SECONDS)
                .unwrap()
                .1
                .len(),
            0
        );
    }
}
