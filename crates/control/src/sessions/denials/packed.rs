//! Entries of the denylist in as few bytes as they need, for lists of a million: each is a run of bytes, and a table says
//! where. An entry with the id of a session takes about 55 bytes with its share of both.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use outgate_journey::session::SessionId;
use outgate_store::{DenyEntry, DenyTarget, Steady, StoredDenial};

/// So many reasons and operators are kept once for all entries that have them.
const MOST_WORDS: usize = 64;
/// Under so many bytes nothing is made smaller.
const LEAST: usize = 4096;
/// Runs are kept in blocks of so many bytes: one buffer for all would be copied whenever it grows, and leave the
/// allocator with what it was before.
const BLOCK: usize = 1 << BLOCK_BITS;
const BLOCK_BITS: u32 = 14;

/// What an entry is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key<'a> {
    Session(&'a str),
    Token(&'a str),
    Subject { issuer: &'a str, subject: &'a str },
}

impl<'a> From<&'a DenyTarget> for Key<'a> {
    fn from(target: &'a DenyTarget) -> Self {
        match target {
            DenyTarget::Session(id) => Self::Session(id.as_str()),
            DenyTarget::Token(id) => Self::Token(id),
            DenyTarget::Subject { issuer, subject } => Self::Subject { issuer, subject },
        }
    }
}

impl Key<'_> {
    fn to_target(self) -> Option<DenyTarget> {
        Some(match self {
            Self::Session(id) => DenyTarget::Session(SessionId::parse(id)?),
            Self::Token(id) => DenyTarget::Token(id.to_owned()),
            Self::Subject { issuer, subject } => DenyTarget::Subject {
                issuer: issuer.to_owned(),
                subject: subject.to_owned(),
            },
        })
    }
}

/// What has lapsed, and when the next of the others does.
pub(super) struct Due {
    targets: Vec<DenyTarget>,
    soonest: Option<Steady>,
    /// How many entries there were.
    pub(super) looked_at: usize,
}

/// Some entries.
pub(super) struct Packed {
    hasher: RandomState,
    places: HashTable<Place>,
    runs: Runs,
    /// How many of the bytes belong to no entry any more.
    unused: usize,
    words: Vec<Box<str>>,
    /// No entry lapses before.
    soonest: Option<Steady>,
}

impl Packed {
    pub(super) fn new(hasher: RandomState) -> Self {
        Self {
            hasher,
            places: HashTable::new(),
            runs: Runs::default(),
            unused: 0,
            words: Vec::new(),
            soonest: None,
        }
    }

