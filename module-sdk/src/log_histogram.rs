//! Mergeable histograms of whole numbers, with at most 1.6 % error of a percentile.
//!
//! Buckets as in HdrHistogram (<https://hdrhistogram.github.io/HdrHistogram/>): values below 64
//! have a bucket each; above, every power of two is cut into 32 buckets of equal width. A bucket
//! from `low` of width `w` answers `low + w/2`, and `w <= low/32`, so the error is at most 1/64.
//! Only integers are used, so two machines agree, and adding is exact in any order. See
//! `adr/0011-latency-histograms.md`.

use std::fmt;

/// Value below which each value has a bucket of its own.
const EXACT: u32 = 64;
/// Number of buckets for each power of two above.
const PER_OCTAVE: u32 = 32;
/// Number of buckets for all values of a `u32`.
const BUCKETS: usize = (EXACT + (32 - 6) * PER_OCTAVE) as usize;
/// Number of used buckets from which a histogram has one number per bucket.
const DENSE_FROM: usize = 48;

/// A histogram of values in a unit of the caller's choice; small while there is little in it.
/// Counts are signed, so that what was counted can be taken out again.
///
/// ```
/// use module_sdk::LogHistogram;
///
/// let mut today = LogHistogram::default();
/// for milliseconds in [120, 130, 9_000] {
///     today.add(milliseconds, 1);
/// }
/// let mut week = LogHistogram::default();
/// week.merge(&today);
/// assert_eq!(week.count(), 3);
/// let median = week.percentile(50).expect("it is not empty");
/// assert!(median.abs_diff(130) <= 2, "{median}");
///
/// let stored = week.encode().expect("it is not empty");
/// assert_eq!(LogHistogram::decode(&stored), Ok(week));
/// ```
#[derive(Clone)]
pub struct LogHistogram {
    counts: Counts,
}

#[derive(Clone)]
enum Counts {
    /// Pairs of `(bucket, count)`, in order of bucket; no count is 0.
    Sparse(Vec<(u16, i64)>),
    Dense(Box<[i64; BUCKETS]>),
}

impl Default for LogHistogram {
    fn default() -> Self {
        Self { counts: Counts::Sparse(Vec::new()) }
    }
}

impl fmt::Debug for LogHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogHistogram({} in {} buckets)", self.count(), self.buckets().count())
    }
}

impl PartialEq for LogHistogram {
    fn eq(&self, other: &Self) -> bool {
        self.buckets().eq(other.buckets())
    }
}

impl Eq for LogHistogram {}

impl LogHistogram {
    /// Number of buckets.
    pub const BUCKETS: usize = BUCKETS;
    /// Value below which each value has a bucket of its own.
    pub const EXACT_BELOW: u32 = EXACT;

    /// Returns the bucket that a value is counted in.
    #[must_use]
    pub const fn bucket(value: u32) -> usize {
        if value < EXACT {
            return value as usize;
        }
        let octave = value.ilog2();
        (EXACT + (octave - 6) * PER_OCTAVE + ((value >> (octave - 5)) - PER_OCTAVE)) as usize
    }

    /// Returns the value that stands for a bucket: its middle.
    #[must_use]
    pub const fn middle(bucket: usize) -> u32 {
        let bucket = bucket as u32;
        if bucket < EXACT {
            return bucket;
        }
        let octave = 6 + (bucket - EXACT) / PER_OCTAVE;
        let width = 1_u32 << (octave - 5);
        (PER_OCTAVE + (bucket - EXACT) % PER_OCTAVE) * width + width / 2
    }

    /// Returns the histogram of counts that were kept apart, one for each bucket from the first.
    pub fn of_buckets(counts: impl IntoIterator<Item = i64>) -> Self {
        let counts = (0_u16..).zip(counts).take(BUCKETS).filter(|(_, count)| *count != 0);
        Self { counts: Counts::Sparse(counts.collect()) }
    }

    /// Counts a value `count` times; a negative count takes it out again.
    pub fn add(&mut self, value: u32, count: i64) {
        self.add_bucket(Self::bucket(value) as u16, count);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets().next().is_none() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for (bucket, count) in other.buckets() {
            self.add_bucket(bucket, count);
        }
    }

