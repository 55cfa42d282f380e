//! What messages are applied to: what is held, the gateway's parts that live by it, and what is shown of both.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outgate_fleet_proto as pb;
use tokio::sync::watch;

use crate::{
    follow::{FollowStatus, Refusal, StateSink},
    freshness::Freshness,
    held::{Fault, Held, InForce},
};

/// What one message is applied to; shared with the threads where that may block.
pub(crate) struct Core {
    held: Mutex<Held>,
    sink: Arc<dyn StateSink>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) status: watch::Sender<FollowStatus>,
    /// Moves with each change of what is held, before the change counts as heard.
    pub(crate) version: watch::Sender<u64>,
}

impl Core {
    pub(crate) fn new(sink: Arc<dyn StateSink>, freshness: Freshness) -> Self {
        Self {
            held: Mutex::default(),
            sink,
            freshness: Arc::new(freshness),
            status: watch::Sender::new(FollowStatus::default()),
            version: watch::Sender::new(0),
        }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn sink(&self) -> &dyn StateSink {
        self.sink.as_ref()
    }

    /// Blocks for as long as the sink does.
    pub(crate) fn take(
        &self,
        states: Vec<pb::State>,
        first: bool,
        sent: Duration,
    ) -> Result<(), String> {
        let as_of = states.last().and_then(|state| state.current_as_of_ms);
        let (taken, done, policy) = {
            let mut held = self.held();
            let taken = states
                .into_iter()
                .enumerate()
                .try_for_each(|(n, state)| held.take(state, first && n == 0));
            // What came before a message that cannot be used counts.
            let done = held.put_in_force(self.sink());
            (
                taken,
                done,
                held.policy.as_ref().map(|policy| policy.number),
            )
        };
        let done = match done {
            Ok(done) => done,
            Err(fault) => {
                if let Fault::Refused(reason) = &fault {
                    self.refuse("denylist", reason.clone());
                }
                return Err(useless(&fault));
            }
        };
        if done.changed {
            self.version.send_modify(|n| *n += 1);
        }
        taken.map_err(|fault| useless(&fault))?;
        if let (true, Some(as_of)) = (done.current, as_of) {
            self.freshness
                .note(sent.saturating_add(Duration::from_millis(as_of)));
        }
        self.went_well(done, policy);
        Ok(())
    }

    fn went_well(&self, done: InForce, policy: Option<u64>) {
        let good = |part: &str| {
            done.current && part == "denylist"
                || done
                    .judged
                    .iter()
                    .any(|(judged, said)| *judged == part && said.is_ok())
        };
        self.status.send_if_modified(|status| {
            let before = status.clone();
            (status.connected, status.problem) = (true, None);
            status.policy = policy;
            status.refused.retain(|refusal| !good(refusal.part));
            *status != before
        });
        for (part, said) in done.judged {
            if let Err(reason) = said {
                self.refuse(part, reason);
            }
        }
    }

    pub(crate) fn refuse(&self, part: &'static str, reason: String) {
        tracing::error!(part, %reason, "refused what the control plane sent; the last good stays");
        self.status.send_modify(|status| {
            status.refused.retain(|refusal| refusal.part != part);
            status.refused.push(Refusal { part, reason });
        });
    }

    pub(crate) fn lost(&self, problem: String) {
        let known = self.status.borrow().problem.as_ref() == Some(&problem);
        if !known {
            tracing::warn!(%problem, "the control plane is not being followed");
        }
        self.status.send_modify(|status| {
            (status.connected, status.problem) = (false, Some(problem));
        });
    }
}

fn useless(fault: &Fault) -> String {
    match fault {
        Fault::Message(why) => format!("it sent what cannot be used: {why}"),
        Fault::Refused(reason) => format!("the gateway refused its denylist: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use outgate_clock::{Clock, FakeClock};
    use outgate_journey::session::UnixSeconds;

    use super::*;
    use crate::follow::StatePart;

    struct Willing;

    impl StateSink for Willing {
        fn apply(&self, _: StatePart<'_>) -> Result<(), String> {
            Ok(())
        }
    }

    fn beat(head: u64, as_of: Option<u64>, part: Option<pb::DenylistPart>) -> pb::State {
        pb::State {
            epoch: vec![1; 16],
            denylist_head: head,
            current_as_of_ms: as_of,
            part: part.map(pb::state::Part::Denylist),
        }
    }

    #[test]
    fn the_denylist_is_as_old_as_the_sending_of_what_says_that_it_is_current() {
        let clock = Arc::new(FakeClock::at(UnixSeconds(1000)));
        let core = Core::new(Arc::new(Willing), Freshness::new(clock.clone()));
        let age = || core.freshness.last_heard().map(|age| age.as_secs());
        let sent = clock.monotonic();
        let whole = pb::DenylistPart {
            restart: true,
            reaches: 3,
            changes: Vec::new(),
        };
        // It says that it could not be sure.
        core.take(vec![beat(3, None, Some(whole))], true, sent)
            .unwrap();
        assert_eq!(age(), None);
        core.take(vec![beat(3, Some(0), None)], false, sent)
            .unwrap();
        assert_eq!(age(), Some(0));
        // Heartbeats of the seconds 1 to 20, which a network held back for half a minute.
        clock.advance(Duration::from_secs(50));
        for second in 1..=20 {
            core.take(vec![beat(3, Some(second * 1000), None)], false, sent)
                .unwrap();
        }
        assert_eq!(age(), Some(30));
        // Of a list that is not here, however recent.
        core.take(vec![beat(4, Some(50_000), None)], false, sent)
            .unwrap();
        assert_eq!(age(), Some(30));
        // A clock over there that runs fast makes nothing younger than now.
        core.take(vec![beat(3, Some(500_000), None)], false, sent)
            .unwrap();
        clock.advance(Duration::from_secs(9));
        assert_eq!(age(), Some(9));
    }
}
