//! A target that is left out is never chosen while another can answer.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn availability() -> impl Strategy<Value = Availability> {
    prop_oneof![
        3 => Just(Availability::Up),
        1 => Just(Availability::BreakerOpen),
        1 => Just(Availability::RateLimited),
        1 => Just(Availability::Down("no answer".to_owned())),
    ]
}

/// State of one target: context, tools, images, availability, requests under way.
type State = (Option<u64>, Option<bool>, Option<bool>, Availability, u32);

fn states() -> impl Strategy<Value = Vec<State>> {
    let context = prop::option::of(500_u64..4000);
    let one = (context, any::<Option<bool>>(), any::<Option<bool>>(), availability(), 0_u32..8);
    prop::collection::vec(one, 9)
}

proptest! {
    #[test]
    fn an_excluded_target_is_never_first_while_an_allowed_one_is_there(
        states in states(),
        strategy in prop::sample::select(vec![
            "fixed", "cheapest", "fastest", "weighted", "heuristic", "cascade", "learned", "best",
        ]),
        model in prop::sample::select(vec!["auto", "auto:best", "big", "mini", "gpt-4o", "llama3"]),
        (tools, has_images, tokens) in (0_u32..2, any::<bool>(), 1_u64..5000),
        fallback in any::<bool>(),
        budget_left_nano_usd in prop::option::of(0_i64..10_000_000),
    ) {
        let fallbacks = if fallback { json!({"*": ["cloud/*", "home/*"]}) } else { json!({}) };
        let mut site = Site::new(json!({"strategy": strategy, "fallbacks": fallbacks}));
        for (target, state) in site.targets.iter_mut().zip(states) {
            (target.context_tokens, target.tools, target.images, target.availability,
                target.in_flight) = state;
        }
        let words = "How many are 3 and 4?";
        let inspected =
            Inspected { tools, has_images, estimated_tokens: tokens, ..asked(model, words) };
        let request = Request { budget_left_nano_usd, ..site.request(&inspected) };
        match site.decide(&request) {
            Ok(decision) => {
                let is_allowed = |name: &TargetName| {
                    decision.candidates.iter().any(|it| it.target == *name && it.is_allowed)
                };
                let any = decision.candidates.iter().any(|it| it.is_allowed);
                prop_assert!(!any || is_allowed(&decision.order[0]), "{decision:?}");
                let mut once = decision.order.clone();
                once.sort();
                once.dedup();
                prop_assert_eq!(once.len(), decision.order.len(), "none twice");
                let first_excluded = decision.order.iter().position(|name| !is_allowed(name));
                let after = &decision.order[first_excluded.unwrap_or(decision.order.len())..];
                prop_assert!(after.iter().all(|name| !is_allowed(name)), "{decision:?}");
            }
            Err(Refusal::Unfit { candidates }) => {
                prop_assert!(candidates.iter().all(|it| !it.is_allowed));
            }
            Err(refusal) => prop_assert!(false, "{}", refusal),
        }
    }
}
