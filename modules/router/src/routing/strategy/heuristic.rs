//! A tier by what the person's last words look like.
//!
//! The words that a harness puts around them are not looked at: they are always the same. Without
//! any sign the score is one half, so that the small tier answers only what looks easy.

use serde_json::{Value, json};

use super::{Case, Ranking, Strategy, Tier, tier::Order};
use crate::{
    dialect::inspect::Inspected,
    routing::{
        Reason, Request,
        look::{Look, Mark},
        options::HeuristicOptions,
        sign::Sign,
    },
};

#[derive(Debug)]
pub(super) struct Heuristic {
    options: HeuristicOptions,
    tiers: Order,
}

impl Heuristic {
    pub(super) const fn new(options: HeuristicOptions, tiers: Order) -> Self {
        Self { options, tiers }
    }
}

impl Strategy for Heuristic {
    fn rank(&self, case: &Case<'_>) -> Ranking {
        let (score, reasons) = score(case.request);
        let tier = match score {
            easy if easy < self.options.small_below => Tier::Small,
            hard if hard > self.options.best_above => Tier::Best,
            _ => Tier::Middle,
        };
        Ranking {
            order: self.tiers.from(tier, case.choices),
            score: Some(score),
            reasons,
            tier: Some(tier),
            weighs_cost: true,
            ..Ranking::default()
        }
    }
}

/// Largest number of reasons that are told.
const REASONS: usize = 5;
/// Words of a question that can be one for a fact.
const SHORT: u32 = 16;

/// Returns the score of a request and its reasons, the weightiest first.
pub(in crate::routing) fn score(request: &Request<'_>) -> (f64, Vec<Reason>) {
    let look = Look::of(&request.inspected.last_words);
    let mut sum = 0.0;
    let mut reasons = Vec::new();
    for (name, value, weight) in features(&look, request.inspected, request.is_sub_agent) {
        if weight != 0.0 {
            sum += weight;
            reasons.push(Reason { name: name.to_owned(), value, weight });
        }
    }
    reasons.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
    reasons.truncate(REASONS);
    (1.0 / (1.0 + f64::exp(-sum)), reasons)
}

/// Returns the features of a request, each with its value and its weight in the score: above 0 it
/// speaks for a better model.
fn features(
    look: &Look,
    inspected: &Inspected<'_>,
    is_sub_agent: bool,
) -> Vec<(&'static str, Value, f64)> {
    let signs = [
        ("proof_words", Sign::Proof, 1.6, 2),
        ("reasoning_words", Sign::Reasoning, 0.7, 3),
        ("design_words", Sign::Design, 0.8, 3),
        ("fault_words", Sign::Fault, 0.6, 3),
        ("code_words", Sign::Code, 0.3, 3),
        ("maths_words", Sign::Maths, 0.5, 3),
        ("easy_words", Sign::Easy, -0.9, 2),
    ];
    let counted = signs.map(|(name, sign, weight, most)| {
        let count = look.count(sign);
        (name, json!(count), weight * f64::from(count.min(most)))
    });
    let has_hard = [Sign::Proof, Sign::Reasoning, Sign::Design, Sign::Fault, Sign::Maths]
        .iter()
        .any(|sign| look.count(*sign) > 0);
    let is_fact = look.count(Sign::Fact) > 0 && look.words <= SHORT && !has_hard;
    let is_greeting = look.count(Sign::Greeting) > 0 && look.words <= 4 && !has_hard;
    let when = |is: bool, weight: f64| if is { weight } else { 0.0 };
    let tokens = inspected.estimated_tokens;
    let long = match tokens {
        20_000.. => 1.2,
        4_000.. => 0.5,
        _ => 0.0,
    };
    let code = look.marks(Mark::Code) / 20 + look.marks(Mark::Backtick) / 3;
    let mut features = Vec::from(counted);
    features.extend([
        ("short_question", json!(look.words), when(is_fact, -0.9)),
        ("greeting", json!(look.words), when(is_greeting, -1.5)),
        ("estimated_tokens", json!(tokens), long),
        ("code", json!(code), 0.2 * f64::from(code.min(4))),
        ("numbers", json!(look.numbers), when(look.numbers >= 3, 0.4)),
        ("agent_turn", json!(true), when(inspected.continues_tool, 1.2)),
        ("tools", json!(inspected.tools), when(inspected.tools > 0, 0.5)),
        ("images", json!(true), when(inspected.has_images, 0.3)),
        ("messages", json!(inspected.messages), when(inspected.messages > 10, 0.3)),
        ("sub_agent", json!(true), when(is_sub_agent, -0.4)),
        (
            "max_tokens",
            json!(inspected.max_tokens),
            when(inspected.max_tokens.is_some_and(|most| most <= 64), -0.6),
        ),
    ]);
    features
}
