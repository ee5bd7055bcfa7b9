//! Strategies, and what they leave out.

use serde_json::json;

use super::*;
use crate::{
    dialect::inspect::AnswerFormat,
    routing::learned::{Label, Sample},
};

#[test]
fn what_looks_easy_stays_at_home_and_no_sign_does_not() {
    let site = Site::new(json!({}));
    let check = |words: &str, expected: &str| {
        let decision = site.ask("auto", words).expect("decided");
        let found = decision.order[0].to_string();
        assert_eq!(found, expected, "{words}: {:?} {:?}", decision.score, decision.reasons);
    };
    let (home, middle, best) = ("home/llama3:latest", "cloud/mini", "cloud/big");
    // Words within words decide nothing: `address` adds no class, `prefix` is no fix, `checkout`
    // checks nothing, a log is no design of a system.
    check("Address the user by name", middle);
    check("Show me the prefix sum algorithm", home);
    check("Checkout branch main", home);
    check("Summarise this system log", home);
    check("Prove that sqrt(2) is irrational", best);
    check("What is the capital of France?", home);
    check("Hi", home);
    check("", middle);
    check("Lorem ipsum dolor sit amet", middle);
    check("Translate 'good morning' into Spanish", home);
    check("Debug this deadlock: two threads lock a mutex, and explain the concurrency", best);
    check("Design a distributed protocol and compare its consistency tradeoffs", best);
}

#[test]
fn no_reason_holds_a_word_of_the_request() {
    let site = Site::new(json!({}));
    let decision = site.ask("auto", "Prove that xyzzy is irrational").expect("decided");
    let shown = serde_json::to_string(&decision).expect("JSON");
    assert!(!shown.contains("xyzzy") && !shown.contains("irrational"), "{shown}");
}

#[test]
fn the_work_of_an_agent_is_not_for_a_small_model() {
    let site = Site::new(json!({}));
    let inspected = Inspected { tools: 12, continues_tool: true, ..asked("auto", "Fix the tests") };
    let decision = site.decide(&site.request(&inspected)).expect("decided");
    assert_eq!(decision.order[0], name("cloud/big"));
}

#[test]
fn what_a_target_cannot_do_is_told() {
    let site = Site::new(json!({"local_in_flight": 2}))
        .with("home/llama3:latest", |it| it.tools = Some(false))
        .with("home/qwen3:8b", |it| it.in_flight = 2)
        .with("cloud/mini", |it| it.images = Some(false))
        .with("cloud/big", |it| it.context_tokens = Some(1000))
        .with("cloud/gpt-4o-2024-05-13", |it| it.availability = Availability::RateLimited)
        .with("cloud/gpt-4o-2024-08-06", |it| it.availability = Availability::BreakerOpen)
        .with("resale/big", |it| it.availability = Availability::Down("no answer".to_owned()));
    let inspected = Inspected {
        tools: 1,
        has_images: true,
        max_tokens: Some(990),
        estimated_tokens: 100,
        ..asked("auto", "")
    };
    let decision = site.decide(&site.request(&inspected)).expect("decided");
    let reason = |target: &str| {
        let mut candidates = decision.candidates.iter();
        let found = candidates.find(|it| it.target == name(target)).expect("it was looked at");
        (found.is_allowed, found.reason.to_string())
    };
    let check = |target: &str, expected: &str| {
        assert_eq!(reason(target), (expected.is_empty(), expected.to_owned()), "{target}");
    };
    check("home/llama3:latest", "cannot call tools");
    check("home/qwen3:8b", "answers 2 requests already");
    check("home/nomic-embed-text:latest", "is for something else");
    check("cloud/mini", "cannot see images");
    check("cloud/big", "takes 1000 tokens; about 1090 are needed");
    check("cloud/gpt-4o-2024-05-13", "asked for a pause");
    check("cloud/gpt-4o-2024-08-06", "failed too often just now");
    check("resale/big", "is down: no answer");
    check("resale/anthropic/claude-opus-4.8:free", "");
    // What can answer, but not now, is the last resort.
    let expected = "resale/anthropic/claude-opus-4.8:free home/qwen3:8b cloud/gpt-4o-2024-05-13 \
                    cloud/gpt-4o-2024-08-06 resale/big";
    assert_eq!(order(&decision), expected);
}

