//! Durations, counted in buckets of which each is at most 1 % wide: a run of any length needs the same memory.

/// Buckets for each doubling: the width of one is less than 1/128 of its value.
const STEPS: u64 = 128;

/// How often each duration occurred, in nanoseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Histogram {
    /// Grows to the longest duration yet; 64-bit ones need 58 × 128 buckets.
    buckets: Vec<u64>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Histogram {
    pub(crate) fn record(&mut self, ns: u64) {
        let bucket = bucket_of(ns);
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        if let Some(times) = self.buckets.get_mut(bucket) {
            *times += 1;
        }
        self.count += 1;
        self.sum += u128::from(ns);
        self.max = self.max.max(ns);
    }

    /// How many were recorded.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The mean in nanoseconds, exact.
    #[expect(clippy::cast_precision_loss, reason = "a figure to print")]
    pub(crate) fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    /// The longest in nanoseconds, exact.
    pub(crate) const fn max(&self) -> u64 {
        self.max
    }

    /// The least duration, in nanoseconds and up to 1 % too long, that at least `per_mille` thousandths do not exceed.
    pub(crate) fn at(&self, per_mille: u64) -> u64 {
        // The rank of the last one that has to be within, counted from one.
        let rank = (u128::from(self.count) * u128::from(per_mille)).div_ceil(1000);
        let mut seen = 0_u128;
        for (bucket, times) in self.buckets.iter().enumerate() {
            seen += u128::from(*times);
            if *times > 0 && seen >= rank {
                return highest_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

/// Values below 2 × `STEPS` have a bucket each; each further doubling has `STEPS` of them.
fn bucket_of(value: u64) -> usize {
    let shift = (value | STEPS).ilog2() - STEPS.ilog2();
    let bucket = u64::from(shift) * STEPS + (value >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

/// The highest value of a bucket.
fn highest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / STEPS).saturating_sub(1);
    let step = bucket - shift * STEPS;
    ((u128::from(step) + 1) << shift)
        .saturating_sub(1)
        .try_into()
        .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_ends_less_than_one_per_cent_above_it() {
        let values = (0..64)
            .flat_map(|bit| {
                [
                    1_u64 << bit,
                    (1 << bit) - 1,
                    (1 << bit) | (0x5a5a_5a5a >> 3),
                ]
            })
            .chain([u64::MAX, 255, 256, 257, 1_000_003]);
        for value in values {
            let highest = highest_of(bucket_of(value));
            assert!(highest >= value, "{value} is above its bucket");
            assert!(
                highest - value <= value / 100,
                "{value} is counted as {highest}"
            );
            if highest < u64::MAX {
                assert_eq!(bucket_of(highest + 1), bucket_of(value) + 1);
            }
        }
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let mut histogram = Histogram::default();
        for ms in (1..=1000).rev() {
            histogram.record(ms * 1_000_000);
        }
        for (per_mille, exact) in [
            (0, 1),
            (1, 1),
            (500, 500),
            (900, 900),
            (990, 990),
            (999, 999),
        ] {
            let exact = exact * 1_000_000;
            let counted = histogram.at(per_mille);
            assert!(
                (exact..=exact + exact / 100).contains(&counted),
                "{per_mille}: {counted}"
            );
        }
        assert_eq!(histogram.at(1000), 1_000_000_000);
        assert_eq!(histogram.max(), 1_000_000_000);
        assert!((histogram.mean() - 500_500_000.0).abs() < 1.0);
    }

    #[test]
    fn nothing_recorded_is_zero() {
        let histogram = Histogram::default();
        assert_eq!(
            (histogram.count(), histogram.at(990), histogram.max()),
            (0, 0, 0)
        );
        assert!(histogram.mean().abs() < f64::EPSILON);
    }
}
