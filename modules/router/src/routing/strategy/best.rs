//! The most able model.

use super::{Case, Ranking, Strategy, Tier, tier::Order};

#[derive(Debug)]
pub(super) struct Best {
    tiers: Order,
}

impl Best {
    pub(super) const fn new(tiers: Order) -> Self {
        Self { tiers }
    }
}

impl Strategy for Best {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let order = self.tiers.from(Tier::Best, case.choices);
        Ranking { order, tier: Some(Tier::Best), ..Ranking::default() }
    }
}
