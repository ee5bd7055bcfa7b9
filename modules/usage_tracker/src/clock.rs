//! The clock of the machine, which may be wrong.
//!
//! What such a clock says must neither date a request nor delete one.

use jiff::Timestamp;
use module_sdk::{Health, clock};

const EARLIEST_MS: i64 = 1_000 * clock::EARLIEST_S;
const LATEST_MS: i64 = 1_000 * clock::LATEST_S;
/// A year without a single request, and then a clock that says so, is more likely a wrong clock.
const SILENCE_MS: i64 = 366 * 24 * 3_600_000;

/// Returns whether a clock can be right.
pub(crate) const fn believable(now_ms: i64) -> bool {
    EARLIEST_MS <= now_ms && now_ms <= LATEST_MS
}

/// Latest time that a report may have, where the clock cannot be right.
pub(crate) const LATEST_REPORT_MS: i64 = LATEST_MS;

/// The time of an arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Time of the arrival, in milliseconds since the Unix epoch.
    pub(crate) at_ms: i64,
    /// `true` when the time is that of the clock. Where the clock cannot be right, `at_ms` is the
    /// time of the newest request or, without one, the earliest believable time.
    pub(crate) by_clock: bool,
}

impl Arrival {
    /// Returns the time now, by the clock where that can be right.
    pub(crate) fn now(now_ms: i64, newest_ms: impl FnOnce() -> Option<i64>) -> Self {
        if believable(now_ms) {
            return Self { at_ms: now_ms, by_clock: true };
        }
        let newest = newest_ms().filter(|newest| believable(*newest));
        Self { at_ms: newest.unwrap_or(EARLIEST_MS), by_clock: false }
    }
}

/// Returns the health: degraded where the clock cannot be right.
pub(crate) fn health(now: Timestamp) -> Health {
    if believable(now.as_millisecond()) {
        return Health::ok("");
    }
    Health::degraded(format!(
        "the clock of this machine stands at {}, which cannot be right: requests have the time \
         that their senders tell, and none is deleted by its age; set the clock",
        now.strftime("%Y-%m-%d")
    ))
}

/// Returns whether the clock can be trusted to delete requests by their age.
pub(crate) const fn may_delete(now_ms: i64, newest_ms: i64) -> bool {
    believable(now_ms) && now_ms.saturating_sub(newest_ms) <= SILENCE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: &str) -> i64 {
        time.parse::<jiff::Timestamp>().expect("a time").as_millisecond()
    }

    #[test]
    fn a_clock_that_cannot_be_right_dates_nothing() {
        let now = ms("2026-11-21T12:00:00Z");
        let newest = ms("2026-10-01T00:00:00Z");
        for wrong in ["1970-01-01T00:00:01Z", "1972-06-01T00:00:00Z", "2099-01-01T00:00:00Z"] {
            let arrival = |newest| Arrival::now(ms(wrong), || newest);
            assert_eq!(arrival(Some(newest)), Arrival { at_ms: newest, by_clock: false });
            let earliest = ms("2026-01-01T00:00:00Z");
            assert_eq!(arrival(None), Arrival { at_ms: earliest, by_clock: false }, "{wrong}");
            assert!(!may_delete(ms(wrong), newest), "{wrong}");
        }
        let arrival = Arrival::now(now, || unreachable!("the clock is right"));
        assert_eq!(arrival, Arrival { at_ms: now, by_clock: true });
        assert!(may_delete(now, newest));
        assert!(!may_delete(ms("2030-01-01T00:00:00Z"), newest));
        assert_eq!(LATEST_MS, ms("2056-01-01T00:00:00Z"));
    }
}
