//! Once a second: ends what idled or lived for too long, lets entries of the denylist lapse, and forgets what nobody
//! can ask for any more. Never waits, for a disk or for anything else.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Sessions, activity::milliseconds, live::Live, lock, revoke::CLOCK};

/// How long a session that was created here is listed after it is over.
const LISTED: Duration = Duration::from_secs(3600);
/// How long one that was seen is kept beyond its last token: with another one soon after it goes on, as old as it is.
const SEEN_AGAIN: Duration = Duration::from_secs(60);
/// Endings are many, and there is no hurry to forget one.
const SWEPT_EVERY_SECONDS: u64 = 60;

impl Sessions {
    pub(super) fn judge(&self) {
        let now = self.time.now();
        let lately = milliseconds(now);
        self.time.lately().fetch_max(lately, Ordering::Relaxed);
        let rules = self.rules.load_full();
        for live in self.lives() {
            if live.over.get().is_none() {
                if let Some(why) = live.overdue(&rules, now) {
                    self.end_by_clock(&live, why);
                } else if live.ran_out(Duration::ZERO, now) {
                    self.give_place_back(&live);
                }
            }
            if self.is_forgettable(&live, now) {
                self.forget(&live);
            }
        }
        let steady = self.time.steady();
        let has_lapsed = {
            // Not while an entry is being put in the place of one that has just lapsed.
            let _one_order = lock(&self.edits);
            self.denials.lapse(steady)
        };
        if has_lapsed {
            self.changed();
        }
        let swept = self.swept_at.load(Ordering::Relaxed);
        if steady.0 >= swept.saturating_add(SWEPT_EVERY_SECONDS) {
            self.swept_at.store(steady.0, Ordering::Relaxed);
            self.endings.forget(steady);
        }
    }

    fn is_forgettable(&self, live: &Live, now: Duration) -> bool {
        if let Some(over) = live.over.get() {
            // An identity may idle away and come back with another token as often as it likes: its past is not kept.
            let is_past = live.is_seen && over.by == CLOCK;
            return is_past || now.saturating_sub(over.since) >= LISTED;
        }
        let keep = if live.is_seen { SEEN_AGAIN } else { LISTED };
        live.ran_out(keep, now)
    }

    fn forget(&self, live: &Arc<Live>) {
        // Another one may stand in its place by now. And a stream may outlive its token, and must still be cut.
        let is_same = |there: &Arc<Live>| {
            Arc::ptr_eq(there, live) && (live.over.get().is_some() || !live.is_open())
        };
        let removed = self.known.remove_if(&live.id, |_, there| is_same(there));
        if removed.is_some() {
            if live.is_seen {
                self.seen.fetch_sub(1, Ordering::Relaxed);
            }
            self.give_place_back(live);
            self.recent.forget(&live.id);
            // What never got there need not be taken off the disk.
            if self.store.is_some() && live.saved().is_some() {
                lock(&self.unsaved.forget).push(live.id.clone());
            }
        }
    }
}
