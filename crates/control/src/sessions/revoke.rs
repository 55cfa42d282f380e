//! What takes a session's standing away. Each revocation is in force, and what is open is cut, before the first await;
//! then it goes to the disk, in the store's urgent lane.

use std::sync::Arc;

use outgate_journey::session::{SessionEnd, SessionId, TokenOrigin, UnixSeconds};
use outgate_store::{
    Change, DenyEntry, DenyTarget, KillSwitch, Steady, StoredDenial, StoredEnding,
};

use super::{
    RegistryError, Sessions,
    live::{Live, Over},
    lock,
    save::Key,
};

/// How long an ending for every token is remembered: a token lives for a day at the most (S1).
const KEEP_ENDING_SECONDS: u64 = 7 * 86_400;
/// What an ending for some tokens is remembered for beyond the last of them.
const MARGIN_SECONDS: u64 = 60;
/// Who ends what the clock ends.
pub(super) const CLOCK: &str = "clock";

impl Sessions {
    /// Ends a session, known or not, for every token. Ending it again is no error.
    ///
    /// # Errors
    /// [`RegistryError::Store`]: it is refused and cut all the same, and the disk is tried again.
    pub async fn end(
        &self,
        id: &SessionId,
        why: SessionEnd,
        by: &str,
    ) -> Result<(), RegistryError> {
        let is_own = self.live(id).is_some_and(|live| !live.is_external());
        let steady = self.time.steady();
        let ending = self.endings.add(StoredEnding {
            id: id.clone(),
            cause: why,
            at: self.time.unix(),
            by: by.to_owned(),
            tokens_until: None,
            own: is_own,
            began: steady,
            keep_until: Steady(steady.0.saturating_add(KEEP_ENDING_SECONDS)),
        });
        // Looked for once the ending is written down: what is opened from here on finds it written.
        self.take_standing(&ending, self.live(id).as_ref());
        self.finish(self.hand_in_marked(Change::End(ending), Key::Ending(id.clone())))
            .await
    }

    /// Ends a session that idled or lived for too long. One of an external issuer is over for the tokens that were seen:
    /// its id is the identity's, which may come back with a token that was issued since.
    pub(super) fn end_by_clock(&self, live: &Arc<Live>, why: SessionEnd) {
        let steady = self.time.steady();
        let tokens_until = live.is_external().then(|| live.expires());
        let keep_until = match tokens_until {
            Some(until) => self.time.when(until).0.saturating_add(MARGIN_SECONDS),
            None => steady.0.saturating_add(KEEP_ENDING_SECONDS),
        };
        let ending = self.endings.add(StoredEnding {
            id: live.id.clone(),
            cause: why,
            at: self.time.unix(),
            by: CLOCK.to_owned(),
            tokens_until,
            own: !live.is_external(),
            began: steady,
            keep_until: Steady(keep_until),
        });
        self.unsaved.add(Key::Ending(live.id.clone()));
        let is_first = self.take_standing(&ending, Some(live));
        // An operator may have been quicker, and that was told already.
        let is_ours = is_first && ending.by == CLOCK;
        if let (true, Some(told)) = (is_ours, self.told_end.get()) {
            told(&live.id, why);
        }
    }

    /// Cuts what a session has open, once its ending is written down. Whether it was this that ended it.
    pub(super) fn take_standing(&self, ending: &StoredEnding, live: Option<&Arc<Live>>) -> bool {
        let over = Over {
            cause: ending.cause,
            at: ending.at,
            by: ending.by.clone(),
            since: self.time.now(),
        };
        let is_first = live.is_some_and(|live| {
            let is_first = live.over.set(over).is_ok();
            live.cut(ending.cause);
            self.give_place_back(live);
            is_first
        });
        self.changed();
        is_first
    }

    /// Puts an entry on the denylist, or in the place of the one of the same target. `at` is set here.
    ///
    /// # Errors
    /// [`RegistryError::UntilPassed`]; [`RegistryError::Store`]: it is in force all the same, and the disk is tried
    /// again.
    pub async fn deny(&self, mut entry: DenyEntry) -> Result<DenyEntry, RegistryError> {
        let now = self.time.unix();
        if entry.until.is_some_and(|until| until <= now.0) {
            return Err(RegistryError::UntilPassed);
        }
        entry.at = now.0;
        let lapses = entry.until.map(|until| self.time.when(UnixSeconds(until)));
        let denial = StoredDenial {
            entry: entry.clone(),
            lapses,
        };
        let key = Key::Denial(entry.target.clone());
        let handed_in = {
            let _one_order = lock(&self.edits);
            self.denials.put(&denial);
            self.cut_denied(&entry.target);
            self.hand_in_marked(Change::Deny(denial), key)
        };
        self.changed();
        self.finish(handed_in).await?;
        Ok(entry)
    }

