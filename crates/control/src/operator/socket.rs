//! The Unix socket's file: only the gateway's own user can open it, and none is left behind.

use std::{
    io,
    os::unix::net::UnixListener as StdUnixListener,
    path::{Path, PathBuf},
};

/// Binds the socket. A socket file that nobody listens on is replaced; the caller holds the state folder's lock.
///
/// # Errors
/// The path and why.
pub fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let explain =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(explain(error)),
        _ => {}
    }
    let listener = StdUnixListener::bind(path).map_err(explain)?;
    rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o600))
        .map_err(|e| explain(e.into()))?;
    Ok(listener)
}

/// Removes the socket file when the gateway ends.
#[derive(Debug)]
pub struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
