//! Tools of an operator: metrics, the unit, completions, manual, doctor; and content that must
//! never be written anywhere.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use harness::{
    Sandbox, http,
    telemetry::{self, JSON},
    tool_or_skip,
};
use serde_json::json;

/// Text that stands for prompts and secrets.
const CANARY: &str = "canary-7f3a9e";

#[test]
fn metrics_pass_promtool() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let body = telemetry::claude_code("s", "metrics").to_string();
    let answer = http::post(&address, "/v1/logs", &[JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    assert_eq!(sandbox.json(&["usage", "summary"])["total"]["requests"], 1);
    let page = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers");
    assert_eq!(page.status, 200);
    let text = page.text();
    for family in ["lodestar_build_info", "lodestar_requests_total", "lodestar_ingest_"] {
        assert!(text.contains(family), "{family} is missing:\n{text}");
    }
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut names = families.filter_map(|line| line.split(' ').next()).collect::<Vec<_>>();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "a family has one owner");
    let Some(promtool) = tool_or_skip("promtool", "metrics_pass_promtool") else { return };
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.stdout(Stdio::piped()).spawn().expect("it was found");
    let mut input = check.stdin.take().expect("it is piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = check.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_unit_is_hardened() {
    let Some(analyze) = tool_or_skip("systemd-analyze", "the_unit_is_hardened") else { return };
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/lodestard.service");
    let mut command = Command::new(analyze);
    command.args(["security", "--offline=true", "--no-pager"]).arg(unit);
    let output = harness::run(&mut command);
    let last = output.stdout.lines().rev().find(|line| line.contains("exposure level"));
    let last = last.unwrap_or_else(|| panic!("no score in {output:#?}"));
    let words = last.split_whitespace();
    let score = words.filter_map(|word| word.parse::<f64>().ok()).next_back();
    assert!(score.is_some_and(|score| score <= 1.5), "{last}");
}

/// Properties that `systemd-analyze security` does not rate: the trusted keys exist before they are
/// made read-only, and do not belong to the daemon; one module out of memory does not stop the
/// service.
#[test]
fn the_unit_keeps_its_promises() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/lodestard.service");
    let unit = std::fs::read_to_string(unit).expect("it is there");
    let at = |line: &str| {
        unit.lines().position(|it| it == line).unwrap_or_else(|| panic!("{line} is missing"))
    };
    let folder = "ExecStartPre=+/usr/bin/install -d";
    let above = at(&format!("{folder} -o lodestar -g lodestar -m 0750 /etc/lodestar"));
    let keys = at(&format!("{folder} -o root -g lodestar -m 0750 /etc/lodestar/trusted_keys"));
    assert!(above < keys, "one after the other");
    at("ReadOnlyPaths=-/etc/lodestar/trusted_keys");
    at("OOMPolicy=continue");
}

#[test]
fn completions_and_manual_are_made() {
    let sandbox = Sandbox::usual();
    for shell in ["bash", "zsh", "fish"] {
        let output = sandbox.lodestar(&["completions", shell]);
        assert_eq!(output.code, 0, "{output:#?}");
        assert!(output.stdout.contains("lodestar"), "{shell}");
    }
    let folder = sandbox.path("man");
    std::fs::create_dir(&folder).expect("the sandbox is writable");
    let output = sandbox.lodestar(&["man", "--out", &folder.display().to_string()]);
    assert_eq!(output.code, 0, "{output:#?}");
    assert!(folder.join("lodestar.1").exists());
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let sandbox = Sandbox::new(
        &["counter", "misbehaver"],
        "modules:\n  counter:\n  misbehaver:\n    fault: none\nmetrics:\n  listen: 127.0.0.1:0\n",
    );
    let daemon = sandbox.start();
    let well = sandbox.lodestar(&["doctor"]);
    assert_eq!(well.code, 0, "{well:#?}");
    // What runs goes on, and the doctor says that it is not what the file asks for.
    sandbox.configure(&sandbox.configuration().replace("fault: none", "fault: start_fails"));
    harness::wait_until("the doctor knows", || {
        let doctor = sandbox.lodestar(&["doctor"]);
        doctor.stdout.contains("planted: start").then_some(())
    });
    assert_eq!(daemon.module("misbehaver")["state"], "running");
    assert!(daemon.stop().success());
    let daemon = sandbox.start();
    daemon.wait_state("misbehaver", "failed");
    let ill = sandbox.lodestar(&["doctor"]);
    assert_eq!(ill.code, 1, "{ill:#?}");
    assert!(ill.stdout.contains("misbehaver"), "{ill:#?}");
    drop(daemon);
    let down = sandbox.lodestar(&["doctor"]);
    assert_ne!(down.code, 0, "{down:#?}");
}

