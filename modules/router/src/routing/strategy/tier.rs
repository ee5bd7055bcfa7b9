//! Tiers: models by what they can do.

use std::cmp::Ordering;

use super::Choice;
use crate::routing::{name_list::Names, names, options::Tiers};

/// A tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::routing) enum Tier {
    Small,
    Middle,
    Best,
}

impl Tier {
    /// Returns its name in the configuration.
    pub(in crate::routing) const fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Middle => "middle",
            Self::Best => "best",
        }
    }
}

/// Order of targets by tiers.
#[derive(Debug, Clone)]
pub(super) struct Order(Tiers);

impl Order {
    pub(super) fn new(tiers: &Tiers) -> Self {
        Self(tiers.clone())
    }

    /// Returns all choices, those of the tier first, then those of the tiers above it, then those
    /// below, the nearest first.
    pub(super) fn from(&self, tier: Tier, choices: &[Choice<'_>]) -> Vec<usize> {
        let tiers = match tier {
            Tier::Small => [Tier::Small, Tier::Middle, Tier::Best],
            Tier::Middle => [Tier::Middle, Tier::Best, Tier::Small],
            Tier::Best => [Tier::Best, Tier::Middle, Tier::Small],
        };
        let mut order = Vec::with_capacity(choices.len());
        let mut is_taken = vec![false; choices.len()];
        let all = tiers.into_iter().flat_map(|tier| self.of(tier, choices)).chain(0..choices.len());
        for index in all {
            if !std::mem::replace(&mut is_taken[index], true) {
                order.push(index);
            }
        }
        order
    }

    /// Returns the choices of a tier, the one to be preferred first.
    pub(super) fn of(&self, tier: Tier, choices: &[Choice<'_>]) -> Vec<usize> {
        let patterns = match tier {
            Tier::Small => &self.0.small,
            Tier::Middle => &self.0.middle,
            Tier::Best => &self.0.best,
        };
        if !patterns.is_empty() {
            return of_patterns(patterns, choices);
        }
        let is_local = tier == Tier::Small;
        let mut order: Vec<usize> =
            (0..choices.len()).filter(|index| choices[*index].view.is_local == is_local).collect();
        order.sort_by(|a, b| {
            let (a, b) = (&choices[*a], &choices[*b]);
            if tier == Tier::Best { by_cost_falling(a, b) } else { by_cost(a, b) }
        });
        order
    }
}

fn of_patterns(patterns: &Names, choices: &[Choice<'_>]) -> Vec<usize> {
    let fitting = |pattern: &str| {
        let mut indices: Vec<usize> = (0..choices.len())
            .filter(|index| names::is_of(pattern, &choices[*index].view.name))
            .collect();
        indices.sort_by(|a, b| by_cost(&choices[*a], &choices[*b]));
        indices
    };
    patterns.iter().flat_map(fitting).collect()
}

/// Compares by cost, the least first, an unknown one last; then by how soon an answer comes.
pub(super) fn by_cost(a: &Choice<'_>, b: &Choice<'_>) -> Ordering {
    let cost = |choice: &Choice<'_>| choice.cost.unwrap_or(i64::MAX);
    cost(a).cmp(&cost(b)).then_with(|| by_readiness(a, b))
}

fn by_cost_falling(a: &Choice<'_>, b: &Choice<'_>) -> Ordering {
    let cost = |choice: &Choice<'_>| choice.cost.unwrap_or(i64::MIN);
    cost(b).cmp(&cost(a)).then_with(|| by_readiness(a, b))
}

fn by_readiness(a: &Choice<'_>, b: &Choice<'_>) -> Ordering {
    let ready = |choice: &Choice<'_>| (choice.view.is_loaded == Some(false), choice.view.in_flight);
    let latency = |choice: &Choice<'_>| choice.view.latency_p50_ms.unwrap_or(f64::INFINITY);
    ready(a).cmp(&ready(b)).then_with(|| latency(a).total_cmp(&latency(b)))
}
