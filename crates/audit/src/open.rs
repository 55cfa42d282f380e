//! Decides whether what is on disk may be continued: only if its end verifies and agrees with the head file. The one
//! thing that is mended is a last line without its line break, which a killed writer leaves and which nobody was told
//! is on disk.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use outgate_state::{Created, create_private_dir, create_private_exclusive};

use crate::{
    RECORDS_FILE,
    chain::LogId,
    day::Day,
    error::{AuditError, VerifyError},
    files::identity,
    head::Head,
    log::AuditOptions,
    ocsf::LogChange,
    spine::{DayHead, Spine},
    store::{FileStore, Store, StoreFault},
    tail::Tail,
};

/// A log ready to be written to.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    pub(crate) store: S,
    pub(crate) spine: Spine,
    /// When the file's first record was written.
    pub(crate) file_began_ms: u64,
    /// Days whose seal is on disk, and whose head may not be.
    pub(crate) unsigned: Vec<DayHead>,
}

/// Opens or founds the log in a directory.
pub(crate) fn open_log(
    dir: &Path,
    options: &AuditOptions,
) -> Result<Opened<FileStore>, AuditError> {
    create_private_dir(dir)?;
    let path = dir.join(RECORDS_FILE);
    let file = lock_file(&path)?;
    let io = |doing| failed(doing, &path);
    let head = Head::read(dir).map_err(damaged)?;
    let size = file.metadata().map_err(io("read"))?.len();
    let tail = Tail::read(&file, size, dir, head.as_ref()).map_err(damaged)?;
    let first_seq = tail.beginning.map_or(0, |beginning| beginning.seq);
    FileStore::clear_half_rotation(dir, &file, first_seq).map_err(io("repair"))?;
    if let Some(torn) = &tail.torn {
        set_aside(dir, &file, tail.whole_bytes, torn, &path)?;
    }
    let store = FileStore::new(file, dir, first_seq, tail.whole_bytes).map_err(io("read"))?;
    let now = options.clock.wall_ms();
    let Some(beginning) = tail.beginning else {
        let spine = Spine::genesis(new_log_id()?, Day::of_unix_ms(now));
        let opened = Opened {
            store,
            spine,
            file_began_ms: now,
            unsigned: Vec::new(),
        };
        return opened.begin(dir, now, &[LogChange::Created]);
    };
    let spine = tail
        .spine(dir, beginning.log, head.as_ref())
        .map_err(damaged)?;
    let mut changes = Vec::new();
    let detail = tail.torn.map(|torn| {
        format!(
            "the last line was torn and never acknowledged: {} bytes were set aside",
            torn.len()
        )
    });
    if let Some(detail) = &detail {
        changes.push(LogChange::Repaired { detail });
    }
    // A seal whose head was not written before the gateway died is signed by the key of today.
    let key = options.key.verifier(beginning.log)?;
    if tail.unsigned.iter().any(|seal| seal.key != key) {
        changes.push(LogChange::KeyInUse { key: &key });
    }
    let heads = tail
        .unsigned
        .iter()
        .map(|seal| DayHead::new(beginning.log, seal.day, &seal.tree));
    let opened = Opened {
        store,
        spine,
        file_began_ms: beginning.time_unix_ms,
        unsigned: heads.collect(),
    };
    opened.begin(dir, now, &changes)
}

impl Opened<FileStore> {
    /// Writes what the log says about itself, and a head file that is up to date unless a signed head must come first.
    fn begin(
        mut self,
        dir: &Path,
        now: u64,
        changes: &[LogChange<'_>],
    ) -> Result<Self, AuditError> {
        let mut lines = Vec::new();
        for change in changes {
            let written = self.spine.append_own(&mut lines, now, change);
            written.map_err(|_| AuditError::Start("its own record cannot be written"))?;
        }
        let fault = |fault: StoreFault| AuditError::Io {
            doing: "write",
            path: dir.join(RECORDS_FILE),
            source: io::Error::other(fault.to_string()),
        };
        if !lines.is_empty() {
            self.store.append(&lines).map_err(fault)?;
        }
        if let Some(head) = self.spine.head().filter(|_| self.unsigned.is_empty()) {
            self.store.write_head(&head).map_err(fault)?;
        }
        Ok(self)
    }
}

/// Holds the file that is written to. It may be closed by another gateway between being opened and being locked.
fn lock_file(path: &Path) -> Result<File, AuditError> {
    loop {
        let file = lock_opened(path)?;
        let held = file.metadata().map_err(failed("read", path))?;
        match fs::symlink_metadata(path) {
            Ok(named) if identity(&named) == identity(&held) => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("read", path)(error));
            }
            _ => {}
        }
    }
}

fn lock_opened(path: &Path) -> Result<File, AuditError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A link would take the records wherever its owner likes; a fifo would hold the start up.
        .custom_flags(
            (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK)
                .bits()
                .cast_signed(),
        )
        .open(path)
        .map_err(failed("open", path))?;
    let meta = file.metadata().map_err(failed("read", path))?;
    if !meta.is_file() {
        return Err(failed("open", path)(io::Error::other("it is not a file")));
    }
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => AuditError::InUse(path.to_owned()),
        TryLockError::Error(source) => failed("lock", path)(source),
    })?;
    file.set_permissions(Permissions::from_mode(0o600))
        .map_err(failed("set the mode of", path))?;
    Ok(file)
}

/// Copies the torn bytes beside the log, then cuts them off: in this order, or a power cut could lose them.
fn set_aside(
    dir: &Path,
    file: &File,
    whole_bytes: u64,
    torn: &[u8],
    path: &Path,
) -> Result<(), AuditError> {
    let mut number = 1_u32;
    let aside = loop {
        let aside = dir.join(format!("audit.torn-{number}"));
        if create_private_exclusive(&aside, torn)? == Created::Created {
            break aside;
        }
        number = number.saturating_add(1);
    };
    file.set_len(whole_bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed("repair", path))?;
    tracing::warn!(
        code = "audit_tail_repaired",
        bytes = torn.len(),
        moved_to = %aside.display(),
        "the last audit line was torn and never acknowledged"
    );
    Ok(())
}

fn new_log_id() -> Result<LogId, AuditError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| AuditError::Start("no random bytes"))?;
    Ok(LogId(id))
}

fn damaged(error: VerifyError) -> AuditError {
    AuditError::Damaged(Box::new(error))
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuditError + 'a {
    move |source| AuditError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
