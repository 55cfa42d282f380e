//! Why there is no sandbox, in words that say whose move it is.

/// Every way in which a sandbox fails to be made or to start a command.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This machine does not let this user make namespaces.
    #[error("this machine does not allow the isolation: {why}. {how_to}")]
    Forbidden {
        /// What was refused, and the setting that is to blame where that can be seen.
        why: String,
        /// What an administrator can do.
        how_to: String,
    },
    /// There is no such isolation on this operating system.
    #[error("isolation needs Linux")]
    Unavailable,
    /// The plan cannot be carried out.
    #[error("{0}")]
    Plan(String),
    /// A standard stream would be a way out.
    #[error(
        "standard {stream} is {what}, which would be a way out of the sandbox: give a pipe, a file or a terminal"
    )]
    Stream {
        /// `input`, `output` or `error`.
        stream: String,
        /// What it is.
        what: String,
    },
    /// The command is not on the PATH, or its path does not exist. A shell's exit status for it is 127.
    #[error("{program}: not found")]
    NotFound {
        /// As it was asked for.
        program: String,
    },
    /// The command is there, but cannot be executed. A shell's exit status for it is 126.
    #[error("{program}: cannot be executed: {why}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// The kernel's word for it.
        why: String,
    },
    /// A step of the set-up failed.
    #[error("cannot {step}: {why}")]
    Setup {
        /// What was being done.
        step: String,
        /// The kernel's word for it.
        why: String,
    },
    /// The helper process ended unexpectedly; with it, everything in the sandbox.
    #[error("the sandbox's helper process ended unexpectedly")]
    Lost,
}

impl SandboxError {
    /// A stable name for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Forbidden { .. } => "isolation_forbidden",
            Self::Unavailable => "isolation_unavailable",
            Self::Plan(_) => "invalid_plan",
            Self::Stream { .. } => "stream_not_allowed",
            Self::NotFound { .. } => "command_not_found",
            Self::NotExecutable { .. } => "command_not_executable",
            Self::Setup { .. } => "sandbox_setup_failed",
            Self::Lost => "sandbox_lost",
        }
    }

    /// What a shell would end with: 127 not found, 126 not executable, 125 for a failure of our own.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}
