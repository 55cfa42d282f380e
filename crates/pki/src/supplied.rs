//! A CA that the deployment supplies and renews. Decides when a renewed one is taken: when its two files are a pair that
//! can sign. Until then the one before goes on, because a pair is also seen half-way, and because a mistake in it must not
//! end what works. Nothing is ever made in its place.

mod read;
mod refused;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use outgate_journey::session::UnixSeconds;

pub use self::refused::{CaFlaw, CaRefused};
use self::{
    read::{read, read_trusted},
    refused::utc,
};
use crate::ca::CertificateAuthority;

/// A CA with less than this left, in seconds, is worth a warning.
const SOON: u64 = 7 * 24 * 60 * 60;
/// How often it is warned, in seconds.
const WARN_EVERY: u64 = 24 * 60 * 60;

/// Where the deployment puts its CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFiles {
    /// In PEM: the certificate that signs, the intermediates between it and a root, in this order, and roots.
    pub certificate: PathBuf,
    /// In PEM: the private key, PKCS#8 or SEC 1.
    pub key: PathBuf,
}

/// How long files have to be no CA before that is told, in seconds of which the first may have just ended.
const SETTLED: u64 = 2;

/// What a look at the files found.
#[derive(Debug)]
#[must_use]
pub enum CaLook {
    /// Nothing to do: the one that is held, or nothing that is better.
    Same,
    /// Another CA, which signs from here on.
    Renewed(Arc<CertificateAuthority>),
    /// Something that is no CA, and was not for long: a renewal may be going on, so look again in a second.
    Unsettled,
}

/// The deployment's CA, as it was taken last.
pub struct SuppliedCa {
    files: CaFiles,
    seen: Mutex<Seen>,
}

struct Seen {
    held: Arc<CertificateAuthority>,
    /// Since when the files are no CA.
    flawed: Option<UnixSeconds>,
    /// The flaw that was told.
    told: Option<String>,
    warned: Option<UnixSeconds>,
}

impl SuppliedCa {
    /// Reads the files for the first time. Blocks on them.
    ///
    /// # Errors
    /// [`CaRefused`], with the key of the configuration, the path, and what to do.
    pub fn open(files: CaFiles, now: UnixSeconds) -> Result<Self, CaRefused> {
        let mut seen = Seen {
            held: Arc::new(read(&files, now)?),
            flawed: None,
            told: None,
            warned: None,
        };
        seen.warn_of_the_end(now);
        Ok(Self {
            files,
            seen: Mutex::new(seen),
        })
    }

    /// What guests have to trust of a CA whose certificate is in this file, in PEM, without its key. Blocks on it.
    ///
    /// # Errors
    /// [`CaRefused`].
    pub fn trusted(certificate: &Path, now: UnixSeconds) -> Result<String, CaRefused> {
        read_trusted(certificate, now)
    }

    /// The CA that signs.
    #[must_use]
    pub fn authority(&self) -> Arc<CertificateAuthority> {
        Arc::clone(&self.seen().held)
    }

    /// Its files.
    #[must_use]
    pub const fn files(&self) -> &CaFiles {
        &self.files
    }

    /// Reads the files again, and says in the log what came of it: of another CA when it is in force. Blocks on them.
    pub fn look(
        &self,
        now: UnixSeconds,
        put_in_force: impl FnOnce(&Arc<CertificateAuthority>),
    ) -> CaLook {
        let read = read(&self.files, now);
        let mut seen = self.seen();
        let look = match read {
            Ok(found) => seen.take(found, put_in_force),
            Err(refused) => seen.refuse(&refused, now),
        };
        seen.warn_of_the_end(now);
        look
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn take(
        &mut self,
        found: CertificateAuthority,
        put_in_force: impl FnOnce(&Arc<CertificateAuthority>),
    ) -> CaLook {
        (self.flawed, self.told) = (None, None);
        if found.is_the_same(&self.held) {
            return CaLook::Same;
        }
        let found = Arc::new(found);
        put_in_force(&found);
        let (subject, sha256) = (found.subject(), found.fingerprint_sha256());
        let until = utc(found.not_after());
        if found.not_after() < self.held.not_after() {
            tracing::warn!(
                code = "ca_rotated", subject, %sha256, %until,
                "the CA was renewed, and ends sooner than the one before"
            );
        } else {
            tracing::info!(code = "ca_rotated", subject, %sha256, %until, "the CA was renewed");
        }
        self.held = Arc::clone(&found);
        self.warned = None;
        CaLook::Renewed(found)
    }

    /// A flaw is told once, and not at first sight: files that are written one after the other do not fit for a moment.
    fn refuse(&mut self, refused: &CaRefused, now: UnixSeconds) -> CaLook {
        // The one that is held, past its end: that is told as such.
        if matches!(refused.flaw, CaFlaw::Expired(..)) && self.held.not_after() <= now {
            return CaLook::Same;
        }
        let since = *self.flawed.get_or_insert(now);
        if now.0 < since.0.saturating_add(SETTLED) {
            return CaLook::Unsettled;
        }
        let words = refused.to_string();
        if self.told.as_ref() != Some(&words) {
            tracing::error!(
                code = "ca_refused",
                flaw = refused.flaw.code(),
                "the CA is not taken, and the one before goes on: {words}"
            );
            self.told = Some(words);
        }
        CaLook::Same
    }

    fn warn_of_the_end(&mut self, now: UnixSeconds) {
        let end = self.held.not_after();
        let left = end.0.saturating_sub(now.0);
        let is_due = self
            .warned
            .is_none_or(|at| now.0.saturating_sub(at.0) >= WARN_EVERY || (at < end && end <= now));
        if left >= SOON || !is_due {
            return;
        }
        self.warned = Some(now);
        let until = utc(end);
        if left == 0 {
            tracing::error!(
                code = "ca_expired", %until,
                "the CA has expired: handshakes of bumped destinations are refused until it is renewed"
            );
        } else {
            tracing::warn!(code = "ca_expires_soon", %until, "the CA expires within seven days: renew it");
        }
    }
}

impl fmt::Debug for SuppliedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SuppliedCa({:?})", self.authority())
    }
}