#[test]
fn what_the_budget_cannot_pay_is_left_out() {
    let site = Site::new(json!({}));
    let inspected = Inspected { estimated_tokens: 100, ..asked("auto:best", "") };
    let check = |left: i64, expected: &str| {
        let budget_left_nano_usd = Some(left);
        let request = Request { budget_left_nano_usd, ..site.request(&inspected) };
        assert_eq!(first(site.decide(&request)), expected, "{left}");
    };
    check(i64::MAX, "cloud/big");
    check(1_000_000, "cloud/mini");
    check(0, "home/llama3:latest");
    check(-5, "home/llama3:latest");
}

#[test]
fn vectors_are_asked_of_models_that_make_them() {
    let site = Site::new(json!({}));
    let inspected = asked("auto", "");
    let request = Request { dialect: Dialect::Embeddings, ..site.request(&inspected) };
    assert_eq!(first(site.decide(&request)), "home/nomic-embed-text:latest");
}

#[test]
fn a_strategy_orders_what_can_answer() {
    let check = |strategy: &str, expected: &str| {
        let site = Site::new(json!({"rules": [
            {"use": ["cloud/big", "home/qwen3:8b", "cloud/mini"], "strategy": strategy},
        ], "weights": {"cloud/mini": 1.0}}))
        .with("cloud/big", |it| it.latency_p50_ms = Some(900.0))
        .with("cloud/mini", |it| it.latency_p50_ms = Some(400.0))
        .with("home/qwen3:8b", |it| {
            it.latency_p50_ms = Some(300.0);
            it.in_flight = 1;
        });
        let decision = site.ask("auto", "What is 12 + 30 apples?").expect("decided");
        assert_eq!(decision.strategy, strategy);
        assert!(order(&decision).starts_with(expected), "{strategy}: {}", order(&decision));
    };
    check("fixed", "cloud/big home/qwen3:8b cloud/mini");
    check("cheapest", "home/qwen3:8b cloud/mini cloud/big");
    check("fastest", "cloud/mini home/qwen3:8b cloud/big");
    check("weighted", "cloud/mini");
    check("best", "cloud/big cloud/mini home/qwen3:8b");
    check("cascade", "home/qwen3:8b cloud/mini cloud/big");
}

#[test]
fn shares_are_kept_and_a_session_stays_with_its_own() {
    let site = Site::new(json!({
        "rules": [{"use": ["cloud/big", "cloud/mini"], "strategy": "weighted"}],
        "weights": {"cloud/big": 1.0, "cloud/mini": 3.0},
    }));
    let inspected = asked("auto", "");
    let draw = |session: &str| {
        let request = Request { session: Some(session), ..site.request(&inspected) };
        first(site.decide(&request))
    };
    let sessions = (0..2000).map(|session| session.to_string());
    let mini = sessions.filter(|session| draw(session) == "cloud/mini").count();
    assert!((1400..1600).contains(&mini), "{mini}");
    assert!((0..20).all(|_| draw("one") == draw("one")));
}

#[test]
fn a_cascade_checks_what_can_be_checked() {
    let site = Site::new(json!({"strategy": "cascade"}));
    let check = |inspected: &Inspected<'_>, is_checked: bool, second: Option<&str>| {
        let decision = site.decide(&site.request(inspected)).expect("decided");
        assert_eq!(decision.is_checked, is_checked, "{:?}", decision.reasons);
        assert_eq!(decision.second, second.map(name));
    };
    let number = asked("auto", "Ann has 3 apples and buys 4. How many has she?");
    check(&number, true, Some("home/qwen3:8b"));
    let options = asked("auto", "Which is a gas?\nA. iron\nB. neon\nC. wood");
    check(&options, true, Some("home/qwen3:8b"));
    let json = Inspected { answer_format: AnswerFormat::Json, ..asked("auto", "Extract it") };
    check(&json, true, Some("home/qwen3:8b"));
    let tools = Inspected { tools: 2, ..asked("auto", "Turn on the light") };
    check(&tools, true, None);
    check(&asked("auto", "Write a poem about the sea"), false, None);
}

