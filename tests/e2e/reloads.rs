//! Reloads: no request fails, no event is lost or handled twice, and a rollback is possible.

use std::{
    collections::HashSet,
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use harness::{
    Daemon, KeepAlive, Output, Sandbox, SetOnDrop, breakage, http, library, telemetry, wait_until,
};
use serde_json::Value;

use crate::reload_faults::{ISOLATIONS, MODES};

/// Returns the configuration with these keys of `gear`.
pub(super) fn config(gear: &str) -> String {
    format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    rate_limit: {{requests_per_second: \
         100000, burst: 100000}}\n  gear:\n    listen: 127.0.0.1:0\n{gear}metrics:\n  listen: \
         127.0.0.1:0\n"
    )
}

pub(super) fn sandbox() -> Sandbox {
    Sandbox::new(&["ingest", "gear"], &config(""))
}

/// Returns the library of `gear` that reloads in this way.
pub(super) fn gear(mode: &str) -> Vec<u8> {
    let library = library("gear");
    if mode == "handover" { breakage::with_handover(library) } else { library }
}

pub(super) fn send(daemon: &Daemon<'_>, id: &str) {
    let body = telemetry::claude_code("s", id).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
}

pub(super) fn seen(sandbox: &Sandbox) -> u64 {
    sandbox.json(&["gear", "seen"])["seen"].as_u64().expect("a number")
}

pub(super) fn history(sandbox: &Sandbox, module: &str) -> String {
    sandbox.json(&["modules", "why", module]).to_string()
}

#[test]
fn a_reload_under_load_fails_no_request_and_loses_no_event() {
    for mode in MODES {
        for isolation in ISOLATIONS {
            reload_under_load(mode, isolation);
        }
    }
}

fn reload_under_load(mode: &str, isolation: &str) {
    let keys = format!("    isolation: {isolation}\n");
    let sandbox = Sandbox::new(&["ingest", "gear"], &config(&keys));
    sandbox.replace_bytes("gear", &gear(mode));
    let daemon = sandbox.start();
    let stop = AtomicBool::new(false);
    let (requests, accepted) = (AtomicU64::new(0), AtomicU64::new(0));
    let reloads = 8;
    let address = daemon.address("gear", "http");
    thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        for _ in 0..4 {
            let (address, stop, requests) = (&address, &stop, &requests);
            scope.spawn(move || {
                let mut client = KeepAlive::new(address);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").expect("no request fails"), 200);
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (daemon, stop, accepted) = (&daemon, &stop, &accepted);
        scope.spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                send(daemon, &format!("load-{number}"));
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        });
        for reload in 0..reloads {
            let before = requests.load(Ordering::Relaxed) + accepted.load(Ordering::Relaxed);
            // Two builds that differ in their hash take turns.
            sandbox.replace_bytes("gear", &[gear(mode), vec![b'#', reload % 2]].concat());
            let generation = u64::from(reload) + 2;
            wait_until("the new generation runs", || {
                (daemon.module("gear")["generation"] == generation).then_some(())
            });
            wait_until("load goes on", || {
                let now = requests.load(Ordering::Relaxed) + accepted.load(Ordering::Relaxed);
                (now > before + 20).then_some(())
            });
        }
    });
    let accepted = accepted.load(Ordering::Relaxed);
    wait_until("all is handled", || (seen(&sandbox) >= accepted).then_some(()));
    assert_eq!(seen(&sandbox), accepted, "the state was handed over, nothing is handled twice");
    let deliveries = fs::read_to_string(sandbox.state().join("data/gear/deliveries"));
    let deliveries = deliveries.expect("gear writes them");
    let ids: HashSet<&str> = deliveries.lines().collect();
    let count = (ids.len() as u64, deliveries.lines().count() as u64);
    assert_eq!(count, (accepted, accepted), "{mode}, {isolation}");
    let events = daemon.module("gear")["events"].clone();
    assert_eq!((&events["handled"], &events["dead"]), (&Value::from(accepted), &Value::from(0)));
    assert!(daemon.stop().success());
}

