//! The sandbox's `/dev`: what programs need, and nothing that is the host's but its terminal.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount, mount_bind, mount_move, mount_remount};

use super::mounts::{NO_FILES, remount};

/// Device nodes without which programs do not run. No other one: to root they would be the disks.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The terminal's device, if one of the standard streams is one.
pub(super) fn terminal() -> Option<PathBuf> {
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [as_fd(&input), as_fd(&output), as_fd(&error)];
    let (number, stream) = streams
        .into_iter()
        .enumerate()
        .find(|(_, stream)| rustix::termios::isatty(stream))?;
    let path = std::fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
    let (device, file) = (rustix::fs::fstat(stream).ok()?, path.metadata().ok()?);
    // A terminal of another instance (a container's) has a path that means something else here.
    (file.file_type().is_char_device()
        && file.rdev() == device.st_rdev
        && file.dev() == device.st_dev)
        .then_some(path)
}

fn as_fd(stream: &impl std::os::fd::AsFd) -> BorrowedFd<'_> {
    stream.as_fd()
}

/// Makes it at `dev`, and moves it to `/dev`.
pub(super) fn make(dev: &Path, terminal: Option<&Path>) -> io::Result<()> {
    mount(
        "tmpfs",
        dev,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(c"mode=0755"),
    )?;
    let own = DEVICES.map(|name| (Path::new("/dev").join(name), name));
    let console = terminal.map(|path| (path.to_path_buf(), "console"));
    for (host, name) in own
        .into_iter()
        .chain(console)
        .filter(|(host, _)| host.exists())
    {
        let target = dev.join(name);
        File::create(&target)?;
        mount_bind(&host, &target)?;
        // Root owns the host's node: read-only keeps its mode and owner from being changed, not its use.
        mount_remount(
            &target,
            MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC,
            "",
        )?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(target, dev.join(name))?;
    }
    // For the run folder.
    if let Ok(place) = Path::new(crate::RUN_FOLDER).strip_prefix("/dev") {
        std::fs::create_dir(dev.join(place))?;
    }
    std::fs::create_dir(dev.join("shm"))?;
    mount(
        "tmpfs",
        dev.join("shm"),
        "tmpfs",
        NO_FILES.difference(MountFlags::NOEXEC),
        Some(c"mode=1777"),
    )?;
    std::fs::create_dir(dev.join("pts"))?;
    let options = Some(c"newinstance,ptmxmode=0666,mode=0620");
    mount(
        "devpts",
        dev.join("pts"),
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        options,
    )?;
    remount(
        dev,
        MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::RDONLY,
    )?;
    Ok(mount_move(dev, "/dev")?)
}
