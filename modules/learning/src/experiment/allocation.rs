//! Allocation of sessions or users to the arms of an experiment, and the check of its ratio.

use serde::{Deserialize, Serialize};

/// An arm of an experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    /// The version that serves, or the base model alone.
    Champion,
    /// The version that is tried.
    Challenger,
}

impl Arm {
    /// Returns the place of the arm in pairs.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Champion => 0,
            Self::Challenger => 1,
        }
    }
}

/// Buckets that units fall into.
const BUCKETS: u32 = 10_000;

/// Returns the bucket of a unit, from 0 to 9,999: the same for the same seed, and another one in
/// another experiment.
#[must_use]
pub fn bucket(seed: &str, unit: &str) -> u32 {
    let first = fnv(fnv(OFFSET, seed.as_bytes()), unit.as_bytes());
    fnv(OFFSET, first.to_string().as_bytes()) % BUCKETS
}

/// Returns the arm of a unit, where the challenger gets this percentage.
#[must_use]
pub fn arm(seed: &str, unit: &str, challenger_percent: u32) -> Arm {
    let is_challenger = bucket(seed, unit) < challenger_percent.min(100) * (BUCKETS / 100);
    if is_challenger { Arm::Challenger } else { Arm::Champion }
}

/// Returns the smallest block with the proportions of a percentage: 90 to 10 is 9 to 1.
#[must_use]
pub const fn block(challenger_percent: u32) -> [u32; 2] {
    let challenger = if challenger_percent > 99 { 99 } else { challenger_percent };
    let challenger = if challenger == 0 { 1 } else { challenger };
    let (mut one, mut other) = (100 - challenger, challenger);
    while other > 0 {
        (one, other) = (other, one % other);
    }
    [(100 - challenger) / one, challenger / one]
}

const OFFSET: u32 = 0x811c_9dc5;

/// Returns the 32-bit FNV-1a hash, begun with a hash of what comes before.
fn fnv(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Weight of the expected shares in the check of their ratio.
const CONFIDENCE: f64 = 1_000.0;

/// A check that units are allotted in the expected ratio: an e-process that is valid at every look.
/// Its alternative is a Dirichlet-multinomial around the expected shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Expected share of the challenger.
    share: f64,
    counts: [u64; 2],
    log: f64,
    highest: f64,
}

impl Ratio {
    /// Begins a check, where the challenger gets this percentage.
    #[must_use]
    pub fn new(challenger_percent: u32) -> Self {
        let [champion, challenger] = block(challenger_percent).map(f64::from);
        let share = challenger / (champion + challenger);
        Self { share, counts: [0; 2], log: 0.0, highest: 0.0 }
    }

    /// Notes a unit.
    #[expect(clippy::cast_precision_loss, reason = "numbers of sessions are small")]
    pub fn note(&mut self, arm: Arm) {
        let expected = [1.0 - self.share, self.share][arm.index()];
        let [all, own] = [self.counts[0] + self.counts[1], self.counts[arm.index()]];
        let predicted = (CONFIDENCE * expected + own as f64) / (CONFIDENCE + all as f64);
        self.log += (predicted / expected).ln();
        self.highest = self.highest.max(self.log);
        self.counts[arm.index()] += 1;
    }

    /// Returns whether the ratio was ever found to be another one, at a level.
    #[must_use]
    pub fn is_wrong(&self, alpha: f64) -> bool {
        self.highest >= -alpha.ln()
    }

    /// Returns the numbers of units.
    #[must_use]
    pub const fn counts(&self) -> [u64; 2] {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_stays_in_its_arm() {
        // Known answers of FNV-1a.
        assert_eq!(fnv(OFFSET, b""), 0x811c_9dc5);
        assert_eq!(fnv(OFFSET, b"foobar"), 0xbf9c_f968);
        // GrowthBook's published answers, which the router is tested with as well.
        for (seed, unit, expected) in [
            ("seed", "a", 505),
            ("seed", "b", 2_696),
            ("foo", "ab", 2_575),
            ("foo", "def", 2_019),
            ("89123klj", "8952klfjas09ujkasdf", 1_240),
            ("90850943850283058242805", "123", 7_516),
            ("()**(%$##$%#$#", "___)((*\":&", 128),
        ] {
            assert_eq!(bucket(seed, unit), expected, "{seed} {unit}");
        }
        let units: Vec<String> = (0..20_000).map(|it| format!("session-{it}")).collect();
        for percent in [0, 10, 50, 100] {
            let in_challenger = |unit: &&String| arm("seed", unit, percent) == Arm::Challenger;
            let share = units.iter().filter(in_challenger).count() as f64 / 20_000.0;
            assert!((share - f64::from(percent) / 100.0).abs() < 0.01, "{percent}: {share}");
        }
        // Those who get the challenger still do when its share grows.
        let grows = units.iter().filter(|unit| arm("seed", unit, 10) == Arm::Challenger);
        assert!(grows.clone().all(|unit| arm("seed", unit, 50) == Arm::Challenger));
        // Another experiment has other ones.
        let share = grows.clone().filter(|unit| arm("other", unit, 10) == Arm::Challenger).count();
        assert!(share < 400, "{share}");
    }

    #[test]
    fn blocks_have_the_proportions() {
        for (percent, expected) in
            [(50, [1, 1]), (10, [9, 1]), (5, [19, 1]), (40, [3, 2]), (97, [3, 97]), (0, [99, 1])]
        {
            assert_eq!(block(percent), expected, "{percent}");
        }
        assert_eq!(block(100), [1, 99]);
    }

    #[test]
    fn a_wrong_ratio_is_found_and_a_right_one_is_not() {
        for (share, is_found) in [(0.5, false), (0.6, true), (0.42, true)] {
            let mut random = fastrand::Rng::with_seed(3);
            let mut ratio = Ratio::new(50);
            for _ in 0..5_000 {
                let is_challenger = random.f64() < share;
                ratio.note(if is_challenger { Arm::Challenger } else { Arm::Champion });
            }
            assert_eq!(ratio.is_wrong(0.001), is_found, "{share}");
            assert_eq!(ratio.counts().iter().sum::<u64>(), 5_000);
        }
    }
}
