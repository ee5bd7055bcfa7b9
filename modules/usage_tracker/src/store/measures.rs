//! The sums that the rollups store.

use std::ops::AddAssign;

use rusqlite::types::ValueRef;

use module_sdk::LogHistogram;

/// Sums over requests. Signed, so that a correction is a difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Number of requests.
    pub requests: i64,
    /// Number of requests that did not end well.
    pub errors: i64,
    /// Number of input tokens.
    pub input: i64,
    /// Number of output tokens.
    pub output: i64,
    /// Number of input tokens read from a cache.
    pub cache_read: i64,
    /// Number of input tokens written to a cache.
    pub cache_write: i64,
    /// Number of output tokens for reasoning.
    pub reasoning: i64,
    /// Number of requests whose cost is known.
    pub priced: i64,
    /// Number of requests that should have a cost and have no known one.
    pub unpriced: i64,
    /// Sum of the known costs, in nano-USD.
    pub cost: i64,
    /// Number of requests whose cost is known here and at the baseline model.
    pub compared: i64,
    /// Cost of the compared requests, in nano-USD.
    pub compared_cost: i64,
    /// Cost of the compared requests at the baseline model, in nano-USD.
    pub baseline: i64,
    /// Histogram of the durations.
    pub duration: LogHistogram,
    /// Histogram of the times to the first content.
    pub ttft: LogHistogram,
}

/// The columns of the sums, in the order of [`Measures::sums`].
pub(crate) const SUMS: [&str; 13] = [
    "requests",
    "errors",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
    "priced",
    "unpriced",
    "cost",
    "compared",
    "compared_cost",
    "baseline",
];

impl Measures {
    /// Returns the sums in the order of [`SUMS`].
    pub(crate) const fn sums(&self) -> [i64; 13] {
        [
            self.requests,
            self.errors,
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
            self.reasoning,
            self.priced,
            self.unpriced,
            self.cost,
            self.compared,
            self.compared_cost,
            self.baseline,
        ]
    }

    fn sums_mut(&mut self) -> [&mut i64; 13] {
        [
            &mut self.requests,
            &mut self.errors,
            &mut self.input,
            &mut self.output,
            &mut self.cache_read,
            &mut self.cache_write,
            &mut self.reasoning,
            &mut self.priced,
            &mut self.unpriced,
            &mut self.cost,
            &mut self.compared,
            &mut self.compared_cost,
            &mut self.baseline,
        ]
    }

    /// Adds the sums of a row whose columns from `at` on are [`SUMS`].
    pub(crate) fn add_sums(&mut self, row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<()> {
        for (index, sum) in self.sums_mut().into_iter().enumerate() {
            *sum = sum.saturating_add(integer(row.get_ref(at + index)?));
        }
        Ok(())
    }

    /// Adds the sums of another one; histograms stay.
    pub(crate) fn add_sums_of(&mut self, other: &Self) {
        for (sum, other) in self.sums_mut().into_iter().zip(other.sums()) {
            *sum = sum.saturating_add(other);
        }
    }

    /// Subtracts the sums of another one; histograms stay.
    pub(crate) fn subtract_sums(&mut self, other: &Self) {
        for (sum, other) in self.sums_mut().into_iter().zip(other.sums()) {
            *sum = sum.saturating_sub(other);
        }
    }

    /// Returns the same with all signs changed, which removes it when added.
    pub(crate) fn negated(&self) -> Self {
        let mut negated = Self::default();
        for (sum, value) in negated.sums_mut().into_iter().zip(self.sums()) {
            *sum = value.saturating_neg();
        }
        negated.duration = self.duration.negated();
        negated.ttft = self.ttft.negated();
        negated
    }
}

impl AddAssign<&Self> for Measures {
    fn add_assign(&mut self, other: &Self) {
        self.add_sums_of(other);
        self.duration.merge(&other.duration);
        self.ttft.merge(&other.ttft);
    }
}

/// Returns a sum of integers. SQLite returns a floating-point number where the sum did not fit; it
/// is cut to the largest integer.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
pub(crate) const fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(integer) => integer,
        ValueRef::Real(real) => real as i64,
        _ => 0,
    }
}
