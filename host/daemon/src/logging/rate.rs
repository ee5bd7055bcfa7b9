//! The limit on the log records of one module in a second.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::module_said;

/// Number of records a second that are logged where the module's section does not say.
pub const LOG_RECORDS_PER_SECOND: u64 = 500;

/// Length in bytes up to which a message, and what stands beside it, counts: what is longer is cut,
/// once its secrets are taken out.
pub(super) const LONGEST: usize = 16 << 10;

/// Number of bytes for which a record counts once more.
const BYTES: usize = 1 << 10;

/// Time over which records are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// Limit on the records of one module: so many a second, and one line that says how many more there
/// were.
#[derive(Debug)]
pub struct LogRate(Mutex<Count>);

#[derive(Debug)]
struct Count {
    most: u64,
    since: Instant,
    said: u64,
    left_out: u64,
}

impl Default for LogRate {
    fn default() -> Self {
        let since = Instant::now();
        Self(Mutex::new(Count { most: LOG_RECORDS_PER_SECOND, since, said: 0, left_out: 0 }))
    }
}

impl LogRate {
    /// Sets the number of records a second.
    pub fn allow(&self, most: u64) {
        self.count().most = most;
    }

    /// Returns the number of records a second that are allowed.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.count().most
    }

    /// Logs a message of a module, as [`module_said`] does, unless the module logs too much.
    pub fn say(&self, module: &str, level: u32, origin: &str, message: &str, fields: &str) {
        let bytes = message.len().min(LONGEST) + fields.len().min(LONGEST);
        let (is_within, left_out) = self.admit(bytes);
        tell(module, left_out);
        if is_within {
            module_said(module, level, origin, message, fields);
        }
    }

    /// Logs how many records were left out, where a second is over and nothing came since.
    pub fn settle(&self, module: &str) {
        tell(module, self.left_out());
    }

    /// Counts a record of so many bytes; returns whether it is logged, and how many were left out
    /// in a second that is over, in words.
    pub(super) fn admit(&self, bytes: usize) -> (bool, Option<String>) {
        let (is_within, left_out) = self.count().take(1 + (bytes / BYTES) as u64, Instant::now());
        (is_within, left_out.map(words))
    }

    /// Returns how many records were left out in a second that is over, in words.
    pub(super) fn left_out(&self) -> Option<String> {
        self.count().take(0, Instant::now()).1.map(words)
    }

    /// Returns whether records were left out that were not reported yet.
    pub(super) fn owes_words(&self) -> bool {
        self.count().left_out > 0
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    /// Counts a record of this cost; returns whether it is logged, and how many were left out, and
    /// of how many, in a second that is over.
    fn take(&mut self, cost: u64, now: Instant) -> (bool, Option<(u64, u64)>) {
        let mut over = None;
        if now.saturating_duration_since(self.since) >= WINDOW {
            over = (self.left_out > 0).then_some((self.left_out, self.most));
            (self.since, self.said, self.left_out) = (now, 0, 0);
        }
        // One that is long by itself is not kept out for ever.
        let is_within = self.said == 0 || self.said + cost <= self.most;
        if is_within {
            self.said += cost;
        } else {
            self.left_out += 1;
        }
        (is_within, over)
    }
}

fn words((count, most): (u64, u64)) -> String {
    format!("{count} log records were left out: more than {most} within a second")
}

fn tell(module: &str, left_out: Option<String>) {
    if let Some(words) = left_out {
        let words = format!("{words} (limits.log_records_per_second)");
        module_said(module, 2, "lodestard", &words, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_the_rest_is_counted() {
        let begin = Instant::now();
        let mut count = Count { most: 3, since: begin, said: 0, left_out: 0 };
        let mut check = |millis: u64, cost, expected| {
            assert_eq!(count.take(cost, begin + Duration::from_millis(millis)), expected);
        };
        check(0, 2, (true, None));
        check(0, 1, (true, None));
        check(500, 1, (false, None));
        check(999, 9, (false, None));
        check(1000, 0, (true, Some((2, 3))));
        check(1001, 9, (true, None));
        check(1002, 1, (false, None));
        check(2500, 1, (true, Some((1, 3))));
        check(9000, 0, (true, None));
    }
}
