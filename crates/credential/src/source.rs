//! Reading a secret from its source. Refuses a value that is absent, empty, larger than 64 KiB, or not in a regular
//! file; warns about a file that others can read, a value that is too short to be told from ordinary text, and a
//! value that one of its forms cannot carry.

use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Read},
    path::Path,
};

use outgate_journey::policy::{CredentialName, CredentialSource};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The longest secret, in bytes.
const LONGEST: usize = 64 * 1024;
/// A secret shorter than this is likely to be found in ordinary text.
const SHORT: usize = 8;

/// What is wrong with a credential's source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceCode {
    /// There is no such variable or file.
    Missing,
    /// The value is empty.
    Empty,
    /// The value is longer than 64 KiB.
    TooLong,
    /// The file cannot be read.
    Unreadable,
    /// The path does not lead to a regular file.
    NotAFile,
    /// Warning: users other than the owner and the members of the gateway's own groups can read the file.
    ReadableByOthers,
    /// Warning: shorter than 8 bytes, so that scrubbing also hits ordinary text.
    Short,
    /// Nothing was heard yet from the server that has the value.
    Unheard,
    /// The server was not heard of for longer than `max_age`.
    Stale,
    /// The server's secret is of another kind, as a certificate is.
    NotGeneric,
    /// The value is a session token of this gateway.
    SessionToken,
    /// A form that the credential is used in cannot carry the value: requests with it are refused.
    Unfit,
}

impl SourceCode {
    /// The word for logs and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Empty => "empty",
            Self::TooLong => "too_long",
            Self::Unreadable => "unreadable",
            Self::NotAFile => "not_a_file",
            Self::ReadableByOthers => "readable_by_others",
            Self::Short => "short",
            Self::Unheard => "unheard",
            Self::Stale => "stale",
            Self::NotGeneric => "not_generic",
            Self::SessionToken => "session_token",
            Self::Unfit => "unfit",
        }
    }

    /// Whether the credential can be used all the same.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        matches!(self, Self::ReadableByOthers | Self::Short)
    }
}

/// A problem of one credential's source. Says where, never what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceProblem {
    /// Which credential.
    pub name: CredentialName,
    /// What is wrong.
    pub code: SourceCode,
    /// The variable, the path or the server.
    pub place: String,
}

impl SourceProblem {
    pub(crate) fn new(name: &CredentialName, code: SourceCode, source: &CredentialSource) -> Self {
        Self {
            name: name.clone(),
            code,
            place: place(source),
        }
    }
}

impl fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, code, place } = self;
        match code {
            SourceCode::Missing => write!(f, "credential {name}: {place} does not exist"),
            SourceCode::Empty => write!(f, "credential {name}: {place} is empty"),
            SourceCode::TooLong => write!(f, "credential {name}: {place} is longer than 64 KiB"),
            SourceCode::Unreadable => write!(f, "credential {name}: {place} cannot be read"),
            SourceCode::NotAFile => write!(f, "credential {name}: {place} is not a regular file"),
            SourceCode::ReadableByOthers => {
                write!(
                    f,
                    "credential {name}: {place} is readable by other users; set its mode to 0600, or to 0440 with a group of the gateway's"
                )
            }
            SourceCode::Short => write!(
                f,
                "credential {name}: {place} holds fewer than 8 bytes; ordinary text in answers may be masked"
            ),
            SourceCode::Unheard => {
                write!(f, "credential {name}: nothing was heard yet of {place}")
            }
            SourceCode::Stale => write!(
                f,
                "credential {name}: nothing was heard of {place} for longer than max_age"
            ),
            SourceCode::NotGeneric => {
                write!(f, "credential {name}: {place} is not a generic secret")
            }
            SourceCode::SessionToken => write!(
                f,
                "credential {name}: {place} is a session token of this gateway, not a key"
            ),
            SourceCode::Unfit => {
                write!(
                    f,
                    "credential {name}: {place} holds bytes that cannot be sent in the rule's form"
                )
            }
        }
    }
}

fn place(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Env(variable) => format!("the environment variable {variable}"),
        CredentialSource::File(path) => path.display().to_string(),
        CredentialSource::Sds(sds) => format!("the secret {} of {}", sds.name, sds.address),
    }
}

/// A value and what is worth a warning about it.
pub(crate) struct Reading {
    pub(crate) secret: Secret,
    pub(crate) warnings: Vec<SourceCode>,
}

/// Reads a source. One that is told by a server has nothing to read.
///
/// # Errors
/// A code that is no warning.
pub(crate) fn read(source: &CredentialSource) -> Result<Reading, SourceCode> {
    let (bytes, shared) = match source {
        CredentialSource::Env(variable) => (read_variable(variable)?, false),
        CredentialSource::File(path) => read_file(path)?,
        CredentialSource::Sds(_) => return Err(SourceCode::Unheard),
    };
    judge(bytes, shared)
}

/// Judges a value, wherever it comes from; `shared`: others can read it there.
///
/// # Errors
/// A code that is no warning.
pub(crate) fn judge(bytes: Zeroizing<Vec<u8>>, shared: bool) -> Result<Reading, SourceCode> {
    if bytes.is_empty() {
        return Err(SourceCode::Empty);
    }
    if bytes.len() > LONGEST {
        return Err(SourceCode::TooLong);
    }
    let short = (bytes.len() < SHORT).then_some(SourceCode::Short);
    let warnings = shared
        .then_some(SourceCode::ReadableByOthers)
        .into_iter()
        .chain(short)
        .collect();
    Ok(Reading {
        secret: Secret::new(bytes),
        warnings,
    })
}

fn read_variable(variable: &str) -> Result<Zeroizing<Vec<u8>>, SourceCode> {
    let is_lawful = !variable.is_empty() && !variable.contains(['=', '\0']);
    let value = is_lawful
        .then(|| std::env::var_os(variable))
        .flatten()
        .ok_or(SourceCode::Missing)?;
    Ok(Zeroizing::new(value.into_encoded_bytes()))
}

/// The buffer has room for the longest value from the start: one that grows would leave unwiped copies behind.
fn read_file(path: &Path) -> Result<(Zeroizing<Vec<u8>>, bool), SourceCode> {
    // Judged before opening as well: opening a pipe would wait for its writer.
    let is_regular = |found: &Metadata| {
        if found.is_file() {
            Ok(())
        } else {
            Err(SourceCode::NotAFile)
        }
    };
    is_regular(&std::fs::metadata(path).map_err(|fault| code_of(&fault))?)?;
    let file = File::open(path).map_err(|fault| code_of(&fault))?;
    let found = file.metadata().map_err(|fault| code_of(&fault))?;
    is_regular(&found)?;
    let most = LONGEST + "\r\n".len() + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    let limit = u64::try_from(most).map_err(|_| SourceCode::TooLong)?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(|fault| code_of(&fault))?;
    let kept = value_in_file(&bytes).len();
    bytes.truncate(kept);
    Ok((bytes, outgate_state::is_open_to_others(&found)))
}

/// The credential in a file of these bytes: one line break at the end is not part of it.
#[must_use]
pub fn value_in_file(bytes: &[u8]) -> &[u8] {
    bytes
        .strip_suffix(b"\r\n")
        .or_else(|| bytes.strip_suffix(b"\n"))
        .unwrap_or(bytes)
}

fn code_of(fault: &io::Error) -> SourceCode {
    match fault.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceCode::Missing,
        _ => SourceCode::Unreadable,
    }
}
