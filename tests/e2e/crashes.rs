//! `kill -9` at random moments under load: nothing accepted is lost, nothing counts twice.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use harness::{
    Daemon, Sandbox, Sent,
    kills::{self, MODULES, Random},
    telemetry, wait_until,
};

/// How many kills, where `LODESTAR_TEST_KILLS` does not say.
const KILLS: u64 = 20;
/// How many clients send at the same time.
const CLIENTS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn kills_under_load_lose_nothing_and_count_nothing_twice() {
    let sandbox = Sandbox::usual();
    let sent = Sent::default();
    // Moments differ from run to run; what went wrong in one is shown by its seed.
    let seed = telemetry::now_ns();
    let mut random = Random::new(seed);
    for kill in 0..how_many() {
        let daemon = sandbox.start();
        let address = daemon.address("ingest", "http");
        let goal = sent.count() + 1 + random.below(200);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (sent, address, stop) = (&sent, &address, &stop);
                let client = format!("kill{kill}-client{client}");
                scope.spawn(move || sent.until_gone(address, &client, stop));
            }
            wait_until("enough is accepted", PATIENCE, || (sent.count() >= goal).then_some(()));
            daemon.kill();
            stop.store(true, Ordering::Relaxed);
        });
    }
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    assert!(sent.send_again(&address), "seed {seed}: {}", daemon.log());
    wait_until_handled(&daemon);
    compare(&sandbox, &sent, seed);
}

#[test]
fn kills_of_runners_under_load_lose_nothing_and_count_nothing_twice() {
    let sandbox = kills::isolated();
    let (sent, stop) = (Sent::default(), AtomicBool::new(false));
    let seed = telemetry::now_ns();
    let mut random = Random::new(seed);
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (sent, address, stop) = (&sent, &address, &stop);
            scope.spawn(move || sent.until_told(address, &format!("client{client}"), stop));
        }
        for _ in 0..how_many() {
            let goal = sent.count() + 1 + random.below(100);
            wait_until("enough is accepted", PATIENCE, || (sent.count() >= goal).then_some(()));
            kills::kill_runner(&sandbox, MODULES[usize::from(random.below(4) == 0)]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    wait_until("all is answered", PATIENCE, || sent.send_again(&address).then_some(()));
    wait_until_handled(&daemon);
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]), "nobody is to blame");
    compare(&sandbox, &sent, seed);
}

#[test]
fn kills_of_daemon_and_runners_lose_nothing_and_count_nothing_twice() {
    let sandbox = kills::isolated();
    let sent = Sent::default();
    let seed = telemetry::now_ns();
    let mut random = Random::new(seed);
    for kill in 0..how_many() {
        let daemon = sandbox.start();
        let address = daemon.address("ingest", "http");
        let goal = sent.count() + 1 + random.below(200);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (sent, address, stop) = (&sent, &address, &stop);
                let client = format!("kill{kill}-client{client}");
                scope.spawn(move || sent.until_told(address, &client, stop));
            }
            wait_until("enough is accepted", PATIENCE, || (sent.count() >= goal).then_some(()));
            if random.below(2) == 0 {
                kills::kill_runner(&sandbox, MODULES[usize::from(random.below(2) == 0)]);
            }
            daemon.kill();
            stop.store(true, Ordering::Relaxed);
        });
    }
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    wait_until("all is answered", PATIENCE, || sent.send_again(&address).then_some(()));
    wait_until_handled(&daemon);
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]), "nobody is to blame");
    compare(&sandbox, &sent, seed);
}

fn wait_until_handled(daemon: &Daemon<'_>) {
    wait_until("all that waits is handled", PATIENCE, || {
        (daemon.module("usage_tracker")["events"]["pending"] == 0).then_some(())
    });
}

fn how_many() -> u64 {
    let kills = std::env::var("LODESTAR_TEST_KILLS").ok().and_then(|kills| kills.parse().ok());
    kills.unwrap_or(KILLS)
}

/// All that was accepted is counted, and nothing else, and the sums agree with the rows.
fn compare(sandbox: &Sandbox, sent: &Sent, seed: u64) {
    let counted = sent.counted(sandbox);
    assert!(counted.is_exact(), "seed {seed}: {counted:#?}");
    let total = sandbox.json(&["usage", "summary"])["total"].clone();
    assert_eq!(total["requests"], counted.requests, "seed {seed}");
    assert_eq!(total["output_tokens"], counted.requests * 34, "seed {seed}");
    let audit = sandbox.json(&["events", "audit"]);
    let rows = audit.as_array().expect("a list");
    assert!(rows.iter().all(|row| row["balanced"] == true), "seed {seed}: {audit:#}");
}
