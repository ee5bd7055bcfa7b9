//! Mergeable histograms of durations in milliseconds, with at most 1.6% error of a percentile.
//!
//! Buckets as in HdrHistogram (<https://hdrhistogram.github.io/HdrHistogram/>): values below 64
//! have a bucket each; above, every power of two is cut into 32 buckets of equal width. A bucket
//! from `low` of width `w` answers `low + w/2`, and `w <= low/32`, so the error is at most 1/64.
//! Only integers are used, so two machines agree, and adding is exact in any order. See
//! `adr/0011-latency-histograms.md`.

use std::fmt;

/// Values below have a bucket each.
const EXACT: u32 = 64;
/// Buckets per power of two above.
const PER_OCTAVE: u32 = 32;
/// Every bucket of a `u32`.
const BUCKETS: usize = (EXACT + (32 - 6) * PER_OCTAVE) as usize;

/// How often each duration was seen. Counts are signed, so that what was counted can be taken out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// `(bucket, count)`, in order of bucket, no count is 0.
    counts: Vec<(u16, i64)>,
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({} in {} buckets)", self.count(), self.counts.len())
    }
}

impl Histogram {
    /// Counts a value `count` times; a negative count takes it out again.
    pub fn add(&mut self, milliseconds: u32, count: i64) {
        self.add_bucket(bucket(milliseconds), count);
    }

    /// Adds what another one has counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        for &(bucket, count) in &other.counts {
            self.add_bucket(bucket, count);
        }
    }

    /// The same with all counts turned: what takes it out again.
    pub(crate) fn negated(&self) -> Self {
        let negated = self.counts.iter().map(|(bucket, count)| (*bucket, count.saturating_neg()));
        Self { counts: negated.collect() }
    }

    fn add_bucket(&mut self, bucket: u16, count: i64) {
        match self.counts.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                self.counts[at].1 = self.counts[at].1.saturating_add(count);
                if self.counts[at].1 == 0 {
                    self.counts.remove(at);
                }
            }
            Err(_) if count == 0 => {}
            Err(at) => self.counts.insert(at, (bucket, count)),
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.counts.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The value in milliseconds that a share of all values does not exceed (nearest rank), within
    /// 1/64 of the true one. `None` when nothing was counted.
    ///
    /// `percent` lies in 0 to 100.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<u32> {
        let total = u128::try_from(self.count()).ok().filter(|total| *total > 0)?;
        let rank = (total * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0_u128;
        for &(bucket, count) in &self.counts {
            seen += u128::try_from(count).unwrap_or(0);
            if seen >= rank {
                return Some(middle(bucket));
            }
        }
        None
    }

    /// The form in the database: for each bucket its distance from the one before and its count
    /// (zigzag), as LEB128. `None` when nothing is counted.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.counts.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.counts.len() * 3);
        let mut before = 0;
        for &(bucket, count) in &self.counts {
            put(&mut bytes, u64::from(bucket - before));
            put(&mut bytes, zigzag(count));
            before = bucket;
        }
        Some(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// When the bytes are no histogram.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut counts = Vec::with_capacity(bytes.len() / 2);
        each(bytes, |bucket, count| counts.push((bucket, count)))?;
        Ok(Self { counts })
    }
}

/// Adds up many histograms at the cost of their bytes: sparse while there is little in it, then one
/// number per bucket.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    sparse: Histogram,
    dense: Option<Box<[i64; BUCKETS]>>,
}

/// From so many buckets on a sum is dense.
const DENSE_FROM: usize = 48;

impl Sum {
    /// Adds an encoded histogram.
    ///
    /// # Errors
    ///
    /// When the bytes are no histogram.
    pub fn add_encoded(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        each(bytes, |bucket, count| self.add_bucket(bucket, count))
    }

    /// Counts one value.
    pub fn add(&mut self, milliseconds: u32) {
        self.add_bucket(bucket(milliseconds), 1);
    }

    /// Adds another sum, or takes it out.
    pub fn merge(&mut self, other: &Self, take_out: bool) {
        let other = other.histogram();
        for (bucket, count) in if take_out { other.negated() } else { other }.counts {
            self.add_bucket(bucket, count);
        }
    }

