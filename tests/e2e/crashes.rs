//! `kill -9` at random moments under load: no accepted event is lost, none counts twice.

use std::sync::atomic::AtomicBool;

use harness::{
    Sandbox, Sent, SetOnDrop,
    kills::{self, MODULES, Random, wait_until_handled},
    telemetry, wait_until,
};

/// Default number of kills, unless `LODESTAR_TEST_KILLS` is set.
const KILLS: u64 = 20;
#[test]
fn kills_under_load_lose_nothing_and_count_nothing_twice() {
    kill_daemons(&Sandbox::usual(), |_| {});
}

/// Kills daemons under load, each at a random moment and after calling `before`, and compares the
/// sent requests with the counted ones.
fn kill_daemons(sandbox: &Sandbox, before: impl Fn(&mut Random)) {
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
            let _stop = SetOnDrop(&stop);
            for client in 0..kills::CLIENTS {
                let (sent, address, stop) = (&sent, &address, &stop);
                let client = format!("kill{kill}-client{client}");
                scope.spawn(move || sent.until_told(address, &client, stop));
            }
            wait_until("enough is accepted", || (sent.count() >= goal).then_some(()));
            before(&mut random);
            // Asked to stop only once it is gone: they meet every kill in the middle of a request.
            daemon.kill();
        });
    }
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    wait_until("all is answered", || sent.send_again(&address).then_some(()));
    wait_until_handled(&daemon);
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]), "nobody is to blame");
    compare(sandbox, &sent, seed);
}

#[test]
fn kills_of_runners_under_load_lose_nothing_and_count_nothing_twice() {
    let sandbox = kills::isolated();
    let seed = telemetry::now_ns();
    let daemon = sandbox.start();
    let sent = kills::runners_under_load(&sandbox, &daemon, how_many(), &mut Random::new(seed));
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]), "nobody is to blame");
    compare(&sandbox, &sent, seed);
}

#[test]
fn kills_of_daemon_and_runners_lose_nothing_and_count_nothing_twice() {
    let sandbox = kills::isolated();
    kill_daemons(&sandbox, |random| {
        if random.below(2) == 0 {
            kills::kill_runner(&sandbox, MODULES[usize::from(random.below(2) == 0)]);
        }
    });
}

fn how_many() -> u64 {
    let kills = std::env::var("LODESTAR_TEST_KILLS").ok().and_then(|kills| kills.parse().ok());
    kills.unwrap_or(KILLS)
}

/// Checks that exactly the accepted requests are counted, and that the sums agree with the rows.
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
