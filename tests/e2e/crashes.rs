//! `kill -9` at random moments under load: nothing accepted is lost, nothing counts twice.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use harness::{Sandbox, http, telemetry, wait_until};
use serde_json::Value;

/// How many kills, where `LODESTAR_TEST_KILLS` does not say.
const KILLS: u64 = 20;
/// How many clients send at the same time.
const CLIENTS: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// A body and the ids of the requests in it.
type Batch = (Vec<String>, String);

/// What the clients have sent.
#[derive(Default)]
struct Sent {
    /// Accepted, with status 200.
    accepted: Mutex<HashSet<String>>,
    /// Sent without an answer: the daemon may have accepted it or not, so it is sent again.
    unanswered: Mutex<Vec<Batch>>,
    count: AtomicU64,
}

impl Sent {
    /// Sends until the daemon is gone or it is time to stop; first what got no answer before.
    fn until_gone(&self, address: &str, client: &str, stop: &AtomicBool) {
        for number in 0.. {
            let unanswered = lock(&self.unanswered).pop();
            let batch = unanswered.unwrap_or_else(|| batch(client, number));
            if !self.send(address, batch) || stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Sends until it is time to stop; what got no answer is sent again.
    fn until_told(&self, address: &str, client: &str, stop: &AtomicBool) {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let unanswered = lock(&self.unanswered).pop();
            self.send(address, unanswered.unwrap_or_else(|| batch(client, number)));
        }
    }

    /// Whether it was answered.
    fn send(&self, address: &str, batch: Batch) -> bool {
        match http::post(address, "/v1/logs", &[telemetry::JSON], batch.1.as_bytes()) {
            Ok(answer) if answer.status == 200 => {
                self.count.fetch_add(batch.0.len() as u64, Ordering::Relaxed);
                lock(&self.accepted).extend(batch.0);
                true
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                lock(&self.unanswered).push(batch);
                true
            }
            Err(_) => {
                lock(&self.unanswered).push(batch);
                false
            }
        }
    }
}

fn batch(client: &str, number: u64) -> Batch {
    let ids: Vec<String> =
        (0..1 + number % 4).map(|index| format!("{client}-{number}-{index}")).collect();
    let names = ids.iter().map(String::as_str).collect::<Vec<_>>();
    let body = telemetry::claude_code_many(client, &names).to_string();
    (ids, body)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn kills_under_load_lose_nothing_and_count_nothing_twice() {
    let kills = std::env::var("LODESTAR_TEST_KILLS").ok().and_then(|kills| kills.parse().ok());
    let sandbox = Sandbox::usual();
    let sent = Sent::default();
    // Moments differ from run to run; what went wrong in one is shown by its seed.
    let seed = telemetry::now_ns();
    let mut random = seed;
    for kill in 0..kills.unwrap_or(KILLS) {
        let daemon = sandbox.start();
        let address = daemon.address("ingest", "http");
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let goal = sent.count.load(Ordering::Relaxed) + 1 + (random >> 33) % 200;
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (sent, address, stop) = (&sent, &address, &stop);
                let client = format!("kill{kill}-client{client}");
                scope.spawn(move || sent.until_gone(address, &client, stop));
            }
            wait_until("enough is accepted", PATIENCE, || {
                (sent.count.load(Ordering::Relaxed) >= goal).then_some(())
            });
            daemon.kill();
            stop.store(true, Ordering::Relaxed);
        });
    }
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    while let Some(batch) = lock(&sent.unanswered).pop() {
        assert!(sent.send(&address, batch), "seed {seed}: {}", daemon.log());
    }
    wait_until("all that waits is handled", PATIENCE, || {
        (daemon.module("usage_tracker")["events"]["pending"] == 0).then_some(())
    });
    compare(&sandbox, &sent, seed);
}

#[test]
fn kills_of_runners_under_load_lose_nothing_and_count_nothing_twice() {
    let kills = std::env::var("LODESTAR_TEST_KILLS").ok().and_then(|kills| kills.parse().ok());
    let modules = ["usage_tracker", "ingest"];
    let own = "    isolation: process\n    restart: {limit: 1000, backoff_max_ms: 1}\n";
    let config = modules.map(|module| format!("  {module}:\n{own}")).concat();
    let sandbox = Sandbox::new(
        &modules,
        &format!(
            "modules:\n{config}    listen: 127.0.0.1:0\n    rate_limit: {{requests_per_second: \
             100000, burst: 100000}}\nmetrics:\n  listen: 127.0.0.1:0\n"
        ),
    );
    let (sent, stop) = (Sent::default(), AtomicBool::new(false));
    let seed = telemetry::now_ns();
    let mut random = seed;
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (sent, address, stop) = (&sent, &address, &stop);
            scope.spawn(move || sent.until_told(address, &format!("client{client}"), stop));
        }
        for _ in 0..kills.unwrap_or(KILLS) {
            random =
                random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            let module = modules[usize::from(random >> 40 & 3 == 0)];
            let goal = sent.count.load(Ordering::Relaxed) + 1 + (random >> 33) % 100;
            let runner = wait_until("the module has a process", PATIENCE, || {
                let info = sandbox.json(&["modules", "info", module]);
                i32::try_from(info["process"]["pid"].as_i64()?).ok()
            });
            wait_until("enough is accepted", PATIENCE, || {
                (sent.count.load(Ordering::Relaxed) >= goal).then_some(())
            });
            let runner = rustix::process::Pid::from_raw(runner).expect("a pid is positive");
            // An error means that it has just been killed.
            let _ = rustix::process::kill_process(runner, rustix::process::Signal::KILL);
        }
        stop.store(true, Ordering::Relaxed);
    });
    while let Some(batch) = lock(&sent.unanswered).pop() {
        sent.send(&address, batch);
    }
    wait_until("all that waits is handled", PATIENCE, || {
        (daemon.module("usage_tracker")["events"]["pending"] == 0).then_some(())
    });
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]), "nobody is to blame");
    compare(&sandbox, &sent, seed);
}

fn compare(sandbox: &Sandbox, sent: &Sent, seed: u64) {
    let export = sandbox.lodestar(&["usage", "export", "--format", "jsonl"]);
    assert_eq!(export.code, 0, "{}", export.stderr);
    let mut counted = HashMap::<String, u64>::new();
    for line in export.stdout.lines() {
        let row: Value = serde_json::from_str(line).expect("a line is JSON");
        let id = row["upstream_request_id"].as_str().expect("each had one");
        *counted.entry(id.to_owned()).or_default() += 1;
    }
    let accepted = lock(&sent.accepted);
    let lost = accepted.iter().filter(|id| !counted.contains_key(*id)).collect::<Vec<_>>();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?} of {}", accepted.len());
    let twice = counted.iter().filter(|(_, count)| **count > 1).collect::<Vec<_>>();
    assert!(twice.is_empty(), "seed {seed}: counted twice {twice:?}");
    let invented = counted.keys().filter(|id| !accepted.contains(*id)).collect::<Vec<_>>();
    assert!(invented.is_empty(), "seed {seed}: never sent {invented:?}");
    let total = sandbox.json(&["usage", "summary"])["total"].clone();
    let requests = counted.len() as u64;
    assert_eq!(total["requests"], requests, "seed {seed}: the sums agree with the rows");
    assert_eq!(total["output_tokens"], requests * 34, "seed {seed}");
    let audit = sandbox.json(&["events", "audit"]);
    let rows = audit.as_array().expect("a list");
    assert!(rows.iter().all(|row| row["balanced"] == true), "seed {seed}: {audit:#}");
}
