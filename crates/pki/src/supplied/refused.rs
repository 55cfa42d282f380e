//! Why a CA of the deployment's is not taken: the key of the configuration, the file, what is wrong with it, and what to do.

use std::{fmt, path::PathBuf};

use outgate_journey::session::UnixSeconds;
use outgate_state::StateError;

use crate::ca::date;

/// A CA that is not taken. Never holds key material.
#[derive(Debug)]
pub struct CaRefused {
    /// The key of the configuration: `ca.certificate` or `ca.key`.
    pub key: &'static str,
    /// The file that it names.
    pub path: PathBuf,
    /// What is wrong with it.
    pub flaw: CaFlaw,
}

/// What is wrong with a CA's file. Blocks are counted from one.
#[derive(Debug)]
pub enum CaFlaw {
    /// It cannot be read, or not only root and this process's user may change or see it.
    File(StateError),
    /// There is no certificate in it, or a block that is none.
    NotCertificates,
    /// A block is no CA's certificate.
    NotACa(usize),
    /// It may not sign certificates.
    MayNotSign(usize),
    /// Its key is of another kind than ECDSA P-256.
    NotP256,
    /// Its subject is empty, or written in a way that leaves could not repeat.
    Subject,
    /// A block begins later.
    NotYet(usize, UnixSeconds),
    /// A block has ended.
    Expired(usize, UnixSeconds),
    /// A block did not sign the one before it.
    Chain(usize),
    /// There is no key in it that can be used.
    NotAKey,
    /// It is another certificate's key.
    OtherKey,
}

impl CaFlaw {
    /// A stable word for it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::NotCertificates => "not_certificates",
            Self::NotACa(_) => "not_a_ca",
            Self::MayNotSign(_) => "may_not_sign",
            Self::NotP256 => "not_p256",
            Self::Subject => "subject",
            Self::NotYet(..) => "not_yet_valid",
            Self::Expired(..) => "expired",
            Self::Chain(_) => "chain",
            Self::NotAKey => "not_a_key",
            Self::OtherKey => "other_key",
        }
    }

    const fn help(&self) -> &'static str {
        match self {
            Self::File(_) => {
                "put the CA there, as root's or the gateway's own, readable for nobody else but a group of the gateway's"
            }
            Self::NotCertificates => {
                "write the CA's certificate first, in PEM form, and its intermediates behind it"
            }
            Self::NotACa(_) => "issue it with the basic constraint CA:TRUE",
            Self::MayNotSign(_) => "issue it with the key usage keyCertSign",
            Self::NotP256 => "issue it for an ECDSA P-256 key (prime256v1)",
            Self::Subject => {
                "issue it with a subject in which no kind of value is repeated, as one common name"
            }
            Self::NotYet(..) => "wait until then, or set the clocks right",
            Self::Expired(..) => "renew it",
            Self::Chain(_) => {
                "write each intermediate behind the certificate that it signed; roots may follow"
            }
            Self::NotAKey => {
                "write an ECDSA P-256 key, not encrypted, as `BEGIN PRIVATE KEY` (PKCS#8) or `BEGIN EC PRIVATE KEY` (SEC 1)"
            }
            Self::OtherKey => "put a certificate and its own key there",
        }
    }
}

impl fmt::Display for CaRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, path, flaw } = self;
        if let CaFlaw::File(error) = flaw {
            write!(f, "{key}: {error}")?;
        } else {
            write!(f, "{key}: {} {flaw}", path.display())?;
        }
        write!(f, "; {}", flaw.help())
    }
}

/// Behind the path.
impl fmt::Display for CaFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "is not usable: {error}"),
            Self::NotCertificates => f.write_str("does not hold certificates in PEM form"),
            Self::NotACa(block) => write!(f, "is no CA's certificate{}", In(*block)),
            Self::MayNotSign(block) => write!(f, "may not sign certificates{}", In(*block)),
            Self::NotP256 => f.write_str("is for another kind of key than ECDSA P-256"),
            Self::Subject => f.write_str("has a subject that leaves cannot name as their issuer"),
            Self::NotYet(block, at) => write!(f, "is not valid before {}{}", utc(*at), In(*block)),
            Self::Expired(block, at) => write!(f, "has expired at {}{}", utc(*at), In(*block)),
            Self::Chain(block) => {
                write!(
                    f,
                    "is no chain: block {block} did not sign the one before it"
                )
            }
            Self::NotAKey => f.write_str("holds no ECDSA P-256 private key in PEM form"),
            Self::OtherKey => f.write_str("is not the key of the certificate"),
        }
    }
}

impl std::error::Error for CaRefused {}

/// Which block, where it is not the first.
struct In(usize);

impl fmt::Display for In {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ..=1 => Ok(()),
            block => write!(f, " (block {block})"),
        }
    }
}

/// A time in UTC, as in `2026-01-31T09:00:00Z`.
pub(super) fn utc(at: UnixSeconds) -> String {
    let Ok(at) = date(at) else {
        return format!("unix time {}", at.0);
    };
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}
