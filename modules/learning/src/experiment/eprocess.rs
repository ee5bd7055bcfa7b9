//! E-processes for outcomes that are good or bad: exact, and valid whenever somebody looks.
//!
//! Outcomes of both arms are taken in blocks of the sizes in which the arms are allotted. A block
//! is judged by estimates from the blocks before it: its factor is the likelihood under the
//! estimates over that under the point of the null hypothesis that is nearest to them (in the
//! Kullback-Leibler divergence of a block). Under the null hypothesis the expectation of each
//! factor is at most 1, whatever the true rates are: the logarithm of the expectation is a concave
//! function of the rates, is 0 at the nearest point, and falls from there in all directions in
//! which the (convex) null hypothesis lies. So the product is a non-negative supermartingale, and
//! by Ville's inequality it ever reaches 1/α with a probability of at most α.

use serde::{Deserialize, Serialize};

use super::Arm;

/// Weight of what is assumed before the first block: neither rate is ever 0 or 1.
const PRIOR: f64 = 0.18;
/// Halvings of the interval in which the nearest point is searched.
const HALVINGS: u32 = 44;

/// A null hypothesis about the rates of the champion and the challenger.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Null {
    /// Both are equal.
    Equal,
    /// The challenger is worse than the champion by the margin, or by more.
    WorseBy(f64),
    /// The challenger is not worse than the champion by more than the margin.
    NotWorseBy(f64),
}

/// Numbers of good and of all outcomes of an arm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Good outcomes.
    pub good: u64,
    /// All outcomes.
    pub all: u64,
}

impl Count {
    #[expect(clippy::cast_precision_loss, reason = "numbers of sessions are small")]
    fn estimate(self) -> f64 {
        (self.good as f64 + PRIOR) / (self.all as f64 + 2.0 * PRIOR)
    }
}

/// An e-process: evidence against a null hypothesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EProcess {
    null: Null,
    /// Outcomes of the champion and of the challenger in a block.
    sizes: [u32; 2],
    /// Outcomes of whole blocks.
    counts: [Count; 2],
    /// Outcomes that wait for the rest of their block, the oldest first.
    waiting: [Vec<bool>; 2],
    /// Natural logarithm of the evidence.
    log: f64,
    /// Greatest logarithm so far.
    highest: f64,
}

impl EProcess {
    /// Begins a process whose blocks have these sizes; an arm has one outcome in them at least.
    #[must_use]
    pub fn new(null: Null, sizes: [u32; 2]) -> Self {
        let sizes = sizes.map(|size| size.max(1));
        let waiting = [Vec::new(), Vec::new()];
        Self { null, sizes, counts: [Count::default(); 2], waiting, log: 0.0, highest: 0.0 }
    }

    /// Notes an outcome.
    pub fn note(&mut self, arm: Arm, is_good: bool) {
        self.waiting[arm.index()].push(is_good);
        while (0..2).all(|arm| self.waiting[arm].len() >= self.sizes[arm] as usize) {
            let block = [0, 1].map(|arm| {
                let outcomes = self.waiting[arm].drain(..self.sizes[arm] as usize);
                let good = outcomes.filter(|is_good| *is_good).count();
                Count { good: good as u64, all: self.sizes[arm].into() }
            });
            self.take(block);
        }
    }

    fn take(&mut self, block: [Count; 2]) {
        let estimates = self.counts.map(Count::estimate);
        if let Some(nearest) = nearest(self.null, estimates, self.sizes) {
            for ((count, estimate), null) in block.into_iter().zip(estimates).zip(nearest) {
                let [good, bad] = [count.good, count.all - count.good].map(f64_of);
                self.log += good * (estimate / null).ln();
                self.log += bad * ((1.0 - estimate) / (1.0 - null)).ln();
            }
        }
        self.highest = self.highest.max(self.log);
        for (count, block) in self.counts.iter_mut().zip(block) {
            count.good += block.good;
            count.all += block.all;
        }
    }

    /// Returns whether the null hypothesis was ever rejected at a level.
    #[must_use]
    pub fn is_rejected(&self, alpha: f64) -> bool {
        self.highest >= -alpha.ln()
    }

    /// Returns a p-value that is valid at every look.
    #[must_use]
    pub fn p_value(&self) -> f64 {
        (-self.highest).exp().min(1.0)
    }

    /// Returns the evidence, which may have been greater before.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.log.exp()
    }

    /// Returns the outcomes of whole blocks.
    #[must_use]
    pub const fn counts(&self) -> [Count; 2] {
        self.counts
    }
}

/// Returns the point of the null hypothesis that is nearest to the estimates; none where they lie
/// in it, so that there is nothing to bet on.
fn nearest(null: Null, estimates: [f64; 2], sizes: [u32; 2]) -> Option<[f64; 2]> {
    let [champion, challenger] = estimates;
    let [weight, other] = sizes.map(f64::from);
    match null {
        Null::Equal => {
            let mean = (weight * champion + other * challenger) / (weight + other);
            Some([mean, mean])
        }
        Null::WorseBy(margin) => {
            let is_outside = challenger > champion - margin;
            is_outside.then(|| on_boundary(estimates, sizes, margin))
        }
        Null::NotWorseBy(margin) => {
            let is_outside = challenger < champion - margin;
            is_outside.then(|| on_boundary(estimates, sizes, margin))
        }
    }
}

