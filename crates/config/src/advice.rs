//! Decides which lines of the policy would allow what was denied. Only where the policy is the reason: everything else
//! gets a hint. The lines are the narrowest that do it; whether they should be written is the reader's to say.

use std::fmt;

use outgate_journey::{
    denial::DenyCode,
    record::{DecisionRecord, Verdict},
};

use crate::{Config, case::Case};

/// Methods this long may have been cut, and say nothing then.
pub(crate) const CUT_METHOD_BYTES: usize = 32;
/// Paths this long may have been cut.
pub(crate) const CUT_PATH_BYTES: usize = 1024;

/// What would let a denied request through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Advice {
    /// These changes of the policy file.
    Policy {
        /// All of them are needed.
        edits: Vec<Edit>,
        /// The flag that does the same for one run.
        flag: Option<String>,
        /// What to know before doing it.
        note: Option<&'static str>,
    },
    /// The policy is not the reason: what to do instead.
    Hint(String),
}

/// One change of the policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// An item to add under `destinations`; may have several lines, the first beginning with `- `.
    AddDestination {
        /// YAML.
        text: String,
    },
    /// A key to set in a destination.
    Set {
        /// The rule's name: `destinations[2] api.example.org`.
        destination: String,
        /// The key.
        key: &'static str,
        /// YAML, in one line.
        value: String,
    },
    /// An item to add to a list in a destination.
    Append {
        /// As for `Set`.
        destination: String,
        /// The list's key.
        key: &'static str,
        /// YAML, in one line.
        value: String,
    },
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddDestination { text } => f.write_str(text),
            Self::Set {
                destination,
                key,
                value,
            } => write!(f, "{key}: {value}   # in {destination}"),
            Self::Append {
                destination,
                key,
                value,
            } => write!(f, "{key}: [{value}]   # add to {destination}"),
        }
    }
}

/// The lines to write, then the flag and the note as comments; or the hint.
impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (edits, flag, note) = match self {
            Self::Hint(hint) => return f.write_str(hint),
            Self::Policy { edits, flag, note } => (edits, flag, note),
        };
        for (at, edit) in edits.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{edit}")?;
        }
        if let Some(flag) = flag {
            write!(f, "   # or {flag}")?;
        }
        if let Some(note) = note {
            write!(f, "   # {note}")?;
        }
        Ok(())
    }
}

/// What would let through what `record` says was denied under `config`. `None` for what was allowed.
#[must_use]
pub fn advise(record: &DecisionRecord, config: &Config) -> Option<Advice> {
    let Verdict::Denied(code) = record.verdict else {
        return None;
    };
    let case = Case::new(record, config);
    let advice = case.as_ref().and_then(|case| case.change(code));
    Some(advice.unwrap_or_else(|| Advice::Hint(hint(code, case.as_ref()))))
}

/// For what no line of policy mends: the code's own remedy, or which key to look at.
fn hint(code: DenyCode, case: Option<&Case<'_>>) -> String {
    let rule = case.and_then(|case| case.rule);
    let named = rule.map_or_else(|| "the rule".to_owned(), |rule| format!("`{}`", rule.id));
    match code {
        DenyCode::RequestDenied => format!("an entry under `deny` of {named} covers this request; take it out if it should pass"),
        DenyCode::RateLimited => format!("raise `limits.requests` of {named} or `sessions.limits.requests`"),
        DenyCode::ConnectionLimit => "raise `sessions.limits.connections` or `sessions.limits.concurrent_connections`".to_owned(),
        DenyCode::BytesLimit => "raise `sessions.limits.bytes_out`".to_owned(),
        DenyCode::DestinationsLimit => "raise `sessions.limits.distinct_destinations`".to_owned(),
        DenyCode::IpLiteral => "use the host's name; `resolver: { hosts: { api.internal.example: <address> } }` gives an address one".to_owned(),
        DenyCode::CredentialOverPlaintext => "use https; `over_plaintext: true` under `inject` would send the credential in clear".to_owned(),
        DenyCode::TlsHandshakeFailed => "the program does not trust the gateway's CA or pins another one; `posture: pass-through` leaves its TLS alone, where nothing is injected".to_owned(),
        DenyCode::AddressDenied => "this address is never dialled, or the deny-set has no single line that opens it".to_owned(),
        other => other.remedy().to_owned(),
    }
}
