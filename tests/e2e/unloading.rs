//! `unload: true`: replaced generations leave the daemon, also under load and also if the module
//! was disabled meanwhile.

use std::{collections::HashSet, fs};

use harness::{Daemon, Sandbox, http, telemetry, wait_until};

/// Creates a sandbox with `ingest`, which only answers once the ledger has accepted the events.
fn sandbox() -> Sandbox {
    let config = "modules:\n  ingest:\n    unload: true\n    listen: 127.0.0.1:0\nmetrics:\n  \
                  listen: 127.0.0.1:0\n";
    Sandbox::new(&["ingest"], config)
}

fn send(daemon: &Daemon<'_>, id: &str) {
    let body = telemetry::claude_code("s", id).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
}

/// Returns the number of copies of the library that are mapped.
fn mapped(daemon: &Daemon<'_>) -> usize {
    let maps = fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("it lives");
    let copies = maps.lines().filter(|line| line.contains("memfd:lodestar-ingest"));
    let numbers: HashSet<&str> = copies.filter_map(|line| line.split_whitespace().nth(4)).collect();
    numbers.len()
}

/// Waits until at most two copies are mapped: the running one, and the one before if it is kept for
/// a rollback.
fn wait_until_the_others_left(sandbox: &Sandbox, daemon: &Daemon<'_>) {
    wait_until("two copies are mapped at most", || {
        let info = sandbox.json(&["modules", "info", "ingest"]);
        let copies = mapped(daemon);
        (copies <= 2 && info["resident_generations"] == copies).then_some(())
    });
}

#[test]
fn a_module_with_traffic_leaves_no_copy_behind() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    for generation in 2..=5_u8 {
        send(&daemon, &format!("r{generation}"));
        sandbox.replace_library("ingest", generation);
        wait_until("the new one runs", || {
            (daemon.module("ingest")["generation"] == generation).then_some(())
        });
    }
    send(&daemon, "last");
    wait_until_the_others_left(&sandbox, &daemon);
    assert!(daemon.stop().success());
}

#[test]
fn what_was_mapped_before_a_module_was_disabled_leaves_when_other_bytes_start() {
    let sandbox = sandbox();
    let daemon = sandbox.start();
    for salt in 1..=3 {
        send(&daemon, &format!("r{salt}"));
        assert_eq!(sandbox.lodestar(&["modules", "disable", "ingest"]).code, 0);
        sandbox.replace_library("ingest", salt);
        let output = sandbox.lodestar(&["modules", "enable", "ingest"]);
        assert_eq!(output.code, 0, "{output:#?}");
    }
    wait_until_the_others_left(&sandbox, &daemon);
    assert!(daemon.stop().success());
}
