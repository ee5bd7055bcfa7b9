//! Sums over time, in buckets of one length.

use std::collections::VecDeque;

/// Buckets of one length by their number, oldest first. One in which nothing was takes no room.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ring<T> {
    width_ms: i64,
    keep: i64,
    buckets: VecDeque<(i64, T)>,
}

impl<T: Default> Ring<T> {
    /// Creates an empty ring of buckets of a length that reaches back for a time.
    pub(crate) const fn new(width_ms: i64, span_ms: i64) -> Self {
        Self { width_ms, keep: span_ms / width_ms, buckets: VecDeque::new() }
    }

    /// Returns the bucket of a time; `None` where it is in the future, or older than what is kept.
    pub(crate) fn at(&mut self, at_ms: i64, now_ms: i64) -> Option<&mut T> {
        self.forget(now_ms);
        let number = at_ms.div_euclid(self.width_ms);
        let newest = now_ms.div_euclid(self.width_ms);
        if number > newest || number <= newest - self.keep {
            return None;
        }
        let place = self.buckets.partition_point(|(known, _)| *known < number);
        if self.buckets.get(place).is_none_or(|(known, _)| *known != number) {
            self.buckets.insert(place, (number, T::default()));
        }
        self.buckets.get_mut(place).map(|(_, bucket)| bucket)
    }

    /// Forgets the buckets that are older than what is kept.
    pub(crate) fn forget(&mut self, now_ms: i64) {
        let oldest = now_ms.div_euclid(self.width_ms) - self.keep + 1;
        while self.buckets.front().is_some_and(|(number, _)| *number < oldest) {
            self.buckets.pop_front();
        }
    }

    /// Returns the buckets that a time before now touches, the first and the last in part.
    pub(crate) fn within(&self, over_ms: i64, now_ms: i64) -> impl Iterator<Item = &T> {
        let (first, last) = self.touched(over_ms, now_ms);
        let from = self.buckets.partition_point(|(number, _)| *number < first);
        let touched = self.buckets.iter().skip(from);
        touched.take_while(move |(number, _)| *number <= last).map(|(_, bucket)| bucket)
    }

    /// Returns the numbers of the first and the last bucket that a time before now touches.
    pub(crate) const fn touched(&self, over_ms: i64, now_ms: i64) -> (i64, i64) {
        let first = now_ms.saturating_sub(over_ms).div_euclid(self.width_ms);
        (first, now_ms.div_euclid(self.width_ms))
    }

    /// Returns the buckets with the times at which they begin.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &T)> {
        self.buckets.iter().map(|(number, bucket)| (number * self.width_ms, bucket))
    }

    /// Returns all buckets but the newest.
    pub(crate) fn closed(&mut self) -> impl Iterator<Item = &mut T> {
        let closed = self.buckets.len().saturating_sub(1);
        self.buckets.iter_mut().take(closed).map(|(_, bucket)| bucket)
    }

    /// Returns the number of the newest bucket.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.buckets.back().map(|(number, _)| *number)
    }

    /// Returns whether nothing is kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn sum(ring: &Ring<u32>, over: i64, now: i64) -> u32 {
        ring.within(over, now).sum()
    }

    #[test]
    fn what_is_too_old_or_in_the_future_has_no_bucket() {
        let mut ring = Ring::<u32>::new(MINUTE, 10 * MINUTE);
        for (at, is_kept) in
            [(0, true), (-9 * MINUTE, true), (-10 * MINUTE, false), (61_000, false)]
        {
            assert_eq!(ring.at(at, 1_000).is_some(), is_kept, "{at}");
        }
        assert!(ring.at(25 * MINUTE, 25 * MINUTE).is_some());
        assert_eq!(ring.iter().count(), 1, "what became too old is gone");
    }

    #[test]
    fn sums_are_of_the_time_that_is_asked_for() {
        let mut ring = Ring::<u32>::new(MINUTE, 70 * MINUTE);
        for minute in 0..20 {
            *ring.at(minute * MINUTE, 20 * MINUTE).expect("it is kept") += 1;
        }
        let now = 20 * MINUTE + 30_000;
        assert_eq!(sum(&ring, 5 * MINUTE, now), 5, "half of one minute, and four");
        assert_eq!(sum(&ring, 70 * MINUTE, now), 20);
        assert_eq!(sum(&ring, MINUTE, 40 * MINUTE), 0);
        assert_eq!(sum(&ring, 5 * MINUTE, 10 * MINUTE), 6, "what is later does not count");
    }
}
