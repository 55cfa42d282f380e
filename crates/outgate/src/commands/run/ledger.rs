//! What a run did, as people read it: a line for each decision while it goes on, and a summary at its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::Write as _,
    sync::{Mutex, PoisonError},
};

use outgate_config::{Config, Draft, advise};
use outgate_journey::record::{DecisionRecord, Ending, Entry, Verdict};
use owo_colors::OwoColorize;

/// Kinds of denials that are told one by one; what comes on top is counted.
const MOST_DENIALS: usize = 20;
/// Hosts, and kinds of denials, that are kept apart: the command chooses them.
const MOST_KEPT: usize = 1000;

/// Where the decisions are told while they are made.
pub(super) enum Told {
    Nowhere,
    StandardError,
    File(Mutex<File>),
}

/// Everything that was decided.
pub(super) struct Ledger {
    told: Told,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    allowed: u64,
    injected: u64,
    hosts: BTreeMap<String, Traffic>,
    denied: BTreeMap<Kind, Denied>,
    denials: u64,
    draft: Option<Draft>,
}

#[derive(Default)]
struct Traffic {
    requests: u64,
    sent: u64,
    received: u64,
}

/// Denials that are told as one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    code: &'static str,
    destination: String,
    request: String,
}

struct Denied {
    times: u64,
    record: DecisionRecord,
}

impl Ledger {
    pub(super) fn new(told: Told, learns: bool) -> Self {
        let entries = Entries {
            draft: learns.then(Draft::new),
            ..Entries::default()
        };
        Self {
            told,
            entries: Mutex::new(entries),
        }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a record.
    pub(super) fn note(&self, record: &DecisionRecord) {
        match &self.told {
            Told::Nowhere => {}
            Told::StandardError => anstream::eprintln!("{} {}", "outgate:".dimmed(), line(record)),
            Told::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                // A log that cannot be written is no reason to stop: the audit trail is the evidence.
                let _ = writeln!(file, "{}", line(record));
            }
        }
        self.entries().note(record);
    }

    /// The draft of a policy that lets all of it out.
    pub(super) fn draft(&self, config: &Config) -> Option<String> {
        self.entries()
            .draft
            .as_ref()
            .map(|draft| draft.to_yaml(config))
    }

    /// The summary; empty if nothing was decided.
    pub(super) fn summary(&self, config: &Config) -> String {
        self.entries().summary(config)
    }
}

impl Entries {
    fn note(&mut self, record: &DecisionRecord) {
        if let Some(draft) = &mut self.draft {
            draft.record(record);
        }
        let destination = destination(record);
        match record.verdict {
            // What a tunnel or a look-up is for comes in a record of its own.
            Verdict::Allowed if carries_requests(record) || record.entry == Entry::Dns => {}
            Verdict::Allowed => {
                self.allowed += 1;
                self.injected += u64::from(record.injected.is_some());
                let kept = self.hosts.len() < MOST_KEPT || self.hosts.contains_key(&destination);
                let name = if kept {
                    destination
                } else {
                    "(others)".to_owned()
                };
                let traffic = self.hosts.entry(name).or_default();
                traffic.requests += 1;
                traffic.sent += record.bytes_out;
                traffic.received += record.bytes_in;
            }
            Verdict::Denied(code) => {
                self.denials += 1;
                let kind = Kind {
                    code: code.as_str(),
                    destination,
                    request: request(record),
                };
                if self.denied.len() >= MOST_KEPT && !self.denied.contains_key(&kind) {
                    return;
                }
                self.denied
                    .entry(kind)
                    .or_insert_with(|| Denied {
                        times: 0,
                        record: record.clone(),
                    })
                    .times += 1;
            }
        }
    }

