//! Between what is held and what travels. Whatever arrives is parsed as a whole or refused as a whole: half a denylist
//! would let pass what the other half denies.

use std::sync::Arc;

use outgate_fleet_proto as pb;
use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    record::AnomalyRecord,
    session::{SessionEnd, SessionId, UnixSeconds},
    tripwire::{Budget, Overrun},
};

use crate::denylist::{Change, Fact, FactKey, Target};

/// Texts that explain, and that nothing is decided by.
const EXPLANATION_BYTES: usize = 512;

/// A message that says something which this version does not know, or cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

const UNKNOWN: Malformed = Malformed("it has a part that this version does not know");
const NO_ID: Malformed = Malformed("it names no session");

pub(crate) fn change_to_proto(change: &Change) -> pb::Change {
    use pb::change::Change as Wire;
    let wire = match change {
        Change::Set(fact) => Wire::Set(fact_to_proto(fact)),
        Change::Removed(key) => Wire::Removed(key_to_proto(key)),
    };
    pb::Change { change: Some(wire) }
}

pub(crate) fn change_from_proto(change: pb::Change) -> Result<Change, Malformed> {
    use pb::change::Change as Wire;
    match change.change.ok_or(UNKNOWN)? {
        Wire::Set(fact) => fact_from_proto(fact).map(Change::Set),
        Wire::Removed(key) => key_from_proto(key).map(Change::Removed),
    }
}

pub(crate) fn fact_to_proto(fact: &Fact) -> pb::Fact {
    use pb::fact::Fact as Wire;
    let wire = match fact {
        Fact::KillSwitch { since, by, reason } => Wire::KillSwitch(pb::KillSwitch {
            since: since.0,
            by: clipped(by),
            reason: clipped(reason),
        }),
        Fact::Ended { session, how } => Wire::Ended(pb::Ended {
            session: session.to_string(),
            how: how.as_str().to_owned(),
        }),
        Fact::Denied {
            target,
            reason,
            by,
            at,
            until,
        } => Wire::Denied(pb::Denied {
            target: Some(target_to_proto(target)),
            reason: clipped(reason),
            by: clipped(by),
            at: at.0,
            until: until.map(|until| until.0),
        }),
        Fact::Limits { session, limits } => {
            let text = LimitsText::from(limits);
            Wire::Limits(pb::Limits {
                session: session.to_string(),
                requests: text.requests,
                connections: text.connections,
                concurrent_connections: text.concurrent_connections,
                bytes_out: text.bytes_out,
                distinct_destinations: text.distinct_destinations,
            })
        }
    };
    pb::Fact { fact: Some(wire) }
}

pub(crate) fn fact_from_proto(fact: pb::Fact) -> Result<Fact, Malformed> {
    use pb::fact::Fact as Wire;
    Ok(match fact.fact.ok_or(UNKNOWN)? {
        Wire::KillSwitch(switch) => Fact::KillSwitch {
            since: UnixSeconds(switch.since),
            by: switch.by.into(),
            reason: switch.reason.into(),
        },
        Wire::Ended(ended) => Fact::Ended {
            session: session(&ended.session)?,
            // An end that this version has no word for is an end.
            how: SessionEnd::parse(&ended.how).unwrap_or(SessionEnd::Ended),
        },
        Wire::Denied(denied) => Fact::Denied {
            target: target_from_proto(denied.target.ok_or(UNKNOWN)?)?,
            reason: denied.reason.into(),
            by: denied.by.into(),
            at: UnixSeconds(denied.at),
            until: denied.until.map(UnixSeconds),
        },
        Wire::Limits(limits) => limits_from_proto(limits)?,
    })
}

fn limits_from_proto(wire: pb::Limits) -> Result<Fact, Malformed> {
    let session = session(&wire.session)?;
    let text = LimitsText {
        requests: wire.requests,
        connections: wire.connections,
        concurrent_connections: wire.concurrent_connections,
        bytes_out: wire.bytes_out,
        distinct_destinations: wire.distinct_destinations,
    };
    let limits = SessionLimits::try_from(&text)
        .map_err(|_| Malformed("it has limits that cannot be read"))?;
    Ok(Fact::Limits { session, limits })
}

fn key_to_proto(key: &FactKey) -> pb::FactKey {
    use pb::fact_key::Key as Wire;
    let wire = match key {
        FactKey::KillSwitch => Wire::KillSwitch(pb::Empty {}),
        FactKey::Ended(session) => Wire::Ended(session.to_string()),
        FactKey::Denied(target) => Wire::Denied(target_to_proto(target)),
        FactKey::Limits(session) => Wire::Limits(session.to_string()),
    };
    pb::FactKey { key: Some(wire) }
}

fn key_from_proto(key: pb::FactKey) -> Result<FactKey, Malformed> {
    use pb::fact_key::Key as Wire;
    Ok(match key.key.ok_or(UNKNOWN)? {
        Wire::KillSwitch(pb::Empty {}) => FactKey::KillSwitch,
        Wire::Ended(id) => FactKey::Ended(session(&id)?),
        Wire::Denied(target) => FactKey::Denied(target_from_proto(target)?),
        Wire::Limits(id) => FactKey::Limits(session(&id)?),
    })
}

