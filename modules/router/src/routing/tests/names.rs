//! Names of models.

use serde_json::json;

use super::*;

#[test]
fn a_name_means_the_provider_that_has_it() {
    let site = Site::new(json!({
        "aliases": {
            "fast": "auto:cheap",
            "sonnet": "claude/claude-sonnet-4-5",
            "mine": ["home/qwen3:8b", "cloud/big"],
            "ours": "mine",
        },
    }));
    let check = |model: &str, expected: &str| {
        let decided = site.ask(model, "Translate this.");
        let found = decided.map_or_else(|it| it.to_string(), |decision| order(&decision));
        assert_eq!(found, expected, "{model}");
    };
    check("cloud/mini", "cloud/mini");
    check("mini", "cloud/mini");
    check("MINI", "cloud/mini");
    check(" mini ", "cloud/mini");
    // The cheaper of two providers first.
    check("big", "resale/big cloud/big");
    check("cloud/big", "cloud/big");
    check("llama3", "home/llama3:latest");
    check("home/llama3", "home/llama3:latest");
    check("qwen3:8b", "home/qwen3:8b");
    check("anthropic/claude-opus-4.8:free", "resale/anthropic/claude-opus-4.8:free");
    check("resale/anthropic/claude-opus-4.8:free", "resale/anthropic/claude-opus-4.8:free");
    // Its provider has the last word.
    check("cloud/unheard-of", "cloud/unheard-of");
    check("home/qwen3", "home/qwen3");
    check("gpt-4o", "cloud/gpt-4o-2024-08-06");
    check("cloud/gpt-4o", "cloud/gpt-4o-2024-08-06");
    check("gpt-4o-latest", "cloud/gpt-4o-2024-08-06");
    check("gpt-4o-2024-05-13", "cloud/gpt-4o-2024-05-13");
    check("sonnet", "claude/claude-sonnet-4-5");
    check("mine", "home/qwen3:8b cloud/big");
    check("ours", "home/qwen3:8b cloud/big");
    check("mini[1m]", "cloud/mini");
    check("qwen", "no provider has the model \"qwen\"; did you mean \"qwen3:8b\"?");
    check("home", "no provider has the model \"home\"; did you mean \"home/qwen3:8b\"?");
    check("zebra", "no provider has the model \"zebra\"");
    check("cloud/", "no provider has the model \"cloud/\"; did you mean \"cloud/big\"?");
    check("auto:chep", "no provider has the model \"auto:chep\"; did you mean \"auto:balanced\"?");
}

#[test]
fn a_provider_whose_models_are_not_known_is_asked_in_its_own_dialect() {
    let site = Site::new(json!({}));
    let inspected = asked("claude-sonnet-4-5-20250929[1m]", "");
    let request = Request { dialect: Dialect::Messages, ..site.request(&inspected) };
    assert_eq!(first(site.decide(&request)), "claude/claude-sonnet-4-5-20250929");
    let request = site.request(&inspected);
    let found = first(site.decide(&request));
    assert!(found.starts_with("no provider has the model"), "{found}");
}

#[test]
fn the_rule_says_where_a_name_came_from() {
    let site = Site::new(json!({"aliases": {"fast": "auto:cheap"}}));
    let check = |model: &str, rule: &str, strategy: &str| {
        let decision = site.ask(model, "Hi").expect("it is decided");
        assert_eq!((decision.rule.as_str(), decision.strategy), (rule, strategy), "{model}");
    };
    check("mini", "model", "cheapest");
    check("fast", "alias", "cheapest");
    check("auto", "default", "heuristic");
    check("", "default", "heuristic");
    check("auto:latest", "default", "heuristic");
    check("auto:best", "default", "best");
}

#[test]
fn nothing_is_chosen_for_a_key_that_may_not() {
    let mut site = Site::new(json!({}));
    site.allowed = vec!["home/*".to_owned(), "cloud/mini".to_owned()];
    let check = |model: &str, expected: &str| {
        assert_eq!(first(site.ask(model, "Prove it, derive the theorem.")), expected, "{model}");
    };
    check("auto", "cloud/mini");
    check("llama3", "home/llama3:latest");
    check("big", "the key may not ask the model \"big\"");
}

#[test]
fn without_any_target_the_remedy_is_told() {
    let mut site = Site::new(json!({}));
    site.targets.clear();
    for model in ["auto", "mini"] {
        assert_eq!(site.ask(model, "").expect_err("none is there"), Refusal::NothingOffered);
    }
}
