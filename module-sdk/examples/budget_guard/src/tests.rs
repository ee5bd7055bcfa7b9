//! Tests of the module without a daemon, over the same ABI.

use std::{path::Path, sync::Arc, time::Duration};

use module_sdk::{
    ErrorKind,
    events::LlmRequestCompleted,
    testing::{Bench, FakeHost},
};
use serde_json::{Value, json};

use super::BudgetGuard;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn host(directory: &Path, now: &str) -> Arc<FakeHost> {
    let host = Arc::new(FakeHost::new(directory));
    host.set_now(now.parse().expect("a time"));
    host
}

fn start(host: &Arc<FakeHost>) -> Bench<BudgetGuard> {
    let config = json!({"limit_usd": 1.1, "timezone": "Europe/Vienna"});
    Bench::start_on(host.clone(), config).expect("it starts")
}

/// Returns a request that ended `hours_ago` hours ago.
fn request(host: &FakeHost, cost_nano_usd: Option<i64>, hours_ago: u32) -> LlmRequestCompleted {
    let ended_at = (host.now() - HOUR * hours_ago).as_millisecond();
    LlmRequestCompleted { cost_nano_usd, ended_at, ..Default::default() }
}

fn spend(bench: &mut Bench<BudgetGuard>, cost_nano_usd: i64) {
    let request = request(bench.host(), Some(cost_nano_usd), 0);
    bench.send(&request).expect("it is handled");
}

fn status(bench: &mut Bench<BudgetGuard>) -> Value {
    bench.command("status", json!({})).expect("it answers").data
}

fn warnings(host: &FakeHost) -> usize {
    host.logged().iter().filter(|line| line.message.contains("more than it may")).count()
}

#[test]
fn it_warns_once_when_the_limit_is_passed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T10:00:00Z");
    let mut bench = start(&host);
    let free = request(&host, None, 0);
    bench.send(&free).expect("it is handled");
    // Exactly the limit, which as a floating-point number would be a little more.
    for (cost, warned) in [(600_000_000, 0), (500_000_000, 0), (1, 1), (600_000_000, 1)] {
        spend(&mut bench, cost);
        assert_eq!(warnings(&host), warned, "{:?}", host.logged());
    }
    assert_eq!(status(&mut bench), json!({"day": "2026-11-20", "spent_nano_usd": 1_700_000_001}));
}

#[test]
fn a_day_is_one_of_the_calendar() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // An hour before the end of a day in Vienna that has 25 hours.
    let host = host(directory.path(), "2026-10-25T22:00:00Z");
    let mut bench = start(&host);
    spend(&mut bench, 7);
    bench.advance(HOUR - Duration::from_secs(1)).expect("no timer fails");
    assert_eq!(status(&mut bench), json!({"day": "2026-10-25", "spent_nano_usd": 7}));
    bench.advance(Duration::from_secs(11)).expect("no timer fails");
    assert_eq!(status(&mut bench), json!({"day": "2026-10-26", "spent_nano_usd": 0}));
    let written = std::fs::read_to_string(directory.path().join("spent.json"));
    assert!(written.expect("it is kept").contains("2026-10-26"), "the timer has begun the day");
    // What ended yesterday and comes late is not of today.
    let late = request(&host, Some(5), 1);
    bench.send(&late).expect("it is handled");
    spend(&mut bench, 2);
    assert_eq!(status(&mut bench)["spent_nano_usd"], 2);
}

#[test]
fn a_restart_forgets_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let host = host(directory.path(), "2026-11-20T10:00:00Z");
    let mut bench = start(&host);
    spend(&mut bench, 1_000_000_000);
    // As after a crash: nobody tells it to stop.
    drop(bench);
    let mut bench = start(&host);
    spend(&mut bench, 200_000_000);
    assert_eq!(warnings(&host), 1, "{:?}", host.logged());
    assert_eq!(status(&mut bench)["spent_nano_usd"], 1_200_000_000);
    // Over midnight.
    drop(bench);
    host.set_now("2026-11-21T10:00:00Z".parse().expect("a time"));
    let mut bench = start(&host);
    assert_eq!(status(&mut bench), json!({"day": "2026-11-21", "spent_nano_usd": 0}));
}

#[test]
fn a_wrong_value_is_named() {
    let check = |config: Value, part: &str| {
        let error = Bench::<BudgetGuard>::start(config).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(part), "{error}");
    };
    check(json!({"limit_eur": 1}), "limit_eur");
    check(json!({"limit_usd": 0}), "limit_usd: must be more than 0");
    check(json!({"limit_usd": "ten"}), "limit_usd: is no amount of US dollars");
    check(json!({"limit_usd": 1, "timezone": "Wien"}), "timezone: is no known time zone");
}
