//! Puts in memory what was on disk. What was over is over; time went on while nobody looked.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outgate_store::Remembered;

use super::{
    Sessions,
    live::{Live, Over},
};

impl Sessions {
    pub(super) fn restore(&self, remembered: Remembered) {
        self.kill.store(remembered.kill.map(Arc::new));
        for ending in remembered.endings {
            self.endings.add(ending);
        }
        for (tenant, sessions) in remembered.quotas {
            self.quotas.set(&tenant, Some(sessions));
        }
        let now = self.time.now();
        for stored in remembered.sessions {
            let live = Live::restored(stored, &self.time);
            self.restore_over(&live);
            let takes_place =
                !live.is_seen && live.over.get().is_none() && !live.ran_out(Duration::ZERO, now);
            if takes_place {
                live.has_place.store(true, Ordering::Release);
                self.quotas.count(live.tenant.as_deref());
            }
            if live.is_seen {
                self.seen.fetch_add(1, Ordering::Relaxed);
            }
            self.known.insert(live.id.clone(), Arc::new(live));
        }
    }

    fn restore_over(&self, live: &Live) {
        let ending = self.endings.get(&live.id);
        let covers = |until: Option<_>| until.is_none_or(|until| live.expires() <= until);
        if let Some(ending) = ending.filter(|ending| covers(ending.tokens_until)) {
            let _ = live.over.set(Over {
                cause: ending.cause,
                at: ending.at,
                by: ending.by,
                since: Duration::from_secs(ending.began.0),
            });
        }
    }
}
