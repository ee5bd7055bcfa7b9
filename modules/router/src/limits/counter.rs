//! Count of one quantity in one window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    allowance::Limit,
    window::{Calendar, Period, Quantity},
};

/// Count of one quantity in one window, in whole numbers.
///
/// Minutes and hours are buckets that leak: a limit of 60 per minute frees one each second. Days
/// and months begin anew with the calendar. A clock that jumps back frees nothing, and what was
/// counted under a wrong date is counted under the right one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    pub(super) quantity: Quantity,
    pub(super) period: Period,
    pub(super) used: u64,
    /// Time up to which a bucket has leaked, or beginning of the window, in Unix milliseconds.
    since_ms: i64,
    /// Part of a unit that has leaked, in units of `limit / period`.
    #[serde(default)]
    carry: u64,
    /// Window before the last move of the clock, with its count.
    #[serde(default)]
    previous: Option<(i64, u64)>,
    /// Amount that Redis has not been told.
    #[serde(default)]
    pub(super) unsent: i64,
    /// Amount at the last answer of Redis.
    #[serde(default)]
    seen: u64,
}

/// Verdict about one more amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It fits.
    Fits,
    /// It does not; the time after which it will, `None` for never.
    Full(Option<Duration>),
}

impl Counter {
    pub(super) fn new(limit: Limit, now_ms: i64, calendar: &Calendar) -> Self {
        let since_ms = match limit.period.bucket_ms() {
            Some(_) => now_ms,
            None => calendar.window(limit.period).0,
        };
        let (quantity, period) = (limit.quantity, limit.period);
        Self { quantity, period, used: 0, since_ms, carry: 0, previous: None, unsent: 0, seen: 0 }
    }

    /// Returns the beginning of the window, by which a refund finds it.
    pub(super) const fn window(&self) -> i64 {
        match self.period.bucket_ms() {
            Some(_) => 0,
            None => self.since_ms,
        }
    }

    /// Moves the count to a moment.
    pub(super) fn advance(&mut self, most: u64, now_ms: i64, calendar: &Calendar) {
        match self.period.bucket_ms() {
            Some(period) => self.leak(most, period, now_ms),
            None => self.turn(calendar.window(self.period).0),
        }
    }

    fn leak(&mut self, most: u64, period: u64, now_ms: i64) {
        let elapsed = u64::try_from(now_ms - self.since_ms).unwrap_or(0);
        self.since_ms = now_ms;
        let leaked = u128::from(elapsed) * u128::from(most) + u128::from(self.carry);
        let whole = u64::try_from(leaked / u128::from(period)).unwrap_or(u64::MAX);
        self.used = self.used.saturating_sub(whole);
        let rest = u64::try_from(leaked % u128::from(period)).unwrap_or(0);
        self.carry = if self.used == 0 { 0 } else { rest };
    }

    fn turn(&mut self, begin: i64) {
        let former = (self.since_ms, self.used);
        match begin.cmp(&self.since_ms) {
            std::cmp::Ordering::Equal => return,
            // The clock comes back to where it was: what was counted meanwhile is in `used`.
            std::cmp::Ordering::Greater if self.previous.is_some_and(|(at, _)| at == begin) => {}
            std::cmp::Ordering::Greater => {
                (self.used, self.seen) = (0, 0);
                // Redis would count it in the new window.
                self.unsent = 0;
            }
            std::cmp::Ordering::Less => {
                let known = self.previous.filter(|(at, _)| *at == begin);
                self.used = self.used.saturating_add(known.map_or(0, |(_, used)| used));
            }
        }
        self.previous = Some(former);
        self.since_ms = begin;
    }

    /// Returns whether an amount fits under a limit, after [`advance`](Self::advance).
    pub(super) fn verdict(
        &self,
        most: u64,
        amount: u64,
        now_ms: i64,
        calendar: &Calendar,
    ) -> Verdict {
        let wanted = self.used.saturating_add(amount);
        if amount == 0 || wanted <= most {
            return Verdict::Fits;
        }
        if amount > most {
            return Verdict::Full(None);
        }
        let ms = match self.period.bucket_ms() {
            Some(period) => {
                let missing = u128::from(wanted - most) * u128::from(period);
                let missing = missing.saturating_sub(u128::from(self.carry));
                u64::try_from(missing.div_ceil(u128::from(most))).unwrap_or(u64::MAX)
            }
            None => u64::try_from(calendar.window(self.period).1 - now_ms).unwrap_or(0).max(1),
        };
        Verdict::Full(Some(Duration::from_millis(ms)))
    }

    /// Returns the part of a limit that this instance may allow alone while Redis is lost: an even
    /// part of the rate, and of what is left of the day or the month.
    pub(super) const fn part(&self, most: u64, instances: u64) -> u64 {
        match self.period.bucket_ms() {
            Some(_) => most.div_ceil(instances),
            None => self.seen.saturating_add(most.saturating_sub(self.seen) / instances),
        }
    }

