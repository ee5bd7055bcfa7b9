//! `isolation: process`: everything works there, and the end of the process ends nothing else.

use std::{fs, path::Path};

use harness::{Daemon, Sandbox, http, telemetry, wait_until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// Creates a sandbox with the misbehaver in a process of its own, and a healthy module in the
/// daemon.
fn sandbox(keys: &str) -> Sandbox {
    let config = format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  counter:\n    enabled: true\n  \
         misbehaver:\n    isolation: process\n    restart: {{limit: 1000, backoff_max_ms: 1}}\n\
         {keys}metrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["ingest", "misbehaver", "counter"], &config)
}

fn send(daemon: &Daemon<'_>, ids: &[&str]) {
    let body = telemetry::claude_code_many("s", ids).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
}

/// Sends one request and waits until the healthy module has received it.
fn others_go_on(sandbox: &Sandbox, daemon: &Daemon<'_>, id: &str) {
    let before = sandbox.json(&["counter", "report"])["events"].as_u64().expect("a number");
    send(daemon, &[id]);
    wait_until("the other module has the event", || {
        (sandbox.json(&["counter", "report"])["events"].as_u64()? > before).then_some(())
    });
}

fn pid(sandbox: &Sandbox, module: &str) -> Option<Pid> {
    let info = sandbox.json(&["modules", "info", module]);
    let pid = info["process"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw)
}

fn wait_for_pid(sandbox: &Sandbox, module: &str) -> Pid {
    wait_until("the module has a process", || pid(sandbox, module))
}

/// Waits until the module runs in a process other than `before`.
fn wait_for_another(sandbox: &Sandbox, daemon: &Daemon<'_>, module: &str, before: Pid) {
    wait_until("the module has another process", || {
        let running = daemon.module(module)["state"] == "running";
        (running && pid(sandbox, module)? != before).then_some(())
    });
}

fn errors(sandbox: &Sandbox, module: &str) -> String {
    sandbox.json(&["modules", "info", module])["last_errors"].to_string()
}

