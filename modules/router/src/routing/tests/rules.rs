//! Rules, fallbacks and refused configurations.

use serde_json::{Value, json};

use super::*;
use crate::routing::request::Sticky;

#[test]
fn the_first_rule_that_is_for_a_request_decides() {
    let site = Site::new(json!({"rules": [
        {"name": "night", "when": {"hours": "22:00-06:00", "zone": "UTC"}, "use": "home/*"},
        {"name": "poor", "when": {"budget_left_below_usd": 1}, "strategy": "cheapest"},
        {"name": "ci", "when": {"header": {"x-team": "ci-*"}}, "use": "cloud/mini"},
        {"name": "keyed", "when": {"key": "bot", "project": ["a", "b"]}, "use": "cloud/big"},
        {"name": "haiku", "when": {"model": "claude-*haiku*"}, "use": ["home/qwen3:8b"]},
        {"name": "sub", "when": {"sub_agent": true, "tools": true}, "use": "home/qwen3:8b"},
        {"name": "seen", "when": {"images": true}, "use": "resale/big"},
        {"name": "long", "when": {"tokens_above": 1000, "tokens_below": 2000}, "use": "auto:best"},
        {"when": {"client": "aider*"}, "use": ["gone/away", "cloud/mini"]},
    ]}));
    let noon = "2026-11-30T12:00:00Z";
    let check = |rule: &str,
                 first: &str,
                 now: &str,
                 change: &dyn Fn(&mut Inspected<'_>),
                 ask: &dyn Fn(&mut Request<'_>)| {
        let mut inspected = asked("auto", "Prove the theorem, derive the proof.");
        change(&mut inspected);
        let mut request = site.request(&inspected);
        ask(&mut request);
        let decision = site.decide_at(&request, now.parse().expect("a time")).expect("decided");
        assert_eq!((decision.rule.as_str(), decision.order[0].to_string().as_str()), (rule, first));
    };
    let (same, plain) = (|_: &mut Inspected<'_>| {}, |_: &mut Request<'_>| {});
    check("default", "cloud/big", noon, &same, &plain);
    check("night", "home/llama3:latest", "2026-11-30T23:00:00Z", &same, &plain);
    let named = |it: &mut Inspected<'_>| it.model = "cloud/mini".into();
    check("model", "cloud/mini", "2026-11-30T23:00:00Z", &named, &plain);
    let poor = |it: &mut Request<'_>| it.budget_left_nano_usd = Some(999_999_999);
    check("poor", "home/llama3:latest", noon, &same, &poor);
    let keyed = |it: &mut Request<'_>| (it.key, it.project) = (Some("bot"), Some("b"));
    check("keyed", "cloud/big", noon, &same, &keyed);
    let other = |it: &mut Request<'_>| (it.key, it.project) = (Some("bot"), None);
    check("default", "cloud/big", noon, &same, &other);
    let haiku = |it: &mut Inspected<'_>| it.model = "claude-3-5-haiku-latest".into();
    check("haiku", "home/qwen3:8b", noon, &haiku, &plain);
    let tools = |it: &mut Inspected<'_>| it.tools = 3;
    check("sub", "home/qwen3:8b", noon, &tools, &|it| it.is_sub_agent = true);
    check("default", "cloud/big", noon, &same, &|it| it.is_sub_agent = true);
    check("seen", "resale/big", noon, &|it| it.has_images = true, &plain);
    check("long", "cloud/big", noon, &|it| it.estimated_tokens = 1500, &plain);
    check("default", "cloud/big", noon, &|it| it.estimated_tokens = 1000, &plain);
    check("rule 9", "cloud/mini", noon, &same, &|it| it.client = Some("aider/0.86"));
}

#[test]
fn a_header_is_looked_at_as_a_pattern() {
    let mut site = Site::new(json!({"rules": [
        {"name": "ci", "when": {"header": {"X-Team": "ci-*"}}, "use": "cloud/mini"},
    ]}));
    site.headers.insert("x-team", "ci-7".parse().expect("a value"));
    assert_eq!(site.ask("auto", "").expect("decided").rule, "ci");
}

#[test]
fn fallbacks_follow_the_chosen_one() {
    let site = Site::new(json!({"fallbacks": {
        "*": ["resale/big"],
        "home/*": ["cloud/mini", "home/qwen3:8b", "cloud/big"],
    }}));
    let check = |model: &str, expected: &str| {
        let found = order(&site.ask(model, "Translate this.").expect("decided"));
        assert!(found.starts_with(expected), "{model}: {found}");
    };
    check("llama3", "home/llama3:latest cloud/mini home/qwen3:8b cloud/big");
    check("cloud/mini", "cloud/mini resale/big");
    check("auto", "home/llama3:latest cloud/mini home/qwen3:8b cloud/big");
}

#[test]
fn a_fallback_takes_the_place_of_what_cannot() {
    let fallbacks = json!({"fallbacks": {"*": ["cloud/big"]}});
    let site = Site::new(fallbacks)
        .with("home/llama3:latest", |it| it.context_tokens = Some(4096))
        .with("cloud/mini", |it| it.availability = Availability::BreakerOpen)
        .with("home/qwen3:8b", |it| it.tools = Some(false));
    let check = |model: &str, change: &dyn Fn(&mut Inspected<'_>), expected: &str| {
        let mut inspected = asked(model, "");
        change(&mut inspected);
        let decision = site.decide(&site.request(&inspected)).expect("decided");
        assert_eq!(order(&decision), expected, "{model}");
    };
    check("llama3", &|it| it.estimated_tokens = 5000, "cloud/big");
    // Who names a model is not sent away for the longest answer that it might give.
    check("llama3", &|it| it.max_tokens = Some(32_000), "home/llama3:latest cloud/big");
    check("qwen3:8b", &|it| it.tools = 2, "cloud/big");
    check("mini", &|_| {}, "cloud/big cloud/mini");
}

#[test]
fn what_cannot_answer_is_refused_with_the_reason() {
    let site = Site::new(json!({})).with("home/llama3:latest", |it| it.context_tokens = Some(4096));
    let mut inspected = asked("llama3", "");
    inspected.estimated_tokens = 5000;
    let refusal = site.decide(&site.request(&inspected)).expect_err("it is too long");
    let expected = "no model can answer this request: home/llama3:latest: takes 4096 tokens; \
                    about 5000 are needed";
    assert_eq!(refusal.to_string(), expected);
}

#[test]
fn a_session_stays_where_moving_costs_more() {
    let site = Site::new(json!({}));
    let check = |target: &str, cached: u64, tokens: u64, words: &str, expected: &str| {
        let inspected = Inspected { estimated_tokens: tokens, ..asked("auto", words) };
        let target = name(target);
        let sticky = Some(Sticky { target: &target, cached_tokens: cached });
        let decision = site.decide(&Request { sticky, ..site.request(&inspected) });
        let found = decision.expect("decided").order[0].to_string();
        assert_eq!(found, expected, "{target} {cached} {words}");
    };
    let (easy, hard) = ("Translate this.", "Prove the theorem, derive the proof.");
    check("home/qwen3:8b", 0, 100, easy, "home/qwen3:8b");
    // What is hard leaves the small model.
    check("home/qwen3:8b", 0, 100, hard, "cloud/big");
    // The cache of 3,000 tokens is worth more than the answer costs.
    check("cloud/big", 3000, 3100, easy, "cloud/big");
    check("cloud/big", 0, 100, easy, "home/llama3:latest");
    check("cloud/mini", 0, 100, hard, "cloud/mini");
    // One that is gone is left.
    check("gone/away", 3000, 3100, easy, "home/llama3:latest");
}

#[test]
fn a_configuration_that_cannot_be_used_is_refused() {
    let check = |options: Value, expected: &str| {
        let options: RoutingOptions = serde_json::from_value(options).expect("options");
        assert_eq!(options.check().expect_err("it is refused").to_string(), expected);
    };
    check(
        json!({"rules": [{"when": {"tools": true}}]}),
        "rules[0]: says nothing to do; give it `use`, `strategy` or `hedge`",
    );
    check(
        json!({"rules": [{"when": {"hours": "night"}, "use": "auto"}]}),
        "rules[0].when.hours: are no hours; write `22:00-06:00`",
    );
    check(
        json!({"rules": [{"use": ["auto", "cloud/big"]}]}),
        "rules[0].use: mixes `auto` with models; let it stand alone, or name the models",
    );
    check(json!({"aliases": {"a": "b", "b": "a"}}), "aliases.a: \"b\" stands for itself");
    check(json!({"aliases": {"auto": "x"}}), "aliases.auto: means the router's own choice already");
    check(json!({"aliases": {"a": []}}), "aliases.a: stands for nothing");
    check(
        json!({"aliases": {"a": "auto:chep"}}),
        "aliases.a: \"auto:chep\" is no choice; write `auto`, `auto:cheap`, `auto:balanced` or \
         `auto:best`",
    );
    check(json!({"fallbacks": {"*": "auto"}}), "fallbacks.*: must name models, not `auto`");
    check(
        json!({"experiments": [{"name": "x"}]}),
        "experiments[0]: tries nothing; give it `use` or `shadow`",
    );
    check(
        json!({"experiments": [{"name": "x", "use": "auto"}]}),
        "experiments[0].use: must name models, not `auto`",
    );
    check(
        json!({"experiments": [{"name": "x", "shadow": "auto:best"}]}),
        "experiments[0].shadow: must name a model, not `auto`",
    );
    check(json!({"shadows": {"in_flight": 0}}), "shadows.in_flight: must be from 1 to 100");
    check(json!({"shadows": {"usd_per_day": -1}}), "shadows.usd_per_day: must not be negative");
    check(json!({"weights": {"a": -1.0}}), "weights.a: must be from 0 to 1000000000");
    check(
        json!({"heuristic": {"small_below": 0.9}}),
        "heuristic.best_above: must be from 0.9 to 1",
    );
}
