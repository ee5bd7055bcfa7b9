//! Budgets: what other modules tell of them, and what follows.

use std::time::{Duration, Instant};

use module_sdk::{
    Reply,
    events::{BudgetUse, UsageBudgetExceeded, UsageBudgetWarned},
};
use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Gateway},
    upstream::{Upstream, chat, models},
};

struct Site {
    _home: Upstream,
    cloud: Upstream,
    gateway: Gateway,
}

fn start(settings: Value) -> Site {
    let home = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["small"]),
        _ => chat("local"),
    });
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("paid"),
    });
    let providers = json!({
        "home": {"base_url": home.url(), "api": "openai", "local": true, "models": ["small"]},
        "cloud": {"base_url": cloud.url(), "api": "openai", "key": "k", "models": ["gpt-4o"]},
    });
    Site { _home: home, cloud, gateway: Gateway::start(providers, settings) }
}

impl Site {
    fn ask(&self, model: &str, project: &str) -> Answer {
        let body = json!({"model": model, "max_tokens": 50,
            "messages": [{"role": "user", "content": "Prove it."}]});
        let headers = [("x-lodestar-project", project)];
        self.gateway.post_with("/v1/chat/completions", &headers, &body.to_string())
    }

    fn decide(&self, project: &str) -> Value {
        let body = json!({"model": "auto", "messages": [{"role": "user", "content": "x"}]});
        let headers = [("x-lodestar-project", project)];
        self.gateway.post_with("/v1/decision", &headers, &body.to_string()).json()
    }

    fn exceeded(&mut self, scope: &str) {
        self.gateway.bench.send(&UsageBudgetExceeded(budget(scope))).expect("it is heard");
    }
}

fn budget(scope: &str) -> BudgetUse {
    BudgetUse { budget: "day".to_owned(), scope: scope.to_owned(), ..BudgetUse::default() }
}

fn text(answer: &Answer) -> Value {
    answer.json()["choices"][0]["message"]["content"].clone()
}

#[test]
fn an_exceeded_budget_stops_what_costs_until_it_has_room_again() {
    let mut site = start(json!({}));
    site.exceeded("project:shop");
    for model in ["gpt-4o", "auto:best"] {
        let refused = site.ask(model, "shop");
        assert_eq!(refused.json()["error"]["code"], "budget_exceeded", "{refused:?}");
        assert!(refused.body.contains("the project `shop`"), "{refused:?}");
    }
    assert!(site.cloud.asked("/chat/completions").is_empty());
    assert_eq!(text(&site.ask("small", "shop")), "local", "it costs nothing");
    assert_eq!(text(&site.ask("gpt-4o", "bank")), "paid", "it is another one's budget");
    let room = UsageBudgetWarned(budget("project:shop"));
    site.gateway.bench.send(&room).expect("it is heard");
    assert_eq!(text(&site.ask("gpt-4o", "shop")), "paid");
}

#[test]
fn an_exceeded_budget_leads_to_what_costs_nothing_where_the_operator_says_so() {
    let mut site = start(json!({"quotas": {"budget_action": "reroute"},
        "routing": {"fallbacks": {"cloud/*": ["home/small"]}}}));
    assert_eq!(text(&site.ask("auto:best", "shop")), "paid");
    site.exceeded("all");
    for model in ["gpt-4o", "auto:best"] {
        let answer = site.ask(model, "shop");
        assert_eq!((answer.status, text(&answer)), (200, json!("local")), "{model}");
        let route = answer.header("x-lodestar-route").unwrap_or_default();
        assert!(route.starts_with("home/small"), "{route}");
    }
    assert_eq!(site.cloud.asked("/chat/completions").len(), 1);

    let mut site = start(json!({"quotas": {"budget_action": "reroute"},
        "routing": {"models": "cloud/*"}}));
    site.exceeded("all");
    let refused = site.ask("auto", "shop");
    assert_eq!(refused.json()["error"]["code"], "budget_exceeded", "{refused:?}");
}

