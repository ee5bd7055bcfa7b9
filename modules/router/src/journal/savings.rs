//! Sums over the journal: who answered, what it cost, and what it would have cost elsewhere.

use std::collections::BTreeSet;

use module_sdk::Usd;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Checked, Line, Outcome, Purpose, RequestLine, begun_at};

/// Quantile of the normal distribution for an interval of 95%.
pub(crate) const Z: f64 = 1.96;

/// Sums over the requests of a range of time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Savings {
    /// Requests of clients.
    pub requests: u64,
    /// Requests that a local model answered.
    pub local: u64,
    /// Requests that the cache answered.
    pub cached: u64,
    /// Requests that a provider elsewhere answered.
    pub paid: u64,
    /// Requests without a whole answer.
    pub failed: u64,
    /// Requests that their clients gave up.
    pub aborted: u64,
    /// Requests of which it is not known what they cost, here or at the baseline model. What is
    /// known of their cost is in `cost`, nothing of them is in `baseline`.
    pub unpriced: u64,
    /// Cost of all attempts, in nano-USD.
    pub cost: i64,
    /// Cost of the same answers at the baseline model, in nano-USD.
    pub baseline: i64,
    /// Models that lines were counted against.
    pub baseline_models: BTreeSet<String>,
    /// Local answers that were checked.
    pub checked: u64,
    /// Those of them that were as good as the paid ones.
    pub kept: u64,
    /// Cost of the checks, in nano-USD: it is a part of `cost`.
    pub checks_cost: i64,
    /// Requests that experiments asked beside answers.
    pub shadows: u64,
    /// Their cost, in nano-USD: no part of `cost`, since they answered nobody.
    pub shadows_cost: i64,
}

impl Savings {
    /// Adds a line, where its request began within the bounds (milliseconds; the second exclusive).
    pub(crate) fn add(&mut self, line: &Line, (from, to): (i64, i64)) {
        let is_within = |at: i64| (from..to).contains(&at);
        match line {
            Line::Request(line) if is_within(line.at) => self.add_request(line),
            Line::Check(line) if begun_at(&line.id).is_some_and(is_within) => match line.result {
                Checked::Kept => (self.checked, self.kept) = (self.checked + 1, self.kept + 1),
                Checked::Worse => self.checked += 1,
                Checked::Unknown => {}
            },
            _ => {}
        }
    }

    fn add_request(&mut self, line: &RequestLine) {
        let cost: i64 = line.attempts.iter().filter_map(|attempt| attempt.cost_nano_usd).sum();
        match line.purpose {
            None => {}
            Some(Purpose::Check) => {
                self.checks_cost = self.checks_cost.saturating_add(cost);
                self.cost = self.cost.saturating_add(cost);
                return;
            }
            // They compare and try; they answer nobody.
            Some(Purpose::Test | Purpose::Compare) => return,
            Some(Purpose::Shadow) => {
                self.shadows += 1;
                self.shadows_cost = self.shadows_cost.saturating_add(cost);
                return;
            }
        }
        self.requests += 1;
        self.cost = self.cost.saturating_add(cost);
        let counted = match line.outcome {
            Outcome::Local => &mut self.local,
            Outcome::Cached => &mut self.cached,
            Outcome::Paid => &mut self.paid,
            Outcome::Failed => &mut self.failed,
            Outcome::Aborted => &mut self.aborted,
        };
        *counted += 1;
        let is_whole = matches!(line.outcome, Outcome::Local | Outcome::Cached | Outcome::Paid);
        let lacks_baseline = is_whole && line.baseline_nano_usd.is_none();
        if lacks_baseline || line.attempts.iter().any(super::Attempt::is_unpriced) {
            self.unpriced += 1;
        } else if let Some(baseline) = line.baseline_nano_usd {
            self.baseline = self.baseline.saturating_add(baseline);
            if !self.baseline_models.contains(&line.baseline_model) {
                self.baseline_models.insert(line.baseline_model.clone());
            }
        }
    }

    /// Returns what was saved, in nano-USD: negative where it cost more.
    pub(crate) const fn saved(&self) -> i64 {
        self.baseline.saturating_sub(self.cost)
    }

    /// Returns the bounds within which the share of local answers that are as good as the paid ones
    /// lies at 95%; `None` where none was checked.
    pub(crate) fn quality(&self) -> Option<(f64, f64)> {
        (self.checked > 0).then(|| wilson(self.kept, self.checked))
    }

    /// Returns whether nothing is known of what it cost.
    pub(crate) const fn is_unknown(&self) -> bool {
        self.requests > 0 && self.requests == self.unpriced && self.cost == 0
    }
}

/// Returns the Wilson interval of a share, at 95%.
#[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
pub(crate) fn wilson(kept: u64, checked: u64) -> (f64, f64) {
    let (n, z2) = (checked as f64, Z * Z);
    let share = kept as f64 / n;
    let middle = share + z2 / (2.0 * n);
    let half = Z * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    (((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0))
}

impl Serialize for Savings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let money = |nano: i64| (!self.is_unknown()).then(|| Usd::from_nano(nano));
        let mut shown = serializer.serialize_map(None)?;
        shown.serialize_entry("requests", &self.requests)?;
        shown.serialize_entry("local", &self.local)?;
        shown.serialize_entry("cached", &self.cached)?;
        shown.serialize_entry("paid", &self.paid)?;
        shown.serialize_entry("failed", &self.failed)?;
        shown.serialize_entry("aborted", &self.aborted)?;
        shown.serialize_entry("unpriced", &self.unpriced)?;
        shown.serialize_entry("cost_usd", &money(self.cost))?;
        shown.serialize_entry("baseline_cost_usd", &money(self.baseline))?;
        shown.serialize_entry("savings_usd", &money(self.saved()))?;
        shown.serialize_entry("baseline_models", &self.baseline_models)?;
        let quality = self.quality().map(|(low, high)| {
            serde_json::json!({
                "checked": self.checked,
                "kept": self.kept,
                "low": (low * 10_000.0).round() / 10_000.0,
                "high": (high * 10_000.0).round() / 10_000.0,
                "cost_usd": Usd::from_nano(self.checks_cost),
            })
        });
        shown.serialize_entry("quality", &quality)?;
        let shadows = (self.shadows > 0).then(|| {
            serde_json::json!({
                "requests": self.shadows,
                "cost_usd": Usd::from_nano(self.shadows_cost),
            })
        });
        shown.serialize_entry("shadows", &shadows)?;
        shown.end()
    }
}
