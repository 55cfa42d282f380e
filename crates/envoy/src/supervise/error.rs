//! Why there is no Envoy, in words that say whose move it is.

use std::{io, path::PathBuf};

use outgate_state::StateError;

use super::{OLDEST, Version};

/// Every way in which Envoy fails to be started.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// No Envoy on the PATH.
    #[error(
        "there is no `envoy` on the PATH; install Envoy {OLDEST} or later, or name the program with --envoy PATH"
    )]
    NotOnPath,
    /// The named program cannot be used.
    #[error("{path}: {why}; give the path of an Envoy {OLDEST} or later with --envoy", path = .path.display())]
    Unusable {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It does not know what the configuration needs.
    #[error(
        "{path} is Envoy {found}, and {OLDEST} is the oldest that knows what the configuration needs; install a newer one, or name it with --envoy",
        path = .path.display()
    )]
    TooOld {
        /// Its path.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
    /// The kernel takes the deadly signal back from programs with privileges of their own.
    #[error(
        "{path} has {privilege}, so it would go on without its supervisor; take that from the file, and give this process the capability instead (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)",
        path = .path.display()
    )]
    Privileged {
        /// Its path.
        path: PathBuf,
        /// Which.
        privilege: &'static str,
    },
    /// Envoy refused the configuration.
    #[error(
        "Envoy refuses the configuration: {text}. It is in {file}; if the text names an extension, this build of Envoy lacks it",
        file = .file.display()
    )]
    ConfigRefused {
        /// What Envoy said.
        text: String,
        /// The file that it was asked about.
        file: PathBuf,
    },
    /// A flag that would take Envoy out of the supervisor's hands.
    #[error("the flag {flag} cannot be passed on to Envoy: {why}")]
    Flag {
        /// As it was written.
        flag: String,
        /// Why, and what to do instead.
        why: &'static str,
    },
    /// A Unix socket's path is longer than the kernel takes.
    #[error(
        "the path of Envoy's socket is longer than 107 bytes: {path}; choose a shorter state folder with --state-dir",
        path = .0.display()
    )]
    SocketPath(PathBuf),
    /// Another supervisor has the folder.
    #[error(
        "another `outgate envoy run` has {folder}; end it, or give this one a state folder of its own with --state-dir",
        folder = .0.display()
    )]
    InUse(PathBuf),
    /// It ended before it had started, and would again.
    #[error("Envoy did not start: {how}{said}")]
    NeverStarted {
        /// How it ended.
        how: String,
        /// Its last words, each on a line.
        said: String,
    },
    /// Something in the state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The operating system refused.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        source: io::Error,
    },
}

impl SuperviseError {
    /// A stable word for it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotOnPath => "envoy_not_found",
            Self::Unusable { .. } => "envoy_unusable",
            Self::TooOld { .. } => "envoy_too_old",
            Self::Privileged { .. } => "envoy_privileged",
            Self::ConfigRefused { .. } => "envoy_config_refused",
            Self::Flag { .. } => "envoy_flag_refused",
            Self::SocketPath(_) => "envoy_socket_path_too_long",
            Self::InUse(_) => "envoy_folder_in_use",
            Self::NeverStarted { .. } => "envoy_not_started",
            Self::State(_) => "state_unusable",
            Self::Io { .. } => "system_error",
        }
    }
}

/// For `map_err`.
pub(super) fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> SuperviseError {
    move |source| SuperviseError::Io { doing, source }
}