#[test]
fn everything_works_in_processes_of_their_own() {
    let sandbox = Sandbox::new(
        &["ingest", "usage_tracker", "misbehaver"],
        "modules:\n  ingest:\n    isolation: process\n    listen: 127.0.0.1:0\n  \
         usage_tracker:\n    isolation: process\n  misbehaver:\n    isolation: process\n\
         log:\n  modules:\n    misbehaver: warn\nmetrics:\n  listen: 127.0.0.1:0\n",
    );
    let daemon = sandbox.start();
    let ids: Vec<String> = (0..300).map(|number| format!("r{number}")).collect();
    send(&daemon, &ids.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("all is counted", || {
        (sandbox.json(&["usage", "summary"])["total"]["requests"] == 300).then_some(())
    });
    // A stream of an answer, its order and its end.
    let export = sandbox.lodestar(&["usage", "export", "--format", "jsonl"]);
    assert_eq!((export.code, export.stdout.lines().count()), (0, 300), "{}", export.stderr);
    let big = sandbox.json(&["misbehaver", "big", "--bytes", "5000000"]);
    assert_eq!(big.as_str().map(str::len), Some(5_000_000));
    let sources = sandbox.json(&["ingest", "sources"]);
    assert!(sources.to_string().contains("300"), "{sources:#}");
    // Names of sessions come from the host's key.
    let session = sandbox.json(&["usage", "sessions"])[0]["session_id"].to_string();
    assert!(session.contains("session_"), "{session}");
    let metrics = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers").text();
    assert!(metrics.contains("lodestar_requests_total{"), "{metrics}");
    assert!(metrics.contains("lodestar_module_memory_bytes{module=\"ingest\"}"), "{metrics}");
    // Its log bears its name, at its level.
    assert_eq!(sandbox.lodestar(&["misbehaver", "log", "--text", "hello"]).code, 0);
    let logs = sandbox.lodestar(&["modules", "logs", "misbehaver"]).stdout;
    assert!(logs.contains("planted: hello"), "{logs}");
    for module in ["ingest", "usage_tracker", "misbehaver"] {
        let info = sandbox.json(&["modules", "info", module]);
        assert_eq!(info["isolation"], "process");
        assert!(info["memory_bytes"].as_u64() > Some(1 << 20), "{info:#}");
        assert!(info["process"]["threads"].as_u64() >= Some(2), "{info:#}");
        assert_eq!(info["resident_generations"], 0, "the daemon has mapped nothing: {info:#}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn reloads_and_a_change_of_place_lose_nothing() {
    let config = |isolation: &str| {
        format!(
            "modules:\n  ingest:\n    isolation: {isolation}\n    listen: 127.0.0.1:0\n  \
             usage_tracker:\n    isolation: {isolation}\nmetrics:\n  listen: 127.0.0.1:0\n"
        )
    };
    let sandbox = Sandbox::new(&["ingest", "usage_tracker"], &config("process"));
    let daemon = sandbox.start();
    let mut sent = 0;
    let mut send_some = || {
        for _ in 0..20 {
            send(&daemon, &[&format!("r{sent}")]);
            sent += 1;
        }
    };
    send_some();
    for module in ["ingest", "usage_tracker"] {
        let before = wait_for_pid(&sandbox, module);
        let output = sandbox.lodestar(&["modules", "reload", module]);
        assert_eq!(output.code, 0, "{output:#?}");
        assert_ne!(wait_for_pid(&sandbox, module), before);
        send_some();
    }
    for isolation in ["in_process", "process"] {
        sandbox.configure(&config(isolation));
        for module in ["ingest", "usage_tracker"] {
            wait_until("the module runs elsewhere", || {
                send_some();
                let is_there = pid(&sandbox, module).is_some() == (isolation == "process");
                (is_there && daemon.module(module)["state"] == "running").then_some(())
            });
        }
    }
    wait_until("all is counted once", || {
        (sandbox.json(&["usage", "summary"])["total"]["requests"] == sent).then_some(())
    });
    assert!(daemon.stop().success());
}

#[test]
fn state_goes_from_process_to_process_and_back_into_the_daemon() {
    let config = |isolation: &str| {
        format!(
            "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  gear:\n    isolation: \
             {isolation}\n    listen: 127.0.0.1:0\nmetrics:\n  listen: 127.0.0.1:0\n"
        )
    };
    let sandbox = Sandbox::new(&["ingest", "gear"], &config("process"));
    let daemon = sandbox.start();
    let seen = || sandbox.json(&["gear", "seen"])["seen"].clone();
    send(&daemon, &["one", "two", "three"]);
    wait_until("they are handled", || (seen() == 3).then_some(()));
    let before = wait_for_pid(&sandbox, "gear");
    assert_eq!(sandbox.lodestar(&["modules", "reload", "gear"]).code, 0);
    assert_ne!(wait_for_pid(&sandbox, "gear"), before);
    assert_eq!(seen(), 3, "from process to process");
    for isolation in ["in_process", "process"] {
        sandbox.configure(&config(isolation));
        wait_until("it runs elsewhere", || {
            (daemon.module("gear")["isolation"] == isolation).then_some(())
        });
        daemon.wait_state("gear", "running");
        assert_eq!(seen(), 3, "to {isolation}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_start_that_hangs_is_ended_with_its_process() {
    let sandbox = sandbox("    fault: start_hangs\n");
    let daemon = sandbox.spawn();
    daemon.wait_state("counter", "running");
    daemon.wait_state("ingest", "running");
    wait_until("its process is ended", || {
        errors(&sandbox, "misbehaver").contains("did not return within 30000 ms").then_some(())
    });
    others_go_on(&sandbox, &daemon, "start hangs");
    assert!(daemon.stop().success());
}

#[test]
fn whatever_ends_its_process_ends_nothing_else() {
    // No deadline that a busy machine could miss.
    let limits = "    limits: {call_deadline_ms: 3600000, memory_bytes: 268435456}\n";
    ends_nothing_else(
        limits,
        &[
            ("segfault", "ended by signal 11 (SIGSEGV)"),
            ("abort", "ended by signal 6 (SIGABRT)"),
            ("overflow", "a thread has overflowed its stack"),
            ("exit", "exited with code 3"),
            ("leak", "limits.memory_bytes is 268435456"),
            ("garbage", "it sent garbage"),
            ("talker", "ended by signal 6 (SIGABRT)"),
        ],
    );
}

#[test]
fn a_call_that_never_returns_ends_its_process_and_nothing_else() {
    let reason = "did not return within 3000 ms";
    let hang = [("spin", reason), ("deadlock", reason)];
    ends_nothing_else("    limits: {call_deadline_ms: 3000}\n", &hang);
}

/// Ends the process of a module in these ways, and checks the reported reasons.
fn ends_nothing_else(limits: &str, ways: &[(&str, &str)]) {
    let sandbox = sandbox(limits);
    let daemon = sandbox.start();
    for (how, reason) in ways {
        daemon.wait_state("misbehaver", "running");
        let before = wait_for_pid(&sandbox, "misbehaver");
        let output = sandbox.lodestar(&["misbehaver", "crash", "--how", how]);
        if *how != "garbage" {
            assert_eq!(output.code, 1, "{how}: {output:#?}");
            assert!(output.stderr.contains(reason), "{how}: {output:#?}");
        }
        wait_for_another(&sandbox, &daemon, "misbehaver", before);
        assert!(errors(&sandbox, "misbehaver").contains(reason), "{how}: {}", daemon.log());
        others_go_on(&sandbox, &daemon, how);
    }
    let handled = sandbox.json(&["misbehaver", "handled"]);
    assert!(handled["handled"].is_u64(), "it works again: {handled:#}");
    assert!(daemon.stop().success());
}

#[test]
fn a_limit_holds_from_its_first_breach_on() {
    let sandbox = sandbox("");
    let daemon = sandbox.start();
    let limited = sandbox
        .configuration()
        .replace("    restart:", "    limits: {memory_bytes: 268435456}\n    restart:");
    let limit =
        || sandbox.json(&["modules", "info", "misbehaver"])["process"]["memory_limit"].clone();
    assert!(limit().is_null());
    sandbox.configure(&limited);
    wait_until("it is limited", || limit().is_string().then_some(()));
    // It is as new as a new library, and what breaks it is still no reason to take it back.
    for _ in 0..2 {
        let before = wait_for_pid(&sandbox, "misbehaver");
        let output = sandbox.lodestar(&["misbehaver", "crash", "--how", "leak"]);
        assert!(output.stderr.contains("limits.memory_bytes is 268435456"), "{output:#?}");
        wait_for_another(&sandbox, &daemon, "misbehaver", before);
        assert!(limit().is_string());
        let errors = errors(&sandbox, "misbehaver");
        assert!(errors.contains("command: "), "that call was to blame: {errors}");
        assert!(!errors.contains("timer: "), "and no other: {errors}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn an_event_that_crashes_is_set_aside_and_the_others_are_handled() {
    let sandbox = sandbox("    fault: event_segfaults\n");
    let daemon = sandbox.start();
    let ids: Vec<String> = (0..40).map(|number| format!("good{number}")).collect();
    let mut ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    ids.insert(20, "poison");
    send(&daemon, &ids);
    let letter = wait_until("the event is set aside", || {
        sandbox.json(&["events", "dead"]).as_array()?.first().cloned()
    });
    assert!(letter["reason"].to_string().contains("SIGSEGV"), "{letter:#}");
    wait_until("the others are handled", || {
        (daemon.module("misbehaver")["events"]["handled"] == 40).then_some(())
    });
    let audit = sandbox.json(&["events", "audit"]);
    let rows = audit.as_array().expect("a list");
    assert!(rows.iter().all(|row| row["balanced"] == true), "{audit:#}");
}

#[test]
fn an_idle_process_that_is_killed_is_noticed_at_once_and_blamed_on_nobody() {
    let sandbox = sandbox("");
    let daemon = sandbox.start();
    let before = wait_for_pid(&sandbox, "misbehaver");
    kill_process(before, Signal::KILL).expect("it lives");
    wait_for_another(&sandbox, &daemon, "misbehaver", before);
    assert!(errors(&sandbox, "misbehaver").contains("signal 9 (SIGKILL)"));
    others_go_on(&sandbox, &daemon, "killed");

    // Nor is a new generation on probation.
    assert_eq!(sandbox.lodestar(&["modules", "reload", "misbehaver"]).code, 0);
    let before = wait_for_pid(&sandbox, "misbehaver");
    kill_process(before, Signal::KILL).expect("it lives");
    wait_for_another(&sandbox, &daemon, "misbehaver", before);
    let history = sandbox.json(&["modules", "why", "misbehaver"]).to_string();
    assert!(!history.contains("rolled_back"), "{history}");
}

#[test]
fn a_killed_daemon_leaves_no_process_behind() {
    let sandbox = sandbox("");
    let daemon = sandbox.start();
    let runner = wait_for_pid(&sandbox, "misbehaver");
    // Also one that is in a call and does not look.
    let spinning = sandbox.lodestar(&["--timeout", "1", "misbehaver", "crash", "--how", "spin"]);
    assert_eq!(spinning.code, 5, "{spinning:#?}");
    daemon.kill();
    wait_until("the process has ended", || {
        let gone = test_kill_process(runner).is_err();
        // In a container nobody may take note of its end.
        let state = fs::read_to_string(format!("/proc/{}/stat", runner.as_raw_nonzero()));
        (gone || state.is_ok_and(|state| state.contains(") Z "))).then_some(())
    });
}

#[test]
fn a_module_that_does_not_stop_is_ended() {
    let sandbox = sandbox("    fault: stop_hangs\n");
    let daemon = sandbox.start();
    let runner = wait_for_pid(&sandbox, "misbehaver");
    let output = sandbox.lodestar(&["modules", "disable", "misbehaver"]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(test_kill_process(runner).is_err(), "its process has ended");
    let output = sandbox.lodestar(&["modules", "enable", "misbehaver"]);
    assert_eq!(output.code, 0, "{output:#?}");
    others_go_on(&sandbox, &daemon, "stopped");
}

#[test]
fn a_flood_from_a_process_holds_nobody_up() {
    // Into the daemon, and into another process.
    for isolation in ["in_process", "process"] {
        let sandbox = sandbox("    fault: timer_floods\n");
        let counter = format!("  counter:\n    isolation: {isolation}\n");
        sandbox.configure(
            &sandbox.configuration().replace("  counter:\n    enabled: true\n", &counter),
        );
        let daemon = sandbox.start();
        assert_eq!(daemon.module("counter")["isolation"], isolation);
        wait_until("the other module is flooded", || {
            (sandbox.json(&["counter", "report"])["noise"].as_u64()? > 50_000).then_some(())
        });
        others_go_on(&sandbox, &daemon, "in a flood");
        let audit = sandbox.json(&["events", "audit"]);
        let rows = audit.as_array().expect("a list");
        assert!(rows.iter().all(|row| row["balanced"] == true), "{audit:#}");
        assert!(daemon.stop().success());
    }
}

#[test]
fn the_limits_that_hold_are_shown_and_hold() {
    let sandbox = sandbox("    limits: {memory_bytes: 268435456, cpu_percent: 150}\n");
    let daemon = sandbox.start();
    let info = sandbox.json(&["modules", "info", "misbehaver"]);
    let process = &info["process"];
    let word = |key: &str| process[key].as_str().unwrap_or_else(|| panic!("{info:#}")).to_owned();
    let (memory, cpu) = (word("memory_limit"), word("cpu_limit"));
    let of_kernel = |file: &str| {
        let file = format!("/proc/{}/{file}", process["pid"]);
        fs::read_to_string(file).expect("the process lives")
    };
    // Whether a part of the control groups is the daemon's own is a matter of the machine.
    match memory.as_str() {
        "268435456 bytes by RLIMIT_DATA and the daemon's count" => {
            let limits = of_kernel("limits");
            let line = limits.lines().find(|line| line.starts_with("Max data size"));
            assert!(line.is_some_and(|line| line.contains(" 268435456 ")), "{limits}");
        }
        "268435456 bytes by cgroup memory.max" => {
            assert!(of_kernel("cgroup").contains("/runner-misbehaver-"), "{}", of_kernel("cgroup"));
        }
        other => panic!("{other}"),
    }
    let measured = "150% asked for, measured only";
    assert!([measured, "150% by cgroup cpu.max"].contains(&cpu.as_str()), "{cpu}");
    let text = sandbox.lodestar(&["modules", "info", "misbehaver"]).stdout;
    assert!(text.contains(&memory) && text.contains(&cpu), "for people as well: {text}");
    assert_eq!(daemon.log().contains("limits.cpu_percent is measured only"), cpu == measured);
    assert!(daemon.stop().success());
}

#[test]
fn a_module_reaches_its_own_files_and_nobody_elses() {
    let sandbox = sandbox("");
    let daemon = sandbox.start();
    let info = sandbox.json(&["modules", "info", "misbehaver"]);
    if !info["process"]["sandbox"].to_string().contains("Landlock") {
        return harness::skip_even_in_ci("isolation", "this kernel has no Landlock");
    }
    let read = |path: &Path| {
        let path = path.display().to_string();
        sandbox.lodestar(&["misbehaver", "read", "--path", &path])
    };
    let own = Path::new(info["data_dir"].as_str().expect("it has one")).join("own");
    fs::write(&own, "mine").expect("the sandbox is writable");
    assert_eq!(read(&own).code, 0, "{:#?}", read(&own));
    let daemons = format!("/proc/{}/environ", daemon.pid());
    for others in [
        sandbox.state().join("pseudonym.key"),
        sandbox.state().join("data/counter/deliveries"),
        sandbox.path("modules.yaml"),
        daemons.into(),
    ] {
        assert!(fs::read(&others).is_ok(), "{} is there", others.display());
        let output = read(&others);
        assert!(output.stderr.contains("ermission denied"), "{}: {output:#?}", others.display());
    }
}

#[test]
fn a_database_beside_the_daemons_own_files_is_refused() {
    let sandbox = Sandbox::new(&["usage_tracker"], "modules: {}\n");
    let config = |file: &str| {
        let place = sandbox.path(file);
        format!(
            "modules:\n  usage_tracker:\n    isolation: process\n    database: {}\n",
            place.display()
        )
    };
    sandbox.configure(&config("state/usage.db"));
    let daemon = sandbox.start();
    let module = daemon.wait_state("usage_tracker", "failed");
    let reason = module["reason"].to_string();
    assert!(reason.contains("database lies in ") && reason.contains("isolation"), "{reason}");
    fs::create_dir(sandbox.path("elsewhere")).expect("the sandbox is writable");
    sandbox.configure(&config("elsewhere/usage.db"));
    daemon.wait_state("usage_tracker", "running");
    assert!(sandbox.path("elsewhere/usage.db").exists());
}

#[test]
fn a_library_that_does_not_fit_is_incompatible_there_too() {
    let config = "modules:\n  layout_changed:\n    isolation: process\n";
    let sandbox = Sandbox::new(&["layout_changed"], config);
    let daemon = sandbox.start();
    let module: Value = daemon.wait_state("layout_changed", "incompatible");
    assert!(module["reason"].to_string().contains("does not fit this host"), "{module:#}");
}

#[test]
fn a_refused_generation_leaves_the_process_of_the_one_that_runs_in_sight() {
    let config = |fault: &str| {
        format!(
            "modules:\n  gear:\n    isolation: process\n    listen: 127.0.0.1:0\n    fault: \
             {fault}\nmetrics:\n  listen: 127.0.0.1:0\n"
        )
    };
    let sandbox = Sandbox::new(&["gear"], &config("none"));
    let daemon = sandbox.start();
    let before = wait_for_pid(&sandbox, "gear");
    sandbox.configure(&config("health_fails"));
    wait_until("it was refused", || {
        let history = sandbox.json(&["modules", "why", "gear"]).to_string();
        history.contains("planted: health").then_some(())
    });
    assert_eq!(daemon.module("gear")["state"], "running");
    assert_eq!(pid(&sandbox, "gear"), Some(before));
    let threads = &sandbox.json(&["modules", "info", "gear"])["process"]["threads"];
    assert!(threads.as_u64() > Some(0), "it lives: {threads}");
    assert!(daemon.stop().success());
}
