//! Durations of calls: a histogram of fixed size that one thread fills and others read.
//!
//! The buckets are those of the SDK's [`LogHistogram`] (`adr/0011`), over units of 32 ns: below
//! 2 µs one per unit, above 32 for each power of two. A percentile is right within 1/64, or 16 ns,
//! up to 137 s; what takes longer is counted as that long.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use module_sdk::LogHistogram;

/// Binary logarithm of the unit in nanoseconds: reading the clock takes about as long as a unit.
const UNIT_BITS: u32 = 5;

/// Counts of calls by duration: 7 KiB.
#[derive(Debug)]
pub struct Latency {
    counts: [AtomicU64; LogHistogram::BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; LogHistogram::BUCKETS],
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// Counts one call. It takes no lock and allocates nothing.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[LogHistogram::bucket(units(ns))].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        if ns > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.fetch_max(ns, Ordering::Relaxed);
        }
    }

    /// Returns what was counted so far.
    #[must_use]
    pub fn durations(&self) -> Durations {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let counts = counts.map(|count| i64::try_from(count).unwrap_or(i64::MAX));
        Durations {
            counts: LogHistogram::of_buckets(counts),
            sum_ns: self.sum_ns.load(Ordering::Relaxed),
            max_ns: self.max_ns.load(Ordering::Relaxed),
        }
    }
}

/// Durations that were counted until some moment, or between two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    counts: LogHistogram,
    /// Sum of all durations, in nanoseconds.
    pub sum_ns: u64,
    /// The longest duration, in nanoseconds.
    pub max_ns: u64,
}

impl Durations {
    /// Returns the number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.counts.count()).unwrap_or(0)
    }

    /// Returns the duration in nanoseconds that a share of all durations does not exceed (nearest
    /// rank); `None` when there is none. `percent` lies in 0 to 100.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        // The middle of the longest one's bucket may lie above it.
        self.counts.percentile(percent).map(|units| nanoseconds(units).min(self.max_ns))
    }

    /// Counts the durations of at most `ns` nanoseconds; exact to the width of a bucket.
    #[must_use]
    pub fn at_most(&self, ns: u64) -> u64 {
        let within = self.counts.values().take_while(|(units, _)| nanoseconds(*units) <= ns);
        within.map(|(_, count)| u64::try_from(count).unwrap_or(0)).sum()
    }

    /// Adds other durations.
    pub fn add(&mut self, other: &Self) {
        self.counts.merge(&other.counts);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Returns what was counted since `before`, an earlier state of the same histogram. The longest
    /// duration is right within a bucket.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut counts = self.counts.clone();
        counts.subtract(&before.counts);
        let longest = counts.values().last().map(|(units, _)| nanoseconds(units));
        Self {
            max_ns: longest.map_or(0, |longest| longest.min(self.max_ns)),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
            counts,
        }
    }
}

/// Returns the unit that a duration is counted as.
fn units(ns: u64) -> u32 {
    u32::try_from(ns >> UNIT_BITS).unwrap_or(u32::MAX)
}

/// Returns the middle of a unit that has a bucket of its own, or else of its bucket.
const fn nanoseconds(units: u32) -> u64 {
    let half = if units < LogHistogram::EXACT_BELOW { 1 << (UNIT_BITS - 1) } else { 0 };
    ((units as u64) << UNIT_BITS) + half
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
            let found = nanoseconds(LogHistogram::middle(LogHistogram::bucket(units(ns))));
            prop_assert!(found.abs_diff(ns) <= (ns / 64).max(16), "{ns}: {found}");
        }

        #[test]
        fn longer_is_never_in_a_lower_bucket(a: u64, b: u64) {
            let (short, long) = (a.min(b), a.max(b));
            let (lower, higher) = (units(short), units(long));
            let (lower, higher) = (LogHistogram::bucket(lower), LogHistogram::bucket(higher));
            prop_assert!(lower <= higher && higher < LogHistogram::BUCKETS);
        }
    }
}
