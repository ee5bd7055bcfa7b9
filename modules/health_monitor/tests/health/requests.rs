//! Alerts and states that follow from requests, budgets and costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use health_monitor::HealthMonitor;
use module_sdk::{
    Class, EventType, Reply,
    events::{HealthAlertRaised, HealthAlertResolved, LlmRequestCompleted, RequestStatus},
    testing::{Bench, FakeHost},
};
use serde_json::{Value, json};

const SECOND: Duration = Duration::from_secs(1);

/// Returns settings with the checks of the machine off: they are not what these tests are about.
fn quiet(more: Value) -> Value {
    let mut config = json!({
        "checks": {
            "cost": {"enabled": false}, "disk": {"enabled": false}, "memory": {"enabled": false},
        },
    });
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}

fn start(config: Value) -> Bench<HealthMonitor> {
    Bench::start(quiet(config)).expect("it starts")
}

/// Sends requests that end now.
fn send(bench: &mut Bench<HealthMonitor>, model: &str, status: RequestStatus, count: usize) {
    let ended_at = bench.host().now().as_millisecond();
    let request = LlmRequestCompleted {
        schema: 1,
        started_at: ended_at - 15_000,
        ended_at,
        provider: Some("ollama".to_owned()),
        project: Some("house".to_owned()),
        request_model: Some(model.to_owned()),
        status: Some(status),
        ttft_ms: Some(12_000),
        duration_ms: Some(15_000),
        ..Default::default()
    };
    bench.send_all(&vec![request; count]).1.expect("they are handled");
}

fn raised(bench: &Bench<HealthMonitor>) -> Vec<HealthAlertRaised> {
    bench.host().emitted_as().expect("they have their form")
}

fn check(bench: &mut Bench<HealthMonitor>, name: &str) -> Option<Value> {
    let all = bench.command("checks", json!({})).expect("it answers").data;
    all.as_array().expect("a list").iter().find(|check| check["name"] == name).cloned()
}

#[test]
fn a_model_that_fails_is_told_and_well_again() {
    let mut bench = start(json!({}));
    let name = "evil\u{1b}[31m\nmodel";
    send(&mut bench, name, RequestStatus::Error, 9);
    bench.advance(10 * SECOND).expect("it runs");
    assert!(raised(&bench).is_empty(), "nine are no measure");
    send(&mut bench, name, RequestStatus::Timeout, 1);
    send(&mut bench, name, RequestStatus::ClientAbort, 50);
    bench.advance(10 * SECOND).expect("it runs");
    let alerts = raised(&bench);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0].name, "model_errors");
    let component = "model.evil\\u{1b}[31m\\u{a}model";
    assert_eq!(alerts[0].component, component);
    assert!(alerts[0].message.starts_with("100% of the requests to model.evil"));
    assert!(!alerts[0].message.contains(['\u{1b}', '\n']), "{}", alerts[0].message);
    assert_eq!(alerts[0].labels["scope"], "model");
    assert!(!alerts[0].labels.contains_key("lodestar_project"), "{:?}", alerts[0].labels);
    let shown = check(&mut bench, component).expect("it is on the board");
    assert_eq!(
        (shown["status"].as_str(), shown["unit"].as_str()),
        (Some("warning"), Some("ratio"))
    );
    bench.advance(20 * 60 * SECOND).expect("it runs");
    let ended: Vec<HealthAlertResolved> = bench.host().emitted_as().expect("they have their form");
    assert_eq!(ended.len(), 1);
}

#[test]
fn a_model_that_is_slow_for_long_is_told() {
    let mut bench = start(json!({"slos": {"requests": {"enabled": false}}}));
    for _ in 0..14 {
        send(&mut bench, "qwen3:8b", RequestStatus::Ok, 2);
        bench.advance(60 * SECOND).expect("it runs");
    }
    let alerts = raised(&bench);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!((&*alerts[0].name, &*alerts[0].component), ("model_slow", "model.qwen3:8b"));
    let shown = check(&mut bench, "provider.ollama").expect("it is on the board");
    assert_eq!(shown["unit"], "seconds");
    assert!(shown["message"].as_str().is_some_and(|said| said.contains("28 requests")), "{shown}");
}

