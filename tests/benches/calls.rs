//! Duration of a call of another module, and number of calls that are lost when very many are under
//! way at once. Both modules run in a real daemon.
//!
//! The baseline is the same command asked by `lodestar` over the control socket, its start left
//! out: what a module would have without calls.
//!
//! Run with `cargo xtask bench calls`, on a quiet machine.

use std::time::Instant;

use harness::{Sandbox, http};
use serde_json::{Value, json};

/// Number of calls that are made one after the other.
const IN_TURN: &str = "20000";

/// Number of calls that are under way at once.
const AT_ONCE: u64 = 10_000;

/// Number of requests of which the baseline is the median.
const REQUESTS: usize = 500;

fn main() {
    for (caller, callee, goal) in [
        ("in_process", "in_process", Some(20.0)),
        ("process", "in_process", Some(40.0)),
        ("in_process", "process", Some(40.0)),
        ("process", "process", None),
    ] {
        measure(caller, callee, goal);
    }
}

fn measure(caller: &str, callee: &str, goal: Option<f64>) {
    let config = format!(
        "modules:\n  caller: {{isolation: {caller}}}\n  callee: {{isolation: {callee}}}\n\
         metrics:\n  listen: 127.0.0.1:0\n"
    );
    let sandbox = Sandbox::new(&["caller", "callee"], &config);
    let daemon = sandbox.start();
    let whom = ["--target", "callee", "--calls"];
    let in_turn =
        || streamed(&sandbox, &[&["caller", "ask_in_turn"], &whom[..], &[IN_TURN]].concat());
    // The first round warms up.
    let _ = in_turn();
    let told = in_turn();
    assert_eq!(told["failed"], json!([]), "a call failed");
    let words = format!("calls: {caller} to {callee}");
    for percentile in ["p50", "p99"] {
        let mut figure = json!({
            "name": format!("{words}, {percentile}"), "value": told[percentile], "unit": "us",
        });
        if percentile == "p50" {
            figure["baseline"] =
                json!({"name": "over the control socket", "value": asked(&sandbox)});
            figure["goal"] = goal.map_or(Value::Null, |us| json!({"at_most": us, "of": "value"}));
        }
        report(figure);
    }
    let begin = Instant::now();
    let count = AT_ONCE.to_string();
    let right = streamed(&sandbox, &[&["caller", "ask_at_once"], &whom[..], &[&count]].concat());
    report(json!({
        "name": format!("{words}, {AT_ONCE} at once, answered"), "value": right, "unit": "calls",
        "goal": {"at_least": AT_ONCE, "of": "value"},
    }));
    report(json!({
        "name": format!("{words}, {AT_ONCE} at once, with the command"),
        "value": begin.elapsed().as_secs_f64() * 1e3, "unit": "ms",
    }));
    assert!(daemon.stop().success());
}

/// Runs a command that streams, and returns its answer, the last line of its output.
fn streamed(sandbox: &Sandbox, args: &[&str]) -> Value {
    let output = sandbox.lodestar(&[args, &["--json"]].concat());
    let answer = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {output:#?}"))
}

/// Prints a figure as one line of JSON, without members that are `null`.
fn report(mut figure: Value) {
    if let Some(figure) = figure.as_object_mut() {
        figure.retain(|_, value| !value.is_null());
    }
    println!("{figure}");
}

/// Returns the median time of the same command over the control socket, in microseconds.
fn asked(sandbox: &Sandbox) -> f64 {
    let body = "{\"value\":1}";
    let request = format!(
        "POST /v1/modules/callee/commands/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut times: Vec<f64> = (0..REQUESTS)
        .map(|_| {
            let begin = Instant::now();
            let answer = http::raw_unix(&sandbox.socket(), &request);
            assert_eq!(answer.expect("the daemon answers").status, 200);
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
