//! Strategies: the order in which the targets that can answer are tried.

mod best;
mod cascade;
mod cheapest;
mod fastest;
mod fixed;
pub(super) mod heuristic;
mod learned;
mod tier;
mod weighted;

use std::{borrow::Cow, fmt::Debug};

use super::{
    Reason, Request,
    learned::Learned,
    options::{RoutingOptions, StrategyName},
};
use crate::target::TargetView;

pub(super) use tier::Tier;

/// A way to choose among targets.
pub(super) trait Strategy: Debug + Send + Sync {
    /// Returns the order of all choices.
    fn rank(&self, case: &Case<'_>) -> Ranking;
}

/// Choices of a strategy.
pub(super) struct Case<'a> {
    /// The request.
    pub(super) request: &'a Request<'a>,
    /// Targets that can answer it, in the order in which they were written or found.
    pub(super) choices: &'a [Choice<'a>],
}

/// Target that can answer.
#[derive(Debug, Clone)]
pub(super) struct Choice<'a> {
    /// Its state.
    pub(super) view: Cow<'a, TargetView>,
    /// Cost of the answer in nano-USD, as estimated.
    pub(super) cost: Option<i64>,
}

/// Order of the choices, by their positions, and what led to it.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranking {
    pub(super) order: Vec<usize>,
    /// Between 0, a small model will do, and 1, the best is needed.
    pub(super) score: Option<f64>,
    /// The weightiest first.
    pub(super) reasons: Vec<Reason>,
    /// Tier that the request needs, where the strategy weighs that.
    pub(super) tier: Option<Tier>,
    /// `true` when a session moves where that costs less, with the lost cache counted in.
    pub(super) weighs_cost: bool,
    /// `true` when the first answer is checked.
    pub(super) is_checked: bool,
    /// Choice whose answer the first is compared with.
    pub(super) second: Option<usize>,
}

/// Makes a strategy.
pub(super) fn of(
    name: StrategyName,
    options: &RoutingOptions,
    learned: &Learned,
) -> Box<dyn Strategy> {
    let tiers = tier::Order::new(&options.tiers);
    let heuristic = || heuristic::Heuristic::new(options.heuristic, tiers.clone());
    match name {
        StrategyName::Fixed => Box::new(fixed::Fixed),
        StrategyName::Cheapest => Box::new(cheapest::Cheapest),
        StrategyName::Fastest => Box::new(fastest::Fastest),
        StrategyName::Weighted => Box::new(weighted::Weighted::new(&options.weights)),
        StrategyName::Heuristic => Box::new(heuristic()),
        StrategyName::Cascade => {
            Box::new(cascade::Cascade::new(options.cascade, tiers.clone(), heuristic()))
        }
        StrategyName::Learned => {
            let options = options.learned;
            let learned = learned.clone();
            Box::new(learned::ByLearned::new(options, learned, tiers.clone(), heuristic()))
        }
        StrategyName::Best => Box::new(best::Best::new(tiers.clone())),
    }
}
