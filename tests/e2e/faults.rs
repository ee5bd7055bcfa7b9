//! Modules that misbehave: none stops the daemon or another module, none loses an event.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use harness::{Daemon, Sandbox, http, program, telemetry, wait_until};
use serde_json::Value;

fn config(fault: &str) -> String {
    format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  misbehaver:\n    fault: {fault}\n  \
         counter:\n    enabled: true\nmetrics:\n  listen: 127.0.0.1:0\n"
    )
}

fn sandbox(fault: &str) -> Sandbox {
    Sandbox::new(&["ingest", "misbehaver", "counter"], &config(fault))
}

/// Sends one request and waits until the healthy subscriber has received it.
fn counted(sandbox: &Sandbox, daemon: &Daemon<'_>, id: &str) {
    let before = sandbox.json(&["counter", "report"])["events"].as_u64().expect("a number");
    let body = telemetry::claude_code("s", id).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    wait_until("the other module has the event", || {
        (sandbox.json(&["counter", "report"])["events"].as_u64()? > before).then_some(())
    });
}

/// Waits until the daemon's information about the misbehaver contains these words.
fn said(daemon: &Daemon<'_>, sandbox: &Sandbox, parts: &[&str]) -> Value {
    wait_until(&format!("the misbehaver shows {parts:?}"), || {
        assert!(daemon.lives(), "{}", daemon.log());
        let info = sandbox.json(&["modules", "info", "misbehaver"]);
        let text = info.to_string();
        parts.iter().all(|part| text.contains(part)).then_some(info)
    })
}

#[test]
fn a_start_that_panics_or_fails_is_reported() {
    for (fault, parts) in [
        ("start_panics", &["panicked", "planted: start"][..]),
        ("start_fails", &["planted: start"]),
    ] {
        let sandbox = sandbox(fault);
        let daemon = sandbox.start();
        let info = said(&daemon, &sandbox, parts);
        assert_ne!(info["state"], "running", "{info:#}");
        counted(&sandbox, &daemon, fault);
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_start_that_never_returns_delays_nobody() {
    let sandbox = sandbox("start_hangs");
    let daemon = sandbox.spawn();
    daemon.wait_state("counter", "running");
    daemon.wait_state("ingest", "running");
    counted(&sandbox, &daemon, "start_hangs");
    said(&daemon, &sandbox, &["\"stalled\"", "start"]);
    assert!(daemon.stop().success(), "it ends without the module");
}

#[test]
fn a_handler_that_panics_is_named_and_its_event_set_aside() {
    let sandbox = sandbox("event_panics");
    let daemon = sandbox.start();
    counted(&sandbox, &daemon, "event_panics");
    said(&daemon, &sandbox, &["completed", "planted: event"]);
    wait_until("the event is set aside", || {
        let dead = sandbox.json(&["events", "dead"]);
        let letter = dead.as_array()?.first()?.clone();
        assert_eq!(letter["module"], "misbehaver");
        assert!(letter["reason"].to_string().contains("planted: event"), "{letter:#}");
        Some(())
    });
    counted(&sandbox, &daemon, "event_panics again");
    balanced(&sandbox);
    assert!(daemon.stop().success());
}

#[test]
fn an_event_that_always_fails_is_set_aside_after_five_attempts() {
    let sandbox = sandbox("event_fails");
    let daemon = sandbox.start();
    counted(&sandbox, &daemon, "one");
    let letter = wait_until("the event is set aside", || {
        sandbox.json(&["events", "dead"]).as_array()?.first().cloned()
    });
    assert_eq!(letter["attempts"], 5, "{letter:#}");
    assert!(letter["reason"].to_string().contains("planted: event"), "{letter:#}");
    balanced(&sandbox);

    // With the fault gone the letter can be delivered again.
    sandbox.configure(&config("none"));
    wait_until("the module runs without its fault", || {
        let fault = &sandbox.json(&["config", "show"])["modules"]["misbehaver"]["fault"];
        (fault == "none" && daemon.module("misbehaver")["state"] == "running").then_some(())
    });
    let replayed = sandbox.json(&["events", "replay", "--all", "misbehaver"]);
    assert_eq!(replayed["replayed"], 1, "{replayed:#}");
    wait_until("it is handled", || {
        (sandbox.json(&["misbehaver", "handled"])["handled"] == 1).then_some(())
    });
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]));
    balanced(&sandbox);
}

/// Checks that `accepted = handled + dead + dropped + pending` holds for every subscriber.
fn balanced(sandbox: &Sandbox) {
    let audit = sandbox.json(&["events", "audit"]);
    for row in audit.as_array().expect("a list") {
        assert_eq!(row["balanced"], true, "{audit:#}");
    }
}

#[test]
fn a_handler_that_never_returns_is_shown_as_stalled() {
    let sandbox = sandbox("event_hangs");
    let daemon = sandbox.start();
    counted(&sandbox, &daemon, "event_hangs");
    said(&daemon, &sandbox, &["\"stalled\""]);
    counted(&sandbox, &daemon, "event_hangs again");
    assert!(daemon.stop().success(), "it ends without the module");
}

