//! The module on the bench: no daemon, the same ABI.

use std::time::Duration;

use module_sdk::{events::LlmRequestCompleted, testing::Bench};
use serde_json::json;

use super::BudgetGuard;

fn bench() -> Bench<BudgetGuard> {
    Bench::start(json!({"limit_usd": 1.0})).expect("it starts")
}

fn request(cost_nano_usd: Option<i64>) -> LlmRequestCompleted {
    LlmRequestCompleted { cost_nano_usd, ..Default::default() }
}

fn spent(bench: &mut Bench<BudgetGuard>) -> serde_json::Value {
    let reply = bench.command("status", json!({})).expect("it answers");
    reply.data["spent_nano_usd"].clone()
}

#[test]
fn it_warns_once_when_the_limit_is_passed() {
    let mut bench = bench();
    let warnings = |bench: &Bench<BudgetGuard>| bench.host().logged().len();
    bench.send(&request(Some(600_000_000))).expect("it is handled");
    bench.send(&request(None)).expect("it is handled");
    assert_eq!(warnings(&bench), 0);
    bench.send(&request(Some(600_000_000))).expect("it is handled");
    bench.send(&request(Some(600_000_000))).expect("it is handled");
    assert_eq!(warnings(&bench), 1, "{:?}", bench.host().logged());
    assert_eq!(spent(&mut bench), 1_800_000_000);
}

#[test]
fn a_new_day_begins_with_nothing() {
    let mut bench = bench();
    bench.send(&request(Some(2_000_000_000))).expect("it is handled");
    bench.advance(Duration::from_secs(24 * 60 * 60)).expect("no timer fails");
    assert_eq!(spent(&mut bench), 0);
}

#[test]
fn a_misspelt_key_is_named() {
    let error = Bench::<BudgetGuard>::start(json!({"limit_eur": 1})).expect_err("it is unknown");
    assert!(error.to_string().contains("limit_eur"), "{error}");
}
