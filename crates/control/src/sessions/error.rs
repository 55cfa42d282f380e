//! Why a change was not made, or not yet on disk.

use outgate_store::StoreError;

/// Why the registry did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Nothing is created while the kill switch is on.
    #[error("the kill switch is on")]
    KillSwitchOn,
    /// There are as many live sessions as there may be.
    #[error("there are {limit} live sessions already, which is as many as there may be")]
    QuotaExceeded {
        /// How many there may be.
        limit: u32,
    },
    /// The id was used before.
    #[error("the session exists already")]
    Exists,
    /// There is no such session.
    #[error("there is no such session")]
    Unknown,
    /// The session is over, or its last token has run out.
    #[error("the session is over")]
    NotLive,
    /// An entry of the denylist would have lapsed before it began.
    #[error("`until` is not in the future")]
    UntilPassed,
    /// The store. A revocation is in effect all the same, and is tried again every second.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RegistryError {
    /// The stable word for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::KillSwitchOn => "kill_switch",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::Exists => "session_exists",
            Self::Unknown => "unknown_session",
            Self::NotLive => "session_over",
            Self::UntilPassed => "until_passed",
            Self::Store(error) => error.code(),
        }
    }
}
