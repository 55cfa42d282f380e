//! One value of one credential: what a lease is.

use std::{fmt, sync::Arc};

use outgate_journey::policy::{CredentialName, InjectionForm};

use crate::{scrub::Scrubber, secret::Secret};

/// One value of one credential, shared by the requests that use it and wiped when the last of them ends.
pub struct CredentialVersion {
    name: CredentialName,
    version: u64,
    secret: Secret,
    scrubber: Arc<Scrubber>,
}

impl CredentialVersion {
    pub(crate) fn new(
        name: CredentialName,
        version: u64,
        secret: Secret,
        forms: &[InjectionForm],
    ) -> Self {
        let scrubber = Arc::new(Scrubber::new(secret.expose(), forms));
        Self {
            name,
            version,
            secret,
            scrubber,
        }
    }

    /// Which credential.
    #[must_use]
    pub const fn name(&self) -> &CredentialName {
        &self.name
    }

    /// Grows with every new value; never used twice in a store, so that it can key a connection pool.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Takes this value out of answers.
    #[must_use]
    pub const fn scrubber(&self) -> &Arc<Scrubber> {
        &self.scrubber
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for CredentialVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialVersion")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
