//! What the command sees of the file system: the host's, without other processes, devices, and what is hidden.
//!
//! Everything here is done by init in the sandbox's own mount namespace, before the command exists. The command has
//! no privilege in this namespace; in a user namespace of its own it gets a *copy* in which the kernel locks these
//! mounts together, so that none of them can be taken off or made writable.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};

use super::devices;
use super::mountinfo::{self, Mount};
use super::protocol::{Failure, Stage};
use crate::Plan;

/// A tmpfs that is gone at the end: what is bound from it stays. `/proc` is replaced anyway.
const STAGE: &str = "/proc";
const EMPTY_FOLDER: &str = "/proc/empty";
const EMPTY_FILE: &str = "/proc/none";
const RESOLV_CONF: &str = "/proc/resolv.conf";
const NEW_DEV: &str = "/proc/dev";

/// For what holds no programs and no devices.
pub(super) const NO_FILES: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Makes the view; `root` says that the invoking user is uid 0, whose files are the system's.
///
/// # Errors
/// The first step that failed: the command must not run.
pub(super) fn arrange(plan: &Plan, root: bool) -> Result<(), Failure> {
    // First: nothing below may travel to the host, and nothing from it may arrive.
    step(
        "make the mounts private",
        mount_change(
            "/",
            MountPropagationFlags::REC | MountPropagationFlags::PRIVATE,
        ),
    )?;
    let writable = if root {
        keep_writable(&plan.writable)?
    } else {
        vec![]
    };
    let mounts = mountinfo::read().map_err(|error| failure("read the mounts", &error))?;
    let terminal = devices::terminal();
    stage().map_err(|error| failure("prepare the sandbox's files", &error))?;
    devices::make(Path::new(NEW_DEV), terminal.as_deref())
        .map_err(|error| failure("make a /dev", &error))?;
    read_only(&plan.run_folder, Path::new(crate::RUN_FOLDER))
        .map_err(|error| failure("show the run folder", &error))?;
    if root {
        everything_read_only(&mounts, &writable)?;
    } else {
        mounts
            .iter()
            .filter(|mount| mount.point.starts_with("/sys"))
            .try_for_each(|mount| {
                skip_unreachable(remount(&mount.point, mount.flags | MountFlags::RDONLY))
                    .map_err(|error| failure("make /sys read-only", &error))
            })?;
    }
    pin(plan).map_err(|error| failure("hold the folders of what is hidden in place", &error))?;
    resolver().map_err(|error| failure("replace /etc/resolv.conf", &error))?;
    foreign_processes(&mounts)?;
    // Before anything is hidden: what is shown may lie there.
    plan.shown.iter().try_for_each(|(path, by)| {
        read_only(by, path)
            .map_err(|error| failure(&format!("show another {}", path.display()), &error))
    })?;
    plan.hidden.iter().try_for_each(|path| {
        hide(&mounts, path).map_err(|error| failure(&format!("hide {}", path.display()), &error))
    })?;
    plan.read_only.iter().try_for_each(|path| {
        read_only(path, path)
            .map_err(|error| failure(&format!("make {} read-only", path.display()), &error))
    })?;
    // Last: the stage is under it.
    new_proc(&mounts, root)
}

fn stage() -> io::Result<()> {
    mount("tmpfs", STAGE, "tmpfs", NO_FILES, Some(c"mode=0755"))?;
    std::fs::create_dir(EMPTY_FOLDER)?;
    std::fs::create_dir(NEW_DEV)?;
    File::create(EMPTY_FILE)?;
    std::fs::write(RESOLV_CONF, "nameserver 127.0.0.1\n")?;
    // What is bound from it inherits this.
    remount(Path::new(STAGE), NO_FILES | MountFlags::RDONLY)
}

/// A mount of its own for each, whose flags are then not those of the system around it.
fn keep_writable(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let real = paths
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect::<BTreeSet<_>>();
    for path in &real {
        step(
            &format!("keep {} writable", path.display()),
            mount_bind_recursive(path, path),
        )?;
    }
    Ok(real.into_iter().collect())
}