#[test]
fn after_a_failed_check_the_next_tier_is_asked_not_a_fallback() {
    let site = Site::new(json!({
        "strategy": "cascade",
        "fallbacks": {"home/*": ["home/qwen3:8b", "cloud/big"]},
    }));
    let decision = site.ask("auto", "Ann has 3 apples and buys 4. How many has she?");
    let found = order(&decision.expect("decided"));
    assert!(found.starts_with("home/llama3:latest cloud/mini home/qwen3:8b cloud/big"), "{found}");
}

#[test]
fn what_was_learned_here_decides_once_there_is_enough() {
    let mut site = Site::new(json!({}));
    let learned = Learned::default();
    let options = json!({"strategy": "learned", "learned": {"least_labels": 200}});
    let options: RoutingOptions = serde_json::from_value(options).expect("options");
    site.policy = Policy::new(&options, &learned).expect("a policy");
    let check = |words: &str, target: &str, reason: &str| {
        let decision = site.ask("auto", words).expect("decided");
        assert_eq!(decision.strategy, "learned");
        assert_eq!(decision.order[0], name(target), "{words}: {:?}", decision.reasons);
        assert_eq!(decision.reasons[0].name, reason, "{words}");
    };
    let (colour, tensor) = ("Tell me the colour of flag 7", "Tell me the tensor of field 7");
    check(colour, "cloud/mini", "labels");
    for index in 0..400 {
        let is_easy = index % 2 == 0;
        let topic = if is_easy { "colour of flag" } else { "tensor of field" };
        let words = format!("Tell me the {topic} {}", index % 40);
        let sample = Sample::of(&site.request(&asked("auto", &words)));
        learned.learn(&sample, Label { is_local_right: Some(is_easy), is_paid_right: Some(true) });
    }
    check(colour, "home/llama3:latest", "local_right");
    check(tensor, "cloud/mini", "local_right");
    check("Wie sp\u{e4}t ist es in Wien?", "cloud/mini", "unlike_anything_seen");
}

#[test]
fn a_decision_is_shown_in_its_stable_form() {
    let site = Site::new(json!({}));
    let decision = site.ask("big", "Hi").expect("decided");
    let shown = serde_json::to_value(&decision).expect("JSON");
    let mut candidate = shown["candidates"][0].clone();
    let cost = candidate["estimated_cost_usd"].take();
    assert!(cost.as_f64().is_some_and(|cost| cost > 0.0), "{cost}");
    let expected = json!({
        "model": "big", "provider": "cloud", "allowed": true, "reason": "",
        "estimated_cost_usd": null,
    });
    assert_eq!(candidate, expected);
    assert_eq!(shown["model"], "big");
    assert_eq!(shown["provider"], "resale");
    assert_eq!(shown["rule"], "model");
    assert_eq!(shown["fallbacks"], json!(["cloud/big"]));
    assert_eq!(shown["hedge"], json!(null));
    let site = Site::new(json!({"hedge": {"after_ms": 200}}));
    let shown = serde_json::to_value(site.ask("big", "Hi").expect("decided")).expect("JSON");
    let expected = json!({"after_ms": 200, "after": null, "most": 1, "models": ["cloud/big"]});
    assert_eq!(shown["hedge"], expected);
}

