//! What a gateway that follows holds to be true, and what messages make of it. Whatever cannot follow from what is
//! held ends the stream: the next one begins with what both sides agree on.
//!
//! Messages are taken first and put in force after, so that a gateway that is slow to put things in force does so once
//! for all that came meanwhile.

use outgate_fleet_proto as pb;
use pb::state::Part;

use crate::{
    convert::change_from_proto,
    denylist::{Change, Denylist},
    document::{Incoming, KEYS_BYTES, POLICY_BYTES, PolicyDocument, is_public_key_set},
    follow::{StatePart, StateSink},
};

const EPOCH_BYTES: usize = 16;

/// The last good of each part, the numbers it has within an epoch, and what is coming in.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) epoch: Vec<u8>,
    pub(crate) policy: Option<PolicyDocument>,
    pub(crate) keys: Option<PolicyDocument>,
    pub(crate) denylist: Option<Denylist>,
    /// How far the denylist goes within the epoch; 0: it has to come whole.
    pub(crate) reached: u64,
    /// Where it ended, by the last message.
    head: u64,
    /// It is not what was last put in force.
    denylist_moved: bool,
    /// One that comes whole, until it is complete, and how far it goes.
    anew: Option<(Denylist, u64)>,
    policy_incoming: Incoming,
    keys_incoming: Incoming,
    policy_arrived: Option<PolicyDocument>,
    keys_arrived: Option<PolicyDocument>,
}

/// What was put in force.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Something else is held than before.
    pub(crate) changed: bool,
    /// The denylist held is the control plane's newest.
    pub(crate) current: bool,
    /// What the gateway said to each document that was new to it.
    pub(crate) judged: Vec<(&'static str, Result<(), String>)>,
}

/// Why the stream ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The message cannot be used.
    Message(&'static str),
    /// The gateway refused the denylist. It is the one part that may not lag behind while the rest goes on.
    Refused(String),
}

impl Held {
    /// What to ask for.
    pub(crate) fn request(&self) -> pb::FollowRequest {
        let number = |document: &Option<PolicyDocument>| document.as_ref().map_or(0, |d| d.number);
        pb::FollowRequest {
            epoch: self.epoch.clone(),
            policy: number(&self.policy),
            keys: number(&self.keys),
            denylist: self.reached,
        }
    }

    /// A stream begins: of what an earlier one was in the middle of, nothing counts.
    pub(crate) fn begin(&mut self) {
        self.anew = None;
        self.policy_incoming = Incoming::default();
        self.keys_incoming = Incoming::default();
        (self.policy_arrived, self.keys_arrived) = (None, None);
    }

    /// Takes one message. `first`: of its stream, and so the one that names the epoch.
    pub(crate) fn take(&mut self, state: pb::State, first: bool) -> Result<(), Fault> {
        if state.epoch.len() != EPOCH_BYTES {
            return Err(Fault::Message("a message is of no epoch"));
        }
        if state.epoch != self.epoch {
            if !first {
                return Err(Fault::Message("the epoch changed within a stream"));
            }
            self.enter(state.epoch);
        }
        self.head = state.denylist_head;
        match state.part {
            None => Ok(()),
            Some(Part::Denylist(part)) => self.take_denylist(part),
            Some(Part::Policy(piece)) => arrive(
                &mut self.policy_incoming,
                &mut self.policy_arrived,
                &piece,
                POLICY_BYTES,
            ),
            Some(Part::Keys(piece)) => arrive(
                &mut self.keys_incoming,
                &mut self.keys_arrived,
                &piece,
                KEYS_BYTES,
            ),
        }
    }

    /// Puts in force what was taken: whom to refuse, then whom to believe, then what to allow.
    pub(crate) fn put_in_force(&mut self, sink: &dyn StateSink) -> Result<InForce, Fault> {
        let mut done = InForce {
            changed: self.denylist_moved,
            ..InForce::default()
        };
        if self.denylist_moved {
            self.hand_over(sink)?;
        }
        done.current = self.anew.is_none()
            && self.denylist.is_some()
            && self.reached != 0
            && self.reached == self.head;
        if let Some(keys) = self.keys_arrived.take() {
            settle(&mut self.keys, keys, "keys", &mut done, |keys| {
                if !is_public_key_set(&keys.text) {
                    return Err("not a set of public keys".to_owned());
                }
                sink.apply(StatePart::Keys(&keys.text))
            });
        }
        if let Some(policy) = self.policy_arrived.take() {
            settle(&mut self.policy, policy, "policy", &mut done, |policy| {
                sink.apply(StatePart::Policy(policy))
            });
        }
        Ok(done)
    }

