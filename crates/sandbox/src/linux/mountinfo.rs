//! `/proc/self/mountinfo` (proc(5)): what is mounted where, and by which other paths the same files can be reached.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// `major:minor` of the file system.
    device: String,
    /// The folder of the file system that is mounted.
    root: PathBuf,
    pub(super) point: PathBuf,
    /// The options that a remount would drop if they were not repeated. (Those on access times stay.)
    pub(super) flags: MountFlags,
    /// The options on access times.
    pub(super) times: MountFlags,
    pub(super) kind: String,
}

/// All mounts in the order in which they were made.
pub(super) fn read() -> io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let lines = text
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| parse(line).ok_or_else(|| io::ErrorKind::InvalidData.into()))
        .collect()
}

/// Every path that shows the file or folder at `path` or a part of it, other than `path` itself: bind mounts.
pub(super) fn other_paths(mounts: &[Mount], path: &Path) -> Vec<PathBuf> {
    // Of two mounts at one point the later one is seen.
    let Some(own) = mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.depth())
    else {
        return vec![];
    };
    let inside = own
        .root
        .join(path.strip_prefix(&own.point).unwrap_or(Path::new("")));
    let same = mounts.iter().filter(|mount| mount.device == own.device);
    let others = same.filter_map(|mount| match inside.strip_prefix(&mount.root) {
        Ok(rest) if rest.as_os_str().is_empty() => Some(mount.point.clone()),
        Ok(rest) => Some(mount.point.join(rest)),
        Err(_) => mount.root.starts_with(&inside).then(|| mount.point.clone()),
    });
    others.filter(|other| other != path).collect()
}

impl Mount {
    fn depth(&self) -> usize {
        self.point.components().count()
    }
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/x rw`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut words = words.by_ref().skip(2);
    let device = String::from_utf8_lossy(words.next()?).into_owned();
    let (root, point) = (unescape(words.next()?), unescape(words.next()?));
    let (mut flags, mut times) = (MountFlags::empty(), MountFlags::empty());
    for option in words.next()?.split(|byte| *byte == b',') {
        match option {
            b"ro" => flags |= MountFlags::RDONLY,
            b"nosuid" => flags |= MountFlags::NOSUID,
            b"nodev" => flags |= MountFlags::NODEV,
            b"noexec" => flags |= MountFlags::NOEXEC,
            b"nosymfollow" => flags |= MountFlags::NOSYMFOLLOW,
            b"noatime" => times |= MountFlags::NOATIME,
            b"nodiratime" => times |= MountFlags::NODIRATIME,
            b"relatime" => times |= MountFlags::RELATIME,
            _ => {}
        }
    }
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    Some(Mount {
        device,
        root,
        point,
        flags,
        times,
        kind: String::from_utf8_lossy(kind).into_owned(),
    })
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => bytes.push(*first),
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: &str, root: &str, point: &str) -> Mount {
        parse(format!("1 1 {device} {root} {point} rw - ext4 x rw").as_bytes()).unwrap()
    }

    #[test]
    fn a_line_is_read() {
        let line = br"36 35 98:0 /a\040b /mnt\134x ro,nosuid,relatime master:1 shared:2 - fuse.sshfs /dev/x rw";
        let read = parse(line).unwrap();
        assert_eq!(
            (read.root.as_path(), read.point.as_path()),
            (Path::new("/a b"), Path::new(r"/mnt\x"))
        );
        assert_eq!(read.flags, MountFlags::RDONLY | MountFlags::NOSUID);
        assert_eq!(
            (read.times, read.kind.as_str()),
            (MountFlags::RELATIME, "fuse.sshfs")
        );
        assert_eq!(parse(b"36 35 98:0 / /mnt rw"), None);
    }

    #[test]
    fn bind_mounts_of_what_is_hidden_are_found() {
        let mounts = [
            mount("8:1", "/", "/"),
            mount("8:1", "/home/u", "/srv/u"),
            mount("8:1", "/home/u/state/keys", "/keys"),
            mount("8:1", "/etc", "/other"),
            mount("8:2", "/", "/disk"),
        ];
        let found = other_paths(&mounts, Path::new("/home/u/state"));
        assert_eq!(
            found,
            [PathBuf::from("/srv/u/state"), PathBuf::from("/keys")]
        );
        let found = other_paths(&mounts, Path::new("/srv/u/state"));
        assert_eq!(
            found,
            [PathBuf::from("/home/u/state"), PathBuf::from("/keys")]
        );
        assert!(other_paths(&mounts, Path::new("/disk/x")).is_empty());
    }
}
