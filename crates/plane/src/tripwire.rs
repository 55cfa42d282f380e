//! What a session did of late, for the tripwire: counted in slots of a sliding window, on the monotonic clock.

use std::{collections::HashMap, sync::Arc, time::Duration};

use outgate_clock::Clock;
use outgate_journey::{
    denial::{Denial, DenyCode},
    name::HostName,
    record::{AnomalyRecord, AuditEvent, AuditSink, SessionChange, SessionRecord},
    session::{Session, SessionEnd, SessionId},
    tripwire::{Budget, Overrun, Tripwire, WindowUse},
};

use crate::{
    clock,
    core::{Core, Live},
    limits::SessionUse,
};

/// The window moves on by so many parts: what is older than it is forgotten a twelfth late at most.
const SLOTS: u8 = 12;
/// Hosts that are remembered: a session that names more has long overrun any budget.
const MOST_HOSTS: usize = 4096;

/// Something that a session does.
#[derive(Debug, Clone, Copy)]
pub enum Seen<'a> {
    /// A connection to a host, whose requests are seen by themselves.
    Connection(&'a HostName),
    /// A request to a host, or a tunnel that shows none.
    Request(&'a HostName),
    /// Bytes towards an upstream.
    BytesOut(u64),
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    number: u64,
    bytes_out: u64,
    requests: u64,
}

/// One session's window.
#[derive(Debug, Default)]
pub struct Window {
    /// The length that the slots were counted for.
    length: Duration,
    slots: [Slot; SLOTS as usize],
    /// Each host, and the slot in which it was seen last.
    hosts: HashMap<HostName, u64>,
    /// When each overrun was told.
    told: Vec<(Budget, u64)>,
}

impl Window {
    /// Notes what was seen and judges the window; an overrun is told once a window.
    pub fn note(&mut self, wire: &Tripwire, seen: Seen<'_>, now: Duration) -> Option<Overrun> {
        if self.length != wire.window {
            *self = Self {
                length: wire.window,
                ..Self::default()
            };
        }
        let slots = u64::from(SLOTS);
        let length = (wire.window / u32::from(SLOTS)).as_millis().max(1);
        // Slots are numbered from 1, so that one that was never used is older than any window.
        let number = u64::try_from(now.as_millis() / length)
            .unwrap_or(u64::MAX)
            .saturating_add(1 + slots);
        self.count(seen, number);
        let oldest = number.saturating_sub(slots);
        let recent = || self.slots.iter().filter(|slot| slot.number > oldest);
        let used = WindowUse {
            bytes_out: recent().map(|slot| slot.bytes_out).sum(),
            requests: recent().map(|slot| slot.requests).sum(),
            distinct_destinations: if wire.distinct_destinations.is_some() {
                self.hosts.values().filter(|at| **at > oldest).count() as u64
            } else {
                0
            },
        };
        let overrun = wire.judge(&used)?;
        self.told.retain(|(_, at)| *at > oldest);
        if self
            .told
            .iter()
            .any(|(budget, _)| *budget == overrun.budget)
        {
            return None;
        }
        self.told.push((overrun.budget, number));
        Some(overrun)
    }

    fn count(&mut self, seen: Seen<'_>, number: u64) {
        let at = usize::try_from(number % u64::from(SLOTS)).unwrap_or(0);
        let Some(slot) = self.slots.get_mut(at) else {
            return;
        };
        if slot.number != number {
            *slot = Slot {
                number,
                ..Slot::default()
            };
        }
        match seen {
            Seen::BytesOut(bytes) => slot.bytes_out = slot.bytes_out.saturating_add(bytes),
            Seen::Request(_) => slot.requests += 1,
            Seen::Connection(_) => {}
        }
        if let Seen::Connection(host) | Seen::Request(host) = seen {
            if self.hosts.len() >= MOST_HOSTS {
                let slots = u64::from(SLOTS);
                self.hosts.retain(|_, at| at.saturating_add(slots) > number);
            }
            if let Some(at) = self.hosts.get_mut(host) {
                *at = number;
            } else if self.hosts.len() < MOST_HOSTS {
                self.hosts.insert(host.clone(), number);
            }
        }
    }
}

impl Core {
    /// Notes what a session does under the policy of this moment.
    ///
    /// # Errors
    /// As [`Self::watch`].
    pub fn watch_session(
        self: &Arc<Self>,
        live: &Live,
        session: &Session,
        seen: Seen<'_>,
    ) -> Result<(), Denial> {
        let Some(wire) = live.policy.tripwire() else {
            return Ok(());
        };
        let used = self.plane.limits.of(session.id());
        self.watch(wire, &used, session.id(), seen)
            .map_err(|code| Denial::new(code).because("tripwire").of(session.id()))
    }

    /// Notes what a session does. An anomaly is recorded; where the tripwire is armed it ends the session.
    ///
    /// # Errors
    /// [`DenyCode::SessionRevoked`]: the session is over, and what it was about to do is not done.
    pub fn watch(
        self: &Arc<Self>,
        wire: &Tripwire,
        used: &SessionUse,
        session: &SessionId,
        seen: Seen<'_>,
    ) -> Result<(), DenyCode> {
        let Some(overrun) = self.plane.limits.watch(used, wire, seen) else {
            return Ok(());
        };
        let time_unix_ms = clock::machine().wall_ms();
        let anomaly = AnomalyRecord {
            time_unix_ms,
            session: session.clone(),
            overrun,
            window_seconds: wire.window.as_secs(),
            armed: wire.arm,
        };
        tracing::warn!(
            code = "tripwire",
            %session,
            budget = overrun.budget.as_str(),
            limit = overrun.limit,
            seen = overrun.seen,
            armed = wire.arm,
            "a session does more than its owner expects"
        );
        if let Some(told) = &self.on_anomaly {
            told(&anomaly);
        }
        self.plane
            .audit
            .record(AuditEvent::Anomaly(Box::new(anomaly)));
        if !wire.arm {
            return Ok(());
        }
        let end = SessionEnd::Tripwire;
        self.plane
            .audit
            .record(AuditEvent::Session(Box::new(SessionRecord::by_itself(
                session,
                SessionChange::Ended(end),
                time_unix_ms,
            ))));
        let (core, session) = (Arc::clone(self), session.clone());
        self.tasks.spawn(async move {
            if let Err(error) = core.plane.sessions.end(&session, end, "itself:tripwire").await {
                tracing::error!(%error, %session, "the session is cut, and its end is not on disk yet");
            }
        });
        Err(end.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(window: u64) -> Tripwire {
        Tripwire {
            window: Duration::from_secs(window),
            bytes_out: Some(100),
            requests: Some(3),
            distinct_destinations: Some(2),
            arm: false,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let (mut window, wire) = (Window::default(), wire(60));
        assert!(window.note(&wire, Seen::BytesOut(60), at(0)).is_none());
        assert!(window.note(&wire, Seen::BytesOut(60), at(61)).is_none());
        let over = window.note(&wire, Seen::BytesOut(60), at(100)).unwrap();
        assert_eq!((over.budget, over.seen), (Budget::BytesOut, 120));
    }

    #[test]
    fn each_budget_is_told_once_a_window() {
        let (mut window, wire) = (Window::default(), wire(60));
        let told = |window: &mut Window, second| {
            window
                .note(&wire, Seen::BytesOut(101), at(second))
                .is_some()
        };
        assert!(told(&mut window, 0));
        assert!(!told(&mut window, 1) && !told(&mut window, 50));
        assert!(told(&mut window, 66));
    }

    #[test]
    fn requests_and_hosts_have_budgets_of_their_own() {
        let (mut window, wire) = (Window::default(), wire(60));
        let [a, b, c] = ["a.test", "b.test", "c.test"].map(host);
        for seen in [
            Seen::Connection(&a),
            Seen::Connection(&a),
            Seen::Request(&b),
            Seen::Request(&a),
        ] {
            assert!(window.note(&wire, seen, at(0)).is_none());
        }
        let over = window.note(&wire, Seen::Connection(&c), at(1)).unwrap();
        assert_eq!(over.budget, Budget::DistinctDestinations);
        // The hosts stay over their budget; the requests come to theirs only once the hosts are forgotten.
        assert!(window.note(&wire, Seen::Request(&a), at(2)).is_none());
        let mut window = Window::default();
        let overs: Vec<_> = (0..5)
            .map(|_| window.note(&wire, Seen::Request(&a), at(3)))
            .collect();
        assert_eq!(overs.iter().flatten().count(), 1);
        assert_eq!(overs[3].unwrap().budget, Budget::Requests);
    }

    #[test]
    fn hosts_are_forgotten_and_never_more_than_a_bound_are_kept() {
        let mut window = Window::default();
        let wire = wire(60);
        for number in 0..2 * MOST_HOSTS {
            let name = host(&format!("h{number}.test"));
            window.note(&wire, Seen::Connection(&name), at(0));
        }
        assert_eq!(window.hosts.len(), MOST_HOSTS);
        window.note(&wire, Seen::Connection(&host("later.test")), at(1000));
        assert_eq!(window.hosts.len(), 1);
    }

    #[test]
    fn another_window_begins_afresh() {
        let mut window = Window::default();
        window.note(&wire(60), Seen::BytesOut(90), at(0));
        assert!(window.note(&wire(120), Seen::BytesOut(90), at(1)).is_none());
    }
}