    /// Adds an amount; a negative one is taken back, but not below nothing, and not from a window
    /// that began after `window`. Returns what changed.
    pub(super) fn add(&mut self, amount: i64, window: i64) -> i64 {
        if amount < 0 && window != self.window() {
            return 0;
        }
        let before = self.used;
        self.used = before.saturating_add_signed(amount);
        amount.max(-i64::try_from(before).unwrap_or(i64::MAX))
    }

    /// Takes over the count that Redis told, and what is not yet in it.
    pub(super) fn take_over(&mut self, told: u64, window: i64, sent: i64) {
        self.unsent = self.unsent.saturating_sub(sent);
        if self.period.bucket_ms().is_none() && window != self.since_ms {
            return;
        }
        self.seen = told;
        self.used = told.saturating_add_signed(self.unsent);
    }

    /// Returns whether nothing would be lost without it.
    pub(super) fn is_over(&self, now_ms: i64, calendar: &Calendar) -> bool {
        let is_past = match self.period.bucket_ms() {
            Some(period) => now_ms - self.since_ms > i64::try_from(period * 2).unwrap_or(i64::MAX),
            None => self.since_ms < calendar.window(self.period).0,
        };
        self.used == 0 || is_past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Limit = Limit { quantity: Quantity::Requests, period: Period::Minute, most: 60 };
    const DAY: Limit = Limit { quantity: Quantity::NanoUsd, period: Period::Day, most: 1_000 };

    fn day(number: i64) -> Calendar {
        let ms = 86_400_000;
        Calendar { day: (number * ms, (number + 1) * ms), month: (0, 31 * ms) }
    }

    #[test]
    fn a_bucket_leaks_one_by_one() {
        let calendar = day(0);
        let mut counter = Counter::new(MINUTE, 0, &calendar);
        assert_eq!(counter.add(60, 0), 60);
        let mut check = |now: i64, used: u64, verdict: Verdict| {
            counter.advance(60, now, &calendar);
            assert_eq!(counter.used, used, "{now}");
            assert_eq!(counter.verdict(60, 1, now, &calendar), verdict, "{now}");
        };
        let wait = |ms| Verdict::Full(Some(Duration::from_millis(ms)));
        check(0, 60, wait(1_000));
        check(999, 60, wait(1));
        check(1_000, 59, Verdict::Fits);
        check(500, 59, Verdict::Fits);
        check(1_499, 59, Verdict::Fits);
        check(1_500, 58, Verdict::Fits);
        check(90_000, 0, Verdict::Fits);
    }

    #[test]
    fn no_unit_is_lost_however_often_it_leaks() {
        let calendar = day(0);
        let (mut often, mut once) =
            (Counter::new(MINUTE, 0, &calendar), Counter::new(MINUTE, 0, &calendar));
        often.add(50_000, 0);
        once.add(50_000, 0);
        for now in (0..=600_000).step_by(7) {
            often.advance(60, now, &calendar);
        }
        often.advance(60, 600_000, &calendar);
        once.advance(60, 600_000, &calendar);
        assert_eq!((often.used, once.used), (49_400, 49_400));
    }

    #[test]
    fn a_day_begins_anew_and_refunds_only_its_own() {
        let mut counter = Counter::new(DAY, 5, &day(0));
        let window = counter.window();
        counter.add(900, window);
        let wait = Duration::from_millis(86_400_000 - 5);
        assert_eq!(counter.verdict(1_000, 200, 5, &day(0)), Verdict::Full(Some(wait)));
        assert_eq!(counter.verdict(1_000, 1_001, 5, &day(0)), Verdict::Full(None));
        assert_eq!(counter.verdict(1_000, 0, 5, &day(0)), Verdict::Fits);
        counter.advance(1_000, 86_400_005, &day(1));
        assert_eq!(counter.used, 0);
        assert_eq!((counter.add(-100, window), counter.used), (0, 0));
        assert_eq!((counter.add(100, window), counter.used), (100, 100));
    }

    #[test]
    fn a_clock_that_jumps_frees_nothing() {
        let mut counter = Counter::new(DAY, 0, &day(10));
        counter.add(700, counter.window());
        counter.advance(1_000, 0, &day(9));
        assert_eq!(counter.used, 700, "an earlier day has the same count");
        counter.add(100, counter.window());
        counter.advance(1_000, 0, &day(10));
        assert_eq!(counter.used, 800, "and back again");
        counter.advance(1_000, 0, &day(20));
        assert_eq!(counter.used, 0, "a later day is a new one");
        counter.add(50, counter.window());
        counter.advance(1_000, 0, &day(10));
        assert_eq!(counter.used, 850, "and it was none");
    }

    #[test]
    fn an_instance_alone_allows_its_part() {
        let mut counter = Counter::new(DAY, 0, &day(0));
        assert_eq!(counter.part(1_000, 4), 250);
        counter.take_over(600, 0, 0);
        assert_eq!((counter.used, counter.part(1_000, 4)), (600, 700));
        let bucket = Counter::new(MINUTE, 0, &day(0));
        assert_eq!((bucket.part(60, 4), bucket.part(1, 4)), (15, 1));
    }
}
