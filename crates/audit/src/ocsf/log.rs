//! What happens to the log itself: Application Lifecycle. These records are also read again: they say where a file
//! begins, which tree was sealed, and whose signatures count.

use serde::{Deserialize, Serialize};

use super::{MAX_TEXT, Metadata, OTHER, PRODUCT, Product};
use crate::{
    chain::{Hash, Line, LogId},
    day::Day,
    error::Problem,
    merkle::Frontier,
    note::VerifierKey,
    text::Text,
};

const CLASS: u32 = 6002;
/// With what the record of such an event begins; a guest's text stands behind other beginnings.
const BEGINNING: &[u8] = b"{\"activity_id\":99,\"activity_name\":\"Audit ";

const CREATED: &str = "Audit log created";
const CONTINUED: &str = "Audit log continued";
const REPAIRED: &str = "Audit log repaired";
const SEALED: &str = "Audit day sealed";
const KEY_IN_USE: &str = "Audit key in use";

/// What happened to a log.
#[derive(Debug)]
pub(crate) enum LogChange<'a> {
    /// It was founded: the first record of a log.
    Created,
    /// It goes on in another file: the first record of that file.
    Continued {
        /// This record's number.
        first_seq: u64,
        /// The hash of the last line of the file before.
        previous_hash: Hash,
    },
    /// The end of the file was repaired.
    Repaired { detail: &'a str },
    /// A day is over: the tree over all records before this one.
    Sealed {
        day: Day,
        tree: &'a Frontier,
        key: &'a VerifierKey,
    },
    /// A head was signed by another key than the one that its record names.
    KeyInUse { key: &'a VerifierKey },
}

#[derive(Serialize)]
pub(crate) struct LogEvent<'a> {
    activity_id: u8,
    activity_name: &'static str,
    category_uid: u8,
    class_uid: u32,
    type_uid: u32,
    time: u64,
    severity_id: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<Text<'a>>,
    metadata: Metadata<'a>,
    app: Product,
    unmapped: Details,
}

#[derive(Default, Serialize)]
struct Details {
    log_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    day: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tree_size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    peaks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl<'a> LogEvent<'a> {
    pub(crate) fn new(log: LogId, time: u64, change: &LogChange<'a>) -> Self {
        let mut details = Details {
            log_id: log.text(),
            ..Details::default()
        };
        let mut detail = None;
        let activity_name = match change {
            LogChange::Created => CREATED,
            LogChange::Continued {
                first_seq,
                previous_hash,
            } => {
                details.first_seq = Some(*first_seq);
                details.previous_hash = Some(previous_hash.text());
                CONTINUED
            }
            LogChange::Repaired { detail: text } => {
                detail = Some(Text::new(text, MAX_TEXT));
                REPAIRED
            }
            LogChange::Sealed { day, tree, key } => {
                details.day = Some(day.to_string());
                details.tree_size = Some(tree.size());
                details.root = Some(tree.root().text());
                details.peaks = tree.peaks().iter().map(|peak| peak.text()).collect();
                details.key = Some(key.to_string());
                SEALED
            }
            LogChange::KeyInUse { key } => {
                details.key = Some(key.to_string());
                KEY_IN_USE
            }
        };
        Self {
            activity_id: OTHER,
            activity_name,
            category_uid: 6,
            class_uid: CLASS,
            type_uid: CLASS * 100 + u32::from(OTHER),
            time,
            severity_id: if matches!(change, LogChange::Repaired { .. }) {
                2
            } else {
                1
            },
            status_detail: detail,
            metadata: Metadata::new(&[], None),
            app: PRODUCT,
            unmapped: details,
        }
    }
}

/// A record of the log about itself, as it is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OwnRecord {
    /// The first line of a file: of the log, or of what continues it.
    Begins { log: LogId, time: u64 },
    /// A day is over.
    Sealed(Box<Seal>),
    /// Heads may be signed by this key.
    KeyInUse(VerifierKey),
}

/// What a record says about the tree over all records before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) seq: u64,
    pub(crate) time_unix_ms: u64,
    pub(crate) day: Day,
    pub(crate) tree: Frontier,
    pub(crate) key: VerifierKey,
}

#[derive(Deserialize)]
struct ReadEvent {
    activity_name: String,
    class_uid: u32,
    time: u64,
    unmapped: ReadDetails,
}

#[derive(Deserialize)]
struct ReadDetails {
    log_id: String,
    first_seq: Option<u64>,
    previous_hash: Option<String>,
    day: Option<String>,
    tree_size: Option<u64>,
    root: Option<String>,
    #[serde(default)]
    peaks: Vec<String>,
    key: Option<String>,
}

impl OwnRecord {
    /// Reads a line that is whole; `None` for everything else than the records that matter again.
    ///
    /// # Errors
    /// [`Problem::SealWrong`] if it seals a day and contradicts itself or the line that it stands in.
    pub(crate) fn of(line: &Line<'_>) -> Result<Option<Self>, Problem> {
        if !line.record.starts_with(BEGINNING) {
            return Ok(None);
        }
        let Ok(event) = serde_json::from_slice::<ReadEvent>(line.record) else {
            return Ok(None);
        };
        match (event.class_uid, event.activity_name.as_str()) {
            (CLASS, SEALED) => match Seal::read(line.seq, &event) {
                Some(seal) => Ok(Some(Self::Sealed(Box::new(seal)))),
                None => Err(Problem::SealWrong),
            },
            (CLASS, KEY_IN_USE) => Ok(event.unmapped.key().map(Self::KeyInUse)),
            (CLASS, CREATED | CONTINUED) => Ok(event.begins(line)),
            _ => Ok(None),
        }
    }
}

impl ReadEvent {
    /// As the first line of a file, if it agrees with what it says of itself.
    fn begins(&self, line: &Line<'_>) -> Option<OwnRecord> {
        let log = LogId::parse(&self.unmapped.log_id)?;
        let agrees = match self.activity_name.as_str() {
            CREATED => line.seq == 0 && line.prev == log.genesis(),
            _ => {
                let previous = self.unmapped.previous_hash.as_deref()?;
                self.unmapped.first_seq == Some(line.seq)
                    && Hash::parse(previous.as_bytes()) == Some(line.prev)
            }
        };
        let time = self.time;
        agrees.then_some(OwnRecord::Begins { log, time })
    }
}

impl ReadDetails {
    fn key(&self) -> Option<VerifierKey> {
        VerifierKey::parse(self.key.as_deref()?)
    }
}

impl Seal {
    /// The day that its record stands in.
    pub(crate) const fn written_on(&self) -> Day {
        Day::of_unix_ms(self.time_unix_ms)
    }

    fn read(seq: u64, event: &ReadEvent) -> Option<Self> {
        let details = &event.unmapped;
        let peaks = details
            .peaks
            .iter()
            .map(|peak| Hash::parse(peak.as_bytes()));
        let tree = Frontier::from_parts(details.tree_size?, peaks.collect::<Option<_>>()?)?;
        let root = Hash::parse(details.root.as_deref()?.as_bytes())?;
        let seal = Self {
            seq,
            time_unix_ms: event.time,
            day: Day::parse(details.day.as_deref()?)?,
            key: details.key()?,
            tree,
        };
        let agrees =
            seal.tree.size() == seq && seal.tree.root() == root && seal.day < seal.written_on();
        agrees.then_some(seal)
    }
}
