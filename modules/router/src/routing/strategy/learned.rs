//! A tier by what was learned from judged answers of this installation.

use serde_json::json;

use super::{Case, Ranking, Strategy, Tier, heuristic::Heuristic, tier::Order};
use crate::routing::{
    Reason,
    learned::{Learned, Sample},
    options::LearnedOptions,
};

#[derive(Debug)]
pub(super) struct ByLearned {
    options: LearnedOptions,
    learned: Learned,
    tiers: Order,
    /// Decides until enough is learned.
    otherwise: Heuristic,
}

impl ByLearned {
    pub(super) fn new(
        options: LearnedOptions,
        learned: Learned,
        tiers: Order,
        otherwise: Heuristic,
    ) -> Self {
        learned.keep(options.keep_quality);
        Self { options, learned, tiers, otherwise }
    }
}

impl Strategy for ByLearned {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let sample = Sample::of(case.request);
        let Some(opinion) = self.learned.opinion(&sample, self.options.least_labels) else {
            let mut ranking = self.otherwise.rank(case);
            ranking.reasons.insert(0, reason("labels", json!(self.learned.labels())));
            return ranking;
        };
        let tier = if opinion.is_local_enough { Tier::Small } else { Tier::Middle };
        let mut reasons = Vec::new();
        if let Some(policy) = self.learned.approved() {
            let digest = policy.digest.get(..12).unwrap_or(&policy.digest);
            reasons.push(reason("policy", json!(digest)));
        }
        if opinion.is_strange {
            reasons.push(reason("unlike_anything_seen", json!(true)));
        }
        reasons.push(reason("local_right", json!(rounded(opinion.local))));
        reasons.push(reason("paid_right", json!(rounded(opinion.paid))));
        Ranking {
            order: self.tiers.from(tier, case.choices),
            score: Some(rounded((opinion.gain() + 1.0) / 2.0)),
            reasons,
            tier: Some(tier),
            weighs_cost: true,
            ..Ranking::default()
        }
    }
}

fn reason(name: &str, value: serde_json::Value) -> Reason {
    Reason { name: name.to_owned(), value, weight: 0.0 }
}

fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1000.0).round() / 1000.0
}
