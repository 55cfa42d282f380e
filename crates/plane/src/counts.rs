//! What a gateway did since it started, as numbers for whoever watches it. Counted where records are written, so that no
//! plane can forget it; by closed lists alone, so that no guest can make the numbers many.

use std::sync::atomic::{AtomicU64, Ordering};

use outgate_journey::{
    denial::DenyCode,
    record::{DecisionRecord, Ending, Entry, Verdict},
};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// An HTTP request.
    Request,
    /// A connection: a tunnel, a captured connection, or bytes that never became a request.
    Connection,
    /// A name.
    Name,
}

impl Asked {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Request, Self::Connection, Self::Name];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Connection => "connection",
            Self::Name => "name",
        }
    }

    const fn of(entry: Entry) -> Self {
        match entry {
            Entry::Connect | Entry::Transparent | Entry::Namespace | Entry::Listener => {
                Self::Connection
            }
            Entry::Dns => Self::Name,
            _ => Self::Request,
        }
    }
}

/// The numbers. Reading and counting are wait-free.
#[derive(Debug)]
pub struct Counts {
    tallies: [Tally; 3],
    bytes_out: AtomicU64,
    bytes_in: AtomicU64,
    scrubbed: AtomicU64,
    injected: AtomicU64,
}

/// The numbers of one kind of exchange, by what became of them; the lists are in the order of [`DenyCode::ALL`].
#[derive(Debug)]
struct Tally {
    asked: Asked,
    allowed: AtomicU64,
    denied: Vec<AtomicU64>,
    cut: Vec<AtomicU64>,
}

impl Tally {
    fn new(asked: Asked) -> Self {
        let zeros = || DenyCode::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            asked,
            allowed: AtomicU64::new(0),
            denied: zeros(),
            cut: zeros(),
        }
    }

    fn of(&self, outcome: Outcome) -> Option<&AtomicU64> {
        let place = |code| DenyCode::ALL.iter().position(|known| *known == code);
        match outcome {
            Outcome::Allowed => Some(&self.allowed),
            Outcome::Denied(code) => self.denied.get(place(code)?),
            Outcome::Cut(code) => self.cut.get(place(code)?),
        }
    }

    fn all(&self) -> impl Iterator<Item = (Asked, Outcome, u64)> {
        Outcome::all().filter_map(|outcome| {
            let count = self.of(outcome)?.load(Ordering::Relaxed);
            Some((self.asked, outcome, count))
        })
    }
}

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was let out, and its end was nobody's doing here.
    Allowed,
    /// It was refused.
    Denied(DenyCode),
    /// It was let out, and cut before its end.
    Cut(DenyCode),
}

impl Outcome {
    const fn of(record: &DecisionRecord) -> Self {
        match (record.verdict, record.ending) {
            (Verdict::Denied(code), _) => Self::Denied(code),
            (Verdict::Allowed, Ending::Cut(code)) => Self::Cut(code),
            (Verdict::Allowed, _) => Self::Allowed,
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        let codes = || DenyCode::ALL.iter().copied();
        std::iter::once(Self::Allowed)
            .chain(codes().map(Self::Denied))
            .chain(codes().map(Self::Cut))
    }

    /// `allowed`, `denied` or `cut`.
    #[must_use]
    pub const fn verdict(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied(_) => "denied",
            Self::Cut(_) => "cut",
        }
    }

    /// Why; empty where it was allowed.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::Denied(code) | Self::Cut(code) => code.as_str(),
        }
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            tallies: Asked::ALL.map(Tally::new),
            bytes_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            scrubbed: AtomicU64::new(0),
            injected: AtomicU64::new(0),
        }
    }
}

impl Counts {
    /// Counts an exchange that is over.
    pub(crate) fn note(&self, record: &DecisionRecord) {
        let (asked, outcome) = (Asked::of(record.entry), Outcome::of(record));
        let tally = self.tallies.iter().find(|tally| tally.asked == asked);
        if let Some(count) = tally.and_then(|tally| tally.of(outcome)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes_out
            .fetch_add(record.bytes_out, Ordering::Relaxed);
        self.bytes_in.fetch_add(record.bytes_in, Ordering::Relaxed);
        self.scrubbed.fetch_add(record.scrubbed, Ordering::Relaxed);
        let injected = u64::from(record.injected.is_some());
        self.injected.fetch_add(injected, Ordering::Relaxed);
    }

    /// How many exchanges came to what, for each combination there can be.
    pub fn exchanges(&self) -> impl Iterator<Item = (Asked, Outcome, u64)> {
        self.tallies.iter().flat_map(Tally::all)
    }

    /// Bytes towards upstreams, and towards guests, of the exchanges that are over.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let out = self.bytes_out.load(Ordering::Relaxed);
        (out, self.bytes_in.load(Ordering::Relaxed))
    }

    /// How often a credential was taken out of an answer.
    #[must_use]
    pub fn scrubbed(&self) -> u64 {
        self.scrubbed.load(Ordering::Relaxed)
    }

    /// Requests to which a credential was attached.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(entry: Entry, verdict: Verdict, ending: Ending) -> DecisionRecord {
        let client = "127.0.0.1:1".parse().unwrap();
        DecisionRecord {
            verdict,
            ending,
            bytes_out: 2,
            bytes_in: 3,
            ..DecisionRecord::begin(String::new(), 0, entry, client)
        }
    }

    #[test]
    fn an_exchange_is_counted_once_by_what_it_was_and_what_became_of_it() {
        let counts = Counts::default();
        let code = DenyCode::DestinationNotAllowed;
        for (entry, verdict, ending) in [
            (Entry::Bumped, Verdict::Allowed, Ending::Completed),
            (Entry::AbsoluteForm, Verdict::Allowed, Ending::Aborted),
            (Entry::Connect, Verdict::Denied(code), Ending::Completed),
            (Entry::Dns, Verdict::Allowed, Ending::Cut(code)),
        ] {
            counts.note(&record(entry, verdict, ending));
        }
        let counted: Vec<_> = counts.exchanges().filter(|it| it.2 > 0).collect();
        assert_eq!(
            counted,
            [
                (Asked::Request, Outcome::Allowed, 2),
                (Asked::Connection, Outcome::Denied(code), 1),
                (Asked::Name, Outcome::Cut(code), 1),
            ]
        );
        assert_eq!(counts.bytes(), (8, 12));
        assert_eq!(
            counts.exchanges().count(),
            3 * (1 + 2 * DenyCode::ALL.len())
        );
    }
}