#[test]
fn a_slow_handler_slows_nobody_else() {
    let sandbox = sandbox("event_slow");
    let daemon = sandbox.start();
    let ids = (0..50).map(|number| format!("slow-{number}")).collect::<Vec<_>>();
    let ids = ids.iter().map(String::as_str).collect::<Vec<_>>();
    let body = telemetry::claude_code_many("s", &ids).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    wait_until("the fast one has all", || {
        (sandbox.json(&["counter", "report"])["events"] == 50).then_some(())
    });
    wait_until("the slow one has all in the end", || {
        (daemon.module("misbehaver")["events"]["handled"] == 50).then_some(())
    });
    balanced(&sandbox);
}

#[test]
fn a_command_that_panics_or_fails_is_an_error_with_its_name() {
    let sandbox = sandbox("none");
    let daemon = sandbox.start();
    for command in ["panic", "fail"] {
        let output = sandbox.lodestar(&["misbehaver", command]);
        assert_eq!(output.code, 1, "{output:#?}");
        assert!(output.stderr.contains("planted: command"), "{output:#?}");
        assert!(!output.stderr.contains("stack backtrace"), "{output:#?}");
    }
    let output = sandbox.lodestar(&["misbehaver", "big", "--bytes", "many"]);
    assert_eq!(output.code, 2, "{output:#?}");
    counted(&sandbox, &daemon, "commands");
}

#[test]
fn a_command_that_never_returns_times_out() {
    let sandbox = sandbox("none");
    let daemon = sandbox.start();
    let output = sandbox.lodestar(&["--timeout", "2", "misbehaver", "hang"]);
    assert_eq!(output.code, 5, "{output:#?}");
    counted(&sandbox, &daemon, "a command hangs");
    said(&daemon, &sandbox, &["\"stalled\"", "hang"]);
}

#[test]
fn a_module_that_never_returns_is_not_replaced_and_holds_nobody_up() {
    for how in ["spin", "deadlock"] {
        let sandbox = sandbox("none");
        let daemon = sandbox.start();
        let stuck = ["--timeout", "1", "misbehaver", "crash", "--how", how];
        assert_eq!(sandbox.lodestar(&stuck).code, 5, "{how}");
        let output = sandbox.lodestar(&["modules", "reload", "misbehaver"]);
        assert_eq!(output.code, 4, "{how}: {output:#?}");
        let words = "the running generation did not come to a pause within 10 s";
        assert!(output.stderr.contains(words), "{how}: {output:#?}");
        let module = daemon.wait_state("misbehaver", "stalled");
        assert!(module["reason"].to_string().contains("its command"), "{how}: {module:#}");
        counted(&sandbox, &daemon, how);
        assert!(daemon.stop().success(), "{how}: it ends without the module");
    }
}

#[test]
fn a_fork_that_crashes_and_a_thread_that_ends_itself_are_no_crash_of_the_daemon() {
    let sandbox = sandbox("none");
    let daemon = sandbox.start();
    for how in ["pthread_exit", "fork"] {
        assert_eq!(sandbox.json(&["misbehaver", "crash", "--how", how]), how);
        counted(&sandbox, &daemon, how);
    }
    daemon.kill();
    let daemon = sandbox.start();
    assert_eq!(daemon.module("misbehaver")["isolation"], "in_process", "nobody is blamed");
    assert!(daemon.stop().success());
}

#[test]
fn a_client_that_goes_away_ends_the_stream_that_it_asked_for() {
    for isolation in ["in_process", "process"] {
        let sandbox = sandbox(&format!("none\n    isolation: {isolation}"));
        let daemon = sandbox.start();
        let mut command = sandbox.isolated(&program("lodestar"));
        command.args(["misbehaver", "drip"]).stdout(Stdio::piped());
        let mut client = command.spawn().expect("the program is built");
        let stdout = client.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        assert_eq!(lines.next().expect("it streams").expect("it is text"), "drip");
        client.kill().expect("it lives");
        client.wait().expect("it is ours");
        wait_until("the module is told", || {
            let handled = sandbox.json(&["misbehaver", "handled"]);
            (handled["cancelled"] == true).then_some(())
        });
        counted(&sandbox, &daemon, isolation);
    }
}

#[test]
fn a_module_gets_the_secrets_that_it_declares() {
    for isolation in ["in_process", "process"] {
        let sandbox = sandbox(&format!(
            "none\n    isolation: {isolation}\n    secrets: {{token: '${{A_TOKEN}}'}}"
        ));
        let mut command = sandbox.lodestard();
        command.env("A_TOKEN", "0123456789");
        let daemon = Daemon::spawn(&sandbox, command);
        daemon.wait_settled();
        let secret = |name: &str| sandbox.lodestar(&["misbehaver", "secret", "--name", name]);
        let declared = secret("token");
        assert_eq!(declared.code, 0, "{isolation}: {declared:#?}");
        assert!(declared.stdout.contains("10"), "{isolation}: {declared:#?}");
        let other = secret("another");
        assert_eq!(other.code, 1, "{isolation}: {other:#?}");
        assert!(other.stderr.contains("capabilities.secrets"), "{isolation}: {other:#?}");
        assert!(!daemon.log().contains("0123456789"));
        assert!(daemon.stop().success());
    }
}

