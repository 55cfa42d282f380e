//! The handlers, a file each, with their rows of the table.

pub(crate) mod audit;
pub(crate) mod denylist;
pub(crate) mod gateway;
pub(crate) mod keys;
pub(crate) mod kill;
pub(crate) mod policy;
pub(crate) mod quotas;
pub(crate) mod requests;
pub(crate) mod sessions;
pub(crate) mod webhooks;

use super::{code::ErrorCode, problem::Refusal};
use crate::sessions::RegistryError;

/// What the registry's refusals are to a caller. Nothing changed then.
impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::KillSwitchOn => ErrorCode::KillSwitchOn.into(),
            RegistryError::QuotaExceeded { limit } => Self::saying(
                ErrorCode::QuotaExceeded,
                format!("at most {limit} sessions may be live"),
            ),
            RegistryError::Unknown => ErrorCode::UnknownSession.into(),
            RegistryError::NotLive => ErrorCode::SessionOver.into(),
            RegistryError::UntilPassed => ErrorCode::UntilPassed.into(),
            RegistryError::Exists => Self::from(ErrorCode::InternalFault).because("id taken"),
            RegistryError::Store(error) => {
                Self::from(ErrorCode::StoreUnavailable).because(error.to_string())
            }
        }
    }
}

/// As above, of a revocation: what the store failed to keep is in effect until a restart.
fn revoked<T>(done: Result<T, RegistryError>) -> Result<T, Refusal> {
    done.map_err(|error| {
        let in_effect = matches!(error, RegistryError::Store(_));
        let mut refusal = Refusal::from(error);
        if in_effect {
            refusal.detail =
                "in effect, but not on disk: it is tried again, and a restart before that would undo it"
                    .into();
            refusal = refusal.in_effect();
        }
        refusal
    })
}
