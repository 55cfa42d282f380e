//! What goes out in one request: records that follow each other without a gap, bounded in number and bytes.

use std::collections::VecDeque;

use crate::trail::{Line, TrailFault, TrailReader, TrailRecord, TrailStart};

/// Records of one request, at least one, with sequence numbers that follow each other.
#[derive(Debug)]
pub(crate) struct Batch {
    first: u64,
    records: Vec<TrailRecord>,
}

impl Batch {
    pub(crate) const fn first_seq(&self) -> u64 {
        self.first
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.records.last().map_or(self.first, |record| record.seq)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The records, as they stand.
    pub(crate) fn raw(&self) -> impl Iterator<Item = &str> {
        self.records.iter().map(|record| record.line.as_str())
    }

    /// The records, taken apart.
    pub(crate) fn lines(&self) -> Result<Vec<Line<'_>>, TrailFault> {
        self.records.iter().map(Line::parse).collect()
    }

    /// The hash of the last record.
    pub(crate) fn last_hash(&self) -> Result<String, TrailFault> {
        match self.records.last().map(Line::parse) {
            Some(line) => line.map(|line| line.hash.to_owned()),
            None => Ok(String::new()),
        }
    }

    /// Keeps the first half; gives back the other.
    pub(crate) fn halve(&mut self) -> Vec<TrailRecord> {
        let half = self.records.len().div_ceil(2).max(1);
        self.records.split_off(half)
    }
}

/// Bounds of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) records: usize,
    /// A single record may be longer.
    pub(crate) bytes: usize,
    /// No record behind this one.
    pub(crate) until: Option<u64>,
}

/// The trail, cut into batches.
#[derive(Debug)]
pub(crate) struct Supply<T> {
    reader: T,
    /// Read already, and not part of a batch.
    waiting: VecDeque<TrailRecord>,
    /// The last that was read.
    read: Option<u64>,
    /// The reader failed: it has to be opened again.
    broken: bool,
}

impl<T: TrailReader> Supply<T> {
    pub(crate) const fn new(reader: T) -> Self {
        Self {
            reader,
            waiting: VecDeque::new(),
            read: None,
            broken: false,
        }
    }

    /// Goes on behind `after`.
    pub(crate) fn open(&mut self, after: Option<u64>) -> Result<TrailStart, TrailFault> {
        self.waiting.clear();
        self.broken = false;
        self.read = after;
        self.reader.open(after)
    }

    pub(crate) fn last_seq(&mut self) -> Result<Option<u64>, TrailFault> {
        self.reader.last_seq()
    }

    /// The next record, whole.
    pub(crate) fn next(&mut self) -> Result<Option<TrailRecord>, TrailFault> {
        if let Some(record) = self.waiting.pop_front() {
            return Ok(Some(record));
        }
        if self.broken {
            self.reader.open(self.read)?;
            self.broken = false;
        }
        let read = self.reader.next().and_then(|record| {
            if let Some(record) = &record {
                Line::parse(record)?;
            }
            Ok(record)
        });
        match &read {
            Ok(Some(record)) => self.read = Some(record.seq),
            Ok(None) => {}
            Err(_) => self.broken = true,
        }
        read
    }

    /// Puts back what was read, to be next.
    pub(crate) fn give_back(&mut self, records: Vec<TrailRecord>) {
        for record in records.into_iter().rev() {
            self.waiting.push_front(record);
        }
    }

    /// The next batch; `None` if there is nothing yet. What was read before a fault is a batch of its own.
    pub(crate) fn batch(&mut self, bounds: Bounds) -> Result<Option<Batch>, TrailFault> {
        let Some(first) = self.next()? else {
            return Ok(None);
        };
        let mut batch = Batch {
            first: first.seq,
            records: Vec::new(),
        };
        let (mut bytes, mut last) = (first.line.len(), first.seq);
        batch.records.push(first);
        while batch.len() < bounds.records && bounds.until != Some(last) {
            let Ok(Some(record)) = self.next() else {
                break;
            };
            bytes = bytes.saturating_add(record.line.len());
            if bytes > bounds.bytes || record.seq != last.saturating_add(1) {
                self.waiting.push_front(record);
                break;
            }
            last = record.seq;
            batch.records.push(record);
        }
        Ok(Some(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::test_trail::{TestTrail, line};

    const WIDE: Bounds = Bounds {
        records: 100,
        bytes: 1 << 20,
        until: None,
    };

    fn ranges(supply: &mut Supply<TestTrail>, bounds: Bounds) -> Vec<(u64, u64)> {
        let mut ranges = Vec::new();
        while let Some(batch) = supply.batch(bounds).unwrap() {
            ranges.push((batch.first_seq(), batch.last_seq()));
        }
        ranges
    }

    #[test]
    fn a_batch_ends_at_its_bounds_and_at_a_gap() {
        let trail = TestTrail::new(0..10);
        let one = line(0, "").len();
        for (bounds, wanted) in [
            (WIDE, vec![(0, 9)]),
            (Bounds { records: 4, ..WIDE }, vec![(0, 3), (4, 7), (8, 9)]),
            (
                Bounds {
                    bytes: one * 6,
                    ..WIDE
                },
                vec![(0, 5), (6, 9)],
            ),
            (
                Bounds { bytes: 1, ..WIDE },
                (0..10).map(|n| (n, n)).collect(),
            ),
            (
                Bounds {
                    until: Some(2),
                    ..WIDE
                },
                vec![(0, 2), (3, 9)],
            ),
        ] {
            let mut supply = Supply::new(trail.clone());
            supply.open(None).unwrap();
            assert_eq!(ranges(&mut supply, bounds), wanted, "{bounds:?}");
        }
        let mut supply = Supply::new(TestTrail::new((0..3).chain(7..9)));
        supply.open(None).unwrap();
        assert_eq!(ranges(&mut supply, WIDE), [(0, 2), (7, 8)]);
    }

    #[test]
    fn what_was_given_back_comes_next() {
        let mut supply = Supply::new(TestTrail::new(0..5));
        supply.open(None).unwrap();
        let mut batch = supply.batch(WIDE).unwrap().unwrap();
        let rest = batch.halve();
        assert_eq!((batch.first_seq(), batch.last_seq()), (0, 2));
        supply.give_back(rest);
        assert_eq!(ranges(&mut supply, WIDE), [(3, 4)]);
    }

    #[test]
    fn a_damaged_record_is_reached_but_not_passed() {
        let trail = TestTrail::new(0..5);
        trail.damage(3);
        let mut supply = Supply::new(trail.clone());
        supply.open(None).unwrap();
        assert_eq!(supply.batch(WIDE).unwrap().unwrap().last_seq(), 2);
        for _ in 0..2 {
            assert!(supply.batch(WIDE).is_err());
        }
        trail.mend(3);
        assert_eq!(ranges(&mut supply, WIDE), [(3, 4)]);
    }
}