    fn summary(&self, config: &Config) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_summary(&mut text, config);
        text
    }

    fn write_summary(&self, text: &mut String, config: &Config) -> std::fmt::Result {
        if self.allowed == 0 && self.denials == 0 {
            return Ok(());
        }
        let sent: u64 = self.hosts.values().map(|it| it.sent).sum();
        let received: u64 = self.hosts.values().map(|it| it.received).sum();
        writeln!(
            text,
            "{} allowed ({} with a credential), {} denied; {} sent, {} received",
            self.allowed,
            self.injected,
            self.denials,
            bytes(sent),
            bytes(received)
        )?;
        for (host, traffic) in &self.hosts {
            let (sent, received) = (bytes(traffic.sent), bytes(traffic.received));
            writeln!(
                text,
                "  {} {host}  {} ×, {sent} sent, {received} received",
                "✓".green(),
                traffic.requests
            )?;
        }
        let mut advice = BTreeSet::new();
        for (kind, denied) in self.denied.iter().take(MOST_DENIALS) {
            let request = if kind.request.is_empty() {
                String::new()
            } else {
                format!("  {}", kind.request)
            };
            writeln!(
                text,
                "  {} {}{request}  {} × {}",
                "✗".red(),
                kind.destination,
                denied.times,
                kind.code
            )?;
            let Some(advised) = advise(&denied.record, config).map(|it| it.to_string()) else {
                continue;
            };
            // Said once, however many denials it would mend.
            if advice.insert(advised.clone()) {
                for line in advised.lines() {
                    writeln!(text, "      {}", line.dimmed())?;
                }
            }
        }
        if let Some(more) = self
            .denied
            .len()
            .checked_sub(MOST_DENIALS)
            .filter(|more| *more > 0)
        {
            writeln!(text, "  … and {more} more kinds of denials")?;
        }
        Ok(())
    }
}

/// A tunnel whose requests have records of their own.
fn carries_requests(record: &DecisionRecord) -> bool {
    matches!(record.entry, Entry::Connect | Entry::Transparent)
        && record
            .posture
            .is_some_and(|posture| posture != "pass-through")
}

fn destination(record: &DecisionRecord) -> String {
    let host = plain(record.host.as_deref().unwrap_or("(no host)"));
    match record.port {
        Some(443) | None => host,
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
    }
}

/// What was asked of the destination, as far as there was a request.
fn request(record: &DecisionRecord) -> String {
    match (
        record.entry,
        record.method.as_deref(),
        record.path.as_deref(),
    ) {
        (Entry::Dns, ..) => "(name look-up)".to_owned(),
        (_, Some("CONNECT") | None, _) => String::new(),
        (_, Some(method), path) => plain(&format!("{method} {}", path.unwrap_or_default())),
    }
}

/// What the command wrote, without what a terminal would take for an order.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric()) {
            plain.push(c);
        } else {
            plain.extend(c.escape_default());
        }
    }
    plain
}

fn line(record: &DecisionRecord) -> String {
    let mut text = String::new();
    let verdict = match record.verdict {
        Verdict::Allowed => "allowed".to_owned(),
        Verdict::Denied(code) => format!("denied {code}"),
    };
    let _ = write!(text, "{verdict}  {}", destination(record));
    let request = request(record);
    if !request.is_empty() {
        let _ = write!(text, "  {request}");
    }
    if let Some(status) = record.status {
        let _ = write!(text, "  {status}");
    }
    if let Some(credential) = &record.injected {
        let _ = write!(text, "  with {credential}");
    }
    match record.ending {
        Ending::Completed => {}
        Ending::Aborted => text.push_str("  broken off"),
        Ending::Cut(code) => {
            let _ = write!(text, "  cut: {code}");
        }
    }
    if !record.detail.is_empty() {
        let _ = write!(text, "  ({})", plain(&record.detail));
    }
    text
}

/// A number of bytes as people read it.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = count;
    let mut rest = 0;
    let mut unit = 0;
    while scaled >= 1024 && unit + 1 < UNITS.len() {
        rest = scaled % 1024 * 10 / 1024;
        scaled /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{scaled} {name}")
    } else {
        format!("{scaled}.{rest} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, plain};

    #[test]
    fn nothing_that_the_command_wrote_reaches_the_terminal_as_an_order() {
        let text = plain("/a\u{1b}[2J\u{7}\u{202e}b\u{9b}ä\n");
        assert_eq!(text, "/a\\u{1b}[2J\\u{7}\\u{202e}b\\u{9b}ä\\n");
    }

    #[test]
    fn bytes_are_read_in_units_of_1024() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (10 << 20, "10.0 MiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