/// A missing configuration file, which the first start will write, is no error.
#[test]
fn before_the_first_start_the_doctor_finds_no_fault_in_a_configuration() {
    let sandbox = Sandbox::new(&[], "modules: {}\n");
    let doctor = |config: &str| {
        let mut command = sandbox.isolated(&harness::program("lodestar"));
        let output =
            harness::run(command.arg("doctor").env("LODESTAR_CONFIG", sandbox.path(config)));
        assert_eq!(output.code, 3, "no daemon runs: {output:#?}");
        let lines = output.stdout.lines().map(str::to_owned);
        lines.filter(|line| line.contains("configuration: ")).collect::<Vec<_>>().join("|")
    };
    let first = doctor("none/modules.yaml");
    assert!(first.starts_with("ok ") && first.contains("writes it when it starts"), "{first}");
    assert!(doctor("modules.yaml").starts_with("ok "), "a good one");
    std::fs::write(sandbox.path("modules.yaml"), "modulse:\n").expect("it is ours");
    assert!(doctor("modules.yaml").starts_with("problem "), "a bad one");
    // A link that leads nowhere is not written through.
    std::os::unix::fs::symlink("gone", sandbox.path("link.yaml")).expect("it is new");
    assert!(doctor("link.yaml").starts_with("problem "), "a broken link");
}

#[test]
fn no_prompt_and_no_secret_is_written_anywhere() {
    let config = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  usage_tracker:\n  misbehaver:\n\
                  log:\n  level: trace\nmetrics:\n  listen: 127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["ingest", "usage_tracker", "misbehaver"], config);
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    for (path, body) in canaries() {
        http::post(&address, path, &[JSON], body.as_bytes()).expect("ingest answers");
    }
    assert!(sandbox.json(&["usage", "summary"])["total"]["requests"].as_u64() >= Some(1));
    let key = format!("sk-ant-api03-{CANARY}-{}", "x".repeat(40));
    let _ = sandbox.json(&["misbehaver", "log", "--text", &key]);
    let dead = sandbox.lodestar(&["events", "dead", "--json"]).stdout;
    let metrics = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers");
    let mut written = sandbox.state_files();
    written.push(("the log".into(), daemon.log().into_bytes()));
    written.push(("the dead letters".into(), dead.into_bytes()));
    written.push(("the metrics".into(), metrics.body));
    for args in
        [&["usage", "export"][..], &["ingest", "sources"], &["modules", "logs", "misbehaver"]]
    {
        let output = sandbox.lodestar(args);
        written.push((args.join(" ").into(), output.stdout.into_bytes()));
    }
    for (place, bytes) in written {
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!found, "a planted text reached {}", place.display());
    }
}

/// Returns bodies with a planted text wherever a real tool could have put a prompt.
fn canaries() -> Vec<(&'static str, String)> {
    let mut log = telemetry::claude_code(CANARY, "req_canary");
    let record = &mut log["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
    let attributes = record["attributes"].as_array_mut().expect("a list");
    for key in ["prompt", "response", "gen_ai.input.messages", "user.email", "error", "tool_input"]
    {
        attributes.push(telemetry::text(key, CANARY));
    }
    let resource = &mut log["resourceLogs"][0]["resource"]["attributes"];
    for key in ["process.command_args", "host.name", "user.name"] {
        resource.as_array_mut().expect("a list").push(telemetry::text(key, CANARY));
    }
    let unknown = telemetry::logs(
        "claude-code",
        "scope",
        &json!([{"body": {"stringValue": CANARY},
        "attributes": [telemetry::text("prompt", CANARY)]}]),
    );
    let message = json!({"role": "user", "content": CANARY});
    let answer = json!({"model": "gpt-4o", "prompt": CANARY, "response": CANARY, "latencyMs": 5});
    let tool = json!({"toolName": "search", "arguments": {"query": CANARY}, "result": CANARY});
    vec![
        ("/v1/logs", log.to_string()),
        ("/v1/logs", unknown.to_string()),
        ("/v1/logs", format!("{{\"resourceLogs\": \"{CANARY}\"}}")),
        ("/api/v1/event", telemetry::lynex("c1", "message", message).to_string()),
        ("/api/v1/event", telemetry::lynex("c2", "model_response", answer).to_string()),
        ("/api/v1/event", telemetry::lynex("c3", "tool_call", tool).to_string()),
        ("/api/v1/event", telemetry::lynex("c4", CANARY, json!({"x": CANARY})).to_string()),
    ]
}
