//! Where lines go. Decides that bytes count as written only after `fdatasync`, and refuses to write to a file that
//! somebody replaced, removed, cut or added to behind the writer's back.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use outgate_state::{StateError, write_private_atomic};
use thiserror::Error;

use crate::{HEAD_FILE, head::Head};

/// Why a batch is not on disk.
#[derive(Debug, Error)]
pub(crate) enum StoreFault {
    #[error("cannot write {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot flush {} to disk: {source}", .path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot write the head file: {0}")]
    Head(StateError),
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
}

/// The real files.
#[derive(Debug)]
pub(crate) struct FileStore {
    file: File,
    path: PathBuf,
    head_path: PathBuf,
    identity: (u64, u64),
    /// What is on disk and complete.
    committed: u64,
    /// How far an attempt may have got.
    attempted: u64,
}

impl FileStore {
    /// Takes over an open file whose first `committed` bytes are whole lines, and all there is.
    pub(crate) fn new(file: File, dir: &Path, path: PathBuf, committed: u64) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            identity: (meta.dev(), meta.ino()),
            file,
            path,
            head_path: dir.join(HEAD_FILE),
            committed,
            attempted: committed,
        })
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
        if (meta.dev(), meta.ino()) != self.identity {
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
}

impl Store for FileStore {
    fn append(&mut self, lines: &[u8]) -> Result<(), StoreFault> {
        self.check_undisturbed()?;
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
        write_private_atomic(&self.head_path, &head.to_bytes()).map_err(StoreFault::Head)
    }
}
