use module_sdk::jiff::{Timestamp, ToSpan as _};
use serde_json::json;

use super::*;
use crate::store::Store;

const GOOD: Sample<'static> = Sample {
    model: Some("claude-opus-4-8"),
    provider: Some("anthropic"),
    project: Some("house"),
    outcome: Outcome::Good,
    cost_nano: None,
    tokens: None,
    duration_ms: Some(4_000),
    ttft_ms: Some(900),
};
const BAD: Sample<'static> =
    Sample { outcome: Outcome::Failed, duration_ms: None, ttft_ms: None, ..GOOD };

fn slos(given: serde_json::Value) -> Result<Vec<Slo>, SloError> {
    all(&serde_json::from_value(given).expect("it has the form of objectives"))
}

fn moment(seconds: u64) -> Moment {
    let start: Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
    let passed = i64::try_from(seconds).expect("it fits").seconds();
    Moment { at: start + passed, steady_ms: seconds * 1_000 }
}

fn one(given: serde_json::Value) -> Objectives {
    let slos = slos(json!({"requests": {"enabled": false}, "mine": given}));
    Objectives::new(slos.expect("it is valid"))
}

fn take(objectives: &mut Objectives, sample: &Sample<'_>, times: u32, at_s: u64) {
    (0..times).for_each(|_| objectives.take(sample, 0, moment(at_s)));
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
}

#[test]
fn burn_rates_and_what_is_left_follow_from_the_counts() {
    let mut objectives = one(json!({}));
    take(&mut objectives, &GOOD, 900, 0);
    take(&mut objectives, &GOOD, 95, 7_000);
    take(&mut objectives, &BAD, 5, 7_000);
    take(&mut objectives, &Sample { outcome: Outcome::Neither, ..BAD }, 50, 7_000);
    let standing = &objectives.standings(moment(7_001))[0];
    assert_eq!((standing.requests, standing.errors), (1_000, 5));
    close(standing.budget_remaining, 0.5);
    let rate = |window: &str| {
        let found = standing.windows.iter().find(|burn| burn.window == window);
        found.and_then(|burn| burn.burn_rate).expect("there were requests")
    };
    close(rate("5m"), 5.0);
    close(rate("1h"), 5.0);
    close(rate("6h"), 0.5);
    close(rate("3d"), 0.5);
    assert_eq!(standing.used_up_in_ms, Some(3 * 86_400_000), "half of 30 days at 5 times the rate");
    assert_eq!(standing.objective_text(), "99% of all requests");
    assert_eq!(standing.used_up_text(), "used up in 3d 0h at this rate");
    // What is over is forgotten, first by the short windows.
    let later = &objectives.standings(moment(14_000))[0];
    assert_eq!(later.windows[2].burn_rate, None);
    assert_eq!(later.used_up_in_ms, None);
    assert_eq!(objectives.standings(moment(40 * 86_400))[0].requests, 0);
}

#[test]
fn latency_judges_good_answers_of_what_is_meant() {
    let mut objectives = one(json!({
        "kind": "latency", "threshold": "3s", "objective": 0.5, "window": "7d",
        "scope": {"model": "claude-*", "project": "house"},
    }));
    take(&mut objectives, &GOOD, 3, 0);
    take(&mut objectives, &Sample { duration_ms: Some(2_999), ..GOOD }, 1, 0);
    take(&mut objectives, &BAD, 5, 0);
    take(&mut objectives, &Sample { duration_ms: None, ..GOOD }, 5, 0);
    take(&mut objectives, &Sample { model: Some("gpt-4o"), ..GOOD }, 5, 0);
    take(&mut objectives, &Sample { project: None, ..GOOD }, 5, 0);
    let standing = &objectives.standings(moment(1))[0];
    assert_eq!((standing.requests, standing.errors), (4, 3));
    close(standing.budget_remaining, -0.5);
    assert_eq!(standing.used_up_text(), "the budget is used up");
    let text = standing.objective_text();
    assert_eq!(text, "50% within 3s of model claude-*, project house");
    let mut first = one(json!({"kind": "latency", "threshold": "1s", "measure": "first_token"}));
    take(&mut first, &GOOD, 3, 0);
    assert_eq!(first.standings(moment(1))[0].errors, 0);
}

