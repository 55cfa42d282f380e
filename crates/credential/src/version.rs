//! One value of one credential: what a lease is.

use std::{fmt, sync::Arc};

use outgate_journey::policy::{CredentialName, InjectionForm};

use crate::{scrub::Scrubber, secret::Secret, values::Values};

/// One value of one credential, shared by the requests that use it and by the two values after it, for what they look for.
/// Wiped when nothing holds it any more.
pub struct CredentialVersion {
    name: CredentialName,
    version: u64,
    values: Values,
    scrubber: Arc<Scrubber>,
}

impl CredentialVersion {
    pub(crate) fn new(
        name: CredentialName,
        version: u64,
        values: Values,
        forms: &[InjectionForm],
    ) -> Self {
        let scrubber = Arc::new(Scrubber::new(&values.exposed(), forms));
        Self {
            name,
            version,
            values,
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

    /// Takes this value out of answers, and the two before it.
    #[must_use]
    pub const fn scrubber(&self) -> &Arc<Scrubber> {
        &self.scrubber
    }

    /// Whether the scrubber knows the other's value: it is this one, or one of the two before it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.values.hold(other.secret())
    }

    pub(crate) fn secret(&self) -> &Secret {
        self.values.present()
    }

    pub(crate) const fn values(&self) -> &Values {
        &self.values
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