#[test]
fn a_share_of_sessions_gets_the_variant_and_keeps_it() {
    let site = Site::new(json!({"experiments": [
        {"name": "bigger", "share": 0.5, "use": "cloud/big", "shadow": "cloud/mini"},
    ]}));
    let inspected = asked("auto", "Translate this.");
    let draw = |session: Option<&str>| {
        let decision = site.decide(&Request { session, ..site.request(&inspected) });
        let decision = decision.expect("decided");
        let shadow = decision.shadow.map(|shadow| shadow.to_string());
        (decision.variant.unwrap_or_default(), decision.order[0].to_string(), shadow)
    };
    let mut counts = HashMap::new();
    for session in 0..4000 {
        let session = session.to_string();
        let drawn = draw(Some(&session));
        assert_eq!(drawn, draw(Some(&session)), "it keeps its side");
        let (variant, first, shadow) = drawn;
        let is_variant = variant == "bigger:variant";
        assert_eq!(first == "cloud/big", is_variant, "{variant}");
        assert_eq!(shadow.as_deref() == Some("cloud/mini"), variant == "bigger:control");
        *counts.entry(variant).or_insert(0) += 1;
    }
    for side in ["bigger:control", "bigger:variant"] {
        assert!((900..1100).contains(&counts[side]), "{counts:?}");
    }
    assert_eq!(draw(None).0, "", "without a session nobody takes part");
    let named = asked("cloud/mini", "");
    let request = Request { session: Some("1"), ..site.request(&named) };
    assert_eq!(site.decide(&request).expect("decided").variant, None);
}

#[test]
fn an_experiment_sends_nothing_where_it_was_not_to_go() {
    let decide = |options: serde_json::Value, model: &str, allowed: &[&str]| {
        let mut site = Site::new(options);
        site.allowed = allowed.iter().map(|&it| it.to_owned()).collect();
        let inspected = asked(model, "Translate this.");
        let request = site.request(&inspected);
        let mut drawn: Vec<(String, String, String)> = (0..40)
            .map(|session| {
                let session = session.to_string();
                let decision = site.decide(&Request { session: Some(&session), ..request });
                let decision = decision.expect("decided");
                let shadow = decision.shadow.map(|shadow| shadow.to_string());
                let variant = decision.variant.unwrap_or_default();
                (variant, decision.order[0].to_string(), shadow.unwrap_or_default())
            })
            .collect();
        drawn.sort();
        drawn.dedup();
        let shown: Vec<String> =
            drawn.iter().map(|(side, first, shadow)| format!("{side} {first} {shadow}")).collect();
        shown.join(", ")
    };
    let both = |more: serde_json::Value| {
        let mut options = json!({"experiments": [{"name": "x", "models": "*", "share": 1,
            "use": ["cloud/big", "home/qwen3:8b"], "shadow": "cloud/mini"}]});
        options
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        options
    };
    let home = "home/llama3:latest";
    let check = |more: serde_json::Value, model: &str, expected: &str| {
        assert_eq!(decide(both(more), model, &[]), expected, "{model}");
    };
    check(json!({}), "auto", &format!("x:control {home} cloud/mini, x:variant cloud/big "));
    // What a name, an alias, a rule or `models` keeps at home stays there.
    let kept = format!("x:control {home} , x:variant home/qwen3:8b ");
    check(json!({}), "llama3", &kept);
    check(json!({"aliases": {"mine": home}}), "mine", &kept);
    check(json!({"rules": [{"use": home}]}), "auto", &kept);
    check(json!({"models": "home/llama3*"}), "auto", &kept);
    // A rule that gives requests to one provider gives them to no other one.
    let rule = json!({"rules": [{"when": {"model": "*"}, "use": "resale/big"}]});
    check(rule, "auto", "x:control resale/big , x:variant home/qwen3:8b ");
    check(json!({}), "resale/big", "x:control resale/big cloud/mini, x:variant cloud/big ");
    // A key's list holds for all that is asked for it.
    let found = decide(both(json!({})), "auto", &["home/llama3*", "resale/*"]);
    // Without a variant that may be asked, nobody is on that side.
    assert_eq!(found, format!(" {home} , x:control {home} "));
    // To ask the same model again says nothing.
    let same = json!({"experiments": [{"name": "x", "share": 1, "shadow": home}]});
    assert_eq!(decide(same, "auto", &[]), format!("x:control {home} , x:variant {home} "));
}
