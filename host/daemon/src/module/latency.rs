//! How long calls take: a histogram of fixed size that one thread fills and others read.
//!
//! The buckets are those of `adr/0011`, over units of 32 ns rather than milliseconds: below 2 µs
//! one per unit, above 32 for each power of two. A percentile is right within 1/64, or 16 ns, up
//! to 137 s; what takes longer is counted as that long.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// A unit is 2 to this power nanoseconds: reading the clock takes about as long.
const UNIT_BITS: u32 = 5;

/// Units below have a bucket each.
const EXACT: u32 = 64;

/// Buckets per power of two above.
const PER_OCTAVE: u32 = 32;

/// Every bucket of a `u32`.
const BUCKETS: usize = (EXACT + (32 - 6) * PER_OCTAVE) as usize;

/// How often each duration was seen: 7 KiB.
#[derive(Debug)]
pub struct Latency {
    counts: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Counts one call. It takes no lock and allocates nothing.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        if ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn durations(&self) -> Durations {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        Durations {
            counts: counts.collect(),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
            max_ns: self.max_ns.load(Ordering::Relaxed),
        }
    }
}

/// Durations that were counted until some moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    /// Empty for nothing.
    counts: Vec<u64>,
    /// All of them together.
    pub sum_ns: u64,
    /// The longest one.
    pub max_ns: u64,
}

impl Durations {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration in nanoseconds that a share of all does not exceed (nearest rank); `None` when
    /// there is none. `percent` lies in 0 to 100.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let total = u128::from(self.count());
        if total == 0 {
            return None;
        }
        let rank = (total * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0_u128;
        let reached = |count: &u64| {
            seen += u128::from(*count);
            seen >= rank
        };
        let bucket = self.counts.iter().position(reached)?;
        // The middle of the longest one's bucket may lie above it.
        Some(middle(bucket).min(self.max_ns))
    }

    /// How many took at most so many nanoseconds; exact to the width of a bucket.
    #[must_use]
    pub fn at_most(&self, ns: u64) -> u64 {
        let counts = self.counts.iter().enumerate();
        counts.filter(|(bucket, _)| middle(*bucket) <= ns).map(|(_, count)| count).sum()
    }

    /// Adds others.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// What came since `before`, which was counted earlier by the same histogram. Its longest is
    /// right within a bucket.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let old = before.counts.iter().chain(std::iter::repeat(&0));
        let counts: Vec<u64> =
            self.counts.iter().zip(old).map(|(now, old)| now.saturating_sub(*old)).collect();
        let longest = counts.iter().rposition(|count| *count > 0);
        Self {
            max_ns: longest.map_or(0, |bucket| middle(bucket).min(self.max_ns)),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
            counts,
        }
    }
}

/// Where a duration is counted.
const fn bucket(ns: u64) -> usize {
    let units = ns >> UNIT_BITS;
    let units = if units > u32::MAX as u64 { u32::MAX } else { units as u32 };
    if units < EXACT {
        return units as usize;
    }
    let octave = units.ilog2() - EXACT.ilog2();
    let place = (units >> (octave + 1)) - PER_OCTAVE;
    (EXACT + octave * PER_OCTAVE + place) as usize
}

/// The middle of a bucket in nanoseconds.
const fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let (exact, per_octave) = (EXACT as u64, PER_OCTAVE as u64);
    let (low, width) = if bucket < exact {
        (bucket, 1)
    } else {
        let octave = (bucket - exact) / per_octave;
        let place = (bucket - exact) % per_octave;
        ((per_octave + place) << (octave + 1), 2 << octave)
    };
    ((2 * low + width) << UNIT_BITS) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(durations: &[u64]) -> Latency {
        let latency = Latency::default();
        for ns in durations {
            latency.record(Duration::from_nanos(*ns));
        }
        latency
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let check = |durations: &[u64], percent, expected| {
            let found = counted(durations).durations().percentile(percent);
            assert_eq!(found, expected, "{percent} of {durations:?}");
        };
        check(&[], 50, None);
        check(&[10], 50, Some(10));
        check(&[100], 0, Some(100));
        check(&[100, 1_000_000_000], 50, Some(112));
        check(&[100, 1_000_000_000], 99, Some(998_244_352));
        check(&[u64::MAX], 50, Some(136_365_211_648));
    }

    #[test]
    fn counts_are_exact() {
        let all = counted(&[100, 5_000, 5_000, 2_000_000]).durations();
        assert_eq!((all.count(), all.sum_ns, all.max_ns), (4, 2_010_100, 2_000_000));
        assert_eq!([0, 1_000, 10_000, u64::MAX].map(|bound| all.at_most(bound)), [0, 1, 3, 4]);
        let mut twice = Durations::default();
        twice.add(&all);
        twice.add(&all);
        assert_eq!((twice.count(), twice.sum_ns), (8, 4_020_200));
    }

    #[test]
    fn what_came_since_is_apart() {
        let latency = counted(&[50_000_000]);
        let before = latency.durations();
        assert_eq!(before.since(&Durations::default()).count(), 1);
        latency.record(Duration::from_micros(10));
        let since = latency.durations().since(&before);
        assert_eq!((since.count(), since.sum_ns), (1, 10_000));
        assert!(since.max_ns.abs_diff(10_000) <= 10_000 / 64, "{since:?}");
        assert_eq!(latency.durations().since(&latency.durations()).percentile(99), None);
    }

    proptest! {
        #[test]
        fn a_bucket_is_near_its_values(ns in 0..137_000_000_000_u64) {
            let error = middle(bucket(ns)).abs_diff(ns);
            prop_assert!(error <= (ns / 64).max(16), "{ns}: {}", middle(bucket(ns)));
        }

        #[test]
        fn longer_is_never_in_a_lower_bucket(a: u64, b: u64) {
            let (short, long) = (a.min(b), a.max(b));
            prop_assert!(bucket(short) <= bucket(long) && bucket(long) < BUCKETS);
        }
    }
}
