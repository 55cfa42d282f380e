//! What was out of the ordinary: Detection Finding.

use std::fmt;

use outgate_journey::record::AnomalyRecord;
use serde::{Serialize, Serializer};

use super::{Actor, Head, MAX_NAME, Metadata, Uid};
use crate::text::Text;

/// One anomaly.
#[derive(Serialize)]
pub(super) struct AnomalyEvent<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    severity_id: u8,
    status_id: u8,
    action_id: u8,
    disposition_id: u8,
    is_alert: bool,
    metadata: Metadata<'a>,
    actor: Actor<'a>,
    finding_info: Finding<'a>,
    unmapped: Overrun,
}

#[derive(Serialize)]
struct Finding<'a> {
    uid: FindingId<'a>,
    title: &'static str,
    analytic: Analytic,
}

#[derive(Serialize)]
struct Analytic {
    name: &'static str,
    /// Rule.
    type_id: u8,
}

#[derive(Serialize)]
struct Overrun {
    budget: &'static str,
    limit: u64,
    seen: u64,
    window_seconds: u64,
    armed: bool,
}

/// Which session, which budget, when: an anomaly has no number of its own.
struct FindingId<'a>(&'a AnomalyRecord);

impl fmt::Display for FindingId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (session, budget) = (self.0.session.as_str(), self.0.overrun.budget.as_str());
        write!(f, "{session}:{budget}:{}", self.0.time_unix_ms)
    }
}

impl Serialize for FindingId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn event(record: &AnomalyRecord) -> AnomalyEvent<'_> {
    AnomalyEvent {
        head: Head::new(2004, 1, record.time_unix_ms),
        // High where the session was ended for it, else Medium.
        severity_id: if record.armed { 4 } else { 3 },
        // New.
        status_id: 1,
        // Denied and Access Revoked, or Observed and Alert.
        action_id: if record.armed { 2 } else { 3 },
        disposition_id: if record.armed { 24 } else { 19 },
        is_alert: true,
        metadata: Metadata::new(&["host", "security_control"], None),
        actor: Actor {
            session: Some(Uid {
                uid: Text::new(record.session.as_str(), MAX_NAME),
            }),
            user: None,
        },
        finding_info: Finding {
            uid: FindingId(record),
            title: "A session went over its exfiltration budget",
            analytic: Analytic {
                name: "tripwire",
                type_id: 1,
            },
        },
        unmapped: Overrun {
            budget: record.overrun.budget.as_str(),
            limit: record.overrun.limit,
            seen: record.overrun.seen,
            window_seconds: record.window_seconds,
            armed: record.armed,
        },
    }
}
