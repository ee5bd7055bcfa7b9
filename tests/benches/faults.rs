//! Costs of faults under load: panics in the daemon, and crashes and kills of modules in processes
//! of their own.
//!
//! Run with `cargo xtask bench faults`. It takes five minutes: each of 10,000 events that panic
//! waits 10 ms for its second attempt.

use std::time::{Duration, Instant};

use harness::{
    Sandbox, http,
    kills::{self, Random},
    telemetry, wait_until,
};
use serde_json::{Value, json};

const PANICS: u64 = 10_000;
const KILLS: u64 = 500;
/// Number of events that travel in one request.
const BATCH: u64 = 100;

/// Number of rounds in which a module is watched beside one that crashes, at `RATE` events a second
/// for `SECONDS` seconds.
const ROUNDS: usize = 7;
const RATE: u32 = 1_000;
const SECONDS: u32 = 6;

fn main() {
    panics();
    crashes();
    kills_of_runners();
}

fn report(name: &str, value: impl Into<Value>, unit: &str, rest: Value) {
    let mut figure =
        json!({"name": format!("faults: {name}"), "value": value.into(), "unit": unit});
    if let (Value::Object(figure), Value::Object(rest)) = (&mut figure, rest) {
        figure.extend(rest);
    }
    println!("{figure}");
}

/// Reports a count that must be 0.
fn none(name: &str, value: u64, unit: &str) {
    report(name, value, unit, json!({"goal": {"at_most": 0, "of": "value"}}));
}

/// Measures events that are handled at the second attempt each, since the first one panics.
fn panics() {
    let calm = handle_all("none");
    let shaken = handle_all("event_panics_at_times");
    let per_event = |it: &Handled| it.seconds * 1e3 / PANICS as f64;
    report(
        "panics in process",
        shaken.restarts,
        "",
        json!({"goal": {"at_least": PANICS, "of": "value"}}),
    );
    none("daemons that panics ended", u64::from(!shaken.lives), "");
    none("events that panics lost", PANICS - shaken.handled, "events");
    let baseline = json!({"baseline": {"name": "without a panic", "value": per_event(&calm)}});
    report("an event that panics once", per_event(&shaken), "ms", baseline);
}

struct Handled {
    seconds: f64,
    handled: u64,
    restarts: u64,
    lives: bool,
}

/// Sends as many events as there are to be panics and waits until all are dealt with.
fn handle_all(fault: &str) -> Handled {
    let config = format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  misbehaver:\n    fault: {fault}\n    \
         restart: {{limit: 1000000, backoff_max_ms: 1}}\nlog:\n  level: error\nmetrics:\n  listen: \
         127.0.0.1:0\n"
    );
    let sandbox = Sandbox::new(&["ingest", "misbehaver"], &config);
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let begin = Instant::now();
    for batch in 0..PANICS / BATCH {
        let ids: Vec<String> = (0..BATCH).map(|index| format!("{batch}-{index}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let body = telemetry::claude_code_many("s", &ids).to_string();
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
    }
    let number = |module: &Value, key: &str| module["events"][key].as_u64().unwrap_or_default();
    let module = wait_until("all events are dealt with", || {
        let module = daemon.module("misbehaver");
        let done = ["handled", "dead", "dropped"].map(|key| number(&module, key));
        (!daemon.lives() || done.into_iter().sum::<u64>() >= PANICS).then_some(module)
    });
    Handled {
        seconds: begin.elapsed().as_secs_f64(),
        handled: number(&module, "handled"),
        restarts: module["restarts"].as_u64().unwrap_or_default(),
        lives: daemon.lives(),
    }
}

/// Measures what `usage_tracker` notices of a module that crashes at its first event and starts
/// again once a second all the time. By default it would be quarantined after the fifth crash.
fn crashes() {
    let mut rounds: Vec<(f64, f64)> = (0..ROUNDS)
        .map(|_| {
            let alone = handler_p99_us(false);
            (handler_p99_us(true), alone)
        })
        .collect();
    rounds.sort_by(|left, right| f64::total_cmp(&(left.0 / left.1), &(right.0 / right.1)));
    let (beside, alone) = rounds[ROUNDS / 2];
    let rest = json!({
        "baseline": {"name": "without", "value": alone}, "goal": {"at_most": 1.1, "of": "ratio"},
    });
    report("p99 of a handler while another module crashes", beside, "us", rest);
}

/// Returns the 99th percentile of how long `usage_tracker` takes for the events handed to it, as
/// the daemon accounts for it, where nothing else is to be done or beside a module that crashes.
fn handler_p99_us(crashing: bool) -> f64 {
    let mut modules = vec!["ingest", "usage_tracker"];
    let mut config = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    rate_limit: \
                      {requests_per_second: 100000, burst: 100000}\n  usage_tracker:\n"
        .to_owned();
    if crashing {
        modules.push("misbehaver");
        config += "  misbehaver:\n    isolation: process\n    fault: event_segfaults\n    \
                   restart: {limit: 1000000, backoff_max_ms: 1000}\n";
    }
    config += "log:\n  level: error\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&modules, &config);
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let begin = Instant::now();
    for number in 0..RATE * SECONDS {
        let due = begin + Duration::from_secs(1) * number / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // What `misbehaver` looks for.
        let body = telemetry::claude_code("s", &format!("poison-{number}")).to_string();
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
    }
    if crashing {
        let crashes = daemon.module("misbehaver")["restarts"].as_u64();
        assert!(crashes >= Some(u64::from(SECONDS) / 2), "{crashes:?}");
    }
    let info = sandbox.json(&["modules", "info", "usage_tracker"]);
    let calls = info["calls"].as_array().cloned().unwrap_or_default();
    let events = calls.iter().find(|call| call["kind"] == "events");
    let p99 = events.and_then(|events| events["p99_ns"].as_f64());
    p99.expect("it was handed events") / 1e3
}

fn kills_of_runners() {
    let sandbox = kills::isolated();
    let mut random = Random::new(telemetry::now_ns());
    let daemon = sandbox.start();
    let sent = kills::runners_under_load(&sandbox, &daemon, KILLS, &mut random);
    let counted = sent.counted(&sandbox);
    report("kills of runners under load", KILLS, "", json!({}));
    report("requests meanwhile", counted.requests, "", json!({}));
    none("events that kills lost", counted.lost.len() as u64, "events");
    none("events that kills had counted twice", counted.twice.len() as u64, "events");
    assert!(daemon.stop().success());
}
