//! What the rollups add up.

use std::ops::AddAssign;

use rusqlite::types::ValueRef;

use module_sdk::LogHistogram;

/// Sums over requests. Signed, so that a correction is a difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measures {
    /// Requests.
    pub requests: i64,
    /// Of them, those that did not end well.
    pub errors: i64,
    /// Tokens of the whole input.
    pub input: i64,
    /// Tokens of the whole output.
    pub output: i64,
    /// Of the input, read from a cache.
    pub cache_read: i64,
    /// Of the input, written to a cache.
    pub cache_write: i64,
    /// Of the output, reasoning.
    pub reasoning: i64,
    /// Requests whose cost is known.
    pub priced: i64,
    /// Requests whose cost ought to be known and is not.
    pub unpriced: i64,
    /// The known costs, nano-USD.
    pub cost: i64,
    /// Requests whose cost is known here and at the baseline model.
    pub compared: i64,
    /// Their cost, nano-USD.
    pub compared_cost: i64,
    /// Their cost at the baseline model, nano-USD.
    pub baseline: i64,
    /// How long they took.
    pub duration: LogHistogram,
    /// How long they took to the first content.
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
    /// The sums in the order of [`SUMS`].
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

    /// Takes out what another one holds of the sums; histograms stay.
    pub(crate) fn subtract_sums(&mut self, other: &Self) {
        for (sum, other) in self.sums_mut().into_iter().zip(other.sums()) {
            *sum = sum.saturating_sub(other);
        }
    }

    /// The same with all signs turned: what takes it out again.
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
        for (sum, other) in self.sums_mut().into_iter().zip(other.sums()) {
            *sum = sum.saturating_add(other);
        }
        self.duration.merge(&other.duration);
        self.ttft.merge(&other.ttft);
    }
}

/// SQLite answers a floating-point number where a sum of integers did not fit; it is cut to the
/// largest integer.
#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
pub(crate) const fn integer(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(integer) => integer,
        ValueRef::Real(real) => real as i64,
        _ => 0,
    }
}
