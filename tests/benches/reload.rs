//! Costs of a reload for those who use the module meanwhile: 1,100 of them under load.
//!
//! Run with `cargo xtask bench reload`, on a quiet machine. It takes five minutes: a reload takes
//! nearly a tenth of a second, and there are more of them than the C library has thread-local keys.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use harness::{Daemon, KeepAlive, Sandbox, http, telemetry};
use serde_json::{Value, json};

/// Number of reloads, more than the 1,024 thread-local keys of glibc: a leak of one key per reload
/// ends before.
const RELOADS: u64 = 1_100;
/// Number of reloads before memory is watched: what is needed once is there then.
const WARM: u64 = 100;
const CLIENTS: usize = 16;
/// Number of requests per second, with `EVENTS` events each.
const REQUESTS: u64 = 50;
const EVENTS: usize = 20;
/// Number of events that are sent before memory is watched: more than the requests that `ingest`
/// remembers, so that its memory is full.
const BEFORE: usize = 60_000;
/// Number of these events that travel in one request.
const AT_ONCE: usize = 500;
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time for which the load is watched without reloads; what it takes in the time of all
/// reloads follows from that.
const ALONE: Duration = Duration::from_secs(60);

fn main() {
    let reloaded = unloading();
    let alone = load_alone(reloaded.warm, reloaded.whole);
    figure(
        "memory beyond what the load takes",
        json!(reloaded.growth_kib - alone),
        "KiB",
        json!({"baseline": {"name": "the load alone", "value": alone},
               "goal": {"at_most": 2048, "of": "value"}}),
    );
    keeping();
}

fn figure(name: &str, value: Value, unit: &str, rest: Value) {
    let mut figure = json!({"name": format!("reload: {name}"), "value": value, "unit": unit});
    if let (Value::Object(figure), Value::Object(rest)) = (&mut figure, rest) {
        figure.extend(rest);
    }
    println!("{figure}");
}

fn at_most(goal: impl Into<Value>) -> Value {
    json!({"goal": {"at_most": goal.into(), "of": "value"}})
}

fn sandbox(unload: bool) -> Sandbox {
    let config = format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    rate_limit: {{requests_per_second: \
         100000, burst: 100000}}\n  gear:\n    listen: 127.0.0.1:0\n    unload: \
         {unload}\nmetrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["ingest", "gear"], &config)
}

/// Durations of the reloads of [`unloading`], and the growth of memory.
struct Reloaded {
    /// Time until memory was first measured; `whole` is the time until the second measurement.
    warm: Duration,
    whole: Duration,
    growth_kib: i64,
}

/// Runs all reloads, of a module that is unmapped each time.
fn unloading() -> Reloaded {
    let sandbox = sandbox(true);
    let daemon = sandbox.start();
    let load = Load::default();
    let begin = Instant::now();
    let (mut saved, mut warm, mut memory) = (Vec::new(), Duration::ZERO, (0, 0));
    load.during(&daemon, || {
        for reload in 0..RELOADS {
            let begin_one = Instant::now();
            // Two builds that differ in their hash take turns.
            sandbox.replace_library("gear", u8::from(reload % 2 == 0));
            wait_for_generation(&daemon, reload + 2);
            saved.push(begin_one.elapsed().as_secs_f64() * 1e3);
            if reload == WARM {
                warm = begin.elapsed();
                memory.0 = resident_kib(&daemon);
            }
        }
        memory.1 = resident_kib(&daemon);
    });
    let whole = begin.elapsed();
    load.report(&sandbox, "");
    let mut switched = switches(&sandbox);
    figure("events wait for the switch, p50", json!(median(&mut switched)), "ms", at_most(10));
    figure("saved to running, p50", json!(median(&mut saved)), "ms", at_most(100));
    assert!(daemon.stop().success());
    Reloaded { warm, whole, growth_kib: memory.1 - memory.0 }
}

/// Measures how much more memory the same load takes without a reload, in KiB for the same time.
fn load_alone(warm: Duration, whole: Duration) -> i64 {
    let sandbox = sandbox(true);
    let daemon = sandbox.start();
    let load = Load::default();
    let mut memory = (0, 0);
    let span = whole.saturating_sub(warm);
    let watched = span.min(ALONE);
    load.during(&daemon, || {
        thread::sleep(warm);
        memory.0 = resident_kib(&daemon);
        thread::sleep(watched);
        memory.1 = resident_kib(&daemon);
    });
    assert!(daemon.stop().success());
    let parts = span.as_secs_f64() / watched.as_secs_f64().max(1.0);
    ((memory.1 - memory.0) as f64 * parts) as i64
}

