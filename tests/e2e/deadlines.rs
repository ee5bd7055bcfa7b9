//! Calls that never return: in the daemon the module is stalled and its events wait, in a process
//! of its own it is killed and restarted. Other modules are not affected.

use std::thread;

use harness::{Daemon, Sandbox, http, telemetry, wait_until};
use serde_json::Value;

fn config(isolation: &str, fault: &str) -> String {
    format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  counter:\n  misbehaver:\n    isolation: \
         {isolation}\n    fault: {fault}\n    limits: {{call_deadline_ms: 2000}}\n    restart: \
         {{limit: 100000, backoff_max_ms: 1}}\nmetrics:\n  listen: 127.0.0.1:0\n"
    )
}

fn sandbox(isolation: &str, fault: &str) -> Sandbox {
    Sandbox::new(&["ingest", "counter", "misbehaver"], &config(isolation, fault))
}

/// Sends one request, and waits until the healthy module has received it.
fn others_go_on(sandbox: &Sandbox, daemon: &Daemon<'_>, id: &str) {
    let events = || sandbox.json(&["counter", "report"])["events"].as_u64();
    let before = events().expect("a number");
    let body = telemetry::claude_code("s", id).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    wait_until("the other module has the event", || (events()? > before).then_some(()));
}

/// Returns the counters of the misbehaver's events: handled, dead, dropped, pending.
fn counters(daemon: &Daemon<'_>) -> [u64; 4] {
    let events = daemon.module("misbehaver")["events"].clone();
    ["handled", "dead", "dropped", "pending"].map(|key| events[key].as_u64().expect("a number"))
}

/// Faults, with the name of the call that hangs.
const FAULTS: [(&str, &str); 3] =
    [("event_hangs_once", "handler"), ("timer_hangs", "tick"), ("health_hangs", "health")];

fn for_each_fault(check: fn(&str, &str)) {
    thread::scope(|scope| {
        for (fault, call) in FAULTS {
            let named = thread::Builder::new().name(fault.to_owned());
            named.spawn_scoped(scope, move || check(fault, call)).expect("a thread");
        }
    });
}

#[test]
fn in_the_daemon_its_events_wait_until_it_is_mended() {
    for_each_fault(|fault, call| {
        let sandbox = sandbox("in_process", fault);
        let daemon = sandbox.start();
        others_go_on(&sandbox, &daemon, "one");
        let module: Value = daemon.wait_state("misbehaver", "stalled");
        let reason = module["reason"].as_str().unwrap_or_default();
        assert!(reason.contains(&format!("its {call} did not return within")), "{reason}");
        let [handled, ..] = counters(&daemon);
        others_go_on(&sandbox, &daemon, "two");
        others_go_on(&sandbox, &daemon, "three");
        assert_eq!(counters(&daemon), [handled, 0, 0, 3 - handled], "{fault}: they wait");
        let why = sandbox.json(&["modules", "why", "misbehaver"]);
        assert!(why.to_string().contains("did not return within"), "{why:#}");
        assert!(daemon.stop().success(), "{fault}: it ends without the module");

        sandbox.configure(&config("in_process", "none"));
        let daemon = sandbox.start();
        wait_until("what waited is handled", || (counters(&daemon)[3] == 0).then_some(()));
        assert_eq!(counters(&daemon)[1..], [0, 0, 0], "{fault}: none is lost");
        let anew = sandbox.json(&["misbehaver", "handled"])["handled"].as_u64();
        assert_eq!(anew, Some(3 - handled), "{fault}: each is handled once");
        others_go_on(&sandbox, &daemon, "four");
        assert!(daemon.stop().success());
    });
}

#[test]
fn in_a_process_of_its_own_it_is_ended_and_its_events_come_again() {
    for_each_fault(|fault, call| {
        let sandbox = sandbox("process", fault);
        let daemon = sandbox.start();
        others_go_on(&sandbox, &daemon, "one");
        let restarts = if fault == "event_hangs_once" { 1 } else { 2 };
        wait_until("it was ended and started again", || {
            (daemon.module("misbehaver")["restarts"].as_u64()? >= restarts).then_some(())
        });
        let errors = sandbox.json(&["modules", "info", "misbehaver"])["last_errors"].to_string();
        assert!(errors.contains("did not return within 2000 ms"), "{call}: {errors}");
        others_go_on(&sandbox, &daemon, "two");
        others_go_on(&sandbox, &daemon, "three");
        wait_until("all are handled", || (counters(&daemon)[3] == 0).then_some(()));
        assert_eq!(counters(&daemon), [3, 0, 0, 0], "{fault}: none is lost");
        assert!(daemon.stop().success());
    });
}