#[test]
fn a_rule_asks_what_is_left_and_unknown_is_not_nothing() {
    let rule = json!({"name": "poor", "when": {"budget_left_below_usd": 1}, "use": "home/small"});
    let mut site = start(json!({"routing": {"strategy": "best", "rules": [rule]}}));
    let left = |decision: &Value| {
        let reasons = decision["reasons"].as_array().expect("reasons").clone();
        let it = reasons.into_iter().find(|reason| reason["name"] == "budget_left_usd");
        it.expect("it is told")["value"].clone()
    };
    let decision = site.decide("shop");
    assert_eq!((&decision["rule"], left(&decision)), (&json!("default"), json!("unknown")));
    let told = |spent| {
        UsageBudgetWarned(BudgetUse {
            limit_nano_usd: Some(10_000_000_000),
            spent_nano_usd: Some(spent),
            ..budget("project:shop")
        })
    };
    site.gateway.bench.send(&told(8_000_000_000)).expect("it is heard");
    let decision = site.decide("shop");
    assert_eq!((&decision["rule"], left(&decision).as_f64()), (&json!("default"), Some(2.0)));
    site.gateway.bench.send(&told(9_500_000_000)).expect("it is heard");
    let decision = site.decide("shop");
    assert_eq!((&decision["rule"], left(&decision).as_f64()), (&json!("poor"), Some(0.5)));
    assert_eq!(site.decide("bank")["rule"], "default");

    let answer = site.ask("auto", "bank");
    let id = answer.header("x-lodestar-request-id").expect("an id").to_owned();
    site.gateway.reports(1);
    let story = site.gateway.bench.command("explain", json!({"id": id})).expect("a story").data;
    assert_eq!(left(&story), "unknown", "{story:#}");
}

#[test]
fn a_limit_of_its_own_is_a_budget_too() {
    let rule = json!({"name": "poor", "when": {"budget_left_below_usd": 0.9999},
        "use": "home/small"});
    let site = start(json!({"routing": {"strategy": "best", "rules": [rule]},
        "quotas": {"projects": {"shop": {"usd_per_day": 1}}}}));
    assert_eq!(site.decide("shop")["rule"], "default");
    assert_eq!(text(&site.ask("auto", "shop")), "paid");
    site.gateway.reports(1);
    let end = Instant::now() + Duration::from_secs(20);
    while site.decide("shop")["rule"] != "poor" {
        assert!(Instant::now() < end, "{}", site.decide("shop"));
        std::thread::yield_now();
    }
}

#[test]
fn what_was_spent_elsewhere_is_asked_at_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let rule = json!({"name": "poor", "when": {"budget_left_below_usd": 1}, "use": "home/small"});
    let settings = json!({"routing": {"rules": [rule]}});
    let cloud = Upstream::start(|_| chat("x"));
    let providers = json!({
        "home": {"base_url": cloud.url(), "api": "openai", "local": true, "models": ["small"]},
    });
    let mut first = Gateway::start_in(directory.path(), providers.clone(), settings.clone());
    let known = BudgetUse {
        limit_nano_usd: Some(10_000_000_000),
        spent_nano_usd: Some(1_000_000_000),
        since: Some(1_700_000_000_000),
        ..budget("project:shop")
    };
    first.bench.send(&UsageBudgetWarned(known)).expect("it is heard");
    first.bench.stop().expect("it stops");

    let second = Gateway::start_with(directory.path(), providers, settings, |host| {
        host.answer("usage_tracker", "summary", |args, _| {
            assert_eq!(args["by"], "project");
            assert_eq!(args["since"], "2023-11-14T22:13:20Z");
            Reply::json(&json!({"rows": [{"key": "shop", "cost_usd": 9.25},
                {"key": null, "cost_usd": 1}], "total": {"cost_usd": 10.25}}))
        });
    });
    let body = json!({"model": "auto", "messages": [{"role": "user", "content": "x"}]}).to_string();
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let headers = [("x-lodestar-project", "shop")];
        let decision = second.post_with("/v1/decision", &headers, &body).json();
        if decision["rule"] == "poor" {
            break;
        }
        assert!(Instant::now() < end, "{decision}");
        std::thread::yield_now();
    }
}
