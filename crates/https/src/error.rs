//! What goes wrong before a call and during one. No message holds a header, a query or a body.

use std::{error::Error, io, path::PathBuf};

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A file of roots.
    #[error("root certificates: {path}: {why}")]
    RootFile {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A list of no files.
    #[error("root certificates: no file is named")]
    NoRoots,
    /// The system trusts nobody.
    #[error(
        "the system has no root certificates; install ca-certificates or name a file of certificates"
    )]
    NoSystemRoots,
    /// The TLS library refused the settings.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a call brought no answer. An answer of any status is one.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// `http://`, and not to loopback, or loopback is not allowed either.
    #[error("{host}: refusing to call without TLS")]
    Plaintext {
        /// Whom.
        host: String,
    },
    /// The request cannot be written: a header does not fit.
    #[error("{host}: the request cannot be written")]
    Request {
        /// Whom.
        host: String,
    },
    /// The name has no address, or nobody answers at it.
    #[error("{host}: cannot connect: {why}")]
    Connect {
        /// Whom.
        host: String,
        /// The system's words.
        why: String,
    },
    /// TLS failed: above all, the certificate does not verify.
    #[error("{host}: TLS failed: {why}")]
    Tls {
        /// Whom.
        host: String,
        /// The library's words.
        why: String,
    },
    /// The call took longer than allowed.
    #[error("{host}: no complete answer in time")]
    Timeout {
        /// Whom.
        host: String,
    },
    /// The answer is longer than allowed.
    #[error("{host}: the answer is longer than {limit} bytes")]
    TooLarge {
        /// Whom.
        host: String,
        /// How many bytes are allowed.
        limit: usize,
    },
    /// The connection broke off, or what came is not HTTP.
    #[error("{host}: the answer is broken: {why}")]
    Protocol {
        /// Whom.
        host: String,
        /// The library's words.
        why: String,
    },
}

impl HttpsError {
    pub(crate) fn of_request(host: String, fault: &hyper_util::client::legacy::Error) -> Self {
        if let Some(why) = find::<rustls::Error>(fault) {
            return Self::Tls {
                host,
                why: why.to_string(),
            };
        }
        let why = innermost(fault);
        if find::<io::Error>(fault).is_some_and(|fault| fault.kind() == io::ErrorKind::TimedOut) {
            Self::Timeout { host }
        } else if fault.is_connect() {
            Self::Connect { host, why }
        } else {
            Self::Protocol { host, why }
        }
    }

    pub(crate) fn of_body(host: String, fault: &(dyn Error + 'static)) -> Self {
        Self::Protocol {
            host,
            why: innermost(fault),
        }
    }
}

/// The error itself, its sources, and what an `io::Error` wraps without calling it a source.
fn chain<'a>(
    fault: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> + 'a {
    std::iter::successors(Some(fault), |&fault| {
        let wrapped = fault
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        match wrapped {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => fault.source(),
        }
    })
    // A chain that runs in a circle would be the library's fault; this is where it would end.
    .take(16)
}

fn find<'a, E: Error + 'static>(fault: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(fault).find_map(|fault| fault.downcast_ref::<E>())
}

/// The outer errors only say "client error".
fn innermost(fault: &(dyn Error + 'static)) -> String {
    chain(fault)
        .last()
        .map_or_else(String::new, ToString::to_string)
}
