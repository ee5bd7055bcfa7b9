//! Costs of the router: what it adds to an answer, how many it carries, and what it makes of
//! providers that fail.
//!
//! Every figure is taken in one run, in turns: the provider asked directly (the baseline), through
//! a bare proxy on the same HTTP library (the floor), and through `lodestard` with the router and
//! `usage_tracker`. Provider and proxy are processes of their own, so that processor time can be
//! told apart.
//!
//! Run with `cargo xtask bench gateway`, on a quiet machine; `--faults` asks ten thousand times
//! while providers are killed, slow, answer HTML and cut their streams, and compares what they
//! served with what `usage_tracker` has; `--million` looks at memory over a million requests.

mod daemon;
mod faults;
mod floor;
mod load;
mod mock;
mod process;
mod reply;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};

use daemon::Gateway;
use load::{Client, Timing, median, message, percentile};
use process::Child;

/// Requests of each kind before the first figure.
const WARM_UP: u64 = 300;
/// Rounds of every figure: each goes once to each target.
const ROUNDS: usize = 5;
/// Requests of a round, one after the other.
const IN_TURN: usize = 1_000;
/// Streams of a round, one after the other.
const STREAMS: usize = 200;
/// Streams of a round whose provider takes its time.
const SLOW_STREAMS: usize = 20;
/// Time for which a round keeps connections busy.
const BUSY: Duration = Duration::from_secs(2);
/// Gap in a stream that only a stall explains: the provider waits two milliseconds.
const STALL_MS: f64 = 30.0;

/// Prints a figure as one line of JSON.
pub(crate) fn report(figure: Value) {
    println!("{figure}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if let Some(role) = process::role() {
        return match role {
            process::Role::Mock => mock::run(),
            process::Role::Floor(upstream) => floor::run(upstream),
        };
    }
    if has("--faults") {
        return faults::run();
    }
    let mock = Child::start("mock");
    if has("--million") {
        return million(&mock);
    }
    daemon::start_to_first_answer(mock.address);
    let floor = Child::start(&format!("floor {}", mock.address));
    let gateway = Gateway::start(mock.address);
    let targets = [mock.address, floor.address, gateway.address];
    warm_up(&targets);
    gateway.sent(2 * WARM_UP);
    gateway.report_memory("at rest", None);
    answers(&targets, "1.4 KB answer", &message("m", 64, false), 0.15);
    answers(&targets, "200 KB request", &message("m", 200_000, false), 0.5);
    streams(&targets);
    stalls(&targets);
    gateway.sent((ROUNDS * (2 * IN_TURN + STREAMS + SLOW_STREAMS)) as u64);
    for connections in [16, 64] {
        throughput(&targets, &mock, &floor, &gateway, connections);
    }
    gateway.report_memory("under load", Some(45.0));
    gateway.report_lost();
}

/// Opens connections everywhere, lets discovery happen, and fills what is filled once.
fn warm_up(targets: &[SocketAddr; 3]) {
    for target in targets {
        let mut client = Client::new(*target);
        for stream in [false, true] {
            for _ in 0..WARM_UP {
                client.ask(&message("m", 64, stream));
            }
        }
    }
}

/// Asks every target in turns, one request after the other; returns all timings of each.
fn in_turns(targets: &[SocketAddr; 3], count: usize, body: &str) -> [Vec<Timing>; 3] {
    let mut clients = targets.map(Client::new);
    let mut timings: [Vec<Timing>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (client, timings) in clients.iter_mut().zip(&mut timings) {
            timings.extend((0..count).map(|_| client.ask(body)));
        }
    }
    timings
}

fn answers(targets: &[SocketAddr; 3], what: &str, body: &str, goal_ms: f64) {
    let timings = in_turns(targets, IN_TURN, body).map(|it| sorted(&it, |timing| timing.all_ms));
    report(json!({
        "name": format!("gateway: {what}, direct, p50"), "value": median(&timings[0]),
        "unit": "ms",
    }));
    for (part, name, goal) in [(0.5, "p50", Some(goal_ms)), (0.99, "p99", None)] {
        let added =
            |target: usize| percentile(&timings[target], part) - percentile(&timings[0], part);
        added_figure(&format!("gateway: {what}, added {name}"), added(2), added(1), goal);
    }
}

fn added_figure(name: &str, value: f64, floor: f64, goal_ms: Option<f64>) {
    let mut figure = json!({
        "name": name, "value": value, "unit": "ms", "baseline": {"name": "floor", "value": floor},
    });
    if let Some(goal) = goal_ms {
        figure["goal"] = json!({"at_most": goal, "of": "value"});
    }
    report(figure);
}

