//! The envelope of one line and its hash. The hash covers the bytes as they stand in the file: nothing is parsed and
//! written again to check it, so there is no second spelling of the same record.

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;

use crate::{error::Problem, text::append_json};

/// No line is longer, its line break included: guest text is bounded, and escapes are at most six bytes for one.
pub(crate) const MAX_LINE: usize = 64 * 1024;

const GENESIS_TAG: &[u8] = b"outgate-audit-genesis-v1\0";
const RECORD_TAG: &[u8] = b"outgate-audit-record-v1\0";

const BEFORE_SEQ: &[u8] = b"{\"seq\":";
const BEFORE_PREV: &[u8] = b",\"prev\":\"";
const BEFORE_HASH: &[u8] = b"\",\"hash\":\"";
const BEFORE_RECORD: &[u8] = b"\",\"record\":";
const HASH_PLACE: &[u8; 64] = &[b'0'; 64];

/// A SHA-256 value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hash(pub(crate) [u8; 32]);

impl Hash {
    /// Lower-case hex.
    pub(crate) fn hex(self) -> [u8; 64] {
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        hex
    }

    /// As text.
    pub(crate) fn text(self) -> String {
        self.hex().iter().copied().map(char::from).collect()
    }

    /// Lower-case hex only: a second spelling would be an edit that goes unseen.
    pub(crate) fn parse(hex: &[u8]) -> Option<Self> {
        decode_hex(hex).map(Self)
    }
}

/// The random name of one log, fixed at its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogId(pub(crate) [u8; 16]);

impl LogId {
    pub(crate) fn parse(hex: &str) -> Option<Self> {
        decode_hex(hex.as_bytes()).map(Self)
    }

    pub(crate) fn text(self) -> String {
        self.0
            .iter()
            .flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)])
            .map(char::from)
            .collect()
    }

    /// What the first line follows.
    pub(crate) fn genesis(self) -> Hash {
        digest(&[GENESIS_TAG, &self.0])
    }
}

/// Where a chain ends: what the next line must carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainEnd {
    pub(crate) next_seq: u64,
    pub(crate) prev: Hash,
}

impl ChainEnd {
    /// Before the first line.
    pub(crate) fn genesis(log: LogId) -> Self {
        Self {
            next_seq: 0,
            prev: log.genesis(),
        }
    }

    /// Appends one line with its line break and moves on.
    pub(crate) fn append<T: Serialize>(
        &mut self,
        out: &mut Vec<u8>,
        record: &T,
    ) -> serde_json::Result<()> {
        let line_start = out.len();
        out.extend_from_slice(BEFORE_SEQ);
        append_json(out, &self.next_seq)?;
        out.extend_from_slice(BEFORE_PREV);
        out.extend_from_slice(&self.prev.hex());
        out.extend_from_slice(BEFORE_HASH);
        let hash_start = out.len();
        out.extend_from_slice(HASH_PLACE);
        out.extend_from_slice(BEFORE_RECORD);
        let record_start = out.len();
        if let Err(error) = append_json(out, record) {
            out.truncate(line_start);
            return Err(error);
        }
        let bytes = out.get(record_start..).unwrap_or_default();
        let hash = record_hash(self.next_seq, self.prev, bytes);
        if let Some(place) = out.get_mut(hash_start..hash_start + HASH_PLACE.len()) {
            place.copy_from_slice(&hash.hex());
        }
        out.extend_from_slice(b"}\n");
        self.next_seq += 1;
        self.prev = hash;
        Ok(())
    }
}