#[test]
fn a_new_generation_that_hangs_ends_the_reload_and_not_the_module() {
    thread::scope(|scope| {
        for fault in ["start_hangs", "restore_hangs"] {
            let words = "the start of the new generation has not returned";
            scope.spawn(move || {
                let sandbox = sandbox();
                let daemon = sandbox.start();
                sandbox.configure(&config(&format!("    fault: {fault}\n")));
                send(&daemon, "meanwhile");
                wait_until("the reload is given up", || {
                    history(&sandbox, "gear").contains(words).then_some(())
                });
                wait_until("the old one goes on", || {
                    (seen(&sandbox) == 1 && daemon.module("gear")["state"] == "running")
                        .then_some(())
                });
                daemon.kill();
            });
        }
    });
}

#[test]
fn a_snapshot_that_hangs_ends_the_reload_and_delays_nobody_else() {
    let config = config("    fault: snapshot_hangs\n  counter:\n");
    let sandbox = Sandbox::new(&["ingest", "gear", "counter"], &config);
    let daemon = sandbox.start();
    let output = sandbox.lodestar(&["modules", "reload", "gear"]);
    assert_eq!(output.code, 4, "{output:#?}");
    let words = "the snapshot of the running generation has not returned";
    assert!(output.stderr.contains(words), "{output:#?}");
    daemon.wait_state("gear", "stalled");
    send(&daemon, "meanwhile");
    wait_until("the other module has the event", || {
        (sandbox.json(&["counter", "report"])["events"] == 1).then_some(())
    });
    assert!(daemon.stop().success(), "it ends without the module");
}

#[test]
fn a_crash_on_probation_brings_the_last_good_generation_back() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let first = sandbox.json(&["modules", "info", "gear"])["sha256"].clone();
    send(&daemon, "before");
    wait_until("it is handled", || (seen(&sandbox) == 1).then_some(()));
    sandbox.replace_library("gear", 7);
    wait_until("the new one runs", || (daemon.module("gear")["generation"] == 2).then_some(()));
    // The same once more is no way back from itself, nor is another one that is on probation.
    assert_eq!(sandbox.lodestar(&["modules", "reload", "gear"]).code, 0);
    assert_eq!(daemon.module("gear")["generation"], 3);
    sandbox.replace_library("gear", 8);
    wait_until("the third runs", || (daemon.module("gear")["generation"] == 4).then_some(()));
    assert_eq!(sandbox.lodestar(&["gear", "panic"]).code, 1);
    wait_until("the old one is back", || {
        let info = sandbox.json(&["modules", "info", "gear"]);
        (info["state"] == "running" && info["sha256"] == first).then_some(())
    });
    assert_eq!(seen(&sandbox), 1, "with the state that it handed over");
    assert!(history(&sandbox, "gear").contains("rolled_back"));
    assert!(daemon.stop().success());
    // What proved bad does not come back by a restart.
    let daemon = sandbox.start();
    assert!(history(&sandbox, "gear").contains("the daemon ends"), "its last moments are told");
    let info = sandbox.json(&["modules", "info", "gear"]);
    assert_eq!(info["sha256"], first, "{info:#}");
    assert_eq!(sandbox.lodestar(&["modules", "reload", "gear"]).code, 0, "unless one asks for it");
    assert_ne!(sandbox.json(&["modules", "info", "gear"])["sha256"], first);
    assert!(daemon.stop().success());
}