#[test]
fn panics_in_a_row_lose_no_event() {
    let sandbox = sandbox("event_panics_at_times\n    restart: {limit: 1000, backoff_max_ms: 1}");
    let daemon = sandbox.start();
    let ids: Vec<String> = (0..100).map(|number| format!("r{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let body = telemetry::claude_code_many("s", &ids).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    wait_until("all are handled", || {
        (daemon.module("misbehaver")["events"]["handled"] == 100).then_some(())
    });
    assert!(daemon.module("misbehaver")["restarts"].as_u64() >= Some(100));
    assert_eq!(sandbox.json(&["events", "dead"]), serde_json::json!([]));
    balanced(&sandbox);
    assert!(daemon.stop().success());
}

#[test]
fn a_big_answer_arrives_whole() {
    let sandbox = sandbox("none");
    let _daemon = sandbox.start();
    let reply = sandbox.json(&["misbehaver", "big", "--bytes", "5000000"]);
    assert_eq!(reply.as_str().map(str::len), Some(5_000_000));
}

#[test]
fn a_timer_that_panics_and_a_health_that_panics_are_contained() {
    let panicking = sandbox("timer_panics");
    let daemon = panicking.start();
    said(&daemon, &panicking, &["planted: timer"]);
    counted(&panicking, &daemon, "timer_panics");
    drop(daemon);

    let panicking = sandbox("health_panics");
    let daemon = panicking.start();
    said(&daemon, &panicking, &["planted: health"]);
    counted(&panicking, &daemon, "health_panics");
}

#[test]
fn a_flood_of_live_events_drops_the_oldest_and_counts_them() {
    let config = config("timer_floods").replace(
        "  counter:\n    enabled: true\n",
        "  counter:\n    noise_busy_us: 1000\nbus:\n  inbox_events: 16\n",
    );
    let sandbox = Sandbox::new(&["ingest", "misbehaver", "counter"], &config);
    let daemon = sandbox.start();
    let dropped = wait_until("something is dropped", || {
        let lag = sandbox.json(&["events", "lag"]);
        let counter = lag.as_array()?.iter().find(|row| row["module"] == "counter")?.clone();
        counter["dropped"]["overflow"].as_u64().filter(|dropped| *dropped > 0)
    });
    counted(&sandbox, &daemon, "in a flood");
    let info = sandbox.json(&["modules", "info", "counter"]);
    assert!(info["dropped_by"]["overflow"].as_u64() >= Some(dropped), "{info:#}");
    assert!(info["events"]["dropped"].as_u64() >= Some(dropped), "{info:#}");
    let page = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers").text();
    let row = |line: &&str| {
        line.starts_with("lodestar_bus_events_dropped_total{")
            && line.contains("module=\"counter\"")
            && line.contains("reason=\"overflow\"")
    };
    let line = page.lines().find(row).unwrap_or_else(|| panic!("{page}"));
    let count = line.rsplit(' ').next().and_then(|count| count.parse::<f64>().ok());
    assert!(count >= Some(dropped as f64), "{line}");
    balanced(&sandbox);
}

#[test]
fn a_stop_that_goes_wrong_is_reported_and_the_module_can_start_again() {
    for fault in ["stop_panics", "stop_fails", "drop_panics", "leaves_thread"] {
        let sandbox = sandbox(fault);
        let daemon = sandbox.start();
        daemon.wait_state("misbehaver", "running");
        let output = sandbox.lodestar(&["modules", "disable", "misbehaver"]);
        assert!(output.code == 0 || output.stderr.contains("planted"), "{fault}: {output:#?}");
        wait_until(&format!("{fault}: it ended"), || {
            (daemon.module("misbehaver")["state"] != "running").then_some(())
        });
        counted(&sandbox, &daemon, fault);
        let output = sandbox.lodestar(&["modules", "enable", "misbehaver"]);
        assert_eq!(output.code, 0, "{fault}: {output:#?}");
        daemon.wait_state("misbehaver", "running");
        assert!(daemon.stop().success(), "{fault}");
    }
}

#[test]
fn a_stop_that_never_returns_ends_nevertheless() {
    let sandbox = sandbox("stop_hangs");
    let daemon = sandbox.start();
    counted(&sandbox, &daemon, "before");
    let output = sandbox.lodestar(&["modules", "disable", "misbehaver"]);
    assert_ne!(output.code, 0, "it did not stop: {output:#?}");
    counted(&sandbox, &daemon, "after");
    assert!(daemon.stop().success(), "it ends without the module");
}
