//! The file: ours, and nobody else's to read or change.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use crate::{StoreError, StoreFault};

/// How long another process may hold the file (`outgate explain`, a backup) before a change fails.
const BUSY: Duration = Duration::from_secs(1);

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .thread_name(|_| "outgate-sqlite".to_owned())
}

pub(super) fn writing(path: &Path) -> SqliteConnectOptions {
    options(path)
        .journal_mode(SqliteJournalMode::Truncate)
        .synchronous(SqliteSynchronous::Full)
}

/// Which file stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// Which file stands there.
///
/// # Errors
/// [`StoreFault::Missing`].
pub(super) fn identify(path: &Path) -> Result<FileId, StoreError> {
    let meta = fs::symlink_metadata(path)
        .map_err(|error| StoreError::new(StoreFault::Missing, path, error))?;
    Ok(FileId {
        device: meta.dev(),
        inode: meta.ino(),
    })
}

/// Refuses a place where there is no store, or an empty file.
pub(super) fn require(path: &Path) -> Result<(), StoreError> {
    let missing = |detail| Err(StoreError::new(StoreFault::Missing, path, detail));
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() == 0 => missing("empty"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing("gone"),
        _ => Ok(()),
    }
}

/// Creates the file, empty and private, unless it is there. SQLite gives its other files the same mode.
pub(super) fn prepare(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::new(StoreFault::Unreadable, path, error);
    if is_there(path)? {
        return Ok(());
    }
    let created = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    created.sync_all().map_err(failed)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(failed)
}

/// Whether there is a file.
///
/// # Errors
/// It is not a file, another user's, or open to other users.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(StoreError::new(StoreFault::Unreadable, path, error)),
    };
    if !meta.is_file() {
        return Err(StoreError::new(StoreFault::Unreadable, path, "not a file"));
    }
    let (mode, owner) = (meta.permissions().mode() & 0o7777, meta.uid());
    let exposed = |detail: String| StoreError::new(StoreFault::Exposed, path, detail);
    if owner != rustix::process::geteuid().as_raw() {
        return Err(exposed(format!("belongs to user id {owner}")));
    }
    if mode & 0o077 != 0 {
        return Err(exposed(format!(
            "open to other users (mode {mode:04o}); if nobody else has changed it, run `chmod 600`"
        )));
    }
    Ok(true)
}