    /// The numbers of another life of the control plane say nothing about those of this one. What is held stays.
    fn enter(&mut self, epoch: Vec<u8>) {
        self.epoch = epoch;
        self.reached = 0;
        for document in [&mut self.policy, &mut self.keys].into_iter().flatten() {
            document.number = 0;
        }
    }

    fn take_denylist(&mut self, part: pb::DenylistPart) -> Result<(), Fault> {
        let changes = part
            .changes
            .into_iter()
            .map(|change| change_from_proto(change).map_err(|m| Fault::Message(m.0)))
            .collect::<Result<Vec<_>, _>>()?;
        if part.reaches == 0 || part.reaches > self.head {
            return Err(Fault::Message("a part of the denylist has no place in it"));
        }
        if part.restart {
            self.anew = Some((Denylist::default(), 0));
        }
        match self.anew.take() {
            Some((list, reached)) => self.take_anew(list, reached, changes, part.reaches),
            None => self.take_changes(changes, part.reaches),
        }
    }

    /// A part of a list that comes whole: it counts once it is complete.
    fn take_anew(
        &mut self,
        mut list: Denylist,
        reached: u64,
        changes: Vec<Change>,
        reaches: u64,
    ) -> Result<(), Fault> {
        in_order(reached, reaches)?;
        for change in changes {
            list.apply(change);
        }
        bounded(&list)?;
        if reaches < self.head {
            self.anew = Some((list, reaches));
            return Ok(());
        }
        if self.denylist.as_ref() != Some(&list) {
            self.denylist = Some(list);
            self.denylist_moved = true;
        }
        self.reached = reaches;
        Ok(())
    }

    /// Changes of the list that is held: each counts at once.
    fn take_changes(&mut self, changes: Vec<Change>, reaches: u64) -> Result<(), Fault> {
        let (Some(list), true) = (&mut self.denylist, self.reached != 0) else {
            return Err(Fault::Message("changes of a denylist that is not here"));
        };
        in_order(self.reached, reaches)?;
        for change in changes {
            list.apply(change);
        }
        self.denylist_moved = true;
        self.reached = reaches;
        bounded(list)
    }

    /// Gives the list to the gateway. One that is refused is not held, and so neither kept nor called current; the next
    /// stream begins with the whole of it.
    fn hand_over(&mut self, sink: &dyn StateSink) -> Result<(), Fault> {
        self.denylist_moved = false;
        let reached = std::mem::take(&mut self.reached);
        let list = self.denylist.take().unwrap_or_default();
        sink.apply(StatePart::Denylist(&list))
            .map_err(Fault::Refused)?;
        (self.denylist, self.reached) = (Some(list), reached);
        Ok(())
    }
}

/// What is no newer than what is held would undo it.
const fn in_order(reached: u64, reaches: u64) -> Result<(), Fault> {
    if reaches <= reached {
        return Err(Fault::Message("a part of the denylist is out of order"));
    }
    Ok(())
}

fn bounded(list: &Denylist) -> Result<(), Fault> {
    if list.len() > Denylist::MAX_FACTS {
        return Err(Fault::Message("the denylist is too long"));
    }
    Ok(())
}

fn arrive(
    incoming: &mut Incoming,
    arrived: &mut Option<PolicyDocument>,
    piece: &pb::Piece,
    limit: usize,
) -> Result<(), Fault> {
    let Some(document) = incoming.take(piece, limit).map_err(Fault::Message)? else {
        return Ok(());
    };
    let newer = arrived
        .as_ref()
        .is_none_or(|before| before.number < document.number);
    if newer {
        *arrived = Some(document);
    }
    Ok(())
}

/// What becomes of a document that arrived: ignored if it is no newer than the one held, noted if it says the same,
/// and otherwise the gateway's to judge.
fn settle(
    held: &mut Option<PolicyDocument>,
    arrived: PolicyDocument,
    part: &'static str,
    done: &mut InForce,
    judge: impl FnOnce(&PolicyDocument) -> Result<(), String>,
) {
    if let Some(held) = held {
        if arrived.number <= held.number {
            let (number, held) = (arrived.number, held.number);
            tracing::warn!(part, number, held, "ignored what is not newer");
            return;
        }
        if arrived.text == held.text {
            held.number = arrived.number;
            done.judged.push((part, Ok(())));
            return;
        }
    }
    let judged = judge(&arrived);
    if judged.is_ok() {
        *held = Some(arrived);
        done.changed = true;
    }
    done.judged.push((part, judged));
}

#[cfg(test)]
mod tests;
