//! Confidence sequences for means: latency, cost, scores.
//!
//! They are asymptotic (Waudby-Smith and others, 2021): valid at every look, in the limit of many
//! units. So they guard, and decide about nothing; and they say nothing before there are thirty
//! units in each arm.

use serde::{Deserialize, Serialize};

use super::Arm;

/// Units of an arm before which nothing is said.
pub const FEWEST: u64 = 30;
/// Number of units at which the sequence is narrowest.
const TUNED_FOR: f64 = 500.0;

/// Mean and spread of the values of an arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Number of values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of the squares of their distances from the mean.
    squares: f64,
}

impl Mean {
    /// Notes a value; one that is no number is left out.
    #[expect(clippy::cast_precision_loss, reason = "numbers of sessions are small")]
    pub fn note(&mut self, value: f64) {
        if value.is_finite() {
            self.count += 1;
            let before = value - self.mean;
            self.mean += before / self.count as f64;
            self.squares += before * (value - self.mean);
        }
    }

    /// Returns an interval for the mean, of a sequence that holds the true value at all looks but
    /// for a probability of `alpha`; none while there are too few values.
    #[must_use]
    pub fn interval(&self, alpha: f64) -> Option<[f64; 2]> {
        if self.count < FEWEST {
            return None;
        }
        let width = width(self.variance_of_mean(), self.count, alpha);
        Some([self.mean - width, self.mean + width])
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of sessions are small")]
    fn variance_of_mean(&self) -> f64 {
        let count = self.count as f64;
        self.squares / (count - 1.0).max(1.0) / count.max(1.0)
    }
}

/// The means of both arms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Means {
    arms: [Mean; 2],
}

impl Means {
    /// Notes a value of an arm.
    pub fn note(&mut self, arm: Arm, value: f64) {
        self.arms[arm.index()].note(value);
    }

    /// Returns the means.
    #[must_use]
    pub const fn arms(&self) -> [Mean; 2] {
        self.arms
    }

    /// Returns an interval for the mean of the challenger less `times` that of the champion, of a
    /// sequence that holds the true value at all looks but for a probability of `alpha`; none
    /// while there are too few units.
    #[must_use]
    pub fn interval(&self, times: f64, alpha: f64) -> Option<[f64; 2]> {
        let [champion, challenger] = &self.arms;
        if champion.count < FEWEST || challenger.count < FEWEST {
            return None;
        }
        let difference = challenger.mean - times * champion.mean;
        let variance = challenger.variance_of_mean() + times * times * champion.variance_of_mean();
        let width = width(variance, champion.count + challenger.count, alpha);
        Some([difference - width, difference + width])
    }
}

/// Returns half of the width of an interval about a mean whose variance is known from so many
/// values.
#[expect(clippy::cast_precision_loss, reason = "numbers of sessions are small")]
fn width(variance: f64, count: u64, alpha: f64) -> f64 {
    let count = count as f64;
    let log = -2.0 * alpha.ln();
    let rho = (log + (log + 1.0).ln()) / TUNED_FOR;
    let grown = count * rho + 1.0;
    let factor = 2.0 * grown * (grown.sqrt() / alpha).ln() / (count * rho);
    (variance * factor).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_true_difference_at_every_look() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut missed = 0;
        for _ in 0..300 {
            let mut means = Means::default();
            let mut is_missed = false;
            for _ in 0..600 {
                // Skewed, as latencies are: the mean of the square of a uniform number is 1/3.
                means.note(Arm::Champion, random.f64().powi(2));
                means.note(Arm::Challenger, 0.5 + random.f64().powi(2));
                if let Some([low, high]) = means.interval(1.0, 0.05) {
                    is_missed |= low > 0.5 || high < 0.5;
                }
            }
            missed += u32::from(is_missed);
        }
        // 5% of 300, and three standard deviations.
        assert!(missed <= 26, "{missed} of 300 are missed");
    }

    #[test]
    fn an_interval_becomes_narrow_and_needs_thirty_units() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut means = Means::default();
        for at in 0..3_000_u64 {
            assert_eq!(means.interval(1.2, 0.05).is_some(), at >= FEWEST);
            means.note(Arm::Champion, 100.0 + random.f64());
            means.note(Arm::Challenger, 130.0 + random.f64());
            means.note(Arm::Challenger, f64::NAN);
        }
        let [low, high] = means.interval(1.2, 0.05).expect("there are enough");
        // 130.5 less 1.2 times 100.5.
        assert!(low < 9.9 && 9.9 < high && high - low < 0.2, "{low} to {high}");
        assert_eq!(means.arms()[1].count, 3_000);
    }
}
