//! The module on the bench: no daemon, the same ABI.

use std::time::Duration;

use module_sdk::{HealthStatus, events::LlmRequestCompleted, testing::Bench};
use serde_json::json;

use super::BudgetGuard;

fn request(cost_nano_usd: Option<i64>) -> LlmRequestCompleted {
    LlmRequestCompleted { cost_nano_usd, ..Default::default() }
}

#[test]
fn a_day_that_costs_too_much_is_a_warning() {
    let mut bench = Bench::<BudgetGuard>::start(json!({"limit_usd": 1.0})).expect("it starts");
    bench.send(&request(Some(600_000_000))).expect("it is handled");
    bench.send(&request(None)).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
    bench.send(&request(Some(600_000_000))).expect("it is handled");
    bench.send(&request(Some(600_000_000))).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Degraded);
    let reply = bench.command("status", json!({})).expect("it answers");
    assert_eq!(
        reply.data,
        json!({"spent_nano_usd": 1_800_000_000, "limit_nano_usd": 1_000_000_000})
    );
}

#[test]
fn a_new_day_begins_with_nothing() {
    let mut bench = Bench::<BudgetGuard>::start(json!({"limit_usd": 1.0})).expect("it starts");
    bench.send(&request(Some(2_000_000_000))).expect("it is handled");
    bench.advance(Duration::from_secs(86_400)).expect("no timer fails");
    let reply = bench.command("status", json!({})).expect("it answers");
    assert_eq!(reply.data["spent_nano_usd"], 0);
    assert_eq!(bench.health().status, HealthStatus::Ok);
}

#[test]
fn a_misspelt_key_is_named() {
    let error = Bench::<BudgetGuard>::start(json!({"limit_eur": 1})).expect_err("it is unknown");
    assert!(error.to_string().contains("limit_eur"), "{error}");
}
