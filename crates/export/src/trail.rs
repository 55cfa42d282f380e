//! What an exporter reads, and one record of it. Refuses a line that is not an audit record: a receiver must be able
//! to check the chain from what it was sent, so nothing is guessed or mended.

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

/// A source of records, in order; where some are gone, it goes on behind them. Calls may block for as long as a local disk takes.
///
/// Gives only what is on disk for good: a record that a crash can still take away would leave a cursor that is ahead
/// of the trail, and the record that then gets its number would never be sent.
pub trait TrailReader: Send + 'static {
    /// Goes to the first record behind `after` (`None`: to the oldest). May be called again at any time.
    ///
    /// # Errors
    /// [`TrailFault`]: among them that there is no record `after`, nor one behind it.
    fn open(&mut self, after: Option<u64>) -> Result<TrailStart, TrailFault>;

    /// The next record; `None` if there is none yet.
    ///
    /// # Errors
    /// [`TrailFault`]; the caller opens again.
    fn next(&mut self) -> Result<Option<TrailRecord>, TrailFault>;

    /// The newest record that [`next`](Self::next) would come to; `None` if there is none.
    ///
    /// # Errors
    /// [`TrailFault`].
    fn last_seq(&mut self) -> Result<Option<u64>, TrailFault>;
}

/// Which trail it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailStart {
    /// Its name, 32 hex digits.
    pub log_id: String,
}

/// One line, as it stands in the file, without its line break.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrailRecord {
    /// Its place in the chain.
    pub seq: u64,
    /// The line.
    pub line: String,
}

/// Why the trail cannot be read.
#[derive(Debug, Error)]
pub enum TrailFault {
    /// It ends before the place that was asked for.
    #[error("the trail ends at record {last}")]
    Ahead {
        /// Its end.
        last: u64,
    },
    /// It cannot be read now.
    #[error("{0}")]
    Unreadable(String),
}

/// A line taken apart.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line<'a> {
    pub(crate) seq: u64,
    pub(crate) prev: &'a str,
    pub(crate) hash: &'a str,
    #[serde(borrow)]
    pub(crate) record: &'a RawValue,
}

impl<'a> Line<'a> {
    pub(crate) fn parse(record: &'a TrailRecord) -> Result<Self, TrailFault> {
        let fault =
            || TrailFault::Unreadable(format!("record {} is not an audit record", record.seq));
        let line: Self = serde_json::from_str(&record.line).map_err(|_| fault())?;
        let is_whole = line.seq == record.seq && is_hex(line.prev, 64) && is_hex(line.hash, 64);
        is_whole.then_some(line).ok_or_else(fault)
    }
}

/// Whether the text is so many lower-case hex digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(seq: u64, line: String) -> TrailRecord {
        TrailRecord { seq, line }
    }

    #[test]
    fn a_record_keeps_its_bytes_and_anything_else_is_refused() {
        let (prev, hash) = ("0".repeat(64), "a".repeat(64));
        let good = format!(
            r#"{{"seq":7,"prev":"{prev}","hash":"{hash}","record":{{"b" : 1.50,"a":"\u00e9"}}}}"#
        );
        let good = record(7, good);
        let line = Line::parse(&good).unwrap();
        assert_eq!(
            (line.seq, line.record.get()),
            (7, r#"{"b" : 1.50,"a":"\u00e9"}"#)
        );
        for (seq, line) in [
            (8, good.line.clone()),
            (7, good.line.replace(&hash, "short")),
            (7, good.line.replace(&hash, &"A".repeat(64))),
            (7, good.line.replace("\"record\"", "\"recorded\"")),
            (7, good.line.replace("}}", "}")),
            (7, String::new()),
        ] {
            assert!(Line::parse(&record(seq, line.clone())).is_err(), "{line}");
        }
    }
}

#[cfg(test)]
pub(crate) mod test_trail {
    use std::{
        collections::BTreeMap,
        sync::{Arc, Mutex},
    };

    use super::*;

    pub(crate) const LOG_ID: &str = "000102030405060708090a0b0c0d0e0f";

    /// A trail in memory, shared by its clones.
    #[derive(Debug, Clone)]
    pub(crate) struct TestTrail {
        records: Arc<Mutex<BTreeMap<u64, String>>>,
        next: u64,
    }

    impl TestTrail {
        pub(crate) fn new(seqs: impl IntoIterator<Item = u64>) -> Self {
            let records = seqs.into_iter().map(|seq| (seq, line(seq, ""))).collect();
            Self {
                records: Arc::new(Mutex::new(records)),
                next: 0,
            }
        }

        pub(crate) fn put(&self, seq: u64, line: String) {
            self.records.lock().unwrap().insert(seq, line);
        }

        pub(crate) fn damage(&self, seq: u64) {
            self.put(seq, "{}".to_owned());
        }

        pub(crate) fn mend(&self, seq: u64) {
            self.put(seq, line(seq, ""));
        }
    }

    /// A line whose hash is that of nothing, but its own.
    pub(crate) fn line(seq: u64, fields: &str) -> String {
        let (prev, hash) = (format!("{seq:064x}"), hash_of(seq));
        let record =
            format!(r#"{{"class_uid":4002,"severity_id":1,"time":1790000000123{fields}}}"#);
        format!(r#"{{"seq":{seq},"prev":"{prev}","hash":"{hash}","record":{record}}}"#)
    }

    pub(crate) fn hash_of(seq: u64) -> String {
        format!("{:064x}", seq + 1)
    }

    impl TrailReader for TestTrail {
        fn open(&mut self, after: Option<u64>) -> Result<TrailStart, TrailFault> {
            let last = self.last_seq()?.unwrap_or(0);
            if after.is_some_and(|after| after > last) {
                return Err(TrailFault::Ahead { last });
            }
            self.next = after.map_or(0, |after| after + 1);
            Ok(TrailStart {
                log_id: LOG_ID.to_owned(),
            })
        }

        fn next(&mut self) -> Result<Option<TrailRecord>, TrailFault> {
            let records = self.records.lock().unwrap();
            let Some((seq, line)) = records.range(self.next..).next() else {
                return Ok(None);
            };
            self.next = seq + 1;
            Ok(Some(TrailRecord {
                seq: *seq,
                line: line.clone(),
            }))
        }

        fn last_seq(&mut self) -> Result<Option<u64>, TrailFault> {
            Ok(self.records.lock().unwrap().keys().next_back().copied())
        }
    }
}