/// One line, taken apart; its own hash is right.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) seq: u64,
    pub(crate) prev: Hash,
    pub(crate) hash: Hash,
    /// The record's JSON as it stands.
    pub(crate) record: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its line break and checks what can be checked without its neighbours.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let Some(line) = Self::split(bytes) else {
            return Err(match is_json(bytes) {
                true => Problem::Envelope,
                false => Problem::BadJson,
            });
        };
        if record_hash(line.seq, line.prev, line.record) != line.hash {
            return Err(Problem::Edited);
        }
        if !is_json(line.record) {
            return Err(Problem::BadJson);
        }
        Ok(line)
    }

    /// The envelope has exactly one spelling; anything else is not a line of ours.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(BEFORE_SEQ)?;
        let (digits, rest) =
            rest.split_at_checked(rest.iter().position(|b| !b.is_ascii_digit())?)?;
        let seq: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        if digits.len() > 1 && digits.starts_with(b"0") {
            return None;
        }
        let (prev, rest) = rest.strip_prefix(BEFORE_PREV)?.split_at_checked(64)?;
        let (hash, rest) = rest.strip_prefix(BEFORE_HASH)?.split_at_checked(64)?;
        let record = rest.strip_prefix(BEFORE_RECORD)?.strip_suffix(b"}")?;
        Some(Self {
            seq,
            prev: Hash::parse(prev)?,
            hash: Hash::parse(hash)?,
            record,
        })
    }

    /// The end of a chain whose last line this is.
    pub(crate) const fn end(&self) -> ChainEnd {
        ChainEnd {
            next_seq: self.seq.saturating_add(1),
            prev: self.hash,
        }
    }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
        && std::str::from_utf8(bytes).is_ok()
}

/// Every part but the last has a fixed length, so no two inputs give the same bytes.
fn record_hash(seq: u64, prev: Hash, record: &[u8]) -> Hash {
    digest(&[RECORD_TAG, &seq.to_be_bytes(), &prev.0, record])
}

pub(crate) fn digest(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Hash(hash)
}

const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'a' + nibble - 10,
    }
}

fn decode_hex<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    if hex.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        for digit in pair {
            let nibble = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = (*byte << 4) | nibble;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_line_reads_back_and_links_to_the_next() {
        let mut end = ChainEnd::genesis(LogId([7; 16]));
        let (mut first, mut second) = (Vec::new(), Vec::new());
        end.append(&mut first, &serde_json::json!({"a": 1}))
            .unwrap();
        end.append(&mut second, &serde_json::json!({"b": "}\n"}))
            .unwrap();
        let first = Line::parse(first.trim_ascii_end()).unwrap();
        let second = Line::parse(second.trim_ascii_end()).unwrap();
        assert_eq!((first.seq, second.seq), (0, 1));
        assert_eq!(first.prev, LogId([7; 16]).genesis());
        assert_eq!(second.prev, first.hash);
        assert_eq!(second.end(), end);
    }

    /// The values are another implementation's (Python's `hashlib`), from the definition in `docs/audit.md`.
    #[test]
    fn the_hashes_are_the_documented_ones() {
        let counting: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(
            record_hash(258, Hash(counting), br#"{"a":1}"#).text(),
            "2b182ce2bea26840ef5c75a3fe43ad6c3ac177b3eabd93c6c4f06be6fe2ac27c"
        );
        let log: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(
            LogId(log).genesis().text(),
            "af47a6932db4eeefcd9511be8c8c6ea4604cdf797a61fab5129f8492c0e8df08"
        );
    }

    #[test]
    fn a_second_spelling_of_an_envelope_is_refused() {
        let mut end = ChainEnd::genesis(LogId([7; 16]));
        let mut line = Vec::new();
        end.append(&mut line, &serde_json::json!({"a": 1})).unwrap();
        let line = String::from_utf8(line).unwrap();
        let line = line.trim_end();
        for other in [
            line.replacen("\"seq\":0", "\"seq\":00", 1),
            line.replacen("\"seq\":0", "\"seq\": 0", 1),
            line.replacen("\"seq\":0", "\"seq\":", 1),
            line.replacen("\"seq\":0", "\"seq\":99999999999999999999", 1),
            format!("{line} "),
            format!(" {line}"),
            line.to_uppercase(),
            String::new(),
        ] {
            assert!(Line::parse(other.as_bytes()).is_err(), "{other}");
        }
    }
}
