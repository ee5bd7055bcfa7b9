//! Import of what tools keep: found where the tools keep it, counted once, and read no further
//! than it grew.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use harness::{Sandbox, http, telemetry};
use module_sdk::jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

/// Text that must be nowhere but in the transcripts.
const CANARY: &str = "canary: the grey owl hears the mouse";

fn sandbox(isolation: &str) -> Sandbox {
    let config = format!(
        "modules:\n  ingest:\n    listen: 127.0.0.1:0\n    grpc: {{listen: 127.0.0.1:0}}\n  \
         usage_tracker:\n    isolation: {isolation}\nmetrics:\n  listen: 127.0.0.1:0\n"
    );
    Sandbox::new(&["ingest", "usage_tracker"], &config)
}

/// Returns two lines of Claude Code, which tell of one answer: 400 in, 300 written to the cache
/// (100 for five minutes, 200 for an hour), 500 read from it, 34 out.
fn claude_code(session: &str, number: u32) -> String {
    let at = Timestamp::now() - 1.hours();
    let line = |content: Value| {
        json!({
            "type": "assistant", "sessionId": session, "version": "2.1.329", "isSidechain": false,
            "cwd": "/home/dev/shop", "gitBranch": "claude/basket", "timestamp": at.to_string(),
            "requestId": format!("req_{session}_{number}"),
            "message": {
                "id": format!("msg_{session}_{number}"), "type": "message", "role": "assistant",
                "model": "claude-sonnet-4-5", "content": [content],
                "usage": {
                    "input_tokens": 400, "cache_creation_input_tokens": 300,
                    "cache_read_input_tokens": 500, "output_tokens": 34,
                    "cache_creation": {
                        "ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200,
                    },
                },
            },
        })
    };
    let thinking = line(json!({"type": "thinking", "thinking": CANARY}));
    format!("{thinking}\n{}\n", line(json!({"type": "text", "text": CANARY})))
}

/// Returns the lines of a session of Codex with one answer: 1200 in, of them 800 from the cache; 34
/// out, of them 10 reasoning.
fn codex(session: &str) -> String {
    let at = (Timestamp::now() - 1.hours()).to_string();
    let line = |kind: &str, payload: Value| {
        format!("{}\n", json!({"timestamp": at, "type": kind, "payload": payload}))
    };
    let meta = json!({"id": session, "session_id": session, "cwd": "/home/dev/shop"});
    let context = json!({"turn_id": "t", "cwd": "/home/dev/shop", "model": "gpt-5.1-codex"});
    let usage = json!({
        "input_tokens": 1_200, "cached_input_tokens": 800, "output_tokens": 34,
        "reasoning_output_tokens": 10, "total_tokens": 1_234,
    });
    let record = json!({
        "session_id": session, "turn_id": "t", "response_id": format!("resp_{session}"),
        "usage": usage,
    });
    let content = json!([{"type": "input_text", "text": CANARY}]);
    let said = json!({"type": "message", "role": "user", "content": content});
    line("session_meta", meta)
        + &line("turn_context", context)
        + &line("response_item", said)
        + &line("token_usage_record", record)
}

/// Writes a transcript of Claude Code into the home directory of the sandbox.
fn keep(sandbox: &Sandbox, session: &str, text: &str) -> PathBuf {
    let folder = sandbox.path("home/.claude/projects/-home-dev-shop");
    fs::create_dir_all(&folder).expect("the home is writable");
    let path = folder.join(format!("{session}.jsonl"));
    fs::write(&path, text).expect("the home is writable");
    path
}

fn keep_codex(sandbox: &Sandbox, session: &str) {
    let folder = sandbox.path("home/.codex/sessions/2026/11/30");
    fs::create_dir_all(&folder).expect("the home is writable");
    let name = format!("rollout-2026-11-30T10-00-00-{session}.jsonl");
    fs::write(folder.join(name), codex(session)).expect("the home is writable");
}

fn import(sandbox: &Sandbox, args: &[&str]) -> Value {
    sandbox.json(&[&["usage", "import"], args].concat())
}

fn counts(import: &Value) -> [u64; 4] {
    ["files", "records", "imported", "duplicates"]
        .map(|key| import[key].as_u64().unwrap_or_else(|| panic!("{key} of {import:#}")))
}

