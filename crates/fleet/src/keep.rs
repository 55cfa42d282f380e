//! When what is held is written down: soon after each change, and never more often than the disk can take. What is
//! written down as heard is never later than what it is written down with.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use outgate_clock::Clock;
use outgate_fleet_proto as pb;
use outgate_state::StateError;
use prost::Message;
use tokio_util::sync::CancellationToken;

use crate::{
    Pace,
    convert::{fact_from_proto, fact_to_proto},
    core::Core,
    denylist::Denylist,
    document::{PolicyDocument, is_public_key_set},
    error::LastStateError,
    follow::{Refusal, Restored, StatePart},
    last_state::{LastState, StateDigest, age_of, heard_at},
};

/// The least time between two writings.
const LEAST: Duration = Duration::from_secs(1);
/// Of the time, writing takes at most one part in so many.
const SHARE: u32 = 20;

pub(crate) struct Keeper {
    place: LastState,
    /// The last state written, and the version of what was held then.
    written: Mutex<Option<(StateDigest, u64)>>,
}

impl Keeper {
    pub(crate) const fn new(place: LastState) -> Self {
        Self {
            place,
            written: Mutex::new(None),
        }
    }

    /// Reads what was kept and puts it in force: whom to refuse first, then whom to believe, then what to allow.
    pub(crate) fn restore(
        &self,
        core: &Core,
        clock: &dyn Clock,
    ) -> Result<Restored, LastStateError> {
        let Some((kept, digest)) = self.place.load()? else {
            return Ok(Restored::Nothing);
        };
        // All of it is read before any of it is put in force.
        let list = kept
            .denylist
            .into_iter()
            .map(fact_from_proto)
            .collect::<Result<Denylist, _>>()
            .map_err(|malformed| self.place.damaged(malformed.0))?;
        let keys = kept.keys.map(document);
        if keys
            .as_ref()
            .is_some_and(|keys| !is_public_key_set(&keys.text))
        {
            return Err(self.place.damaged("its keys are no public keys"));
        }
        let policy = kept.policy.map(document);
        let age = kept.heard.and_then(|heard| age_of(&heard, clock));

        let mut held = core.held();
        let mut refused = Vec::new();
        // Without it the rest would let through whom it refuses.
        if offer(core, &mut refused, "denylist", StatePart::Denylist(&list)) {
            (held.denylist, held.reached) = (Some(list), kept.denylist_number);
            held.epoch = kept.epoch;
            if let Some(age) = age {
                core.freshness.note_age(age);
            }
            held.keys =
                keys.filter(|keys| offer(core, &mut refused, "keys", StatePart::Keys(&keys.text)));
            held.policy = policy
                .filter(|policy| offer(core, &mut refused, "policy", StatePart::Policy(policy)));
        }
        let number = held.policy.as_ref().map(|policy| policy.number);
        drop(held);
        core.status.send_modify(|status| status.policy = number);
        if refused.is_empty() {
            // What is held is what is there, until something changes.
            *self.written() = Some((digest, *core.version.borrow()));
        }
        Ok(Restored::LastState { age, refused })
    }

    /// Writes until it is stopped, and once more then.
    pub(crate) async fn run(
        self: &Arc<Self>,
        core: &Arc<Core>,
        clock: &Arc<dyn Clock>,
        pace: &Pace,
        stop: &CancellationToken,
    ) {
        let mut version = core.version.subscribe();
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                // The sender is in `core`, which is here.
                _ = version.changed() => false,
                () = tokio::time::sleep(pace.keep_heard) => false,
            };
            let (keeper, core, clock) = (Arc::clone(self), Arc::clone(core), Arc::clone(clock));
            let began = Instant::now();
            let wrote = tokio::task::spawn_blocking(move || keeper.write(&core, clock.as_ref()));
            if let Ok(Err(error)) = wrote.await {
                // It is held nevertheless; a restart without it waits for the control plane.
                tracing::error!(%error, "what the control plane said could not be kept");
            }
            if stopped {
                return;
            }
            let rest = began.elapsed().saturating_mul(SHARE).max(LEAST);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Blocks.
    fn write(&self, core: &Core, clock: &dyn Clock) -> Result<(), StateError> {
        // Read in this order: what is held is at least as new as what was heard of it.
        let heard = core.freshness.last_heard().map(|age| heard_at(clock, age));
        let version = *core.version.borrow();
        let mut written = self.written();
        if let Some((state, _)) = written.as_ref().filter(|(_, at)| *at == version) {
            return heard.map_or(Ok(()), |heard| self.place.save_heard(state, &heard));
        }
        let Some(kept) = self.encode(core, heard) else {
            return Ok(());
        };
        *written = Some((self.place.save(&kept)?, version));
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, Option<(StateDigest, u64)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` while no denylist is held: the rest alone would let through whom it refuses.
    fn encode(&self, core: &Core, heard: Option<pb::Heard>) -> Option<Vec<u8>> {
        let held = core.held();
        let list = held.denylist.as_ref()?;
        let kept = pb::Kept {
            origin: self.place.origin().to_owned(),
            epoch: held.epoch.clone(),
            heard,
            policy: held.policy.as_ref().map(kept_document),
            keys: held.keys.as_ref().map(kept_document),
            denylist_number: held.reached,
            denylist: list.facts().map(fact_to_proto).collect(),
        };
        drop(held);
        Some(kept.encode_to_vec())
    }
}

/// Offers a part to the gateway; notes it if it is refused.
fn offer(core: &Core, refused: &mut Vec<Refusal>, name: &'static str, part: StatePart<'_>) -> bool {
    match core.sink().apply(part) {
        Ok(()) => true,
        Err(reason) => {
            core.refuse(name, reason.clone());
            refused.push(Refusal { part: name, reason });
            false
        }
    }
}

fn document(kept: pb::KeptDocument) -> PolicyDocument {
    PolicyDocument {
        number: kept.number,
        text: kept.text.into(),
    }
}

fn kept_document(document: &PolicyDocument) -> pb::KeptDocument {
    pb::KeptDocument {
        number: document.number,
        text: document.text.to_string(),
    }
}
