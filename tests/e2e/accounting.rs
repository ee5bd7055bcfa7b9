//! Resources that every module uses: in `status`, `modules info`, the metrics and `lodestar top`.

use harness::{Sandbox, http, wait_until};
use serde_json::Value;

const CONFIG: &str = "\
modules:
  ingest:
    enabled: true
    listen: 127.0.0.1:0
  usage_tracker:
    enabled: true
    isolation: process
metrics:
  listen: 127.0.0.1:0
";

#[test]
fn calls_are_measured_wherever_they_are_shown() {
    let sandbox = Sandbox::new(&["ingest", "usage_tracker"], CONFIG);
    let daemon = sandbox.start();
    for _ in 0..3 {
        let _ = sandbox.json(&["usage", "summary"]);
    }
    let tracker = daemon.module("usage_tracker");
    let commands = kind(&tracker, "command");
    assert_eq!((&commands["calls"], &commands["failures"]), (&3.into(), &0.into()), "{tracker:#}");
    let times = ["p50_ns", "p99_ns", "max_ns", "total_ns"].map(|name| commands[name].as_u64());
    assert!(times.iter().all(|time| *time > Some(0)) && times.is_sorted(), "{commands:#}");
    assert_eq!(tracker["recent"]["calls"], 3, "health is not work: {tracker:#}");
    assert!(tracker["threads"].as_u64() >= Some(1), "{tracker:#}");
    let text = sandbox.lodestar(&["modules", "info", "usage_tracker"]).stdout;
    assert!(text.contains("\ncalls       command: 3 calls, p50 "), "{text}");
    let page = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers").text();
    let labels = "{kind=\"command\",module=\"usage_tracker\"";
    for (family, rest) in [
        ("duration_seconds_bucket", ",le=\"+Inf\"} 3\n"),
        ("duration_seconds_count", "} 3\n"),
        ("failures_total", "} 0\n"),
    ] {
        let line = format!("lodestar_module_handler_{family}{labels}{rest}");
        let other = line.replace(labels, "{module=\"usage_tracker\",kind=\"command\"");
        assert!(page.contains(&line) || page.contains(&other), "{line}\n{page}");
    }
    for family in ["lodestar_module_cpu_seconds_total", "lodestar_module_threads"] {
        assert!(page.contains(&format!("\n{family}{{module=\"ingest\"}}")), "{family}\n{page}");
    }
}

#[test]
fn the_time_of_a_process_that_was_killed_stays_counted() {
    let config = "modules:\n  usage_tracker:\n    isolation: process\n";
    let sandbox = Sandbox::new(&["usage_tracker"], config);
    let daemon = sandbox.start();
    let spent = wait_until("it has used some time", || {
        let _ = sandbox.json(&["usage", "summary"]);
        daemon.module("usage_tracker")["cpu_ms"].as_u64().filter(|spent| *spent >= 30)
    });
    let process = |sandbox: &Sandbox| {
        let info = sandbox.json(&["modules", "info", "usage_tracker"]);
        info["process"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok())
    };
    let before = process(&sandbox).expect("it has a process of its own");
    let pid = rustix::process::Pid::from_raw(before).expect("a process has a number");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it lives");
    wait_until("it has another process", || process(&sandbox).filter(|pid| *pid != before));
    let after = daemon.module("usage_tracker")["cpu_ms"].as_u64();
    assert!(after >= Some(spent), "{after:?} after {spent}");
}

#[test]
fn a_thread_with_a_name_of_its_own_is_its_modules() {
    let config = "modules:\n  misbehaver:\n    fault: leaves_thread\n  counter:\n";
    let sandbox = Sandbox::new(&["misbehaver", "counter"], config);
    let daemon = sandbox.start();
    let threads = |module: &str| daemon.module(module)["threads"].as_u64();
    assert_eq!(["misbehaver", "counter"].map(threads), [Some(2), Some(1)]);
    assert_eq!(sandbox.lodestar(&["modules", "disable", "misbehaver"]).code, 0);
    wait_until("what it leaves behind is still its own", || {
        (threads("misbehaver") == Some(1)).then_some(())
    });
    assert!(daemon.log().contains("left threads behind"), "{}", daemon.log());
}

#[test]
fn top_prints_a_table_or_documents() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let once = sandbox.lodestar(&["top", "--once", "--interval", "0.1"]);
    assert_eq!(once.code, 0, "{once:#?}");
    let lines: Vec<&str> = once.stdout.lines().collect();
    assert!(lines[0].starts_with("lodestard ") && lines[1].starts_with("2 of 2 modules run"));
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{once:#?}");
    let titles: Vec<&str> = lines[2].split_whitespace().collect();
    assert!(titles.starts_with(&["MODULE", "STATE", "CPU%", "MEMORY"]), "{titles:?}");
    assert!(titles.contains(&"P99") && titles.ends_with(&["ERRORS"]), "{titles:?}");
    assert!(lines[3].starts_with("ingest ") && lines[3].contains(" running "), "{once:#?}");
    assert_eq!(lines.len(), 5, "{once:#?}");
    let piped = sandbox.lodestar(&["top", "--interval", "0.1"]);
    assert_eq!((piped.code, piped.stdout.lines().count()), (0, 5), "{piped:#?}");
    let documents = sandbox.lodestar(&["top", "--json", "--count", "2", "--interval", "0.2"]);
    assert_eq!(documents.code, 0, "{documents:#?}");
    let documents: Vec<Value> = documents
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is a document"))
        .collect();
    assert_eq!(documents.len(), 2);
    for document in &documents {
        assert_eq!(document["pid"], daemon.pid(), "{document:#}");
        assert!(document["interval_ms"].as_u64() >= Some(200), "{document:#}");
        assert!(document["events_per_s"].is_number(), "{document:#}");
        let tracker = &document["modules"][1];
        assert_eq!(
            (&tracker["name"], &tracker["state"]),
            (&"usage_tracker".into(), &"running".into())
        );
        assert!(tracker["cpu_percent"].is_number() && tracker["memory_bytes"].as_u64() > Some(0));
    }
    drop(daemon);
    let gone = sandbox.lodestar(&["top", "--once"]);
    assert_eq!(gone.code, 3, "{gone:#?}");
}

fn kind(module: &Value, kind: &str) -> Value {
    let calls = module["calls"].as_array().cloned().unwrap_or_default();
    calls.into_iter().find(|calls| calls["kind"] == kind).unwrap_or_default()
}