    fn find(&self, key: Key<'_>) -> Option<Reader<'_>> {
        let is_it = |place: &Place| self.runs.at(*place).is_of(key);
        let place = self.places.find(self.hasher.hash_one(key), is_it)?;
        Some(self.runs.at(*place))
    }

    /// When the entry of this key lapses; the outer `None`: there is no entry.
    pub(super) fn lapses(&self, key: Key<'_>) -> Option<Option<Steady>> {
        self.find(key).map(|mut reader| reader.lapses())
    }

    pub(super) fn get(&self, key: Key<'_>) -> Option<StoredDenial> {
        self.find(key)?.denial(&self.words)
    }

    /// Whether it replaced one.
    pub(super) fn put(&mut self, denial: &StoredDenial) -> bool {
        let key = Key::from(&denial.entry.target);
        let replaced = self.remove(key);
        let mut writer = Writer(Vec::with_capacity(128));
        // First, so that a sweep reads no further.
        writer.optional(denial.lapses.map(|lapses| lapses.0));
        writer.key(key);
        writer.number(denial.entry.at);
        writer.optional(denial.entry.until);
        for word in [&denial.entry.reason, &denial.entry.by] {
            writer.word(word, &mut self.words);
        }
        let place = self.runs.push(&writer.0);
        let (hasher, runs) = (&self.hasher, &self.runs);
        let hash_at = |place: &Place| hash_at(hasher, runs, *place);
        self.places
            .insert_unique(hasher.hash_one(key), place, hash_at);
        self.soonest = self.soonest.into_iter().chain(denial.lapses).min();
        replaced
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, key: Key<'_>) -> bool {
        let runs = &self.runs;
        let is_it = |place: &Place| runs.at(*place).is_of(key);
        let Ok(found) = self.places.find_entry(self.hasher.hash_one(key), is_it) else {
            return false;
        };
        let (place, _) = found.remove();
        if self.places.is_empty() {
            // With all that it was once needed for.
            *self = Self::new(self.hasher.clone());
            return true;
        }
        self.unused += self.runs.at(place).length();
        if self.unused > LEAST && self.unused > self.runs.length / 2 {
            self.shrink();
        }
        true
    }

    pub(super) fn all(&self) -> impl Iterator<Item = StoredDenial> {
        let places = self.places.iter();
        places.filter_map(|place| self.runs.at(*place).denial(&self.words))
    }

    /// What has lapsed; nothing if nothing can have.
    pub(super) fn due(&self, now: Steady) -> Option<Due> {
        if self.soonest.is_none_or(|soonest| now < soonest) {
            return None;
        }
        let (mut targets, mut soonest) = (Vec::new(), None);
        for place in &self.places {
            let mut reader = self.runs.at(*place);
            match reader.lapses() {
                Some(lapses) if lapses <= now => {
                    targets.extend(reader.key().and_then(Key::to_target));
                }
                lapses => soonest = soonest.into_iter().chain(lapses).min(),
            }
        }
        Some(Due {
            targets,
            soonest,
            looked_at: self.places.len(),
        })
    }

    /// Takes out what was due; how many there were. Nothing may have been put in since it was found.
    pub(super) fn take_out(&mut self, due: Due) -> usize {
        self.soonest = due.soonest;
        let targets = due.targets.iter();
        targets.filter(|it| self.remove((*it).into())).count()
    }

    /// Leaves out what belongs to no entry.
    fn shrink(&mut self) {
        let mut runs = Runs::default();
        for place in &mut self.places {
            let run = self.runs.at(*place);
            *place = runs.push(run.0.get(..run.length()).unwrap_or_default());
        }
        self.runs = runs;
        self.unused = 0;
        let (hasher, runs) = (&self.hasher, &self.runs);
        let hash_at = |place: &Place| hash_at(hasher, runs, *place);
        self.places.shrink_to(self.places.len(), hash_at);
    }
}

fn hash_at(hasher: &RandomState, runs: &Runs, place: Place) -> u64 {
    let key = runs.at(place).after_lapses().key();
    key.map_or(0, |key| hasher.hash_one(key))
}

/// Where a run begins: the number of its block and how far inside, together in the lowest 40 bits. For blocks of a
/// terabyte, and three bytes less than a number of the machine's.
#[derive(Clone, Copy)]
struct Place([u8; 5]);

impl Place {
    fn new(block: usize, offset: usize) -> Self {
        let [a, b, c, d, e, ..] = ((block as u64) << BLOCK_BITS | offset as u64).to_le_bytes();
        Self([a, b, c, d, e])
    }

    fn parts(self) -> (usize, usize) {
        let Self([a, b, c, d, e]) = self;
        let place = usize::try_from(u64::from_le_bytes([a, b, c, d, e, 0, 0, 0]));
        let place = place.unwrap_or(usize::MAX);
        (place >> BLOCK_BITS, place & (BLOCK - 1))
    }
}

/// Runs of bytes, one behind the other. None is in two blocks, and one that is longer than a block has its own.
#[derive(Default)]
struct Runs {
    blocks: Vec<Vec<u8>>,
    /// Of all runs together, in bytes.
    length: usize,
}

impl Runs {
    fn push(&mut self, run: &[u8]) -> Place {
        self.length += run.len();
        let number = self.blocks.len().saturating_sub(1);
        match self.blocks.last_mut() {
            Some(block) if block.len() + run.len() <= BLOCK => {
                let offset = block.len();
                block.extend_from_slice(run);
                Place::new(number, offset)
            }
            _ => {
                let mut block = Vec::with_capacity(run.len().max(BLOCK));
                block.extend_from_slice(run);
                self.blocks.push(block);
                Place::new(self.blocks.len() - 1, 0)
            }
        }
    }