/// Returns the nearest point at which the challenger is worse by exactly the margin.
fn on_boundary(estimates: [f64; 2], sizes: [u32; 2], margin: f64) -> [f64; 2] {
    let [champion, challenger] = estimates;
    let [weight, other] = sizes.map(f64::from);
    // The slope of the divergence is below 0 at one of these and above 0 at the other.
    let (mut low, mut high) =
        (champion.min(challenger + margin), champion.max(challenger + margin));
    low = low.max(margin);
    high = high.min(1.0);
    for _ in 0..HALVINGS {
        let rate = f64::midpoint(low, high);
        let below = rate - margin;
        let slope = weight * (rate - champion) / (rate * (1.0 - rate))
            + other * (below - challenger) / (below * (1.0 - below));
        // Beside the ends of the interval it has no value: there the other half is right.
        if slope < 0.0 || below <= 0.0 {
            low = rate;
        } else {
            high = rate;
        }
    }
    let rate = f64::midpoint(low, high);
    [rate, rate - margin]
}

#[expect(clippy::cast_precision_loss, reason = "numbers of outcomes in a block are small")]
const fn f64_of(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the greatest expectation of the factor of a block over the null hypothesis.
    fn worst(null: Null, estimates: [f64; 2], sizes: [u32; 2]) -> f64 {
        let Some(nearest) = nearest(null, estimates, sizes) else { return 1.0 };
        let factor = |arm: usize, rate: f64| {
            let [estimate, null] = [estimates[arm], nearest[arm]];
            let mean = rate * estimate / null + (1.0 - rate) * (1.0 - estimate) / (1.0 - null);
            mean.powi(i32::try_from(sizes[arm]).expect("it is small"))
        };
        let grid = (0..=100).map(|at| f64::from(at) / 100.0);
        let pairs = grid.clone().flat_map(|one| grid.clone().map(move |other| [one, other]));
        let is_null = |rates: &[f64; 2]| match null {
            Null::Equal => (rates[0] - rates[1]).abs() < 1e-9,
            Null::WorseBy(margin) => rates[1] <= rates[0] - margin + 1e-9,
            Null::NotWorseBy(margin) => rates[1] >= rates[0] - margin - 1e-9,
        };
        let all = pairs.filter(is_null).map(|[one, other]| factor(0, one) * factor(1, other));
        all.fold(0.0, f64::max)
    }

    #[test]
    fn no_point_of_the_null_hypothesis_gains_by_betting() {
        let nulls = [0.0, 0.02, 0.1, 0.5].map(|it| [Null::WorseBy(it), Null::NotWorseBy(it)]);
        let rates = [0.004, 0.1, 0.37, 0.5, 0.8, 0.95, 0.996];
        for null in nulls.into_iter().flatten().chain([Null::Equal]) {
            for sizes in [[1, 1], [9, 1], [1, 4], [19, 1]] {
                for one in rates {
                    for other in rates {
                        let worst = worst(null, [one, other], sizes);
                        let at = format!("{null:?} {sizes:?} {one} {other}: {worst}");
                        assert!(worst <= 1.0 + 1e-6, "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn evidence_grows_where_the_null_hypothesis_is_wrong() {
        let mut random = fastrand::Rng::with_seed(7);
        for (null, rates, is_found) in [
            (Null::Equal, [0.6, 0.9], true),
            (Null::WorseBy(0.1), [0.8, 0.85], true),
            (Null::WorseBy(0.1), [0.8, 0.6], false),
            (Null::NotWorseBy(0.1), [0.9, 0.6], true),
            (Null::NotWorseBy(0.1), [0.8, 0.8], false),
        ] {
            let mut process = EProcess::new(null, [1, 1]);
            for _ in 0..2_000 {
                process.note(Arm::Champion, random.f64() < rates[0]);
                process.note(Arm::Challenger, random.f64() < rates[1]);
            }
            assert_eq!(process.is_rejected(0.05), is_found, "{null:?} {rates:?}");
            assert_eq!(process.p_value() <= 0.05, is_found);
            assert_eq!(process.counts()[0].all, 2_000);
        }
    }

    #[test]
    fn blocks_wait_for_their_rest_and_the_state_is_kept() {
        let mut process = EProcess::new(Null::Equal, [3, 1]);
        for _ in 0..7 {
            process.note(Arm::Champion, true);
        }
        assert_eq!(process.counts(), [Count::default(); 2]);
        process.note(Arm::Challenger, false);
        let text = serde_json::to_string(&process).expect("it is written");
        let mut other: EProcess = serde_json::from_str(&text).expect("it is read");
        for process in [&mut process, &mut other] {
            process.note(Arm::Challenger, false);
            assert_eq!(process.counts().map(|it| it.all), [6, 2]);
            assert!(process.evidence() > 1.0, "{}", process.evidence());
        }
        assert!((process.evidence() - other.evidence()).abs() < 1e-9);
    }

    #[test]
    fn a_null_hypothesis_that_holds_is_seldom_rejected() {
        for (seed, null, rates) in [
            (1, Null::Equal, [0.5, 0.5]),
            (2, Null::Equal, [0.95, 0.95]),
            (3, Null::WorseBy(0.1), [0.8, 0.7]),
            (4, Null::NotWorseBy(0.05), [0.9, 0.85]),
        ] {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut rejected = 0;
            for _ in 0..400 {
                let mut process = EProcess::new(null, [1, 1]);
                for _ in 0..500 {
                    process.note(Arm::Champion, random.f64() < rates[0]);
                    process.note(Arm::Challenger, random.f64() < rates[1]);
                }
                rejected += u32::from(process.is_rejected(0.05));
            }
            // 5% of 400, and three standard deviations.
            assert!(rejected <= 33, "{null:?} is rejected {rejected} times");
        }
    }
}
