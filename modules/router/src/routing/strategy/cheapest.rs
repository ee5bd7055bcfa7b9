//! The target whose answer costs least.

use super::{Case, Ranking, Strategy, tier};

#[derive(Debug)]
pub(super) struct Cheapest;

impl Strategy for Cheapest {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let mut order: Vec<usize> = (0..case.choices.len()).collect();
        order.sort_by(|a, b| tier::by_cost(&case.choices[*a], &case.choices[*b]));
        Ranking { order, weighs_cost: true, ..Ranking::default() }
    }
}
