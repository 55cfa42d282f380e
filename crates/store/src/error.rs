//! Why a store is not used, in words that name the file and, where the operator can mend it, how.

use std::path::Path;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreFault {
    /// The file cannot be opened or read.
    Unreadable,
    /// What is in it is not what was written, or not ours.
    Corrupt,
    /// It is gone, empty, or another file.
    Missing,
    /// A later release wrote it.
    Newer,
    /// Other users can read or change it.
    Exposed,
    /// A change could not be put on disk.
    WriteFailed,
    /// The store was closed.
    Closed,
    /// The session exists already.
    Exists,
    /// The store was opened for reading.
    ReadOnly,
}

impl StoreFault {
    /// The stable word for it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "store_unreadable",
            Self::Corrupt => "store_corrupt",
            Self::Missing => "store_missing",
            Self::Newer => "store_newer",
            Self::Exposed => "store_exposed",
            Self::WriteFailed => "store_write_failed",
            Self::Closed => "store_closed",
            Self::Exists => "store_exists",
            Self::ReadOnly => "store_read_only",
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Corrupt => {
                "; what was revoked stands in it: restore it from a copy, or remove it and the signing keys too (`keys` \
                 beside it), so that no token out there is good any more"
            }
            Self::Missing => {
                "; what was revoked stands in it: restore it from a copy, or remove the signing keys too (`keys` beside it), \
                 so that no token out there is good any more"
            }
            Self::Newer => "; start the release that wrote it, or a later one",
            Self::Unreadable | Self::WriteFailed => {
                "; check the disk, and that the file is the gateway's own"
            }
            Self::Exposed | Self::Closed | Self::Exists | Self::ReadOnly => "",
        }
    }
}

/// A failure of the store. Never holds what a change would have written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}{} ({})", .fault.remedy(), .fault.code())]
pub struct StoreError {
    fault: StoreFault,
    place: String,
    detail: String,
}

impl StoreError {
    /// A failure of the store at `path`.
    #[must_use]
    pub fn new(fault: StoreFault, path: &Path, detail: impl ToString) -> Self {
        Self {
            fault,
            place: path.display().to_string(),
            detail: detail.to_string(),
        }
    }

    /// What kind it is.
    #[must_use]
    pub const fn fault(&self) -> StoreFault {
        self.fault
    }

    /// The stable word for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.fault.code()
    }
}
