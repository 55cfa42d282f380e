//! Who asks for a leaf, and how that is written into the record of the mint.

use outgate_clock::Clock;
use outgate_journey::{
    denial::Denial,
    record::{ActionRecord, AuditEvent, Operator, OperatorKind},
};

use crate::Leaf;

/// What minting a leaf is called in records.
const OPERATION: &str = "leaf.mint";
/// Names of data planes come from certificates; a record takes this much of one, in bytes.
const MAX_TARGET: usize = 255;

/// Who asks: a data plane, by its certificate or through the Unix socket, or the gateway itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker(Operator);

impl Asker {
    /// The data plane with this name in its client certificate.
    #[must_use]
    pub fn plane(name: &str) -> Self {
        Self::known(name, OperatorKind::Gateway)
    }

    /// Whoever is let through a Unix socket.
    #[must_use]
    pub fn local() -> Self {
        Self::known("local", OperatorKind::Local)
    }

    /// The gateway itself, or a command of its operator on the same machine.
    #[must_use]
    pub fn itself() -> Self {
        Self(Operator::itself())
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    fn known(name: &str, kind: OperatorKind) -> Self {
        Self(Operator {
            name: name.to_owned(),
            kind,
            tenant: None,
        })
    }

    /// The record of a leaf that was minted. Its id is the certificate's serial number, which is the secret's version.
    pub(crate) fn minted(&self, leaf: &Leaf, clock: &dyn Clock) -> AuditEvent {
        let until = outgate_audit::utc(leaf.not_after().0);
        self.event(clock, |record| {
            leaf.serial().clone_into(&mut record.request_id);
            record.target = Some(leaf.host().to_string());
            record.detail = format!("for {}, good until {until}", self.name());
        })
    }

    /// The record of one refusal. `name` is what was asked for, as it was written.
    pub(crate) fn refused(&self, name: &str, denial: &Denial, clock: &dyn Clock) -> AuditEvent {
        self.event(clock, |record| {
            record.target = Some(shortened(name).to_owned());
            record.outcome = Err(denial.code().as_str());
            record.detail = match denial.detail() {
                "" => format!("to {}", self.name()),
                detail => format!("to {}: {detail}", self.name()),
            };
        })
    }

    /// The record of refusals that have none of their own.
    pub(crate) fn refused_more(&self, counts: &str, clock: &dyn Clock) -> AuditEvent {
        self.event(clock, |record| {
            record.outcome = Err("leaves_refused");
            record.detail = format!("to {}, without a record each: {counts}", self.name());
        })
    }

    fn event(&self, clock: &dyn Clock, fill: impl FnOnce(&mut ActionRecord)) -> AuditEvent {
        let mut record = ActionRecord {
            request_id: String::new(),
            time_unix_ms: clock.wall_ms(),
            operator: self.0.clone(),
            client: None,
            operation: OPERATION,
            target: None,
            outcome: Ok(()),
            status: None,
            detail: String::new(),
        };
        fill(&mut record);
        AuditEvent::Action(Box::new(record))
    }
}

fn shortened(name: &str) -> &str {
    let mut end = name.len().min(MAX_TARGET);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_between_characters() {
        let long = "ä".repeat(200);
        assert_eq!(shortened(&long), "ä".repeat(127));
        assert_eq!(shortened("a.test"), "a.test");
    }
}
