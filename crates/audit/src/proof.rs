//! That one record stands in a signed head, without the others: a proof that is checked far from the trail, with the
//! record's line and a verifier key alone. Its text is that of <https://c2sp.org/tlog-proof>.

use std::{fmt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use thiserror::Error;

use crate::{
    chain::{Hash, Line},
    files::day_heads,
    follow::{Follow, FollowError},
    merkle::{Frontier, PathFinder, leaf_hash, root_of_path},
    note::{Checkpoint, SignedNote, VerifierKey},
    replay::{read_day_head, tree_before},
};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Why there is no proof, or why it proves nothing.
#[derive(Debug, Error)]
pub enum ProofError {
    /// The trail cannot be read.
    #[error(transparent)]
    Trail(#[from] FollowError),
    /// No head covers the record yet: the day that it stands in is not over.
    #[error(
        "record {seq} is in no signed head yet: the first is signed when its day (UTC) is over"
    )]
    NotSealed {
        /// The record.
        seq: u64,
    },
    /// The trail's records do not lead to its signed head.
    #[error("the records do not lead to the signed head; run `outgate audit verify`")]
    WrongTree,
    /// The line is not a record, or not the one that the proof is about.
    #[error("the line is not the record that the proof is about")]
    OtherRecord,
    /// The head is not signed by this key.
    #[error("the head is not signed by this key")]
    Unsigned,
}

/// The way from a record to a signed head. Its text is a tlog-proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    index: u64,
    path: Vec<Hash>,
    note: String,
    checkpoint: Checkpoint,
}

/// Proves that a record stands in the first head that covers it. Reads the records of that day.
///
/// # Errors
/// [`ProofError::NotSealed`] until the record's day is over; [`ProofError::WrongTree`]; [`ProofError::Trail`].
pub fn prove(dir: &Path, seq: u64) -> Result<Proof, ProofError> {
    let days = day_heads(dir).map_err(|source| FollowError::Io {
        path: dir.to_owned(),
        source,
    })?;
    let mut heads = days.into_iter().filter_map(|day| read_day_head(dir, day));
    let (note, checkpoint) = heads
        .find(|(_, checkpoint)| checkpoint.size > seq)
        .ok_or(ProofError::NotSealed { seq })?;
    let before = tree_before(dir, seq)?.map_or_else(Frontier::default, |seal| seal.tree);
    let mut follow = Follow::at(dir, before.size())?;
    let mut own = None;
    let leaves = || {
        let followed = follow.next()?.ok_or(ProofError::WrongTree)?;
        let line = Line::split(&followed.line).ok_or(ProofError::WrongTree)?;
        let leaf = leaf_hash(line.hash);
        if followed.seq == seq {
            own = Some(leaf);
        }
        Ok::<_, ProofError>(leaf)
    };
    let path = PathFinder::new(&before, leaves).path(seq, checkpoint.size)?;
    let root = own.and_then(|leaf| root_of_path(leaf, seq, checkpoint.size, &path));
    if root != Some(checkpoint.root) {
        return Err(ProofError::WrongTree);
    }
    Ok(Proof {
        index: seq,
        path,
        note,
        checkpoint,
    })
}

impl Proof {
    /// Reads a proof; nothing is checked yet. Lines of further data are refused: ours have none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(FIRST_LINE)?.strip_prefix("\nindex ")?;
        let (head, note) = rest.split_once("\n\n")?;
        let mut lines = head.lines();
        let index = lines.next()?.parse().ok()?;
        let path = lines.map(|line| Some(Hash(STANDARD.decode(line).ok()?.try_into().ok()?)));
        let proof = Self {
            index,
            path: path.collect::<Option<_>>()?,
            checkpoint: Checkpoint::parse(SignedNote::parse(note)?.text)?,
            note: note.to_owned(),
        };
        (proof.to_string() == text).then_some(proof)
    }

    /// Checks that `line`, as it stands in the trail (without its line break), is a record of the log whose heads this
    /// key signs. Gives its sequence number.
    ///
    /// # Errors
    /// [`ProofError::OtherRecord`], [`ProofError::Unsigned`], [`ProofError::WrongTree`].
    pub fn check(&self, line: &[u8], key: &VerifierKey) -> Result<u64, ProofError> {
        let note = SignedNote::parse(&self.note).ok_or(ProofError::Unsigned)?;
        if !key.signs(&self.checkpoint.origin) || !key.has_signed(&note) {
            return Err(ProofError::Unsigned);
        }
        let line = Line::parse(line).map_err(|_| ProofError::OtherRecord)?;
        if line.seq != self.index {
            return Err(ProofError::OtherRecord);
        }
        let leaf = leaf_hash(line.hash);
        match root_of_path(leaf, self.index, self.checkpoint.size, &self.path) {
            Some(root) if root == self.checkpoint.root => Ok(self.index),
            _ => Err(ProofError::WrongTree),
        }
    }

    /// The record's sequence number.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.index
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nindex {}", self.index)?;
        for hash in &self.path {
            writeln!(f, "{}", STANDARD.encode(hash.0))?;
        }
        write!(f, "\n{}", self.note)
    }
}
