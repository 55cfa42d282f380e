//! How far a session's limits may be widened by who is bound to its tenant: to what others left it, and no further. What a
//! tenant narrowed itself it may widen again up to there. That is remembered here and not on disk: after a restart the
//! limits in force are taken for others', which lets nobody widen more.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use outgate_journey::{
    policy::{Rate, SessionLimits},
    session::SessionId,
};

use super::{code::ErrorCode, problem::Refusal};

/// Sessions that are remembered. Beyond, all are forgotten, as by a restart.
const MOST: usize = 10_000;

/// What sessions were left with by others than their tenant, where the tenant narrowed it since.
#[derive(Debug, Default)]
pub(crate) struct Ceilings(Mutex<HashMap<SessionId, SessionLimits>>);

impl Ceilings {
    /// Takes note of limits that are about to be set in the place of others, by who is `bound` to the session's tenant or
    /// to none.
    ///
    /// # Errors
    /// `tenant_bound`, where the caller may not set them.
    pub(crate) fn admit(
        &self,
        session: &SessionId,
        in_force: &SessionLimits,
        wanted: &SessionLimits,
        bound: bool,
    ) -> Result<(), Refusal> {
        let mut ceilings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !bound {
            ceilings.remove(session);
            return Ok(());
        }
        let ceiling = *ceilings.get(session).unwrap_or(in_force);
        if !is_within(wanted, &ceiling) {
            return Err(Refusal::saying(
                ErrorCode::TenantBound,
                "a limit would be wider than what others than the caller's tenant set",
            ));
        }
        if ceilings.len() >= MOST {
            ceilings.clear();
        }
        ceilings.insert(session.clone(), ceiling);
        Ok(())
    }
}

/// Whether what `wanted` lets through, `ceiling` does.
fn is_within(wanted: &SessionLimits, ceiling: &SessionLimits) -> bool {
    fn fits<T>(wanted: Option<T>, ceiling: Option<T>, within: impl Fn(T, T) -> bool) -> bool {
        match (wanted, ceiling) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(wanted), Some(ceiling)) => within(wanted, ceiling),
        }
    }
    fits(wanted.requests, ceiling.requests, is_no_faster)
        && fits(wanted.connections, ceiling.connections, is_no_faster)
        && fits(
            wanted.concurrent_connections,
            ceiling.concurrent_connections,
            |wanted, ceiling| wanted <= ceiling,
        )
        && fits(wanted.bytes_out, ceiling.bytes_out, |wanted, ceiling| {
            wanted <= ceiling
        })
        && fits(
            wanted.distinct_destinations,
            ceiling.distinct_destinations,
            |wanted, ceiling| wanted <= ceiling,
        )
}

/// A window's events may be used at once, so neither the pace nor the number may be greater.
fn is_no_faster(wanted: Rate, ceiling: Rate) -> bool {
    let pace = |of: Rate, other: Rate| {
        u64::from(of.events.get()).saturating_mul(u64::from(other.window_seconds))
    };
    wanted.events <= ceiling.events && pace(wanted, ceiling) <= pace(ceiling, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(rate: &str) -> SessionLimits {
        SessionLimits {
            requests: rate.parse().ok(),
            ..SessionLimits::default()
        }
    }

    #[test]
    fn a_rate_is_narrower_if_neither_its_pace_nor_its_burst_is_greater() {
        for (wanted, within) in [
            ("60/min", true),
            ("1/s", true),
            ("60/h", true),
            ("1/d", true),
            ("61/min", false),
            ("2/s", false),
            ("3600/h", false),
        ] {
            let (wanted, ceiling) = (requests(wanted), requests("60/min"));
            assert_eq!(is_within(&wanted, &ceiling), within, "{wanted:?}");
        }
    }

    #[test]
    fn each_limit_that_there_is_must_stay_and_may_only_shrink() {
        let ceiling = SessionLimits {
            requests: "10/s".parse().ok(),
            connections: "10/s".parse().ok(),
            concurrent_connections: Some(10),
            bytes_out: Some(10),
            distinct_destinations: Some(10),
        };
        assert!(is_within(&ceiling, &ceiling));
        assert!(is_within(&ceiling, &SessionLimits::default()));
        let changes: [fn(&mut SessionLimits, bool); 5] = [
            |it, more| it.requests = more.then(|| "11/s".parse().unwrap()),
            |it, more| it.connections = more.then(|| "11/s".parse().unwrap()),
            |it, more| it.concurrent_connections = more.then_some(11),
            |it, more| it.bytes_out = more.then_some(11),
            |it, more| it.distinct_destinations = more.then_some(11),
        ];
        for change in changes {
            for more in [true, false] {
                let mut wanted = ceiling;
                change(&mut wanted, more);
                assert!(!is_within(&wanted, &ceiling), "{wanted:?}");
            }
        }
    }

    #[test]
    fn a_tenant_widens_again_what_it_narrowed_itself_and_no_further() {
        let ceilings = Ceilings::default();
        let id = SessionId::parse("s_1").unwrap();
        let [one, five, ten] = ["1/s", "5/s", "10/s"].map(requests);
        assert!(ceilings.admit(&id, &five, &one, true).is_ok());
        assert!(ceilings.admit(&id, &one, &ten, true).is_err());
        assert!(ceilings.admit(&id, &one, &five, true).is_ok());
        assert!(ceilings.admit(&id, &five, &one, false).is_ok());
        assert!(ceilings.admit(&id, &one, &five, true).is_err());
        assert!(ceilings.admit(&id, &one, &ten, false).is_ok());
        assert!(ceilings.admit(&id, &ten, &five, true).is_ok());
    }
}