#[test]
fn an_error_budget_that_burns_is_told_and_outlasts_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = Arc::new(FakeHost::new(directory.path()));
    let mut bench: Bench<HealthMonitor> =
        Bench::start_on(host.clone(), quiet(json!({}))).expect("it starts");
    send(&mut bench, "gpt-4o", RequestStatus::Ok, 70);
    send(&mut bench, "gpt-4o", RequestStatus::UpstreamCut, 30);
    bench.advance(10 * SECOND).expect("it runs");
    let alerts = raised(&bench);
    let names: Vec<&str> = alerts.iter().map(|alert| &*alert.name).collect();
    let burning = ["error_budget_fast_burn", "error_budget_medium_burn", "error_budget_slow_burn"];
    assert_eq!(names, burning);
    assert_eq!(alerts[0].component, "slo.requests");
    assert!(alerts[0].message.contains("used up 30 times too fast (limit 14.4)"));
    let told = bench.command("slo", json!({})).expect("it answers").data;
    assert_eq!((&told[0]["requests"], &told[0]["errors"]), (&json!(100), &json!(30)));
    bench.stop().expect("it stops");
    let mut bench: Bench<HealthMonitor> =
        Bench::start_on(host, quiet(json!({}))).expect("it starts");
    bench.advance(10 * SECOND).expect("it runs");
    let reply = bench.command("slo", json!({})).expect("it answers");
    assert_eq!(reply.data[0]["errors"], 30);
    assert_eq!(reply.data[0]["used_up_at"].as_str().map(str::len), Some(24), "{}", reply.data);
    assert_eq!(reply.data[0]["windows"]["1h"]["requests"], 100);
    assert_eq!(raised(&bench).len(), 3, "nothing is told twice");
    let table = reply.table.expect("people see a table");
    assert_eq!(table.rows[0][9], "the budget is used up");
}

#[test]
fn an_objective_that_makes_no_sense_is_refused() {
    let config = quiet(json!({"slos": {"chat": {"objective": "101%"}}}));
    let error = Bench::<HealthMonitor>::start(config).expect_err("it is refused").to_string();
    assert!(error.contains("between 0% and 100%"), "{error}");
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Budget {
    budget: String,
}

impl EventType for Budget {
    const TOPIC: &'static str = "usage.budget.exceeded";
    const CLASS: Class = Class::Ledger;
}

#[test]
fn a_budget_that_is_used_up_is_told_once() {
    let mut bench = start(json!({}));
    for _ in 0..3 {
        bench.send(&Budget { budget: "month\u{7}".to_owned() }).expect("it is handled");
        bench.advance(60 * SECOND).expect("it runs");
    }
    let alerts = raised(&bench);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0].name, "spend_budget");
    assert_eq!(alerts[0].component, "budget.month\\u{7}");
    let shown = check(&mut bench, "budget.month\\u{7}").expect("it is on the board");
    assert_eq!(shown["status"], "warning");
    for number in 0..200 {
        bench.send(&Budget { budget: format!("b{number}") }).expect("it is handled");
    }
    bench.advance(10 * SECOND).expect("it runs");
    let all = bench.command("checks", json!({})).expect("it answers").data;
    let budgets = all.as_array().expect("a list").iter();
    let budgets = budgets
        .filter(|check| check["name"].as_str().is_some_and(|name| name.starts_with("budget.")));
    assert_eq!(budgets.count(), 51, "fifty, and the others together");
}

#[test]
fn an_hour_far_dearer_than_usual_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = Arc::new(FakeHost::new(directory.path()));
    host.answer("usage_tracker", "summary", |args, _| {
        let cost = if args["until"].is_string() { 0.5 } else { 9.0 };
        Reply::json(&json!({"rows": [], "total": {"requests": 7, "cost_usd": cost}}))
    });
    let mut config = quiet(json!({}));
    config["checks"]["cost"]["enabled"] = json!(true);
    let mut bench: Bench<HealthMonitor> = Bench::start_on(host, config).expect("it starts");
    // The answers come on a thread of their own.
    let deadline = Instant::now() + 30 * SECOND;
    while raised(&bench).is_empty() && Instant::now() < deadline {
        bench.advance(SECOND).expect("it runs");
        std::thread::yield_now();
    }
    let alerts = raised(&bench);
    assert_eq!(alerts.first().map(|alert| &*alert.name), Some("cost_anomaly"), "{alerts:?}");
    assert!(alerts[0].message.starts_with("The last hour cost $9, far more"), "{alerts:?}");
    assert_eq!(check(&mut bench, "cost").expect("it is on the board")["value"], 9.0);
}