    /// What was added, as a histogram.
    #[must_use]
    pub fn histogram(&self) -> Histogram {
        let Some(dense) = &self.dense else { return self.sparse.clone() };
        let counts = (0_u16..).zip(dense.iter().copied());
        Histogram { counts: counts.filter(|(_, count)| *count != 0).collect() }
    }

    fn add_bucket(&mut self, bucket: u16, count: i64) {
        if let Some(dense) = &mut self.dense {
            if let Some(slot) = dense.get_mut(usize::from(bucket)) {
                *slot = slot.saturating_add(count);
            }
            return;
        }
        self.sparse.add_bucket(bucket, count);
        if self.sparse.counts.len() >= DENSE_FROM {
            let mut dense = Box::new([0; BUCKETS]);
            for (bucket, count) in std::mem::take(&mut self.sparse).counts {
                dense[usize::from(bucket)] = count;
            }
            self.dense = Some(dense);
        }
    }
}

/// Bytes that are no histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a latency histogram in the database cannot be read")]
pub struct DecodeError;

fn bucket(value: u32) -> u16 {
    let bucket = if value < EXACT {
        value
    } else {
        let octave = value.ilog2();
        EXACT + (octave - 6) * PER_OCTAVE + ((value >> (octave - 5)) - PER_OCTAVE)
    };
    u16::try_from(bucket).expect("a u32 has 896 buckets")
}

fn middle(bucket: u16) -> u32 {
    let bucket = u32::from(bucket);
    if bucket < EXACT {
        return bucket;
    }
    let octave = 6 + (bucket - EXACT) / PER_OCTAVE;
    let width = 1_u32 << (octave - 5);
    (PER_OCTAVE + (bucket - EXACT) % PER_OCTAVE) * width + width / 2
}

fn each(bytes: &[u8], mut found: impl FnMut(u16, i64)) -> Result<(), DecodeError> {
    let (mut at, mut bucket) = (0, 0_u64);
    while at < bytes.len() {
        bucket += take(bytes, &mut at)?.min(u64::from(u16::MAX));
        let count = unzigzag(take(bytes, &mut at)?);
        let bucket = u16::try_from(bucket).map_err(|_| DecodeError)?;
        if usize::from(bucket) >= BUCKETS {
            return Err(DecodeError);
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

fn take(bytes: &[u8], at: &mut usize) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(DecodeError)?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut last = 0;
        for value in (0..100_000).chain([u32::MAX / 2, u32::MAX - 1, u32::MAX]) {
            let bucket = bucket(value);
            assert!(bucket == last || value >= 100_000 || bucket == last + 1, "{value}");
            last = bucket;
        }
        assert_eq!(usize::from(bucket(u32::MAX)), BUCKETS - 1);
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let check = |bytes: &[u8]| assert_eq!(Histogram::decode(bytes), Err(DecodeError));
        check(&[0x80]);
        check(&[1]);
        check(&[0xff; 30]);
        check(&[0xff, 0xff, 0x03, 2]);
    }

    proptest! {
        #[test]
        fn percentiles_are_within_two_percent(
            mut values in prop::collection::vec(0..=10_000_000_u32, 1..400),
            percent in 0..=100_u8,
        ) {
            let mut histogram = Histogram::default();
            for value in &values {
                histogram.add(*value, 1);
            }
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
            let fill = |values: &[u32]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.add(*value, 1));
                histogram
            };
            let (one, two) = (fill(&left), fill(&right));
            let mut merged = one.clone();
            merged.merge(&two);
            let mut sum = Sum::default();
            for part in [&one, &two] {
                sum.add_encoded(&part.encode().unwrap_or_default()).expect("it was encoded here");
            }
            prop_assert_eq!(&sum.histogram(), &merged);
            let bytes = merged.encode().unwrap_or_default();
            prop_assert_eq!(&Histogram::decode(&bytes).expect("it was encoded here"), &merged);
            right.iter().for_each(|value| merged.add(*value, -1));
            prop_assert_eq!(merged, one);
        }
    }
}