/// Root in the sandbox is root to the file permissions of the host, without any privilege. So nothing is writable but
/// what was asked for, and no device node on a disk opens anything.
fn everything_read_only(mounts: &[Mount], writable: &[PathBuf]) -> Result<(), Failure> {
    // A path means the last mount at it; `/dev` and `/proc` are replaced as a whole.
    let replaced =
        |mount: &&Mount| mount.point.starts_with("/dev") || mount.point.starts_with("/proc");
    for mount in mounts.iter().filter(|mount| !replaced(mount)) {
        let asked = writable.iter().any(|path| mount.point.starts_with(path));
        let seen = mounts
            .iter()
            .rev()
            .find(|last| last.point == mount.point)
            .unwrap_or(mount);
        let read_only = if asked {
            MountFlags::empty()
        } else {
            MountFlags::RDONLY
        };
        let name = format!("make {} read-only", mount.point.display());
        skip_unreachable(remount(
            &mount.point,
            seen.flags | MountFlags::NODEV | read_only,
        ))
        .map_err(|error| failure(&name, &error))?;
        // A skipped one must be one that nobody can reach.
        let state = rustix::fs::statvfs(&mount.point);
        if !asked
            && state
                .is_ok_and(|state| !state.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
        {
            return Err(failure(&name, &io::ErrorKind::PermissionDenied.into()));
        }
    }
    Ok(())
}

/// Makes a mount point of every folder above what is hidden or read-only that the command could rename: what it renames
/// stays covered, but the next run, or the next gateway, would find what the command puts in its place.
fn pin(plan: &Plan) -> io::Result<()> {
    let protected = plan.hidden.iter().chain(&plan.read_only);
    let real: BTreeSet<_> = protected
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let folders: BTreeSet<_> = real
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .collect();
    // In this order a folder comes before those in it.
    for folder in folders {
        let renamed = folder
            .parent()
            .is_some_and(|parent| rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok());
        if renamed {
            mount_bind_recursive(folder, folder)?;
        }
    }
    Ok(())
}

fn resolver() -> io::Result<()> {
    // Without the file, or with a link to nothing, resolvers ask 127.0.0.1 by themselves.
    match std::fs::canonicalize("/etc/resolv.conf") {
        Ok(real) => Ok(mount_bind(RESOLV_CONF, real)?),
        Err(_) => Ok(()),
    }
}

/// Another mount of `/proc` would show the host's processes; an unused automounter would be asked by a look.
fn foreign_processes(mounts: &[Mount]) -> Result<(), Failure> {
    let used = |point: &Path| {
        mounts
            .iter()
            .any(|mount| mount.kind != "autofs" && mount.point.starts_with(point))
    };
    let other = mounts
        .iter()
        .filter(|mount| !mount.point.starts_with("/proc") && !mount.point.starts_with("/dev"));
    let foreign = other
        .filter(|mount| mount.kind == "proc" || (mount.kind == "autofs" && !used(&mount.point)));
    foreign
        .map(|mount| mount.point.as_path())
        .try_for_each(|point| {
            skip_unreachable(cover(point))
                .map_err(|error| failure(&format!("cover {}", point.display()), &error))
        })
}

/// Covers the path, and every bind mount by which it could be read around the cover.
fn hide(mounts: &[Mount], path: &Path) -> io::Result<()> {
    let Ok(real) = path.canonicalize() else {
        return Ok(());
    };
    let others = mountinfo::other_paths(mounts, &real);
    cover(&real)?;
    others
        .iter()
        .try_for_each(|other| skip_unreachable(cover(other)))
}

fn cover(path: &Path) -> io::Result<()> {
    let empty = if path.symlink_metadata()?.is_dir() {
        EMPTY_FOLDER
    } else {
        EMPTY_FILE
    };
    Ok(mount_bind(empty, path)?)
}

/// Shows `what` at `place`, and lets nobody write to it there. A place that does not exist shows nothing.
fn read_only(what: &Path, place: &Path) -> io::Result<()> {
    let Ok(real) = place.canonicalize() else {
        return Ok(());
    };
    mount_bind(what, &real)?;
    let mounts = mountinfo_flags(&real)?;
    remount(&real, mounts | MountFlags::RDONLY)
}

/// The flags of the mount at `folder`, which an unprivileged remount has to repeat.
fn mountinfo_flags(folder: &Path) -> io::Result<MountFlags> {
    let flags = rustix::fs::statvfs(folder)?.f_flag;
    let pairs = [
        (rustix::fs::StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (rustix::fs::StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    Ok(pairs
        .into_iter()
        .filter(|(seen, _)| flags.contains(*seen))
        .map(|(_, flag)| flag)
        .collect())
}

fn new_proc(mounts: &[Mount], root: bool) -> Result<(), Failure> {
    step("take the stage down", unmount(STAGE, UnmountFlags::DETACH))?;
    // The kernel wants the access-time options of the mount that is there.
    let times = mounts
        .iter()
        .rev()
        .find(|mount| mount.point == Path::new("/proc"))
        .map(|mount| mount.times);
    let times = times
        .filter(|times| !times.is_empty())
        .unwrap_or(MountFlags::STRICTATIME);
    step(
        super::FRESH_PROC,
        mount("proc", "/proc", "proc", NO_FILES | times, None),
    )?;
    if root {
        settings_read_only().map_err(|error| failure("make /proc read-only", &error))
    } else {
        Ok(())
    }
}

/// Whatever in `/proc` is not about one process is about the machine: settings that root may write by owning them
/// (`sys/kernel/core_pattern` names a program that the host runs as root, `sysrq-trigger` ends the machine).
fn settings_read_only() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let process = name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
        let kind = entry.metadata()?;
        if process || kind.is_symlink() || (kind.is_file() && kind.mode() & 0o222 == 0) {
            continue;
        }
        mount_bind(entry.path(), entry.path())?;
        remount(&entry.path(), NO_FILES | MountFlags::RDONLY)?;
    }
    Ok(())
}

pub(super) fn remount(path: &Path, flags: MountFlags) -> io::Result<()> {
    Ok(mount_remount(path, MountFlags::BIND | flags, "")?)
}

/// A mount point under another mount has no path (or one that means another file): nobody gets there.
fn skip_unreachable(result: io::Result<()>) -> io::Result<()> {
    use rustix::io::Errno;
    let unreachable =
        [Errno::NOENT, Errno::ACCESS, Errno::NOTDIR, Errno::INVAL].map(Errno::raw_os_error);
    match result {
        Err(error)
            if error
                .raw_os_error()
                .is_some_and(|errno| unreachable.contains(&errno)) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn step(name: &str, result: rustix::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|errno| failure(name, &errno.into()))
}

fn failure(name: &str, error: &io::Error) -> Failure {
    Failure::new(Stage::Mount, name, error)
}