#[test]
fn where_a_module_runs_is_told_of_what_runs_and_not_of_its_section() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let wait = |isolation: &str| {
        wait_until("it runs where it should", || {
            let module = daemon.module("gear");
            (module["isolation"] == isolation && module["state"] == "running").then_some(())
        });
    };
    sandbox.configure(&config("    isolation: process\n    fault: start_panics\n"));
    wait_until("it was refused", || {
        history(&sandbox, "gear").contains("planted: a start that panics").then_some(())
    });
    wait("in_process");
    let info = sandbox.json(&["modules", "info", "gear"]);
    let why = info["isolation_reason"].to_string();
    assert!(why.contains("process from its next start on"), "{info:#}");

    sandbox.configure(&config("    isolation: process\n"));
    wait("process");
    let before = sandbox.json(&["modules", "info", "gear"])["process"]["pid"].clone();
    let _ = sandbox.lodestar(&["gear", "panic"]);
    wait_until("it has another process", || {
        let info = sandbox.json(&["modules", "info", "gear"]);
        (info["process"]["pid"].is_u64() && info["process"]["pid"] != before).then_some(())
    });
    wait("process");
    assert!(!history(&sandbox, "gear").contains("rolled_back"), "not back into the daemon");

    sandbox.configure(&config("    isolation: in_process\n"));
    wait("in_process");
    let info = sandbox.json(&["modules", "info", "gear"]);
    assert!(info["process"].is_null(), "nothing of the process before is told: {info:#}");
    // Nor is a place that the operator chose taken back: the library and its settings are the same.
    let _ = sandbox.lodestar(&["gear", "panic"]);
    wait_until("it has started again", || {
        (daemon.module("gear")["restarts"].as_u64()? >= 2).then_some(())
    });
    wait("in_process");
    assert!(!history(&sandbox, "gear").contains("rolled_back"));
    assert!(daemon.stop().success());
}

/// Returns the hash of the running library of `gear`.
fn sha256(sandbox: &Sandbox) -> Value {
    sandbox.json(&["modules", "info", "gear"])["sha256"].clone()
}

/// Replaces the library of `gear`; returns the hashes of both generations, which are kept on disk.
fn two_kept(sandbox: &Sandbox) -> (Value, Value) {
    let first = sha256(sandbox);
    sandbox.replace_library("gear", 1);
    wait_until("the new one runs and is kept", || {
        let kept = fs::read_dir(sandbox.state().join("generations/gear")).ok()?.count();
        (sha256(sandbox) != first && kept == 2).then_some(())
    });
    (first, sha256(sandbox))
}

#[test]
fn a_rollback_goes_back_and_forth() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let output = sandbox.lodestar(&["modules", "rollback", "gear"]);
    assert_eq!(output.code, 1, "{output:#?}");
    assert!(output.stderr.contains("no earlier generation"), "{output:#?}");
    let (first, second) = two_kept(&sandbox);
    for expected in [&first, &second, &first] {
        let output = sandbox.lodestar(&["modules", "rollback", "gear"]);
        assert_eq!(output.code, 0, "{output:#?}");
        assert_eq!(&sha256(&sandbox), expected);
    }
    // What runs from where generations are kept is asked there.
    let checked = sandbox.lodestar(&["config", "check"]);
    assert_eq!(checked.code, 0, "{checked:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_rollback_needs_no_library_on_the_module_path() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let (first, second) = two_kept(&sandbox);
    assert_eq!(sandbox.lodestar(&["modules", "disable", "gear"]).code, 0);
    let library = sandbox.path("modules/gear/libgear.so");
    fs::rename(&library, sandbox.path("taken")).expect("it is ours");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "gear"]).code, 1, "there is none");
    let output = sandbox.lodestar(&["modules", "rollback", "gear"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert_eq!(sha256(&sandbox), first);
    // What comes to lie there is new.
    fs::rename(sandbox.path("taken"), &library).expect("it is ours");
    assert_eq!(sandbox.lodestar(&["modules", "reload", "gear"]).code, 0);
    assert_eq!(sha256(&sandbox), second);
    assert!(daemon.stop().success());
}

#[test]
fn a_rollback_that_fails_decides_nothing() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let (_, second) = two_kept(&sandbox);
    assert_eq!(sandbox.lodestar(&["modules", "disable", "gear"]).code, 0);
    let library = sandbox.path("modules/gear/libgear.so");
    fs::rename(&library, sandbox.path("taken")).expect("it is ours");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "gear"]).code, 1, "there is none");
    for kept in fs::read_dir(sandbox.state().join("generations/gear")).expect("it is there") {
        let file = kept.expect("it is there").path().join("libgear.so");
        fs::write(file, "modified").expect("it is ours");
    }
    let output = sandbox.lodestar(&["modules", "rollback", "gear"]);
    assert_eq!(output.code, 1, "{output:#?}");
    fs::rename(sandbox.path("taken"), &library).expect("it is ours");
    let _ = sandbox.lodestar(&["modules", "enable", "gear"]);
    daemon.wait_state("gear", "running");
    assert_eq!(sha256(&sandbox), second, "what lies there is not passed over");
    assert!(daemon.stop().success());
}

