//! Where a gateway keeps what outlives it. One gateway a folder: the lock says so.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The places in a state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePaths {
    folder: PathBuf,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be made or opened.
    #[error("state folder {path}: {source}; choose another with --state-dir")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can look into it.
    #[error("state folder {path} can be read by others (mode {mode:o}); run `chmod 700 {path}`")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another gateway has it.
    #[error(
        "another gateway uses the state folder {path}; stop it, or choose another folder with --state-dir"
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
}

impl StatePaths {
    /// The places below `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The operator's socket.
    #[must_use]
    pub fn operator_socket(&self) -> PathBuf {
        self.folder.join("operator.sock")
    }

    /// The folder of the token signing keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// The folder of the CA.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca")
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.ca().join("ca.crt")
    }

    /// The system's roots and the CA.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.ca().join("bundle.pem")
    }

    /// The folder of the audit trail, unless the configuration names another.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.folder.join("audit")
    }

    /// The folder of the key that signs the audit trail's heads.
    #[must_use]
    pub fn audit_key(&self) -> PathBuf {
        self.folder.join("audit-key")
    }

    /// The folder in which exporters remember how far they got.
    #[must_use]
    pub fn export(&self) -> PathBuf {
        self.folder.join("export")
    }

    /// The database of sessions and the denylist.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.folder.join("outgate.db")
    }

    /// What was last verified of the control plane that this gateway follows.
    #[must_use]
    pub fn last_state(&self) -> PathBuf {
        self.folder.join("control").join("last.state")
    }

    /// Makes the folder if it is missing, and takes its lock for as long as the returned value lives.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(&self) -> Result<StateLock, StateError> {
        let failed = |source| StateError::Io {
            path: self.folder.clone(),
            source,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(failed)?;
        let mode = std::fs::metadata(&self.folder)
            .map_err(failed)?
            .permissions()
            .mode()
            & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateError::Exposed {
                path: self.folder.clone(),
                mode,
            });
        }
        let path = self.folder.join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(StateLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse {
                path: self.folder.clone(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

/// A state folder that is this gateway's alone.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_gateway_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StatePaths::new(dir.path().join("state"));
        let lock = paths.open().unwrap();
        assert!(matches!(paths.open(), Err(StateError::InUse { .. })));
        drop(lock);
        paths.open().unwrap();
    }

    #[test]
    fn a_folder_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let opened = StatePaths::new(dir.path().to_owned()).open();
        assert!(matches!(
            opened,
            Err(StateError::Exposed { mode: 0o755, .. })
        ));
    }
}