    /// Takes out the counts of another histogram.
    pub fn subtract(&mut self, other: &Self) {
        for (bucket, count) in other.buckets() {
            self.add_bucket(bucket, count.saturating_neg());
        }
    }

    /// Returns the histogram with all counts negated, which takes this one out again.
    #[must_use]
    pub fn negated(&self) -> Self {
        let negated = self.buckets().map(|(bucket, count)| (bucket, count.saturating_neg()));
        Self { counts: Counts::Sparse(negated.collect()) }
    }

    /// Returns the middle of each bucket with its count, smallest first.
    pub fn values(&self) -> impl Iterator<Item = (u32, i64)> {
        self.buckets().map(|(bucket, count)| (Self::middle(bucket.into()), count))
    }

    /// Returns how many values were counted.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.buckets().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// Returns the value that a share of all values does not exceed (nearest rank), within 1/64 of
    /// the true one; `None` when nothing was counted. `percent` lies in 0 to 100.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<u32> {
        let total = u128::try_from(self.count()).ok().filter(|total| *total > 0)?;
        let rank = (total * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0_u128;
        let mut values = self.values();
        let reached = |(_, count): &(u32, i64)| {
            seen += u128::try_from(*count).unwrap_or(0);
            seen >= rank
        };
        values.find(reached).map(|(middle, _)| middle)
    }

    /// Returns the encoded form for a database: for each bucket its distance from the one before
    /// and its count (zigzag), as LEB128. `None` when nothing is counted.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut before = 0;
        for (bucket, count) in self.buckets() {
            put(&mut bytes, u64::from(bucket - before));
            put(&mut bytes, zigzag(count));
            before = bucket;
        }
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Reads a histogram that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// When the bytes are no histogram.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogHistogramError> {
        let mut counts = Vec::with_capacity(bytes.len() / 2);
        each(bytes, |bucket, count| counts.push((bucket, count)))?;
        Ok(Self { counts: Counts::Sparse(counts) })
    }

    /// Adds an encoded histogram, at the cost of its bytes.
    ///
    /// # Errors
    ///
    /// When the bytes are no histogram; the buckets before the mistake are added.
    pub fn merge_encoded(&mut self, bytes: &[u8]) -> Result<(), LogHistogramError> {
        each(bytes, |bucket, count| self.add_bucket(bucket, count))
    }

    fn buckets(&self) -> impl Iterator<Item = (u16, i64)> {
        let (sparse, dense): (&[(u16, i64)], &[i64]) = match &self.counts {
            Counts::Sparse(counts) => (counts, &[]),
            Counts::Dense(counts) => (&[], counts.as_slice()),
        };
        let dense = (0_u16..).zip(dense.iter().copied()).filter(|(_, count)| *count != 0);
        sparse.iter().copied().chain(dense)
    }

    fn add_bucket(&mut self, bucket: u16, count: i64) {
        let counts = match &mut self.counts {
            Counts::Dense(counts) => {
                let slot = &mut counts[usize::from(bucket)];
                *slot = slot.saturating_add(count);
                return;
            }
            Counts::Sparse(counts) => counts,
        };
        match counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                counts[at].1 = counts[at].1.saturating_add(count);
                if counts[at].1 == 0 {
                    counts.remove(at);
                }
            }
            Err(_) if count == 0 => {}
            Err(at) if counts.len() < DENSE_FROM => counts.insert(at, (bucket, count)),
            Err(_) => {
                let mut dense = Box::new([0; BUCKETS]);
                for (bucket, count) in counts.drain(..) {
                    dense[usize::from(bucket)] = count;
                }
                dense[usize::from(bucket)] = count;
                self.counts = Counts::Dense(dense);
            }
        }
    }
}

/// Bytes that are no histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored histogram cannot be read")]
pub struct LogHistogramError;

/// Calls `found` for each bucket of an encoded histogram; all of them exist.
fn each(bytes: &[u8], mut found: impl FnMut(u16, i64)) -> Result<(), LogHistogramError> {
    let (mut at, mut bucket) = (0, 0_u64);
    while at < bytes.len() {
        let is_first = at == 0;
        let distance = take(bytes, &mut at)?.min(u64::from(u16::MAX));
        bucket += distance;
        let count = unzigzag(take(bytes, &mut at)?);
        let bucket = u16::try_from(bucket).map_err(|_| LogHistogramError)?;
        let is_again = distance == 0 && !is_first;
        if usize::from(bucket) >= BUCKETS || is_again || count == 0 {
            return Err(LogHistogramError);
        }
        found(bucket, count);
    }
    Ok(())
}