/// Requests reloads of `gear` by `count` command lines at the same time, while one is running that
/// cannot end before all have been requested.
fn ask_at_once(sandbox: &Sandbox, count: usize, meanwhile: impl FnOnce()) -> Vec<Output> {
    let data = sandbox.state().join("data/gear");
    fs::write(data.join("wait"), "").expect("it is ours");
    let first = sandbox.json(&["modules", "reload", "gear", "--no-wait"]);
    assert_eq!(first["state"], "pending", "{first:#}");
    wait_until("it is under way", || data.join("waits").exists().then_some(()));
    meanwhile();
    thread::scope(|scope| {
        let ask = || sandbox.lodestar(&["modules", "reload", "gear", "--json"]);
        let asking: Vec<_> = (0..count).map(|_| scope.spawn(ask)).collect();
        wait_until("all have asked", || (connections(sandbox) >= count).then_some(()));
        fs::remove_file(data.join("wait")).expect("it is there");
        asking.into_iter().map(|it| it.join().expect("no panic")).collect()
    })
}

/// Returns the number of clients on the control socket: the connected sockets (state 3) in the
/// folder where the daemon has bound it under another name.
fn connections(sandbox: &Sandbox) -> usize {
    let folder = sandbox.path("run").display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix").expect("it is there");
    sockets.lines().filter(|line| line.contains(" 03 ") && line.contains(&folder)).count()
}

#[test]
fn who_asks_at_the_same_time_shares_an_outcome() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let outputs = ask_at_once(&sandbox, 8, || {});
    let operations: Vec<Value> = outputs.iter().map(Output::json).collect();
    let ids: HashSet<&str> = operations.iter().filter_map(|it| it["id"].as_str()).collect();
    assert!(operations.iter().all(|operation| operation["state"] == "done"), "{operations:#?}");
    assert!(ids.len() < 8, "one more is enough for all of them: {ids:?}");
    let generation = daemon.module("gear")["generation"].as_u64().expect("a number");
    assert_eq!(generation, 2 + ids.len() as u64, "one generation for each operation");
    assert!(daemon.stop().success());
}

#[test]
fn who_asks_at_the_same_time_shares_a_failure() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    let bad = breakage::with_epoch(library("gear"), 0);
    let outputs = ask_at_once(&sandbox, 8, || sandbox.replace_bytes("gear", &bad));
    let mut ids = HashSet::new();
    for output in &outputs {
        assert_eq!(output.code, 4, "{output:#?}");
        assert!(output.stderr.contains("epoch 0"), "{output:#?}");
        assert!(output.stderr.contains("the generation before goes on"), "{output:#?}");
        let operation: Value = serde_json::from_str(&output.stdout).expect("it is told as well");
        assert_eq!(operation["state"], "failed", "{operation:#}");
        ids.insert(operation["id"].to_string());
    }
    assert!(ids.len() < 8, "they share it: {ids:?}");
    assert_eq!(daemon.module("gear")["generation"], 2, "the one that was under way");
    assert!(daemon.stop().success());
}

#[test]
fn a_quarantine_survives_a_restart_and_is_lifted_by_enable() {
    let sandbox = sandbox();
    sandbox.configure(&config("    restart: {limit: 1, backoff_max_ms: 10}\n"));
    let daemon = sandbox.start();
    for _ in 0..2 {
        wait_until("it answers", || {
            let output = sandbox.lodestar(&["gear", "panic"]);
            output.stderr.contains("planted").then_some(())
        });
    }
    daemon.wait_state("gear", "quarantined");
    let goes_back =
        || sandbox.json(&["modules", "why", "gear"])["advice"].to_string().contains("rollback");
    assert!(!goes_back(), "there is nothing to go back to");
    assert!(daemon.stop().success());
    let daemon = sandbox.start();
    assert!(!goes_back(), "nor now");
    let module = daemon.wait_state("gear", "quarantined");
    assert!(module["reason"].to_string().contains("planted: command"), "{module:#}");
    let why = sandbox.json(&["modules", "why", "gear"]);
    assert!(why["advice"].to_string().contains("modules enable gear"), "{why:#}");
    send(&daemon, "while quarantined");
    assert_eq!(sandbox.lodestar(&["modules", "enable", "gear"]).code, 0);
    wait_until("its events have waited", || (seen(&sandbox) == 1).then_some(()));
    assert!(daemon.stop().success());
}

