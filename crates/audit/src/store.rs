//! Where lines go. Decides that bytes count as written only after `fdatasync`, and refuses to write to a file that
//! somebody replaced, removed, cut or added to behind the writer's back.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use outgate_state::{StateError, create_private_dir, write_private_atomic};
use thiserror::Error;

use crate::{
    DAY_HEADS_FOLDER, HEAD_FILE, RECORDS_FILE,
    day::Day,
    files::{Identity, closed_name, day_head_path, identity},
    head::Head,
};

/// The file that is to be written to next, until it is in its place.
const NEXT_FILE: &str = "audit.next";

/// Why a batch is not on disk.
#[derive(Debug, Error)]
pub(crate) enum StoreFault {
    #[error("cannot write {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot flush {} to disk: {source}", .path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot write the head file: {0}")]
    Head(StateError),
    #[error("cannot write the head of a day: {0}")]
    DayHead(StateError),
    #[error("cannot begin another file in {}: {source}", .path.display())]
    Rotate { path: PathBuf, source: io::Error },
    #[error("{} is gone", .0.display())]
    Missing(PathBuf),
    #[error("{} was replaced by another file", .0.display())]
    Replaced(PathBuf),
    #[error("{} was cut from {expected} to {found} bytes", .path.display())]
    Shrunk {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
    #[error("somebody added to {}: it has {found} bytes, not {expected}", .path.display())]
    Grown {
        path: PathBuf,
        expected: u64,
        found: u64,
    },
}

impl StoreFault {
    /// The stable spelling, for logs.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Write { .. } => "audit_write_failed",
            Self::Sync { .. } => "audit_sync_failed",
            Self::Head(_) => "audit_head_failed",
            Self::DayHead(_) => "audit_day_head_failed",
            Self::Rotate { .. } => "audit_rotation_failed",
            Self::Missing(_) => "audit_file_missing",
            Self::Replaced(_) => "audit_file_replaced",
            Self::Shrunk { .. } => "audit_file_shrunk",
            Self::Grown { .. } => "audit_file_grown",
        }
    }
}

/// What the writer needs of the disk.
pub(crate) trait Store: Send + 'static {
    /// Puts lines at the end and returns once they are on disk. After a fault the same bytes, perhaps with more
    /// behind them, are given again, until it succeeds.
    fn append(&mut self, lines: &[u8]) -> Result<(), StoreFault>;

    /// Replaces the head file.
    fn write_head(&mut self, head: &Head) -> Result<(), StoreFault>;

    /// Puts the signed head of a day in its place.
    fn write_day_head(&mut self, day: Day, note: &str) -> Result<(), StoreFault>;

    /// Closes the file and goes on in another, whose first line this is, with this number. After a fault everything
    /// is as before.
    fn rotate(&mut self, first_line: &[u8], seq: u64) -> Result<(), StoreFault>;

    /// The bytes of the file that is written to.
    fn size(&self) -> u64;

    /// The number of its first record.
    fn first_seq(&self) -> u64;
}

/// The real files.
#[derive(Debug)]
pub(crate) struct FileStore {
    file: File,
    dir: PathBuf,
    path: PathBuf,
    identity: Identity,
    first_seq: u64,
    /// What is on disk and complete.
    committed: u64,
    /// How far an attempt may have got.
    attempted: u64,
    /// The file's name may not survive a power cut yet.
    unsynced_name: bool,
}

impl FileStore {
    /// Takes over an open file whose first `committed` bytes are whole lines, and all there is.
    pub(crate) fn new(file: File, dir: &Path, first_seq: u64, committed: u64) -> io::Result<Self> {
        Ok(Self {
            identity: identity(&file.metadata()?),
            file,
            dir: dir.to_owned(),
            path: dir.join(RECORDS_FILE),
            first_seq,
            committed,
            attempted: committed,
            unsynced_name: false,
        })
    }

    /// Takes away what a rotation that was killed left: a file that was not in its place yet, or a second name of the
    /// one that is still written to.
    pub(crate) fn clear_half_rotation(dir: &Path, live: &File, first_seq: u64) -> io::Result<()> {
        remove_if_there(&dir.join(NEXT_FILE))?;
        let closed = dir.join(closed_name(first_seq));
        match fs::symlink_metadata(&closed) {
            Ok(meta) if identity(&meta) == identity(&live.metadata()?) => remove_if_there(&closed),
            _ => Ok(()),
        }
    }

