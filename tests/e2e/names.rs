//! Secrets in the place of names: they are neither stored nor shown, and cost no request.

use std::{fs, path::PathBuf};

use harness::{Daemon, Sandbox, http, program, telemetry, wait_until};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

/// Letters and digits as in generated keys; a part of each secret.
const RANDOM: &str = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYzA1bC2dE3f";

/// Returns the secrets; each is used for all names of a request.
fn secrets() -> Vec<String> {
    vec![
        format!("sk-ant-api03-{RANDOM}"),
        format!("sk-proj-{RANDOM}"),
        format!("ghp_{RANDOM}"),
        format!("glpat-{RANDOM}"),
        format!("https://ada:{RANDOM}@host/x"),
        format!("Bearer {RANDOM}"),
        format!("api_key={RANDOM}"),
        format!("eyJ{RANDOM}.eyJ{RANDOM}.{RANDOM}"),
        format!("-----BEGIN PRIVATE KEY-----\n{RANDOM}\n-----END PRIVATE KEY-----"),
    ]
}

/// Returns a request in the form of Claude Code whose names are all this secret, and two whose ids
/// differ.
fn requests(secret: &str) -> Value {
    let mut records = telemetry::claude_code_many(secret, &[&format!("{secret}1"), "x"]);
    let records = &mut records["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
    records[1]["attributes"] = records[0]["attributes"].clone();
    for (number, record) in records.as_array_mut().expect("a list").iter_mut().enumerate() {
        for attribute in record["attributes"].as_array_mut().expect("a list") {
            match attribute["key"].as_str() {
                Some("model") => attribute["value"] = json!({"stringValue": secret}),
                // A private key has an end, behind which the ids differ.
                Some("request_id") => {
                    let id = secret.replace(RANDOM, &format!("{RANDOM}{number}Zz"));
                    attribute["value"] = json!({"stringValue": id});
                }
                _ => {}
            }
        }
    }
    let mut body = telemetry::logs(secret, "com.anthropic.claude_code.events", records);
    let resource = body["resourceLogs"][0]["resource"]["attributes"].as_array_mut();
    let resource = resource.expect("a list");
    resource[1] = telemetry::text("service.version", secret);
    for name in ["vcs.ref.head.name", "project", "gen_ai.provider.name", "host.name"] {
        resource.push(telemetry::text(name, secret));
    }
    body
}

#[test]
fn a_secret_in_the_place_of_a_name_is_nowhere() {
    let config = "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    rate_limit: \
                  {requests_per_second: 100000, burst: 100000}\n  usage_tracker: {}\n  \
                  misbehaver:\n    isolation: process\nlog:\n  level: trace\nmetrics:\n  listen: \
                  127.0.0.1:0\n";
    let sandbox = Sandbox::new(&["ingest", "usage_tracker", "misbehaver"], config);
    let daemon = sandbox.start();
    let tail = tail(&sandbox);
    let address = daemon.address("ingest", "http");
    let post = |path: &str, kind: &str, body: &[u8]| {
        let answer = http::post(&address, path, &[kind], body).expect("ingest answers");
        assert!(matches!(answer.status, 200..300 | 422), "{}", answer.text());
        answer.status != 422
    };
    let mut expected = 0;
    for secret in secrets() {
        // What is sent again is no other request.
        let body = requests(&secret).to_string();
        for _ in 0..2 {
            assert!(post("/v1/logs", telemetry::JSON, body.as_bytes()));
        }
        assert!(post("/v1/traces", telemetry::PROTOBUF, &telemetry::genai_span(&secret)));
        let mut event = telemetry::lynex_token_usage(&secret);
        event["projectId"] = json!(secret);
        event["body"]["model"] = json!(secret);
        // Lynex refuses names with spaces, and long ones.
        let taken = post("/api/v1/event", telemetry::JSON, event.to_string().as_bytes());
        expected += 3 + usize::from(taken);
    }
    let totals = sandbox.json(&["usage", "summary", "--by", "model"]);
    assert_eq!(totals["total"]["requests"], expected, "{totals:#}");
    wait_until("the tail has seen them", || {
        let seen = fs::read_to_string(sandbox.path("tail")).unwrap_or_default();
        (seen.matches("llm.request.completed").count() >= expected).then_some(())
    });
    let redacted = metric(&daemon, "lodestar_module_redacted_events_total{module=\"ingest\"} ");
    assert!(redacted >= expected, "{redacted}");
    drop(tail);
    let mut written = shown(&sandbox, &daemon);
    assert!(daemon.stop().success());
    written.extend(sandbox.state_files());
    written.push(("the log".into(), fs::read(sandbox.path("lodestard.log")).expect("it logs")));
    for (place, bytes) in written {
        let found = bytes.windows(16).position(|it| it == &RANDOM.as_bytes()[..16]);
        let around = found.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]));
        assert_eq!(around, None, "before a secret in {}", place.display());
    }
}