    /// Reads from a place on; nothing where there is none.
    fn at(&self, place: Place) -> Reader<'_> {
        let (block, offset) = place.parts();
        let bytes = self.blocks.get(block).and_then(|block| block.get(offset..));
        Reader(bytes.unwrap_or_default())
    }
}

/// Numbers are written seven bits a byte, the last one below 128; texts behind their length.
struct Writer(Vec<u8>);

impl Writer {
    fn key(&mut self, key: Key<'_>) {
        match key {
            Key::Session(id) => self.number(0).text(id),
            Key::Token(id) => self.number(1).text(id),
            Key::Subject { issuer, subject } => self.number(2).text(issuer).text(subject),
        };
    }

    fn number(&mut self, mut number: u64) -> &mut Self {
        while number >= 128 {
            self.0.push(number.to_le_bytes()[0] | 128);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
        self
    }

    fn optional(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(1).number(number),
            None => self.number(0),
        };
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// The number of a word that is kept, from 1; or 0 and the word.
    fn word(&mut self, word: &str, words: &mut Vec<Box<str>>) {
        let known = words.iter().position(|known| **known == *word);
        let known = known.or_else(|| {
            (words.len() < MOST_WORDS).then(|| {
                words.push(word.into());
                words.len() - 1
            })
        });
        match known {
            Some(index) => self.number(index as u64 + 1),
            None => self.number(0).text(word),
        };
    }
}

/// Reads what [`Writer`] wrote. Clone and read on to look ahead.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = self.0.split_first() {
            self.0 = rest;
            number |= u64::from(byte & 127) << shift;
            shift += 7;
            if *byte < 128 {
                break;
            }
        }
        number
    }

    fn optional(&mut self) -> Option<u64> {
        (self.number() == 1).then(|| self.number())
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn word<'w>(&mut self, words: &'w [Box<str>]) -> Option<&'w str>
    where
        'a: 'w,
    {
        match usize::try_from(self.number()).ok()? {
            0 => self.text(),
            number => words.get(number - 1).map(|word| &**word),
        }
    }

    fn key(&mut self) -> Option<Key<'a>> {
        Some(match self.number() {
            0 => Key::Session(self.text()?),
            1 => Key::Token(self.text()?),
            _ => Key::Subject {
                issuer: self.text()?,
                subject: self.text()?,
            },
        })
    }

    /// The first of an entry.
    fn lapses(&mut self) -> Option<Steady> {
        self.optional().map(Steady)
    }

    fn after_lapses(mut self) -> Self {
        self.lapses();
        self
    }

    fn is_of(self, key: Key<'_>) -> bool {
        self.after_lapses().key() == Some(key)
    }

    fn denial(mut self, words: &[Box<str>]) -> Option<StoredDenial> {
        let lapses = self.lapses();
        let target = self.key()?.to_target()?;
        let (at, until) = (self.number(), self.optional());
        Some(StoredDenial {
            entry: DenyEntry {
                target,
                reason: self.word(words)?.to_owned(),
                by: self.word(words)?.to_owned(),
                at,
                until,
            },
            lapses,
        })
    }

    /// Of the whole entry, in bytes.
    fn length(mut self) -> usize {
        let whole = self.0.len();
        self.lapses();
        self.key();
        self.number();
        self.optional();
        for _ in 0..2 {
            if self.number() == 0 {
                self.text();
            }
        }
        whole - self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn target() -> impl Strategy<Value = DenyTarget> {
        prop_oneof![
            "[a-c]{1,2}".prop_map(|id| DenyTarget::Session(SessionId::parse(&id).unwrap())),
            "[a-cä]{0,2}".prop_map(DenyTarget::Token),
            ("[ab]{0,1}", "[ab]{0,1}")
                .prop_map(|(issuer, subject)| DenyTarget::Subject { issuer, subject }),
        ]
    }

    fn denial() -> impl Strategy<Value = StoredDenial> {
        let number = || prop_oneof![0..300u64, any::<u64>()];
        // Some longer than a block.
        let text = || {
            prop_oneof![
                4 => "[a-z]{0,1}",
                4 => ".{0,200}",
                1 => (BLOCK - 60..2 * BLOCK).prop_map(|length| "x".repeat(length)),
            ]
        };
        let lapses = prop::option::of(0..20u64);
        (
            target(),
            text(),
            text(),
            number(),
            prop::option::of(number()),
            lapses,
        )
            .prop_map(|(target, reason, by, at, until, lapses)| StoredDenial {
                entry: DenyEntry {
                    target,
                    reason,
                    by,
                    at,
                    until,
                },
                lapses: lapses.map(Steady),
            })
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(StoredDenial),
        Remove(DenyTarget),
        Lapse(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => denial().prop_map(Step::Put),
            2 => target().prop_map(Step::Remove),
            1 => (0..20u64).prop_map(Step::Lapse),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec(step(), 0..200)) {
            let (mut packed, mut map) = (Packed::new(RandomState::default()), HashMap::new());
            for step in steps {
                match step {
                    Step::Put(denial) => {
                        let before = map.insert(denial.entry.target.clone(), denial.clone());
                        prop_assert_eq!(packed.put(&denial), before.is_some());
                    }
                    Step::Remove(target) => {
                        prop_assert_eq!(packed.remove((&target).into()), map.remove(&target).is_some());
                        prop_assert_eq!(packed.get((&target).into()), None);
                    }
                    Step::Lapse(now) => {
                        let before = map.len();
                        map.retain(|_, it: &mut StoredDenial| it.lapses.is_none_or(|at| at > Steady(now)));
                        let due = packed.due(Steady(now));
                        let taken = due.map_or(0, |due| packed.take_out(due));
                        prop_assert_eq!(taken, before - map.len());
                        for target in map.keys() {
                            prop_assert!(packed.lapses(target.into()).is_some());
                        }
                    }
                }
                prop_assert_eq!(packed.all().count(), map.len());
            }
            for denial in packed.all() {
                let key = Key::from(&denial.entry.target);
                prop_assert_eq!(packed.lapses(key), Some(denial.lapses));
                let got = packed.get(key);
                prop_assert_eq!(got.as_ref(), Some(&denial));
                prop_assert_eq!(map.get(&denial.entry.target), Some(&denial));
            }
        }
    }

    #[test]
    fn a_million_entries_take_less_than_64_mebibytes() {
        let mut packed = Packed::new(RandomState::default());
        // A sixteenth of them: as many as one part of the list holds then.
        for number in 0..62_500 {
            packed.put(&StoredDenial {
                entry: DenyEntry {
                    target: DenyTarget::Session(
                        SessionId::parse(&format!("s_{number:026}")).unwrap(),
                    ),
                    reason: "its sandbox was lost".to_owned(),
                    by: "ops".to_owned(),
                    at: 1_800_000_000,
                    until: None,
                },
                lapses: None,
            });
        }
        let runs: usize = packed.runs.blocks.iter().map(Vec::capacity).sum();
        let bytes = runs + packed.places.allocation_size();
        assert!(bytes * 16 <= 64 << 20, "{}", bytes * 16);
    }

    #[test]
    fn what_was_taken_out_gives_its_room_back() {
        let mut packed = Packed::new(RandomState::default());
        let token = |number: u32| DenyTarget::Token(format!("{number:0100}"));
        for number in 0..1000 {
            packed.put(&StoredDenial {
                entry: DenyEntry {
                    target: token(number),
                    reason: String::new(),
                    by: String::new(),
                    at: 0,
                    until: None,
                },
                lapses: None,
            });
        }
        for number in 0..999 {
            assert!(packed.remove((&token(number)).into()));
        }
        assert!(packed.runs.length <= 2 * LEAST, "{}", packed.runs.length);
        assert_eq!(packed.runs.blocks.len(), 1);
        assert!(packed.get((&token(999)).into()).is_some());
        assert!(packed.places.capacity() < 1000);
        assert!(packed.remove((&token(999)).into()));
        let left = (packed.words.len(), packed.runs.blocks.len());
        assert_eq!((left, packed.places.allocation_size()), ((0, 0), 0));
    }
}
