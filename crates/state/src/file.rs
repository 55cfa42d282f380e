//! Directories 0700, private files 0600, public files 0644; each created whole.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

/// A key, a certificate or a bundle is far smaller than this; anything larger is a mistake.
pub(crate) const READ_LIMIT: u64 = 4 * 1024 * 1024;

/// Whether a file was created, or had been there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// Created by this call.
    Created,
    /// Present before; left untouched.
    Existed,
}

/// Why a file or directory is not used. Names the path and, where the operator can mend it, how.
#[derive(Debug)]
pub enum StateError {
    /// The operating system refused.
    Io {
        /// What was tried: "read", "create", …
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// Somebody else could read (a file) or change (a directory) it.
    Exposed {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Those it should have.
        wanted: u32,
    },
    /// It belongs to another user, who could change it.
    Foreign {
        /// The path.
        path: PathBuf,
        /// The owner's user id.
        owner: u32,
    },
    /// It is not of the kind that belongs there.
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What it should be: "a file", "a directory".
        wanted: &'static str,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io {
                doing,
                path,
                source,
            } => write!(f, "cannot {doing} {}: {source}", path.display()),
            Self::Exposed { path, mode, wanted } => write!(
                f,
                "{path} is open to other users (mode {mode:04o}); if nobody else has used it, run `chmod {wanted:o} {path}`",
                path = path.display()
            ),
            Self::Foreign { path, owner } => write!(
                f,
                "{path} belongs to user id {owner}; run `chown {me} {path}`, or start the gateway as its owner",
                path = path.display(),
                me = rustix::process::geteuid().as_raw()
            ),
            Self::WrongKind { path, wanted } => write!(f, "{} is not {wanted}", path.display()),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Creates a directory, and those above it that are missing, with mode 0700.
///
/// # Errors
/// [`StateError`]: also for one that is present, if another user owns it or could put files into it.
pub fn create_private_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed("create", path))?;
    let meta = fs::metadata(path).map_err(failed("read", path))?;
    if !meta.is_dir() {
        return Err(StateError::WrongKind {
            path: path.to_owned(),
            wanted: "a directory",
        });
    }
    check_owner(path, &meta)?;
    // Group or world write: they could put a key of their own in its place.
    check_mode(path, &meta, 0o022, 0o700)
}

/// Reads a private file of at most 4 MiB. A symbolic link is followed (mounted secrets are links): what counts is the
/// file that it leads to.
///
/// # Errors
/// [`StateError`]: also where group or others have any right to it, or another user than root owns it.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    read_private_up_to(path, READ_LIMIT)
}

