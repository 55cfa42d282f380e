//! Credentials whose values a server tells. Decides how long what was told is good for; who asks the server, and how, is
//! for whoever owns a network, so that this crate needs none.

use std::{sync::Arc, time::Duration};

use outgate_journey::policy::SdsSource;
use zeroize::Zeroizing;

use crate::source::SourceCode;

/// The way to a server that tells credentials.
pub trait Contact: Send + Sync + 'static {
    /// For how long nothing was heard of the server, reckoned by a clock that nobody can set; zero while there is a
    /// connection, `None` if there never was one. Asked at every lease: it must be quick.
    fn silent_for(&self) -> Option<Duration>;
}

/// What a server said of a credential.
pub enum Told {
    /// It has this value.
    Value {
        /// As it came: nothing is taken off its ends. Wiped.
        value: Zeroizing<Vec<u8>>,
        /// Where it came from; says when it is too old.
        contact: Arc<dyn Contact>,
    },
    /// It has no value that can be used, for this reason.
    Nothing(SourceCode),
}

/// How long a value may be used without hearing of its server.
#[derive(Clone)]
pub(crate) struct Expiry {
    contact: Arc<dyn Contact>,
    max_age: Option<Duration>,
}

impl Expiry {
    pub(crate) fn new(contact: Arc<dyn Contact>, source: &SdsSource) -> Self {
        Self {
            contact,
            max_age: source.max_age,
        }
    }

    /// The same server by another version of the configuration.
    pub(crate) fn by(&self, source: &SdsSource) -> Self {
        Self::new(Arc::clone(&self.contact), source)
    }

    pub(crate) fn is_over(&self) -> bool {
        let Some(max_age) = self.max_age else {
            return false;
        };
        self.contact
            .silent_for()
            .is_none_or(|silent| silent > max_age)
    }
}