    fn check_undisturbed(&self) -> Result<(), StoreFault> {
        let path = || self.path.clone();
        let meta = match fs::symlink_metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StoreFault::Missing(path()));
            }
            Err(source) => {
                return Err(StoreFault::Write {
                    path: path(),
                    source,
                });
            }
        };
        if identity(&meta) != self.identity {
            return Err(StoreFault::Replaced(path()));
        }
        let found = meta.len();
        if found < self.committed {
            return Err(StoreFault::Shrunk {
                path: path(),
                expected: self.committed,
                found,
            });
        }
        if found > self.attempted {
            return Err(StoreFault::Grown {
                path: path(),
                expected: self.attempted,
                found,
            });
        }
        Ok(())
    }

    /// In this order the trail is whole whenever the power goes: the next file is on disk before it has its name, and
    /// the old one has its second name before it loses the first.
    fn switch(&self, first_line: &[u8]) -> io::Result<(File, Identity)> {
        let next = self.dir.join(NEXT_FILE);
        remove_if_there(&next)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.try_lock()?;
        file.write_all(first_line)?;
        file.sync_all()?;
        let identity_of_next = identity(&file.metadata()?);
        let closed = self.dir.join(closed_name(self.first_seq));
        match fs::hard_link(&self.path, &closed) {
            // Of an attempt that got further than its answer.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if identity(&fs::symlink_metadata(&closed)?) != self.identity {
                    return Err(error);
                }
            }
            linked => linked?,
        }
        sync_dir(&self.dir)?;
        fs::rename(&next, &self.path)?;
        Ok((file, identity_of_next))
    }
}

impl Store for FileStore {
    fn append(&mut self, lines: &[u8]) -> Result<(), StoreFault> {
        self.check_undisturbed()?;
        if self.unsynced_name {
            sync_dir(&self.dir).map_err(|source| StoreFault::Sync {
                path: self.dir.clone(),
                source,
            })?;
            self.unsynced_name = false;
        }
        let end = self
            .committed
            .saturating_add(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        self.attempted = self.attempted.max(end);
        // At a fixed place, so that a repeated attempt overwrites what a failed one left. It also gives the kernel the
        // pages again: after a failed sync it may have dropped them and call the next sync a success.
        self.file
            .write_all_at(lines, self.committed)
            .map_err(|source| StoreFault::Write {
                path: self.path.clone(),
                source,
            })?;
        self.file.sync_data().map_err(|source| StoreFault::Sync {
            path: self.path.clone(),
            source,
        })?;
        self.committed = end;
        self.attempted = end;
        Ok(())
    }

    fn write_head(&mut self, head: &Head) -> Result<(), StoreFault> {
        write_private_atomic(&self.dir.join(HEAD_FILE), &head.to_bytes()).map_err(StoreFault::Head)
    }

    fn write_day_head(&mut self, day: Day, note: &str) -> Result<(), StoreFault> {
        create_private_dir(&self.dir.join(DAY_HEADS_FOLDER))
            .and_then(|()| write_private_atomic(&day_head_path(&self.dir, day), note.as_bytes()))
            .map_err(StoreFault::DayHead)
    }

    fn rotate(&mut self, first_line: &[u8], seq: u64) -> Result<(), StoreFault> {
        self.check_undisturbed()?;
        (self.file, self.identity) =
            self.switch(first_line)
                .map_err(|source| StoreFault::Rotate {
                    path: self.dir.clone(),
                    source,
                })?;
        self.first_seq = seq;
        self.committed = u64::try_from(first_line.len()).unwrap_or(u64::MAX);
        self.attempted = self.committed;
        // Late enough before the next line: until then the first line of the file is all that a power cut could take.
        self.unsynced_name = sync_dir(&self.dir).is_err();
        Ok(())
    }

    fn size(&self) -> u64 {
        self.committed
    }

    fn first_seq(&self) -> u64 {
        self.first_seq
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Makes names survive a power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
