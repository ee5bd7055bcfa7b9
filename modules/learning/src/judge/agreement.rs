//! Agreement of a judge with people.

use serde::Serialize;

use crate::quality::JudgeConfig;

/// Fewest words of people before a judge may drop anything.
const FEWEST: u64 = 30;

/// Score of a judge, and what people said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Score, from 0 to 1.
    pub score: f64,
    /// `true` when people found the answer good.
    pub is_good: bool,
}

/// Agreement at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// The score from which on the judge finds an answer good.
    pub threshold: f64,
    /// Number of answers that both judged.
    pub number: u64,
    /// Share on which they agree.
    pub agreed: f64,
    /// Agreement beyond chance (Cohen 1960): 0 for chance, 1 for all.
    pub kappa: f64,
    /// Good answers that the judge finds bad.
    pub good_dropped: u64,
    /// Bad answers that the judge finds good.
    pub bad_kept: u64,
}

/// Returns the agreement at a threshold. Where one side says the same of all, kappa is 0: nothing
/// is shown then.
#[must_use]
pub fn agreement(pairs: &[Pair], threshold: f64) -> Agreement {
    let number = pairs.len() as f64;
    let count = |judge: bool, person: bool| {
        let is = |it: &&Pair| (it.score >= threshold) == judge && it.is_good == person;
        pairs.iter().filter(is).count() as f64
    };
    let (both, judge, person, neither) =
        (count(true, true), count(true, false), count(false, true), count(false, false));
    let agreed = if number > 0.0 { (both + neither) / number } else { 0.0 };
    let by_chance = if number > 0.0 {
        ((both + judge) * (both + person) + (neither + person) * (neither + judge))
            / (number * number)
    } else {
        1.0
    };
    let kappa = if by_chance < 1.0 { (agreed - by_chance) / (1.0 - by_chance) } else { 0.0 };
    Agreement {
        threshold,
        number: pairs.len() as u64,
        agreed,
        kappa,
        good_dropped: person as u64,
        bad_kept: judge as u64,
    }
}

/// Returns whether a judge may drop answers: people said enough, and it agrees well enough.
#[must_use]
pub fn may_drop(found: &Agreement, config: &JudgeConfig) -> bool {
    found.number >= FEWEST && found.kappa >= config.least_kappa
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(counts: [(f64, bool, usize); 4]) -> Vec<Pair> {
        counts
            .into_iter()
            .flat_map(|(score, is_good, count)| vec![Pair { score, is_good }; count])
            .collect()
    }

    #[test]
    fn kappa_is_cohens() {
        // The usual example: 20 and 15 agreed, 5 and 10 not; kappa 0.4.
        let all = pairs([(0.9, true, 20), (0.9, false, 5), (0.1, true, 10), (0.1, false, 15)]);
        let found = agreement(&all, 0.5);
        assert!((found.kappa - 0.4).abs() < 1e-9 && (found.agreed - 0.7).abs() < 1e-9, "{found:?}");
        assert_eq!((found.number, found.good_dropped, found.bad_kept), (50, 10, 5));
        // Above all scores everything is bad: that says nothing.
        assert!(agreement(&all, 0.95).kappa.abs() < 1e-9);
        assert!(agreement(&[], 0.5).kappa.abs() < 1e-9);
        let same = pairs([(0.9, true, 9), (0.9, true, 0), (0.9, true, 0), (0.9, true, 0)]);
        assert!(agreement(&same, 0.5).kappa.abs() < 1e-9, "of one kind alone nothing is learnt");
    }

    #[test]
    fn a_judge_drops_nothing_before_people_said_enough() {
        let config = JudgeConfig::named("m");
        let of = |good: usize, bad: usize| {
            agreement(
                &pairs([(0.9, true, good), (0.1, false, bad), (0.9, true, 0), (0.1, true, 0)]),
                0.5,
            )
        };
        assert!(!may_drop(&of(15, 14), &config));
        assert!(may_drop(&of(15, 15), &config));
        assert!(!may_drop(&of(30, 0), &config));
        let poor = pairs([(0.9, true, 20), (0.9, false, 10), (0.1, true, 10), (0.1, false, 10)]);
        assert!(!may_drop(&agreement(&poor, 0.5), &config));
    }
}