#[test]
fn what_a_module_prints_is_logged_without_secrets() {
    let key = format!("sk-ant-api03-{RANDOM}");
    let lines = [RANDOM, "aB3=", "-----END RSA PRIVATE KEY-----", "after it"].join("\n");
    let text = format!("{key}\n-----BEGIN RSA PRIVATE KEY-----\n{RANDOM}\n{lines}");
    for isolation in ISOLATIONS {
        let config = format!("modules:\n  misbehaver:\n    isolation: {isolation}\n");
        let sandbox = Sandbox::new(&["misbehaver"], &config);
        let daemon = sandbox.start();
        for verb in ["print", "log"] {
            let output = sandbox.lodestar(&["misbehaver", verb, "--text", &text]);
            assert_eq!(output.code, 0, "{output:?}");
        }
        let told = |log: &str| {
            let printed = ["planted, out: [redacted]", "planted, error: [redacted]"];
            printed.iter().all(|it| log.contains(it)) && log.matches("after it").count() >= 3
        };
        wait_until("it is logged", || told(&daemon.log()).then_some(()));
        assert!(daemon.stop().success());
        let log = fs::read_to_string(sandbox.path("lodestard.log")).expect("it logs");
        assert!(!log.contains(&RANDOM[..16]) && !log.contains("aB3="), "{isolation}: {log}");
        let is_record = |line: &str| line.starts_with("20") && line.contains("Z ");
        assert!(log.lines().all(is_record), "{isolation}: {log}");
    }
}

#[test]
fn the_last_words_of_a_daemon_are_logged() {
    let sandbox = Sandbox::new(&["misbehaver"], "modules:\n  misbehaver: {}\n");
    let daemon = sandbox.start();
    // `abort` after a word on standard error, as the C library and Rust do it.
    drop(sandbox.lodestar(&["misbehaver", "crash", "--how", "last_words"]));
    daemon.wait();
    let log = fs::read_to_string(sandbox.path("lodestard.log")).expect("it logs");
    assert!(log.contains("planted: last words with [redacted]"), "{log}");
    assert!(log.contains("planted: a line without an end"), "{log}");
}

/// Writes every event to the file `tail` until the returned value is dropped.
fn tail(sandbox: &Sandbox) -> Tail {
    let mut tail = sandbox.isolated(&program("lodestar"));
    let file = fs::File::create(sandbox.path("tail")).expect("the sandbox is writable");
    tail.args(["events", "tail", "--json"]).stdout(file);
    let tail = Tail(tail.spawn().expect("it is built"));
    // It sees what comes after it has begun to look.
    wait_until("the tail looks", || {
        let _ = sandbox.lodestar(&["modules", "disable", "misbehaver"]);
        let _ = sandbox.lodestar(&["modules", "enable", "misbehaver"]);
        let seen = fs::read_to_string(sandbox.path("tail")).unwrap_or_default();
        seen.contains("module.state.changed").then_some(())
    });
    tail
}

struct Tail(std::process::Child);

impl Drop for Tail {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn metric(daemon: &Daemon<'_>, series: &str) -> usize {
    let text = scraped(daemon);
    let value = text.lines().find_map(|line| line.strip_prefix(series));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in {text}"))
}

fn scraped(daemon: &Daemon<'_>) -> String {
    http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers").text()
}

/// Returns the output of the command line and the metrics.
fn shown(sandbox: &Sandbox, daemon: &Daemon<'_>) -> Vec<(PathBuf, Vec<u8>)> {
    let seen = fs::read(sandbox.path("tail")).expect("it was written");
    let mut shown = vec![("the tail".into(), seen)];
    shown.push(("the metrics".into(), scraped(daemon).into_bytes()));
    for command in [
        "status",
        "doctor",
        "modules info ingest",
        "modules logs ingest",
        "modules logs usage_tracker",
        "ingest sources --all",
        "usage summary --by model",
        "usage summary --by project",
        "usage sessions",
        "usage requests",
        "usage models",
        "usage export --format csv",
        "usage export",
    ] {
        let args: Vec<&str> = command.split(' ').collect();
        for args in [args.clone(), [&args[..], &["--json"]].concat()] {
            let output = sandbox.lodestar(&args);
            assert_eq!(output.code, 0, "{args:?}: {output:?}");
            shown.push((args.join(" ").into(), (output.stdout + &output.stderr).into_bytes()));
        }
    }
    shown
}
