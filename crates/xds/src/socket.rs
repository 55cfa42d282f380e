//! The Unix socket's file. Only its owner can open it, from the moment that it is there; what a dead process left is
//! replaced, what a living one listens on is not, and nothing that is no socket is ever removed.

use std::{
    fs::{File, Metadata},
    io::{Error, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, chmod, flock},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use crate::fault::DoorFault;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Removes the file on drop, if it is still the one that was made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Listens there.
pub(crate) fn listen_at(path: &Path) -> Result<(UnixListener, SocketFile), DoorFault> {
    let fault = |error: Error| DoorFault::Socket(path.to_owned(), error);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Of two that find a dead process's socket, the second would otherwise remove the first one's living one.
    let folder = File::open(folder).map_err(fault)?;
    flock(&folder, FlockOperation::LockExclusive).map_err(|e| fault(e.into()))?;
    clear(path)?;
    let socket = bound(path).map_err(|e| fault(e.into()))?;
    let made = path.symlink_metadata().map_err(fault)?;
    let file = SocketFile {
        path: path.to_owned(),
        device: made.dev(),
        inode: made.ino(),
    };
    // Until it listens nobody is let in, so that nobody comes before the mode is set.
    chmod(path, Mode::RUSR | Mode::WUSR).map_err(|e| fault(e.into()))?;
    listen(&socket, BACKLOG).map_err(|e| fault(e.into()))?;
    Ok((UnixListener::from(socket), file))
}

fn bound(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Removes what a dead process left.
fn clear(path: &Path) -> Result<(), DoorFault> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(DoorFault::Socket(path.to_owned(), error)),
        Ok(found) if !is_socket(&found) => return Err(DoorFault::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| DoorFault::Socket(path.to_owned(), error))
        }
        // Its queue may be full, or it may not be ours to open: somebody has it.
        Ok(_) | Err(_) => Err(DoorFault::InUse(path.to_owned())),
    }
}

fn is_socket(found: &Metadata) -> bool {
    found.file_type().is_socket()
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self
            .path
            .symlink_metadata()
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let (listener, file) = listen_at(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_processs_socket_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_living, _file) = listen_at(&path).unwrap();
        assert!(matches!(listen_at(&path), Err(DoorFault::InUse(_))));
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(listen_at(&path), Err(DoorFault::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(listen_at(&link), Err(DoorFault::NotASocket(_))));
        let nowhere = folder.path().join("missing/x.sock");
        assert!(matches!(
            listen_at(&nowhere),
            Err(DoorFault::Socket(_, error)) if error.kind() == ErrorKind::NotFound
        ));
    }

    #[test]
    fn a_socket_that_somebody_else_made_meanwhile_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let (_listener, file) = listen_at(&path).unwrap();
        std::fs::rename(&path, folder.path().join("away")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(file);
        assert!(path.exists());
    }
}