    fn cut_denied(&self, target: &DenyTarget) {
        let why = SessionEnd::Denied;
        match target {
            DenyTarget::Session(id) => {
                if let Some(live) = self.live(id) {
                    live.cut(why);
                }
            }
            DenyTarget::Token(denied) => {
                for live in self.lives() {
                    live.cut_where(why, |token_id| token_id == denied);
                }
            }
            DenyTarget::Subject { issuer, subject } => {
                let of = |origin: &TokenOrigin| {
                    matches!(origin, TokenOrigin::External { issuer: i, subject: s }
                        if **i == **issuer && **s == **subject)
                };
                for live in self.lives().iter().filter(|live| of(&live.origin)) {
                    live.cut(why);
                }
            }
        }
    }

    /// Takes an entry off the denylist; whether there was one.
    ///
    /// # Errors
    /// [`RegistryError::Store`]: it is off until a restart, and the disk is tried again.
    pub async fn undeny(&self, target: &DenyTarget) -> Result<bool, RegistryError> {
        let handed_in = {
            let _one_order = lock(&self.edits);
            if !self.denials.remove(target) {
                return Ok(false);
            }
            let key = Key::Denial(target.clone());
            self.hand_in_marked(Change::Undeny(target.clone()), key)
        };
        self.changed();
        self.finish(handed_in).await?;
        Ok(true)
    }

    /// How many entries the denylist has.
    #[must_use]
    pub fn count_denied(&self) -> usize {
        self.denials.len()
    }

    /// The denylist's entry of this target.
    #[must_use]
    pub fn denial(&self, target: &DenyTarget) -> Option<DenyEntry> {
        let denial = self.denials.get(target)?;
        let is_in_force = denial.lapses.is_none_or(|at| self.time.steady() < at);
        is_in_force.then_some(denial.entry)
    }

    /// The denylist's entries that are wanted, the newest first. Time that grows with the whole list.
    #[must_use]
    pub fn denied(&self, wanted: impl Fn(&DenyTarget) -> bool) -> Vec<DenyEntry> {
        let mut entries = self.denials.in_force(self.time.steady(), wanted);
        entries.sort_by(|a, b| (b.at, &a.target).cmp(&(a.at, &b.target)));
        entries
    }

    /// Puts the kill switch on: nobody has standing, everything is cut, nothing is created. If it is on, who put it on
    /// first stays.
    ///
    /// # Errors
    /// [`RegistryError::Store`]: it is on all the same, and the disk is tried again.
    pub async fn kill_all(&self, reason: &str, by: &str) -> Result<KillSwitch, RegistryError> {
        let (kill, handed_in) = {
            let mut kills = lock(&self.kills);
            let kill = self.kill_switch().unwrap_or_else(|| KillSwitch {
                since: self.time.unix().0,
                by: by.to_owned(),
                reason: reason.to_owned(),
            });
            self.kill.store(Some(Arc::new(kill.clone())));
            *kills += 1;
            let handed_in = self.hand_in_marked(Change::Kill(kill.clone()), Key::Switch);
            (kill, handed_in)
        };
        for live in self.lives() {
            live.cut(SessionEnd::KillSwitch);
        }
        self.changed();
        self.finish(handed_in).await?;
        Ok(kill)
    }

    /// Takes the kill switch off; whether it was on. Sessions that were not ended themselves have their standing back.
    /// On disk before it is in force: what a restart would not know stays refused.
    ///
    /// # Errors
    /// [`RegistryError::Store`]: it is still on.
    pub async fn lift(&self, by: &str) -> Result<bool, RegistryError> {
        let (on_since, answer) = {
            let kills = lock(&self.kills);
            if self.kill_switch().is_none() {
                return Ok(false);
            }
            (*kills, self.hand_in(Change::Lift))
        };
        // Whatever becomes of this call, the disk is told again which way the switch stands.
        self.unsaved.add(Key::Switch);
        answer.await?;
        {
            let kills = lock(&self.kills);
            // Put on again meanwhile: the later word holds.
            if *kills == on_since {
                self.kill.store(None);
            }
        }
        self.unsaved.add(Key::Switch);
        tracing::info!(by, "the kill switch was lifted");
        self.changed();
        Ok(true)
    }

    /// The kill switch, if it is on here; not that of a control plane.
    #[must_use]
    pub fn kill_switch(&self) -> Option<KillSwitch> {
        self.kill.load().as_deref().cloned()
    }
}
