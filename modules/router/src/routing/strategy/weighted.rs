//! A target by chance, each with its share; a session gets the same one each time.

use std::{collections::BTreeMap, hash::BuildHasher};

use foldhash::fast::FixedState;

use super::{Case, Ranking, Strategy};
use crate::routing::names;

#[derive(Debug)]
pub(super) struct Weighted {
    /// Shares by pattern.
    shares: Vec<(String, f64)>,
}

impl Weighted {
    pub(super) fn new(shares: &BTreeMap<String, f64>) -> Self {
        Self { shares: shares.iter().map(|(name, share)| (name.clone(), *share)).collect() }
    }

    /// Returns the share of each choice: that of the longest pattern that it fits; 1 for all where
    /// none is set.
    fn share(&self, choice: &super::Choice<'_>) -> f64 {
        if self.shares.is_empty() {
            return 1.0;
        }
        let fitting = self.shares.iter().filter(|(name, _)| names::is_of(name, &choice.view.name));
        fitting.max_by_key(|(name, _)| name.len()).map_or(0.0, |(_, share)| *share)
    }
}

impl Strategy for Weighted {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let session = case.request.session.map(|session| FixedState::default().hash_one(session));
        let mut chance = fastrand::Rng::with_seed(session.unwrap_or_else(|| fastrand::u64(..)));
        // Each draws a time to its turn, the shorter the larger its share is: so the first are
        // distributed by the shares, and so is who follows where the first fails.
        let mut turns: Vec<(usize, f64)> = case
            .choices
            .iter()
            .map(|choice| {
                let draw = -(1.0 - chance.f64()).ln();
                draw / self.share(choice).max(f64::MIN_POSITIVE)
            })
            .enumerate()
            .collect();
        turns.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        Ranking { order: turns.into_iter().map(|(index, _)| index).collect(), ..Ranking::default() }
    }
}