fn target_to_proto(target: &Target) -> pb::Target {
    use pb::target::Target as Wire;
    let wire = match target {
        Target::Session(session) => Wire::Session(session.to_string()),
        Target::Token(id) => Wire::Token(id.to_string()),
        Target::Subject { issuer, subject } => Wire::Subject(pb::Subject {
            issuer: issuer.to_string(),
            subject: subject.to_string(),
        }),
    };
    pb::Target { target: Some(wire) }
}

fn target_from_proto(target: pb::Target) -> Result<Target, Malformed> {
    use pb::target::Target as Wire;
    Ok(match target.target.ok_or(UNKNOWN)? {
        Wire::Session(id) => Target::Session(session(&id)?),
        Wire::Token(id) => Target::Token(id.into()),
        Wire::Subject(subject) => Target::Subject {
            issuer: subject.issuer.into(),
            subject: subject.subject.into(),
        },
    })
}

pub(crate) fn anomaly_to_proto(anomaly: &AnomalyRecord) -> pb::Anomaly {
    pb::Anomaly {
        time_unix_ms: anomaly.time_unix_ms,
        session: anomaly.session.to_string(),
        budget: anomaly.overrun.budget.as_str().to_owned(),
        limit: anomaly.overrun.limit,
        seen: anomaly.overrun.seen,
        window_seconds: anomaly.window_seconds,
        armed: anomaly.armed,
    }
}

pub(crate) fn anomaly_from_proto(anomaly: &pb::Anomaly) -> Result<AnomalyRecord, Malformed> {
    let budget = [
        Budget::BytesOut,
        Budget::Requests,
        Budget::DistinctDestinations,
    ]
    .into_iter()
    .find(|budget| budget.as_str() == anomaly.budget)
    .ok_or(Malformed("it names no budget"))?;
    Ok(AnomalyRecord {
        time_unix_ms: anomaly.time_unix_ms,
        session: session(&anomaly.session)?,
        overrun: Overrun {
            budget,
            limit: anomaly.limit,
            seen: anomaly.seen,
        },
        window_seconds: anomaly.window_seconds,
        armed: anomaly.armed,
    })
}

fn session(text: &str) -> Result<SessionId, Malformed> {
    SessionId::parse(text).ok_or(NO_ID)
}

fn clipped(text: &Arc<str>) -> String {
    let end = text.floor_char_boundary(EXPLANATION_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SessionId {
        SessionId::parse(text).unwrap()
    }

    fn facts() -> Vec<Fact> {
        let denied = |target, until| Fact::Denied {
            target,
            reason: "stolen".into(),
            by: "soar".into(),
            at: UnixSeconds(5),
            until,
        };
        vec![
            Fact::KillSwitch {
                since: UnixSeconds(9),
                by: "eve".into(),
                reason: "fire".into(),
            },
            Fact::Ended {
                session: id("s_1"),
                how: SessionEnd::Idle,
            },
            denied(Target::Session(id("s_2")), None),
            denied(Target::Token("jti".into()), Some(UnixSeconds(77))),
            denied(
                Target::Subject {
                    issuer: "https://idp".into(),
                    subject: "bob".into(),
                },
                Some(UnixSeconds(0)),
            ),
            Fact::Limits {
                session: id("s_3"),
                limits: SessionLimits {
                    requests: "120/min".parse().ok(),
                    bytes_out: Some(1 << 40),
                    ..SessionLimits::default()
                },
            },
        ]
    }

    #[test]
    fn every_change_arrives_as_it_was_sent() {
        for fact in facts() {
            let removed = Change::Removed(fact.key());
            for change in [Change::Set(fact), removed] {
                assert_eq!(change_from_proto(change_to_proto(&change)), Ok(change));
            }
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_refused_but_an_end_is_an_end() {
        assert_eq!(change_from_proto(pb::Change { change: None }), Err(UNKNOWN));
        assert_eq!(fact_from_proto(pb::Fact { fact: None }), Err(UNKNOWN));
        let ended = |session: &str, how: &str| pb::Fact {
            fact: Some(pb::fact::Fact::Ended(pb::Ended {
                session: session.to_owned(),
                how: how.to_owned(),
            })),
        };
        assert_eq!(fact_from_proto(ended("no id!", "ended")), Err(NO_ID));
        assert_eq!(
            fact_from_proto(ended("s_1", "by a word of tomorrow")),
            Ok(Fact::Ended {
                session: id("s_1"),
                how: SessionEnd::Ended
            })
        );
        let limits = pb::Limits {
            session: "s_1".to_owned(),
            requests: Some("a lot".to_owned()),
            ..pb::Limits::default()
        };
        let fact = pb::Fact {
            fact: Some(pb::fact::Fact::Limits(limits)),
        };
        assert!(fact_from_proto(fact).is_err());
    }

    #[test]
    fn a_long_explanation_is_cut_at_a_character() {
        let long: Arc<str> = "ä".repeat(400).into();
        assert_eq!(clipped(&long).len(), 512);
        let odd: Arc<str> = format!("a{long}").into();
        assert_eq!(clipped(&odd).len(), 511);
    }
}
