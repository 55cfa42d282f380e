//! What was answered to which of a webhook's calls, for as long as a repeat of it would be accepted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::StatusCode;
use outgate_journey::session::UnixSeconds;
use tokio::sync::OnceCell;

use super::TOLERANCE;
use crate::operator::{code::ErrorCode, problem::Refusal};

/// The most calls that are remembered. All of them verified: to fill this takes the sender itself.
const MOST: usize = 65_536;

/// The first answer to an id.
#[derive(Debug, Clone)]
pub(crate) enum Remembered {
    Done {
        status: StatusCode,
        body: Option<Bytes>,
    },
    Refused(Refusal),
}

type Cell = Arc<OnceCell<Remembered>>;

/// The calls of one webhook.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<HashMap<String, (u64, Cell)>>);

impl Seen {
    /// The place of this id's answer. Two calls with one id get one place, where the second waits for the first.
    pub(crate) fn place(&self, id: &str, at: u64, now: UnixSeconds) -> Result<Cell, Refusal> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains_key(id) && seen.len() >= MOST {
            seen.retain(|_, (at, _)| at.saturating_add(TOLERANCE) >= now.0);
            if seen.len() >= MOST {
                let refusal = Refusal::saying(ErrorCode::TooBusy, "too many calls in ten minutes");
                return Err(refusal.retry_after(TOLERANCE));
            }
        }
        let (known, cell) = seen.entry(id.to_owned()).or_default();
        // A repeat is signed anew, with a later timestamp: then it is accepted for longer.
        *known = at.max(*known);
        Ok(Arc::clone(cell))
    }

    /// Forgets an id, so that its repeat is carried out again.
    pub(crate) fn forget(&self, id: &str) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(id);
    }

    /// Forgets what would not be accepted again.
    pub(crate) fn sweep(&self, now: UnixSeconds) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|_, (at, _)| at.saturating_add(TOLERANCE) >= now.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_for_as_long_as_its_repeat_would_be_accepted() {
        let seen = Seen::default();
        let first = seen.place("a", 1_000, UnixSeconds(1_000)).unwrap();
        seen.sweep(UnixSeconds(1_000 + TOLERANCE));
        let again = seen
            .place("a", 1_000, UnixSeconds(1_000 + TOLERANCE))
            .unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        seen.sweep(UnixSeconds(1_001 + TOLERANCE));
        let later = seen.place("a", 1_400, UnixSeconds(1_400)).unwrap();
        assert!(!Arc::ptr_eq(&first, &later));
    }

    #[test]
    fn a_full_memory_refuses_rather_than_forget_what_could_be_replayed() {
        let seen = Seen::default();
        for number in 0..MOST {
            seen.place(&number.to_string(), 1_000, UnixSeconds(1_000))
                .unwrap();
        }
        assert!(seen.place("one more", 1_000, UnixSeconds(1_000)).is_err());
        assert!(seen.place("0", 1_000, UnixSeconds(1_000)).is_ok());
        assert!(seen.place("one more", 1_400, UnixSeconds(1_400)).is_ok());
    }
}
