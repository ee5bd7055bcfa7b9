//! A local model first, whose answer is checked; where it fails, the next tier answers.

use serde_json::json;

use super::{Case, Ranking, Strategy, Tier, heuristic::Heuristic, tier::Order};
use crate::{
    dialect::inspect::AnswerFormat,
    routing::{
        Reason, Request,
        check::Expected,
        options::{CascadeOptions, SecondAnswer},
    },
};

#[derive(Debug)]
pub(super) struct Cascade {
    options: CascadeOptions,
    tiers: Order,
    /// For requests whose answers cannot be checked.
    otherwise: Heuristic,
}

impl Cascade {
    pub(super) const fn new(options: CascadeOptions, tiers: Order, otherwise: Heuristic) -> Self {
        Self { options, tiers, otherwise }
    }
}

impl Strategy for Cascade {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let small = self.tiers.of(Tier::Small, case.choices);
        let checkable = checkable(case.request);
        let (Some(first), Some(kind)) = (small.first().copied(), checkable) else {
            let mut ranking = self.otherwise.rank(case);
            let value = if small.is_empty() { "no small model" } else { "an open answer" };
            ranking.reasons.insert(0, reason("not_checked", value));
            return ranking;
        };
        let second = match self.options.second {
            SecondAnswer::Model => Some(small.get(1).copied().unwrap_or(first)),
            SecondAnswer::Sample => Some(first),
            SecondAnswer::Never => None,
        };
        // After a failed check another small model is no help.
        let rest = self.tiers.from(Tier::Middle, case.choices);
        let order = std::iter::once(first).chain(rest.into_iter().filter(|it| *it != first));
        Ranking {
            order: order.collect(),
            reasons: vec![reason("checked", kind)],
            is_checked: true,
            second: second.filter(|_| kind != "tools"),
            ..Ranking::default()
        }
    }
}

fn reason(name: &str, value: &str) -> Reason {
    Reason { name: name.to_owned(), value: json!(value), weight: 0.0 }
}

/// Returns what about the answer can be checked, where anything can.
fn checkable(request: &Request<'_>) -> Option<&'static str> {
    let inspected = request.inspected;
    if inspected.tools > 0 {
        return Some("tools");
    }
    match inspected.answer_format {
        AnswerFormat::Schema => return Some("schema"),
        AnswerFormat::Json => return Some("json"),
        AnswerFormat::Text => {}
    }
    match Expected::of(inspected) {
        Expected::Option => Some("options"),
        Expected::Number => Some("number"),
        Expected::Open => None,
    }
}
