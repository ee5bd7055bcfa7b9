//! What a reload costs those who use the module meanwhile: 1,000 of them under load.
//!
//! Run with `cargo xtask bench reload`, on a quiet machine.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, KeepAlive, Sandbox, http, telemetry};
use serde_json::{Value, json};

const RELOADS: u64 = 1_000;
const CLIENTS: usize = 16;
/// Events per second: so many requests a second, with so many events each.
const REQUESTS: u64 = 50;
const EVENTS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    rate_limit: \
                      {requests_per_second: 100000, burst: 100000}\n  gear:\n    listen: \
                      127.0.0.1:0\n    unload: true\nmetrics:\n  listen: 127.0.0.1:0\n";

/// What the clients saw.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    accepted: AtomicU64,
}

fn main() {
    let sandbox = Sandbox::new(&["ingest", "gear"], CONFIG);
    let daemon = sandbox.start();
    let load = Load::default();
    let (mut saved, mut memory) = (Vec::new(), (0, 0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| ask(&daemon.address("gear", "http"), &load));
        }
        scope.spawn(|| send(&daemon, &load));
        for reload in 0..RELOADS {
            let begin = Instant::now();
            // Two builds that differ in their hash take turns.
            sandbox.replace_library("gear", u8::from(reload % 2 == 0));
            wait_for_generation(&daemon, reload + 2);
            saved.push(begin.elapsed().as_secs_f64() * 1e3);
            match reload {
                100 => memory.0 = resident_kib(&daemon),
                999 => memory.1 = resident_kib(&daemon),
                _ => {}
            }
        }
        load.stop.store(true, Ordering::Relaxed);
    });
    let seen = handled(&sandbox, &load);
    let accepted = load.accepted.load(Ordering::Relaxed);
    let figure = |name: &str, value: Value, unit: &str, at_most: Value| {
        println!(
            "{}",
            json!({"name": format!("reload: {name}"), "value": value, "unit": unit,
                   "goal": {"at_most": at_most, "of": "value"}})
        );
    };
    let failed = load.failed.load(Ordering::Relaxed);
    figure("requests that failed", json!(failed), "requests", json!(0));
    figure("events lost", json!(accepted.saturating_sub(seen)), "events", json!(0));
    figure("events handled twice", json!(seen.saturating_sub(accepted)), "events", json!(0));
    let mut switched = switches(&sandbox);
    figure("events wait for the switch, p50", json!(median(&mut switched)), "ms", json!(10));
    figure("saved to running, p50", json!(median(&mut saved)), "ms", json!(100));
    let growth = memory.1 - memory.0;
    figure("memory from the 100th to the last", json!(growth), "KiB", json!(2048));
    let requests = load.requests.load(Ordering::Relaxed);
    println!("{}", json!({"name": "reload: requests answered", "value": requests, "unit": ""}));
    assert!(daemon.stop().success());
}

fn ask(address: &str, load: &Load) {
    let mut client = KeepAlive::new(address);
    while !load.stop.load(Ordering::Relaxed) {
        match client.get("/") {
            Ok(200) => load.requests.fetch_add(1, Ordering::Relaxed),
            _ => load.failed.fetch_add(1, Ordering::Relaxed),
        };
        // Sixteen clients that never rest would be a figure of the scheduler.
        thread::sleep(Duration::from_millis(5));
    }
}

fn send(daemon: &Daemon<'_>, load: &Load) {
    let address = daemon.address("ingest", "http");
    let begin = Instant::now();
    for number in 0_u32.. {
        if load.stop.load(Ordering::Relaxed) {
            return;
        }
        let ids: Vec<String> = (0..EVENTS).map(|index| format!("{number}-{index}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let body = telemetry::claude_code_many("s", &ids).to_string();
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
        load.accepted.fetch_add(EVENTS as u64, Ordering::Relaxed);
        let next =
            begin + Duration::from_secs(1) / u32::try_from(REQUESTS).expect("small") * number;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn wait_for_generation(daemon: &Daemon<'_>, generation: u64) {
    let begin = Instant::now();
    while daemon.module("gear")["generation"].as_u64() < Some(generation) {
        assert!(begin.elapsed() < PATIENCE, "{}", daemon.log());
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many events the module has handled when all must be there.
fn handled(sandbox: &Sandbox, load: &Load) -> u64 {
    let accepted = load.accepted.load(Ordering::Relaxed);
    let begin = Instant::now();
    loop {
        let seen = sandbox.json(&["gear", "seen"])["seen"].as_u64().expect("a number");
        if seen >= accepted || begin.elapsed() > PATIENCE {
            return seen;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// For how long events waited at each switch, in milliseconds, from the module's story.
fn switches(sandbox: &Sandbox) -> Vec<f64> {
    let why = sandbox.json(&["modules", "why", "gear", "--lines", "1000"]);
    let story = why["story"].as_array().cloned().unwrap_or_default();
    let details = story.iter().filter_map(|chapter| chapter["detail"].as_str());
    details
        .filter_map(|detail| {
            let (_, rest) = detail.split_once("its events waited ")?;
            rest.strip_suffix(" ms")?.parse().ok()
        })
        .collect()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn resident_kib(daemon: &Daemon<'_>) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
    let status = status.expect("the daemon lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("the kernel tells it")
}