const WITH_MISBEHAVER: &str = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  misbehaver:\n\
                               metrics:\n  listen: 127.0.0.1:0\n";

#[test]
fn a_generation_on_probation_that_crashes_the_daemon_gives_way_to_the_last_good_one() {
    let sandbox = Sandbox::new(&["ingest", "misbehaver"], WITH_MISBEHAVER);
    let daemon = sandbox.start();
    let first = sandbox.json(&["modules", "info", "misbehaver"])["sha256"].clone();
    // Neither of the next two is a good one yet.
    for salt in [1, 2] {
        sandbox.replace_library("misbehaver", salt);
        wait_until("the new one runs", || {
            let generation = u64::from(salt) + 1;
            (daemon.module("misbehaver")["generation"] == generation).then_some(())
        });
    }
    let _ = sandbox.lodestar(&["misbehaver", "crash", "--how", "segfault"]);
    assert!(!daemon.wait().success(), "it takes the daemon down");
    let daemon = sandbox.start();
    daemon.wait_state("misbehaver", "running");
    let info = sandbox.json(&["modules", "info", "misbehaver"]);
    assert_eq!((&info["sha256"], &info["isolation"]), (&first, &"in_process".into()), "{info:#}");
    assert!(info["reason"].to_string().contains("SIGSEGV"), "{info:#}");
    assert!(history(&sandbox, "misbehaver").contains("is back"));
    assert!(daemon.stop().success());
}

#[test]
fn who_crashes_the_daemon_is_named_and_isolated() {
    let sandbox = Sandbox::new(&["ingest", "misbehaver"], WITH_MISBEHAVER);
    for (how, means) in [
        ("segfault", "SIGSEGV"),
        ("thread", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("overflow", "SIGSEGV"),
        ("thread_overflow", "SIGSEGV"),
        ("exit", "a call of exit()"),
    ] {
        let daemon = sandbox.start();
        let _ = sandbox.lodestar(&["misbehaver", "crash", "--how", how]);
        assert!(!daemon.wait().success(), "{how} takes the daemon down");
        let daemon = sandbox.start();
        let module = daemon.wait_state("misbehaver", "running");
        assert_eq!(module["isolation"], "process", "{how}: {module:#}");
        assert_eq!(daemon.module("ingest")["isolation"], "in_process");
        let why = sandbox.json(&["modules", "why", "misbehaver"]);
        assert!(why["history"].to_string().contains(means), "{how}: {why:#}");
        assert!(why["advice"].to_string().contains("modules enable misbehaver"), "{why:#}");
        // The same again is its own affair now.
        let process = || sandbox.json(&["modules", "info", "misbehaver"])["process"]["pid"].clone();
        let before = process();
        assert!(before.is_number(), "{how}: {before}");
        let _ = sandbox.lodestar(&["misbehaver", "crash", "--how", how]);
        wait_until("it has another process", || {
            let now = process();
            (now.is_number() && now != before).then_some(())
        });
        daemon.wait_state("misbehaver", "running");
        assert!(daemon.lives(), "{how}: it took its own process down and no other");
        assert_eq!(sandbox.lodestar(&["modules", "enable", "misbehaver"]).code, 0);
        assert_eq!(daemon.module("misbehaver")["isolation"], "in_process", "{how}");
        // A kill from outside blames nobody.
        daemon.kill();
        let daemon = sandbox.start();
        assert_eq!(daemon.module("misbehaver")["isolation"], "in_process", "{how}");
        assert!(daemon.stop().success());
    }
}