/// As [`read_private`], with another bound on its length, in bytes.
///
/// # Errors
/// As [`read_private`].
pub fn read_private_up_to(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, StateError> {
    read_judged(path, limit, |meta| check_mode(path, meta, 0o077, 0o600))
}

/// Reads a file of at most `limit` bytes that belongs to root or to this process's user, if its mode is good, too.
pub(crate) fn read_judged(
    path: &Path,
    limit: u64,
    judge_mode: impl FnOnce(&fs::Metadata) -> Result<(), StateError>,
) -> Result<Zeroizing<Vec<u8>>, StateError> {
    // Non-blocking, so that a fifo in the file's place cannot hold the start up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(failed("read", path))?;
    // Judged on the open file: a check by name would be of another file, if it were swapped in between.
    let meta = file.metadata().map_err(failed("read", path))?;
    if !meta.is_file() || meta.len() > limit {
        return Err(StateError::WrongKind {
            path: path.to_owned(),
            wanted: "a file that is not too large",
        });
    }
    check_owner(path, &meta)?;
    judge_mode(&meta)?;
    let len = usize::try_from(meta.len()).unwrap_or_default();
    // One byte spare, or the read to the end would grow the buffer and leave an unwiped copy.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len + 32));
    (&mut file)
        .take(meta.len())
        .read_to_end(&mut bytes)
        .map_err(failed("read", path))?;
    Ok(bytes)
}

/// Writes a file with mode 0600, replacing what is there in one step.
///
/// # Errors
/// [`StateError::Io`]; what was there is then untouched.
pub fn write_private_atomic(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    replace(path, bytes, 0o600)
}

/// As [`write_private_atomic`], for what anybody may read: mode 0644.
///
/// # Errors
/// [`StateError::Io`]; what was there is then untouched.
pub fn write_public_atomic(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    replace(path, bytes, 0o644)
}

/// As [`write_private_atomic`], for what the members of one group may read as well: mode 0640. Nobody sees the file with
/// other rights than it ends with.
///
/// # Errors
/// [`StateError::Io`], also for a group that this process is not in; what was there is then untouched.
pub fn write_group_atomic(path: &Path, bytes: &[u8], group: u32) -> Result<(), StateError> {
    let temporary = Temporary::write(path, bytes, 0o600)?;
    let shared = chown(&temporary.0, None, Some(group))
        .and_then(|()| fs::set_permissions(&temporary.0, fs::Permissions::from_mode(0o640)));
    shared.map_err(failed("give the group", &temporary.0))?;
    fs::rename(&temporary.0, path).map_err(failed("write", path))?;
    sync_parent(path)
}

/// Creates a file with mode 0600 unless its name is taken. Of several who try at once, one creates it.
///
/// # Errors
/// [`StateError::Io`].
pub fn create_private_exclusive(path: &Path, bytes: &[u8]) -> Result<Created, StateError> {
    create(path, bytes, 0o600)
}

/// As [`create_private_exclusive`], for what anybody may read: mode 0644.
///
/// # Errors
/// [`StateError::Io`].
pub fn create_public_exclusive(path: &Path, bytes: &[u8]) -> Result<Created, StateError> {
    create(path, bytes, 0o644)
}

/// A directory held against other processes (and threads) that also lock it; let go on drop, and by the kernel when
/// the process dies.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "the lock lives as long as the open file")] File);

/// Waits until nobody else holds the directory, then holds it.
///
/// # Errors
/// [`StateError::Io`].
pub fn lock_dir(path: &Path) -> Result<DirLock, StateError> {
    let dir = File::open(path).map_err(failed("lock", path))?;
    loop {
        match rustix::fs::flock(&dir, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(DirLock(dir)),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("lock", path)(errno.into())),
        }
    }
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StateError> {
    let temporary = Temporary::write(path, bytes, mode)?;
    fs::rename(&temporary.0, path).map_err(failed("write", path))?;
    sync_parent(path)
}

fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<Created, StateError> {
    let temporary = Temporary::write(path, bytes, mode)?;
    // A link, unlike a rename, fails where the name is taken.
    match fs::hard_link(&temporary.0, path) {
        Ok(()) => {
            sync_parent(path)?;
            Ok(Created::Created)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Created::Existed),
        Err(error) => Err(failed("create", path)(error)),
    }
}

/// A file beside its final place, gone on drop.
struct Temporary(PathBuf);

impl Temporary {
    fn write(beside: &Path, bytes: &[u8], mode: u32) -> Result<Self, StateError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let name = beside.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path =
                beside.with_file_name(format!(".{name}.{}-{counter}.tmp", std::process::id()));
            let opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(&path);
            match opened {
                Ok(file) => {
                    let temporary = Self(path);
                    fill(file, bytes, mode).map_err(failed("write", &temporary.0))?;
                    return Ok(temporary);
                }
                // Left by a process that died and had the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("create", &path)(error)),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Already renamed, or a leftover that its mode protects.
        let _ = fs::remove_file(&self.0);
    }
}

fn fill(mut file: File, bytes: &[u8], mode: u32) -> io::Result<()> {
    // The umask may have taken rights from the owner, which a later start would trip over.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the new name itself survive a power cut.
fn sync_parent(path: &Path) -> Result<(), StateError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("write", parent))
}

fn check_owner(path: &Path, meta: &fs::Metadata) -> Result<(), StateError> {
    let owner = meta.uid();
    if owner == 0 || owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(StateError::Foreign {
        path: path.to_owned(),
        owner,
    })
}

pub(crate) fn check_mode(
    path: &Path,
    meta: &fs::Metadata,
    refused: u32,
    wanted: u32,
) -> Result<(), StateError> {
    let mode = meta.mode() & 0o7777;
    if mode & refused == 0 {
        return Ok(());
    }
    Err(StateError::Exposed {
        path: path.to_owned(),
        mode,
        wanted,
    })
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + 'a {
    move |source| StateError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
