use module_sdk::jiff::ToSpan as _;

use super::*;
use crate::{
    board::Board,
    metric::{FIRST_TOKEN, OPERATION_DURATION},
    reading::{Found, Presence},
};

const SAMPLE: Sample<'static> = Sample {
    model: Some("qwen3:8b"),
    provider: Some("ollama"),
    project: Some("house"),
    outcome: Outcome::Good,
    cost_nano: Some(2_000_000_000),
    tokens: Some(1_000),
    duration_ms: Some(4_000),
    ttft_ms: Some(200),
};

const FAILED: Sample<'static> = Sample {
    outcome: Outcome::Failed,
    cost_nano: None,
    tokens: None,
    duration_ms: None,
    ttft_ms: None,
    ..SAMPLE
};

fn moment(seconds: u64) -> Moment {
    let start: module_sdk::jiff::Timestamp = "2026-11-20T10:00:00Z".parse().expect("a time");
    let passed = i64::try_from(seconds).expect("it fits").seconds();
    Moment { at: start + passed, steady_ms: seconds * 1_000 }
}

/// Returns the value of one component.
fn value(
    windows: &Windows,
    (metric, function, over_s): (&'static Metric, Function, u64),
    component: &str,
    at_s: u64,
) -> Option<f64> {
    let all = windows.each(metric, function, over_s * 1_000, moment(at_s));
    let mut own = all.iter().filter(|(series, _)| &*series.component == component);
    let value = own.next().map(|(_, value)| *value);
    assert!(own.next().is_none(), "one series of a component");
    value
}

#[test]
fn figures_are_those_of_their_scope() {
    let mut windows = Windows::default();
    for outcome in [SAMPLE, SAMPLE, SAMPLE, FAILED] {
        windows.take(&outcome, 0, moment(100));
    }
    let other = Sample { model: Some("gpt-4o"), provider: Some("openai"), project: None, ..SAMPLE };
    windows.take(&other, 0, moment(100));
    windows.take(&Sample { outcome: Outcome::Neither, ..other }, 0, moment(100));
    let check = |metric, function, component: &str, expected: f64| {
        let found = value(&windows, (metric, function, 600), component, 101);
        let found = found.unwrap_or_else(|| panic!("no {} of {component}", metric.name));
        assert!((found - expected).abs() < expected * 0.016 + 1e-9, "{component}: {found}");
    };
    check(&REQUESTS, Function::Count, "requests", 5.0);
    check(&REQUESTS, Function::Count, "model.gpt-4o", 1.0);
    check(&REQUEST_ERROR_RATIO, Function::Avg, "model.qwen3:8b", 0.25);
    check(&REQUEST_ERROR_RATIO, Function::Avg, "provider.openai", 0.0);
    check(&REQUEST_ERRORS, Function::Sum, "project.house", 1.0);
    check(&OPERATION_DURATION, Function::P95, "provider.ollama", 4.0);
    check(&OPERATION_DURATION, Function::Avg, "provider.ollama", 4.0);
    check(&FIRST_TOKEN, Function::P99, "project.house", 0.2);
    check(&REQUEST_COST, Function::Sum, "provider.ollama", 6.0);
    check(&REQUEST_TOKENS, Function::Max, "requests", 1_000.0);
    check(&REQUEST_TOKENS, Function::Count, "requests", 5.0);
}

#[test]
fn what_was_is_forgotten_and_what_is_unknown_is_absent() {
    let mut windows = Windows::default();
    let ratio = (&REQUEST_ERROR_RATIO, Function::Avg, 600);
    assert_eq!(value(&windows, ratio, "requests", 0), None);
    windows.take(&FAILED, 0, moment(0));
    assert_eq!(value(&windows, ratio, "requests", 599), Some(1.0));
    assert_eq!(value(&windows, ratio, "requests", 720), None);
    let p95 = (&OPERATION_DURATION, Function::P95, 600);
    assert_eq!(value(&windows, p95, "requests", 0), None, "a failure has no response time");
    let day = (&REQUEST_ERRORS, Function::Sum, 86_400);
    assert_eq!(value(&windows, day, "requests", 20 * 3_600), Some(1.0));
    assert_eq!(value(&windows, day, "requests", 100 * 3_600), None);
}

#[test]
fn late_requests_change_nothing_and_those_of_the_future_are_now() {
    let mut windows = Windows::default();
    let minute = (&REQUESTS, Function::Count, 60);
    windows.take(&SAMPLE, 5 * 86_400_000, moment(50));
    assert_eq!(windows.scopes().count(), 1, "nobody is known by it");
    windows.take(&SAMPLE, 300_000, moment(50));
    assert_eq!(value(&windows, minute, "requests", 50), None);
    assert_eq!(value(&windows, (&REQUESTS, Function::Count, 600), "requests", 50), Some(1.0));
    windows.take(&SAMPLE, -86_400_000, moment(50));
    assert_eq!(value(&windows, minute, "requests", 50), Some(1.0));
    windows.take(&SAMPLE, i64::MIN, moment(50));
    windows.take(&SAMPLE, i64::MAX, moment(50));
    assert_eq!(value(&windows, minute, "requests", 50), Some(2.0));
}

#[test]
fn ten_thousand_names_stay_bounded() {
    let mut windows = Windows::default();
    for round in 0..3 {
        for number in 0..10_000_u64 {
            let name = format!("name{number}\u{1b}[31m");
            let (model, provider, project) = (Some(&*name), Some(&*name), Some(&*name));
            let sample = Sample { model, provider, project, ..SAMPLE };
            windows.take(&sample, 0, moment(round * 60));
        }
    }
    assert_eq!(windows.scopes().count(), 1 + 201 + 51 + 201);
    let minutes: usize = windows.scopes().map(|scope| scope.minutes.iter().count()).sum();
    assert_eq!(minutes, 3 * 454);
    let others = (&REQUESTS, Function::Count, 600);
    assert_eq!(value(&windows, others, "model.other", 130), Some(3.0 * 9_800.0));
    let all = windows.each(&REQUESTS, Function::Count, 600_000, moment(130));
    assert!(all.iter().all(|(series, _)| !series.component.contains('\u{1b}')));
    for number in 0..2 * REMEMBERED {
        assert!(windows.is_new(&number.to_string()));
    }
    assert_eq!((windows.seen.known.len(), windows.seen.order.len()), (REMEMBERED, REMEMBERED));
    // Names that have been silent make room.
    windows.take(&Sample { model: Some("late"), ..SAMPLE }, 0, moment(3 * 3_600));
    assert_eq!(value(&windows, others, "model.late", 3 * 3_600), Some(1.0));
    windows.report(&Board::default(), moment(6 * 86_400));
    assert_eq!(windows.scopes().count(), 1);
}

#[test]
fn a_request_that_is_reported_twice_counts_once() {
    let mut windows = Windows::default();
    let told = ["a", "b", "a", "", ""].map(|key| windows.is_new(key));
    assert_eq!(told, [true, true, false, true, true]);
}

#[test]
fn one_model_is_one_component_however_it_is_spelt() {
    let mut windows = Windows::default();
    for name in ["openrouter/anthropic/claude-4.5-sonnet", "claude-sonnet-4-5-20250929"] {
        windows.take(&Sample { model: Some(name), ..SAMPLE }, 0, moment(0));
    }
    let count = (&REQUESTS, Function::Count, 600);
    let reported = "model.openrouter/anthropic/claude-4.5-sonnet";
    assert_eq!(value(&windows, count, reported, 1), Some(2.0));
    let checked: Component = "model.claude-sonnet-4-5".into();
    windows.join([&checked].into_iter());
    assert_eq!(value(&windows, count, &checked, 1), Some(2.0));
    assert_eq!(value(&windows, count, reported, 1), None);
}

#[test]
fn only_what_no_check_looks_at_is_reported() {
    let mut windows = Windows::default();
    let mut board = Board::default();
    let report = windows.report(&board, moment(0));
    assert_eq!((report.found.len(), report.found[0].presence), (1, Presence::Absent));
    windows.take(&SAMPLE, 0, moment(0));
    windows.take(&FAILED, 0, moment(0));
    let report = windows.report(&board, moment(1));
    let names: Vec<&str> = report.found.iter().map(|found| &*found.component).collect();
    assert_eq!(names, ["requests", "model.qwen3:8b", "provider.ollama", "project.house"]);
    assert_eq!(report.found[1].message, "p95 of 2 requests within the last hour, 1 failed");
    assert_eq!(report.readings.len(), 4);
    board.take(CHECK, report.found, moment(1).at);
    let model: Component = "model.qwen3:8b".into();
    // The check of providers takes the model over, and gives it back.
    board.take("providers", vec![Found::unknown(&model, "no answer")], moment(2).at);
    let report = windows.report(&board, moment(3));
    assert_eq!(report.found.len(), 3);
    board.take(CHECK, report.found, moment(3).at);
    let entry = board.get(&model).expect("the check still reports it");
    assert_eq!((entry.check, entry.presence), ("providers", Presence::Unknown));
    board.take("providers", Vec::new(), moment(4).at);
    assert_eq!(windows.report(&board, moment(5)).found.len(), 4);
}

#[test]
fn windows_outlast_a_reload() {
    let mut windows = Windows::default();
    windows.take(&SAMPLE, 0, moment(60));
    windows.take(&FAILED, 8 * 60_000, moment(600));
    windows.take(&SAMPLE, 0, moment(7_000));
    let kept = serde_json::to_vec(&windows.keep(moment(7_010))).expect("it is written");
    let mut next = Windows::default();
    // The next generation counts its own time from 0, and began ten seconds later.
    let start = Moment { at: moment(7_020).at, steady_ms: 0 };
    next.take_over(serde_json::from_slice(&kept).expect("it is read"), start);
    let of = |metric, function, over_ms| {
        let all = next.each(metric, function, over_ms, start);
        all.iter().find(|(series, _)| &*series.component == "model.qwen3:8b").map(|(_, it)| *it)
    };
    assert_eq!(of(&REQUESTS, Function::Count, 60_000), Some(1.0));
    assert_eq!(of(&REQUESTS, Function::Count, 4 * 3_600_000), Some(3.0));
    assert_eq!(of(&REQUEST_ERRORS, Function::Sum, 4 * 3_600_000), Some(1.0));
    let p95 = of(&OPERATION_DURATION, Function::P95, 600_000).expect("it is kept");
    assert!((p95 - 4.0).abs() < 0.07, "{p95}");
    assert!(serde_json::from_str::<Kept>("{}").is_err());
}