fn streams(targets: &[SocketAddr; 3]) {
    let timings = in_turns(targets, STREAMS, &message("m", 64, true));
    for (name, goal, of) in [
        ("in all", 0.5, (|timing| timing.all_ms) as fn(&Timing) -> f64),
        ("to the first chunk", 0.25, |timing| timing.first_ms),
    ] {
        let p50 = |target: usize| median(&sorted(&timings[target], of));
        added_figure(
            &format!("gateway: stream of 20 chunks, added p50 {name}"),
            p50(2) - p50(0),
            p50(1) - p50(0),
            Some(goal),
        );
    }
}

/// Counts stalls in streams whose chunks come one by one: Nagle's algorithm makes some of 40 ms.
fn stalls(targets: &[SocketAddr; 3]) {
    let body = message(mock::SLOW, 64, true);
    let timings = in_turns(targets, SLOW_STREAMS, &body);
    let stalls = timings.map(|all| all.iter().filter(|it| it.widest_gap_ms >= STALL_MS).count());
    report(json!({
        "name": format!("gateway: gaps of {STALL_MS} ms in {} streams", ROUNDS * SLOW_STREAMS),
        "value": stalls[2], "unit": "streams", "baseline": {"name": "direct", "value": stalls[0]},
        "goal": {"at_most": 0, "of": "value"},
    }));
}

fn throughput(
    targets: &[SocketAddr; 3],
    mock: &Child,
    floor: &Child,
    gateway: &Gateway,
    connections: usize,
) {
    let body = message("m", 64, false);
    let pids = [mock.pid(), floor.pid(), gateway.pid()];
    let (mut counts, mut seconds, mut cpu) = ([0_u64; 3], [0.0; 3], [0.0; 3]);
    let threads = process::cpu_by_thread(gateway.pid());
    for _ in 0..ROUNDS {
        for target in 0..3 {
            let before = process::cpu_seconds(pids[target]);
            let (count, took) = load::busy(targets[target], connections, BUSY, &body);
            counts[target] += count;
            seconds[target] += took;
            cpu[target] += process::cpu_seconds(pids[target]) - before;
        }
    }
    gateway.sent(counts[2]);
    gateway.wait_handled();
    tell_threads(&threads, &process::cpu_by_thread(gateway.pid()), counts[2]);
    let rate = |target: usize| counts[target] as f64 / seconds[target];
    let per_request = |target: usize| cpu[target] * 1e6 / counts[target] as f64;
    report(json!({
        "name": format!("gateway: direct, {connections} connections"), "value": rate(0),
        "unit": "/s",
    }));
    report(json!({
        "name": format!("gateway: requests, {connections} connections"), "value": rate(2),
        "unit": "/s", "baseline": {"name": "floor", "value": rate(1)},
        "goal": {"at_least": 0.6, "of": "ratio"},
    }));
    report(json!({
        "name": format!("gateway: CPU per request, {connections} connections"),
        "value": per_request(2), "unit": "us",
        "baseline": {"name": "floor", "value": per_request(1)},
        "goal": {"at_most": 1.7, "of": "ratio"},
    }));
}

/// Tells which threads of the daemon the time went to, until all events were handled.
fn tell_threads(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, requests: u64) {
    eprintln!("processor time of the daemon by thread, us per request:");
    for (name, seconds) in after {
        let spent = seconds - before.get(name).copied().unwrap_or_default();
        let us = spent * 1e6 / requests as f64;
        if us >= 0.05 {
            eprintln!("{us:>10.1}  {name}");
        }
    }
}

/// Looks at memory over a million requests.
fn million(mock: &Child) {
    let gateway = Gateway::start(mock.address);
    let body = message("m", 64, false);
    let mut sent = 0;
    let mut after_first = None;
    while sent < 1_000_000 {
        let (count, _) = load::busy(gateway.address, 16, BUSY, &body);
        sent += count;
        gateway.sent(count);
        if sent > 100_000 && after_first.is_none() {
            after_first = Some(gateway.memory_mb());
        }
    }
    report(json!({
        "name": "gateway: memory after a million requests", "value": gateway.memory_mb(),
        "unit": "MB", "baseline": {"name": "after 100,000", "value": after_first},
        "goal": {"at_most": 1.1, "of": "ratio"},
    }));
    gateway.report_lost();
}

fn sorted(timings: &[Timing], of: impl Fn(&Timing) -> f64) -> Vec<f64> {
    let mut times: Vec<f64> = timings.iter().map(of).collect();
    times.sort_by(f64::total_cmp);
    times
}