const fn zigzag(number: i64) -> u64 {
    (number.wrapping_shl(1) ^ (number >> 63)).cast_unsigned()
}

const fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn take(bytes: &[u8], at: &mut usize) -> Result<u64, LogHistogramError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(LogHistogramError)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(LogHistogramError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(values: &[u32]) -> LogHistogram {
        let mut histogram = LogHistogram::default();
        values.iter().for_each(|value| histogram.add(*value, 1));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut last = 0;
        for value in (0..100_000).chain([u32::MAX / 2, u32::MAX - 1, u32::MAX]) {
            let bucket = LogHistogram::bucket(value);
            assert!(bucket == last || value >= 100_000 || bucket == last + 1, "{value}");
            last = bucket;
        }
        assert_eq!(LogHistogram::bucket(u32::MAX), BUCKETS - 1);
        let all: Vec<usize> =
            (0..BUCKETS).map(|at| LogHistogram::bucket(LogHistogram::middle(at))).collect();
        assert!(all.into_iter().eq(0..BUCKETS), "a middle lies in its bucket");
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let check = |bytes: &[u8]| {
            assert_eq!(LogHistogram::decode(bytes), Err(LogHistogramError));
            assert_eq!(LogHistogram::default().merge_encoded(bytes), Err(LogHistogramError));
        };
        check(&[0x80]);
        check(&[1]);
        check(&[0xff; 30]);
        check(&[0xff, 0xff, 0x03, 2]);
        // Nothing counted, and a bucket that comes twice.
        check(&[5, 0]);
        check(&[5, 2, 0, 2]);
    }

    #[test]
    fn stored_bytes_keep_their_meaning() {
        // As databases have them: 5 once, 70 twice, 100,000 taken out.
        let stored = [5, 2, 62, 4, 0xcd, 2, 1];
        let histogram = LogHistogram::decode(&stored).expect("it is one");
        let values: Vec<(u32, i64)> = histogram.values().collect();
        assert_eq!(values, [(5, 1), (71, 2), (99_328, -1)]);
        assert_eq!(histogram.encode().as_deref(), Some(stored.as_slice()));
        assert_eq!(LogHistogram::default().encode(), None);
    }

    proptest! {
        #[test]
        fn percentiles_are_within_two_percent(
            mut values in prop::collection::vec(0..=10_000_000_u32, 1..400),
            percent in 0..=100_u8,
        ) {
            let histogram = filled(&values);
            values.sort_unstable();
            let rank = (values.len() * usize::from(percent)).div_ceil(100).max(1);
            let truth = f64::from(values[rank - 1]);
            let answer = f64::from(histogram.percentile(percent).expect("it is not empty"));
            prop_assert!((answer - truth).abs() <= truth * 0.02, "{answer} for {truth}");
        }

        #[test]
        fn adding_up_is_the_same_in_every_way(
            left in prop::collection::vec(any::<u32>(), 0..100),
            right in prop::collection::vec(any::<u32>(), 0..100),
        ) {
            let (one, two) = (filled(&left), filled(&right));
            let mut merged = one.clone();
            merged.merge(&two);
            let mut sum = LogHistogram::default();
            for part in [&one, &two] {
                sum.merge_encoded(&part.encode().unwrap_or_default()).expect("encoded here");
            }
            prop_assert_eq!(&sum, &merged);
            prop_assert_eq!(merged.count(), i64::try_from(left.len() + right.len()).expect("few"));
            let bytes = merged.encode().unwrap_or_default();
            prop_assert_eq!(&LogHistogram::decode(&bytes).expect("encoded here"), &merged);
            let mut counts = vec![0; BUCKETS];
            merged.buckets().for_each(|(bucket, count)| counts[usize::from(bucket)] = count);
            prop_assert_eq!(&LogHistogram::of_buckets(counts), &merged);
            let mut without = merged.clone();
            without.subtract(&two);
            merged.merge(&two.negated());
            prop_assert_eq!(&merged, &one);
            prop_assert_eq!(without, one);
        }
    }
}