#[test]
fn what_tools_kept_is_found_and_counted_once() {
    for isolation in ISOLATIONS {
        let sandbox = sandbox(isolation);
        let daemon = sandbox.start();
        let one = claude_code("one", 1) + &claude_code("one", 2);
        // An unfinished line is left for the next time.
        let two = claude_code("two", 1);
        let (whole, rest) = two.split_at(two.len() - 100);
        keep(&sandbox, "one", &one);
        let path = keep(&sandbox, "two", whole);
        keep_codex(&sandbox, "three");

        let shown = import(&sandbox, &["all", "--dry-run"]);
        assert_eq!(shown["imported"], 4, "{shown:#}");
        let total = || sandbox.json(&["usage", "summary"])["total"].clone();
        assert_eq!(total()["requests"], 0, "a dry run changes nothing");

        let first = import(&sandbox, &[]);
        assert_eq!(counts(&first)[..3], [3, 6, 4], "{first:#}");
        assert_eq!(first["skipped"], json!([]), "{first:#}");
        assert_eq!((&total()["requests"], &total()["input_tokens"]), (&json!(4), &json!(4_800)));

        let again = import(&sandbox, &["all"]);
        assert_eq!((&again["imported"], &again["records"]), (&json!(0), &json!(0)), "{again:#}");

        fs::write(&path, format!("{whole}{rest}{}", claude_code("two", 2))).expect("it is ours");
        let grown = import(&sandbox, &["claude-code"]);
        assert_eq!(grown["imported"], 1, "{grown:#}");
        let total = total();
        assert_eq!((&total["requests"], &total["output_tokens"]), (&json!(5), &json!(170)));
        assert_eq!(total["unpriced_requests"], 0, "{total:#}");

        let by_branch = sandbox.json(&["usage", "summary", "--by", "branch"]).to_string();
        assert!(by_branch.contains("claude/basket"), "{by_branch}");
        drop(daemon);
        for (file, bytes) in sandbox.state_files() {
            let is_there = bytes.windows(CANARY.len()).any(|bytes| bytes == CANARY.as_bytes());
            assert!(!is_there, "text of a transcript lies in {}", file.display());
        }
    }
}

#[test]
fn a_request_that_a_tool_reported_and_kept_is_one() {
    let sandbox = sandbox("in_process");
    let daemon = sandbox.start();
    keep(&sandbox, "one", &(claude_code("one", 1) + &claude_code("one", 2)));
    let report = telemetry::claude_code_many("one", &["req_one_1", "req_one_3"]).to_string();
    let address = daemon.address("ingest", "http");
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], report.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    let summary = || sandbox.json(&["usage", "summary"])["total"].clone();
    assert_eq!(summary()["requests"], 2);
    let import = import(&sandbox, &["claude-code"]);
    assert_eq!(import["imported"], 1, "{import:#}");
    let total = summary();
    assert_eq!((&total["requests"], &total["input_tokens"]), (&json!(3), &json!(3_600)));
    let cost = total["cost_usd"].to_string();
    assert_eq!(cost.trim_matches('"'), "0.010305", "{total:#}");
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_imported() {
    let sandbox = sandbox("in_process");
    let _daemon = sandbox.start();
    let mut odd = String::from("\u{feff}");
    odd += &claude_code("odd", 1).replace('\n', "\r\n");
    odd += "{\"type\":\"assistant\",\"message\":{\"usage\":{\"input_tokens\":\n";
    odd += &claude_code("odd", 2);
    keep(&sandbox, "odd", &odd);
    let closed = keep(&sandbox, "closed", &claude_code("closed", 1));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("it is ours");
    let import = import(&sandbox, &["claude-code"]);
    let skipped = import["skipped"].as_array().expect("a list");
    let named = |name: &str| {
        let mut of = skipped.iter().filter(|it| it["file"].to_string().contains(name));
        of.next().unwrap_or_else(|| panic!("{name} is not in {import:#}")).clone()
    };
    assert_eq!(named("odd.jsonl")["line"], 3, "{import:#}");
    // Root reads everything.
    let is_root = fs::read(&closed).is_ok();
    assert_eq!(import["imported"], if is_root { 3 } else { 2 }, "{import:#}");
    if !is_root {
        let reason = named("closed.jsonl")["reason"].to_string();
        assert!(reason.to_lowercase().contains("permission"), "{reason}");
    }
    let wrong = sandbox.lodestar(&["usage", "import", "claud-code"]);
    assert_eq!(wrong.code, 2, "{wrong:#?}");
    assert!(wrong.stderr.contains("claude-code"), "{wrong:#?}");
    let absent = sandbox.lodestar(&["usage", "import", "codex"]);
    assert!(absent.code != 0 && absent.stderr.contains(".codex"), "{absent:#?}");
}
