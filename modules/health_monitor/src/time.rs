//! Time as alerts need it: when something was, and how long something lasts.

use std::time::Instant;

use module_sdk::jiff::Timestamp;

/// A moment, by the clock and by a count that no change of the clock moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time by the clock, for people.
    pub at: Timestamp,
    /// Milliseconds since the start that have really passed, for `for:` and windows.
    pub steady_ms: u64,
}

/// Longest step of the clock, in milliseconds, that is taken as it is: the test bench moves the
/// clock by itself, and faster than time passes.
const LARGEST_STEP_MS: i64 = 60_000;

/// Source of moments. A clock that jumps by a day moves no alert.
#[derive(Debug)]
pub struct SteadyClock {
    last: Timestamp,
    last_instant: Instant,
    steady_ms: u64,
}

impl SteadyClock {
    /// Starts at a time.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { last: now, last_instant: Instant::now(), steady_ms: 0 }
    }

    /// Returns the moment now, and by how many milliseconds the clock was set since the last call
    /// (0 where it was not).
    pub fn moment(&mut self, now: Timestamp) -> (Moment, i64) {
        let step = now.as_millisecond().saturating_sub(self.last.as_millisecond());
        let passed = i64::try_from(self.last_instant.elapsed().as_millis()).unwrap_or(i64::MAX);
        let is_plausible = (0..=LARGEST_STEP_MS).contains(&step) && step >= passed / 2;
        let (step, jump) = if is_plausible { (step, 0) } else { (passed, step - passed) };
        self.steady_ms = self.steady_ms.saturating_add(step.unsigned_abs());
        (self.last, self.last_instant) = (now, Instant::now());
        // A long pause of the machine is no change of the clock, and small ones are slewed.
        let jump = if jump.abs() < LARGEST_STEP_MS { 0 } else { jump };
        (Moment { at: now, steady_ms: self.steady_ms }, jump)
    }
}

#[cfg(test)]
mod tests {
    use module_sdk::jiff::ToSpan as _;

    use super::*;

    #[test]
    fn a_clock_that_jumps_moves_nothing() {
        let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
        let mut clock = SteadyClock::new(start);
        let (moment, jump) = clock.moment(start + 1.second());
        assert_eq!((moment.steady_ms, jump), (1_000, 0));
        for by in [24.hours(), -24.hours()] {
            let before = moment.steady_ms;
            let (moment, jump) = clock.moment(start + by);
            assert!(moment.steady_ms - before < 1_000, "{moment:?}");
            assert!(jump.abs() > 86_000_000, "{jump}");
        }
    }
}
