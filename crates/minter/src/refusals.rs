//! Records refusals, but no more of them than the trail is worth: a guest can have any number of names refused. Of each
//! asker the first in a window have a record each; how many followed, and why, is summed up in one.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use outgate_clock::Clock;
use outgate_journey::denial::Denial;

use crate::{Asker, Trail};

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);
/// How many refusals in a window have a record of their own.
const IN_FULL: u32 = 20;
/// Askers have certificates, so there are few; more than this share one window.
const MOST_ASKERS: usize = 1024;

/// Counts refusals, by asker.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<String, Window>>);

#[derive(Debug)]
struct Window {
    asker: Asker,
    began: Duration,
    recorded: u32,
    left_out: BTreeMap<&'static str, u64>,
}

impl Refusals {
    /// Takes note of one refusal.
    pub(crate) fn note(
        &self,
        asker: &Asker,
        name: &str,
        denial: &Denial,
        (trail, clock): (&dyn Trail, &dyn Clock),
    ) {
        self.sum_up(trail, clock);
        let mut windows = self.windows();
        let crowded = windows.len() >= MOST_ASKERS && !windows.contains_key(asker.name());
        let key = if crowded { "" } else { asker.name() };
        let window = windows.entry(key.to_owned()).or_insert_with(|| Window {
            asker: asker.clone(),
            began: clock.monotonic(),
            recorded: 0,
            left_out: BTreeMap::new(),
        });
        if window.recorded >= IN_FULL {
            *window.left_out.entry(denial.code().as_str()).or_default() += 1;
            return;
        }
        window.recorded += 1;
        drop(windows);
        trail.record(asker.refused(name, denial, clock));
    }

    /// Ends the windows that are over, and records what they left out.
    pub(crate) fn sum_up(&self, trail: &dyn Trail, clock: &dyn Clock) {
        self.end(trail, clock, WINDOW);
    }

    /// Ends every window: nothing follows.
    pub(crate) fn close(&self, trail: &dyn Trail, clock: &dyn Clock) {
        self.end(trail, clock, Duration::ZERO);
    }

    fn end(&self, trail: &dyn Trail, clock: &dyn Clock, age: Duration) {
        let now = clock.monotonic();
        let over = |_: &String, window: &mut Window| now.saturating_sub(window.began) >= age;
        let ended: Vec<_> = self.windows().extract_if(over).collect();
        for (_, window) in ended {
            if window.left_out.is_empty() {
                continue;
            }
            let counts = window.left_out.iter();
            let counts: Vec<_> = counts.map(|(code, n)| format!("{n} {code}")).collect();
            trail.record(window.asker.refused_more(&counts.join(", "), clock));
        }
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<String, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
