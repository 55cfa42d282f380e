//! Decides whether what is on disk may be continued: only if its end verifies and agrees with the head file. The one
//! thing that is mended is a last line without its line break, which a killed writer leaves and which nobody was told
//! is on disk.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use outgate_state::{Created, create_private_dir, create_private_exclusive};

use crate::{
    RECORDS_FILE,
    chain::{ChainEnd, LogId, MAX_LINE},
    error::{AuditError, Problem, VerifyError},
    head::Head,
    ocsf::LogEvent,
    store::{FileStore, Store},
    verify::{Checker, founding_log_id},
};

/// How much of the end is checked when a log is opened.
const TAIL: u64 = 4 * MAX_LINE as u64;

/// A log ready to be written to.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    pub(crate) store: S,
    pub(crate) end: ChainEnd,
    pub(crate) log: LogId,
    pub(crate) path: PathBuf,
}

/// Opens or founds the log in a directory.
pub(crate) fn open_log(dir: &Path) -> Result<Opened<FileStore>, AuditError> {
    create_private_dir(dir)?;
    let path = dir.join(RECORDS_FILE);
    let file = lock_file(&path)?;
    let io = |doing| failed(doing, &path);
    let head = Head::read(dir).map_err(damaged)?;
    let size = file.metadata().map_err(io("read"))?.len();
    let tail = read_tail(&file, size, &path, head.as_ref()).map_err(damaged)?;
    if let Some(torn) = &tail.torn {
        set_aside(dir, &file, tail.whole_bytes, torn, &path)?;
    }
    let store = FileStore::new(file, dir, path.clone(), tail.whole_bytes).map_err(io("read"))?;
    let (end, log, torn) = match tail.end {
        Some((end, log)) => (end, log, tail.torn),
        None => {
            let log = new_log_id()?;
            (ChainEnd::genesis(log), log, None)
        }
    };
    let mut opened = Opened {
        store,
        end,
        log,
        path,
    };
    opened.begin(torn.map(|bytes| bytes.len()))?;
    Ok(opened)
}

impl Opened<FileStore> {
    /// Writes what the log says about itself, and a head file that is up to date.
    fn begin(&mut self, torn: Option<usize>) -> Result<(), AuditError> {
        let id = self.log.text();
        let time = modified_unix_ms(&self.path)?;
        let mut line = Vec::new();
        let written = if self.end.next_seq == 0 {
            self.end.append(&mut line, &LogEvent::created(&id, time))
        } else if let Some(bytes) = torn {
            let detail = format!(
                "the last line was torn and never acknowledged: {bytes} bytes were set aside"
            );
            self.end
                .append(&mut line, &LogEvent::repaired(&id, time, &detail))
        } else {
            Ok(())
        };
        written.map_err(|_| AuditError::Start("its own record cannot be written"))?;
        let fault = |fault: crate::store::StoreFault| AuditError::Io {
            doing: "write",
            path: self.path.clone(),
            source: io::Error::other(fault.to_string()),
        };
        if !line.is_empty() {
            self.store.append(&line).map_err(fault)?;
        }
        let head = Head {
            log: self.log,
            seq: self.end.next_seq.saturating_sub(1),
            hash: self.end.prev,
        };
        self.store.write_head(&head).map_err(fault)
    }
}

fn lock_file(path: &Path) -> Result<File, AuditError> {
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

/// The end of the file, judged.
struct Tail {
    /// `None` where no line is whole yet.
    end: Option<(ChainEnd, LogId)>,
    whole_bytes: u64,
    /// What stands behind the last line break.
    torn: Option<Vec<u8>>,
}

fn read_tail(
    file: &File,
    size: u64,
    path: &Path,
    head: Option<&Head>,
) -> Result<Tail, VerifyError> {
    let unreadable = |source| VerifyError::Io {
        path: path.to_owned(),
        source,
    };
    let start = size.saturating_sub(TAIL);
    let bytes = read_range(file, start, size).map_err(unreadable)?;
    let whole = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let (lines, torn) = bytes.split_at_checked(whole).unwrap_or_default();
    let torn_len = u64::try_from(torn.len()).unwrap_or(u64::MAX);
    let broken = |seq, problem| VerifyError::Broken {
        file: path.to_owned(),
        line: None,
        seq,
        problem,
    };
    if torn.len() > MAX_LINE {
        return Err(broken(None, Problem::TooLong));
    }
    let torn = (!torn.is_empty()).then(|| torn.to_vec());
    let whole_bytes = size.saturating_sub(torn_len);
    if whole_bytes == 0 {
        return match head {
            Some(head) => Err(broken(None, Problem::Truncated { head: head.seq })),
            None => Ok(Tail {
                end: None,
                whole_bytes,
                torn,
            }),
        };
    }
    let first = read_range(file, 0, size.min(MAX_LINE as u64)).map_err(unreadable)?;
    let first = first.split(|b| *b == b'\n').next().unwrap_or_default();
    let log = founding_log_id(first).ok_or_else(|| broken(Some(0), Problem::NotALog))?;
    let mut checker = match start {
        0 => Checker::from_genesis(log, head),
        _ => Checker::from_anywhere(log, head),
    };
    let mut lines = lines.split_inclusive(|b| *b == b'\n');
    if start > 0 {
        // The first one may have lost its beginning.
        lines.next();
    }
    for line in lines {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        checker
            .take(line)
            .map_err(|found| broken(found.seq, found.problem))?;
    }
    let end = checker
        .finish()
        .map_err(|found| broken(found.seq, found.problem))?;
    if head.is_none() && end.next_seq > 1 {
        return Err(broken(None, Problem::HeadMissing));
    }
    Ok(Tail {
        end: Some((end, log)),
        whole_bytes,
        torn,
    })
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

fn read_range(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

fn new_log_id() -> Result<LogId, AuditError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| AuditError::Start("no random bytes"))?;
    Ok(LogId(id))
}

/// The log has no clock; the file system has: what just happened to the file is the event that is recorded.
fn modified_unix_ms(path: &Path) -> Result<u64, AuditError> {
    let modified = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .map_err(failed("read", path))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
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
