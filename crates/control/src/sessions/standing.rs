//! The question that is asked for every request: whether the session may go on.

use std::sync::{Arc, atomic::Ordering};

use dashmap::mapref::entry::Entry;
use outgate_journey::{
    policy::SessionLimits,
    session::{Denylist, SessionEnd, TokenClaims, TokenOrigin},
};

use super::{Activity, Sessions, live::Live};

/// Identities of external issuers that are followed at once, where the rules give no number.
const SEEN_MOST: usize = 100_000;
/// Endings of such identities that are remembered.
const FOREIGN_ENDINGS_MOST: usize = 1_000_000;

impl Denylist for Sessions {
    fn standing(&self, claims: &TokenClaims) -> Result<Option<Arc<SessionLimits>>, SessionEnd> {
        self.refusal(claims).map_or(Ok(()), Err)?;
        let set_from_afar = || {
            let followed = self.followed.load();
            followed.as_ref()?.limits.get(&claims.session).cloned()
        };
        let Some(live) = self.live(&claims.session) else {
            self.check_room(claims)?;
            return Ok(set_from_afar());
        };
        if let Some(over) = live.over.get() {
            // Over for the tokens that it had; this one of its issuer is a later one, and begins anew.
            return if live.is_external() {
                Ok(set_from_afar())
            } else {
                Err(over.cause)
            };
        }
        // Asked here as well as every second: a machine that slept must not let one request through.
        let rules = self.rules.load();
        let is_timed = rules.idle.is_some() || rules.lifetime.is_some();
        if is_timed && let Some(why) = live.overdue(&rules, self.time.now()) {
            self.end_by_clock(&live, why);
            return self.standing(claims);
        }
        Ok(live.limits.load_full().or_else(set_from_afar))
    }

    fn is_fresh(&self) -> bool {
        self.is_fresh.get().is_none_or(|is_fresh| is_fresh())
    }
}

impl Sessions {
    /// What takes the standing of these claims away, whoever they are of.
    fn refusal(&self, claims: &TokenClaims) -> Option<SessionEnd> {
        if self.kill.load().is_some() {
            return Some(SessionEnd::KillSwitch);
        }
        if let Some(cause) = self.endings.refuse(claims) {
            return Some(cause);
        }
        if self.denials.refuse(claims, || self.time.steady()) {
            return Some(SessionEnd::Denied);
        }
        let followed = self.followed.load();
        followed.as_ref()?.refuse(claims)
    }

    /// Refuses an identity that would be one too many to keep time for: it could not be ended.
    fn check_room(&self, claims: &TokenClaims) -> Result<(), SessionEnd> {
        if matches!(claims.origin, TokenOrigin::Own) {
            return Ok(());
        }
        let bound = self.rules.load().sessions;
        let most = bound.map_or(SEEN_MOST, |bound| {
            usize::try_from(bound).unwrap_or(SEEN_MOST)
        });
        let is_full = self.seen.load(Ordering::Relaxed) >= most
            || self.endings.foreign() >= FOREIGN_ENDINGS_MOST;
        if is_full {
            Err(SessionEnd::Denied)
        } else {
            Ok(())
        }
    }

    /// What a connection or a request of these claims holds for as long as it lasts. The call counts as activity of
    /// the session, and makes one known that was not created here. Without standing, the signal is already given.
    #[must_use]
    pub fn activity(&self, claims: &TokenClaims) -> Arc<Activity> {
        if let Err(why) = self.standing(claims) {
            return Arc::new(Activity::refused(why));
        }
        let (live, activity) = self.begin_use(claims);
        // Whoever revokes first writes it down and then cuts what is open. Ours is open now: either it is cut, or it is
        // written down and found here.
        if let Some(why) = self.refusal(claims) {
            activity.cut_for(why);
        } else if let Some(over) = live.over.get() {
            activity.cut_for(over.cause);
        }
        activity
    }

    fn begin_use(&self, claims: &TokenClaims) -> (Arc<Live>, Arc<Activity>) {
        loop {
            let live = self.enter(claims);
            live.has_token_until(claims.expires, &self.time);
            live.is_given(&claims.terms);
            live.pulse.touch(self.time.now());
            let activity = live.activity(&claims.token_id);
            // Forgotten before it was open: whoever revokes would not find it.
            let there = self.known.get(&claims.session);
            if there.is_some_and(|there| Arc::ptr_eq(&there, &live)) {
                return (live, activity);
            }
        }
    }

    fn enter(&self, claims: &TokenClaims) -> Arc<Live> {
        if let Some(live) = self.live(&claims.session)
            && live.over.get().is_none()
        {
            return live;
        }
        let fresh = || Arc::new(Live::seen(claims, &self.time));
        let live = match self.known.entry(claims.session.clone()) {
            Entry::Occupied(there) if there.get().over.get().is_none() || !there.get().is_seen => {
                return Arc::clone(there.get());
            }
            Entry::Occupied(mut over) => {
                over.insert(fresh());
                Arc::clone(over.get())
            }
            Entry::Vacant(free) => {
                self.seen.fetch_add(1, Ordering::Relaxed);
                Arc::clone(&free.insert(fresh()))
            }
        };
        if let Some(told) = self.told_begin.get() {
            told(claims);
        }
        live
    }
}