/// Reloads a module that stays mapped, until that is refused; everything goes on then.
fn keeping() {
    let sandbox = sandbox(false);
    let daemon = sandbox.start();
    let load = Load::default();
    let mut reloads = 0;
    load.during(&daemon, || {
        let refused = loop {
            let output = sandbox.lodestar(&["modules", "reload", "gear"]);
            if output.code != 0 || reloads == RELOADS {
                break output;
            }
            reloads += 1;
        };
        assert!(refused.stderr.contains("restart needed"), "{refused:#?}");
        let requests = load.requests.load(Ordering::Relaxed) + 1_000;
        while load.requests.load(Ordering::Relaxed) < requests {
            thread::sleep(Duration::from_millis(2));
        }
    });
    figure("reloads until `restart needed` by default", json!(reloads), "", json!({}));
    load.report(&sandbox, " by default");
    assert!(daemon.stop().success(), "it goes on and ends as always");
}

/// Counters of the clients.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    requests: AtomicU64,
    failed: AtomicU64,
    accepted: AtomicU64,
}

impl Load {
    /// Runs `act` while clients ask and events are sent.
    fn during(&self, daemon: &Daemon<'_>, act: impl FnOnce()) {
        let address = daemon.address("gear", "http");
        for part in 0..BEFORE / AT_ONCE {
            self.send(&daemon.address("ingest", "http"), &format!("before-{part}"), AT_ONCE);
        }
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| self.ask(&address));
            }
            scope.spawn(|| self.send_steadily(&daemon.address("ingest", "http")));
            act();
            self.stop.store(true, Ordering::Relaxed);
        });
    }

    fn ask(&self, address: &str) {
        let mut client = KeepAlive::new(address);
        while !self.stop.load(Ordering::Relaxed) {
            match client.get("/") {
                Ok(200) => self.requests.fetch_add(1, Ordering::Relaxed),
                _ => self.failed.fetch_add(1, Ordering::Relaxed),
            };
            // Sixteen clients that never rest would be a figure of the scheduler.
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn send_steadily(&self, address: &str) {
        let begin = Instant::now();
        for number in 0_u32.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            self.send(address, &number.to_string(), EVENTS);
            let next =
                begin + Duration::from_secs(1) / u32::try_from(REQUESTS).expect("small") * number;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn send(&self, address: &str, name: &str, events: usize) {
        let ids: Vec<String> = (0..events).map(|index| format!("{name}-{index}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let body = telemetry::claude_code_many("s", &ids).to_string();
        let answer = http::post(address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
        self.accepted.fetch_add(events as u64, Ordering::Relaxed);
    }

    fn report(&self, sandbox: &Sandbox, when: &str) {
        let (failed, requests) = (&self.failed, &self.requests);
        let (failed, requests) = (failed.load(Ordering::Relaxed), requests.load(Ordering::Relaxed));
        let accepted = self.accepted.load(Ordering::Relaxed);
        Self::wait_until_handled(sandbox);
        let deliveries = std::fs::read_to_string(sandbox.state().join("data/gear/deliveries"));
        let deliveries = deliveries.expect("gear writes them");
        let all = deliveries.lines().count() as u64;
        let distinct = deliveries.lines().collect::<HashSet<_>>().len() as u64;
        // An event that nobody sent would be one that was taken for two.
        let seen = distinct.min(accepted);
        let count = |what: &str, value: u64, unit: &str, rest: Value| {
            figure(&format!("{what}{when}"), json!(value), unit, rest);
        };
        count("requests answered", requests, "requests", json!({}));
        count("events accepted", accepted, "events", json!({}));
        count("requests that failed", failed, "requests", at_most(0));
        count("events lost", accepted - seen, "events", at_most(0));
        count("events handled twice", all - seen, "events", at_most(0));
    }

    /// Waits until the module has nothing left to handle.
    fn wait_until_handled(sandbox: &Sandbox) {
        let begin = Instant::now();
        let pending = || {
            let info = sandbox.json(&["modules", "info", "gear"]);
            info["events"]["pending"].as_u64().expect("a number")
        };
        while pending() > 0 && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn wait_for_generation(daemon: &Daemon<'_>, generation: u64) {
    let begin = Instant::now();
    while daemon.module("gear")["generation"].as_u64() < Some(generation) {
        assert!(begin.elapsed() < PATIENCE, "{}", daemon.log());
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns for how long events waited at each switch, in milliseconds, from the module's history.
fn switches(sandbox: &Sandbox) -> Vec<f64> {
    let why = sandbox.json(&["modules", "why", "gear", "--lines", &RELOADS.to_string()]);
    let history = why["history"].as_array().cloned().unwrap_or_default();
    let details = history.iter().filter_map(|entry| entry["detail"].as_str());
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
