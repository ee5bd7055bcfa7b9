//! Duration of a call of another module, and number of calls that are lost when very many are under
//! way at once. Both modules run in a real daemon.
//!
//! The baseline is the same command asked by `lodestar` over the control socket, its start left
//! out: what a module would have without calls. What the machine takes to wake a thread and to be
//! woken by it is told beside, once over a channel and once over a pair of sockets: a call in
//! process wakes three threads, one to or from a process of its own four or five.
//!
//! Run with `cargo xtask bench calls`, on a quiet machine.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::mpsc::channel,
    time::Instant,
};

use harness::{Sandbox, http};
use serde_json::{Value, json};

/// Number of calls that are made one after the other.
const IN_TURN: &str = "20000";

/// Number of calls that are under way at once.
const AT_ONCE: u64 = 10_000;

/// Number of times that two threads wake each other.
const HAND_OVERS: usize = 20_000;

/// Number of requests of which the baseline is the median.
const REQUESTS: usize = 500;

fn main() {
    report(json!({
        "name": "calls: there and back between two threads, channel, p50",
        "value": over_a_channel(), "unit": "us",
    }));
    report(json!({
        "name": "calls: there and back between two threads, sockets, p50",
        "value": over_sockets(), "unit": "us",
    }));
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

/// Returns the median time that `once` takes, in microseconds.
fn median(count: usize, mut once: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let begin = Instant::now();
            once();
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Returns how long a thread takes to wake another one over a channel and to be woken by it.
fn over_a_channel() -> f64 {
    let ((there, asked), (back, answers)) = (channel::<u64>(), channel::<u64>());
    let other = std::thread::spawn(move || {
        asked.into_iter().try_for_each(|value| back.send(value)).expect("it is awaited");
    });
    let time = median(HAND_OVERS, || {
        there.send(1).expect("it is received");
        answers.recv().expect("it is answered");
    });
    drop(there);
    other.join().expect("no panic");
    time
}

/// Returns the same over a pair of sockets.
fn over_sockets() -> f64 {
    let (mut here, mut there) = UnixStream::pair().expect("descriptors are left");
    let other = std::thread::spawn(move || {
        let mut byte = [0];
        while there.read_exact(&mut byte).is_ok() {
            there.write_all(&byte).expect("it is awaited");
        }
    });
    let time = median(HAND_OVERS, || {
        let mut byte = [1];
        here.write_all(&byte).expect("it is read");
        here.read_exact(&mut byte).expect("it is answered");
    });
    drop(here);
    other.join().expect("no panic");
    time
}

/// Returns the median time of the same command over the control socket, in microseconds.
fn asked(sandbox: &Sandbox) -> f64 {
    let body = "{\"value\":1}";
    let request = format!(
        "POST /v1/modules/callee/commands/echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    median(REQUESTS, || {
        let answer = http::raw_unix(&sandbox.socket(), &request);
        assert_eq!(answer.expect("the daemon answers").status, 200);
    })
}