#[test]
fn counts_outlast_a_restart_and_a_clock_that_jumps() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut store = Store::open(Store::options(directory.path(), None)).expect("it opens");
    let mut objectives = one(json!({}));
    objectives.keep(&mut store, moment(0)).expect("it is read");
    take(&mut objectives, &GOOD, 80, 60);
    objectives.keep(&mut store, moment(70)).expect("it is written");
    take(&mut objectives, &BAD, 20, 80);
    objectives.keep(&mut store, moment(90)).expect("it is written");
    objectives.prune(&mut store, moment(90)).expect("it is written");
    let standing = |objectives: &Objectives, now: Moment| {
        let standing = objectives.standings(now).remove(0);
        let requests = standing.windows.iter().map(|burn| burn.requests).collect::<Vec<_>>();
        (standing.requests, standing.errors, requests)
    };
    // The next run counts its own time from 0, and has requests before the database is there.
    let mut next = one(json!({}));
    let start = Moment { at: moment(120).at, steady_ms: 0 };
    next.take(&GOOD, 0, start);
    next.keep(&mut store, start).expect("it is read");
    next.keep(&mut store, start).expect("it is read once");
    assert_eq!(standing(&next, start), (101, 20, vec![101; 5]));
    // A day ahead by the clock, a second in truth.
    let jumped = Moment { at: moment(86_400).at, steady_ms: 1_000 };
    next.keep(&mut store, jumped).expect("it is written");
    next.prune(&mut store, jumped).expect("it is written");
    assert_eq!(standing(&next, jumped), (101, 20, vec![101; 5]));
    // Another definition has no history, and the old one is kept.
    let mut other = one(json!({"scope": {"model": "gpt*"}}));
    other.keep(&mut store, start).expect("it is read");
    assert_eq!(standing(&other, start).0, 0);
    other.prune(&mut store, start).expect("it is written");
    let mut back = one(json!({"objective": "99.9%"}));
    back.keep(&mut store, start).expect("it is read");
    assert_eq!(standing(&back, start).0, 101);
    let far = Moment { at: moment(100 * 86_400).at, steady_ms: 0 };
    other.prune(&mut store, far).expect("it is written");
    let mut gone = one(json!({}));
    gone.keep(&mut store, start).expect("it is read");
    assert_eq!(standing(&gone, start).0, 0);
}

#[test]
fn what_is_reported_is_known() {
    let mut objectives = one(json!({}));
    let report = objectives.report(moment(0));
    assert_eq!(report.found[0].presence, crate::reading::Presence::Absent);
    assert!(report.readings.is_empty());
    take(&mut objectives, &GOOD, 1, 0);
    let report = objectives.report(moment(1_000));
    assert_eq!(&*report.found[0].component, "slo.mine");
    assert_eq!(report.found[0].message, "99% of all requests; the budget lasts");
    let of = |metric: &crate::metric::Metric| {
        report.readings.iter().filter(|it| it.series.metric.name == metric.name).count()
    };
    assert_eq!((of(&SLO_REQUESTS), of(&SLO_BURN_RATE), of(&SLO_BUDGET)), (5, 4, 1));
}

#[test]
fn what_is_wrong_with_an_objective_is_said_where_it_stands() {
    let check = |given: serde_json::Value, key: &str, part: &str| {
        let error = slos(json!({"mine": given})).expect_err("it is wrong");
        assert_eq!(error.key(), key, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    check(json!({"objective": 99}), "slos.mine.objective", "between 0% and 100%");
    check(json!({"objective": "100%"}), "slos.mine.objective", "between 0% and 100%");
    check(json!({"objective": "0.5GB"}), "slos.mine.objective", "between 0% and 100%");
    check(json!({"threshold": "5s"}), "slos.mine.threshold", "kind: latency");
    check(json!({"kind": "latency"}), "slos.mine.threshold", "threshold: 5s");
    check(json!({"kind": "latency", "threshold": "0s"}), "slos.mine.threshold", "1ms");
    check(json!({"window": "1d"}), "slos.mine.window", "between 3d and 90d");
    let error = slos(json!({"My SLO": {}})).expect_err("it is wrong");
    assert_eq!(error.key(), "slos.My SLO");
    let many: serde_json::Map<_, _> =
        (0..60).map(|number| (format!("slo{number}"), json!({}))).collect();
    assert_eq!(slos(many.into()).expect_err("they are too many").key(), "slos");
    assert_eq!(slos(json!({})).expect("it is shipped")[0].name.as_ref(), "requests");
}
