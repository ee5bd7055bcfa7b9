//! Telemetry of tools, as shown by `lodestar usage`, and the answers to invalid requests.

use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use flate2::{Compression, write::GzEncoder};
use harness::{
    Daemon, Sandbox, SetOnDrop,
    grpc::{self, Caller},
    http::{self, Answer},
    telemetry::{self, JSON, PROTOBUF},
    wait_until,
};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

fn post(daemon: &Daemon<'_>, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let address = daemon.address("ingest", "http");
    http::post(&address, path, headers, body).expect("ingest answers")
}

fn total(sandbox: &Sandbox) -> Value {
    sandbox.json(&["usage", "summary"])["total"].clone()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

#[test]
fn claude_code_is_counted_and_priced() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let body = telemetry::claude_code("session-a", "req_1");
    let answer = post(&daemon, "/v1/logs", &[JSON], body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let second = telemetry::protobuf(&telemetry::claude_code("session-a", "req_2"));
    assert_eq!(post(&daemon, "/v1/logs", &[PROTOBUF], &second).status, 200);
    // The same once more, as a client does that lost the answer, and compressed.
    let again = post(&daemon, "/v1/logs", &[PROTOBUF, "Content-Encoding: gzip"], &gzip(&second));
    assert_eq!(again.status, 200, "{}", again.text());
    let total = total(&sandbox);
    let expected = [
        ("requests", 2),
        ("errors", 0),
        ("input_tokens", 2_400),
        ("output_tokens", 68),
        ("cached_input_tokens", 1_000),
        ("cache_write_input_tokens", 600),
        ("unpriced_requests", 0),
    ];
    for (key, expected) in expected {
        assert_eq!(total[key], expected, "{key} of {total:#}");
    }
    let cost = total["cost_usd"].to_string();
    assert_eq!(cost.trim_matches('"'), "0.00687", "{total:#}");
}

#[test]
fn what_comes_over_grpc_is_counted_once_with_what_comes_over_http() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let mut caller = Caller::new(&daemon.address("ingest", "grpc"));
    let first = telemetry::protobuf(&telemetry::claude_code("session-a", "req_1"));
    let second = telemetry::protobuf(&telemetry::claude_code("session-a", "req_2"));
    for message in [&first, &second, &second] {
        assert_eq!(caller.call(grpc::LOGS, message), Some(0));
    }
    assert_eq!(post(&daemon, "/v1/logs", &[PROTOBUF], &first).status, 200);
    let total = total(&sandbox);
    assert_eq!((&total["requests"], &total["input_tokens"]), (&json!(2), &json!(2_400)));
    let cost = total["cost_usd"].to_string();
    assert_eq!(cost.trim_matches('"'), "0.00687", "{total:#}");
}

#[test]
fn a_reload_fails_no_call_over_grpc() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "grpc");
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = SetOnDrop(&stop);
        let (stop, sent, address) = (&stop, &sent, &address);
        scope.spawn(move || {
            let mut caller = Caller::new(address);
            while !stop.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                let record = telemetry::claude_code("session-a", &format!("req_{number}"));
                match caller.call(grpc::LOGS, &telemetry::protobuf(&record)) {
                    Some(status) => {
                        assert_eq!(status, 0, "call {number} failed");
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    // As every client of gRPC does that is told to go away.
                    None => caller = Caller::new(address),
                }
            }
        });
        for salt in 0..3 {
            let goal = sent.load(Ordering::Relaxed) + 20;
            let enough = || (sent.load(Ordering::Relaxed) >= goal).then_some(());
            wait_until("calls are answered", enough);
            sandbox.replace_library("ingest", salt);
            wait_until("the next generation runs", || {
                (daemon.module("ingest")["generation"] == u64::from(salt) + 2).then_some(())
            });
        }
    });
    assert_eq!(daemon.address("ingest", "grpc"), address);
    assert_eq!(total(&sandbox)["requests"], sent.into_inner());
}

#[test]
fn a_taken_port_of_grpc_costs_grpc_only() {
    let sandbox = Sandbox::usual();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let mut command = sandbox.lodestard();
    command.env("LODESTAR_INGEST__GRPC__LISTEN", &address);
    let daemon = Daemon::spawn(&sandbox, command);
    daemon.wait_settled();
    let body = telemetry::claude_code("session-a", "req_1").to_string();
    assert_eq!(post(&daemon, "/v1/logs", &[JSON], body.as_bytes()).status, 200);
    let health = daemon.module("ingest")["health"].clone();
    assert_eq!(health["status"], "degraded", "{health:#}");
    let message = health["message"].as_str().expect("a reason");
    assert!(message.contains("grpc.listen") && message.contains(&address), "{message}");
}

#[test]
fn every_source_arrives_under_its_model() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let send = |path: &str, headers: &[&str], body: &[u8], expected: u16| {
        let answer = post(&daemon, path, headers, body);
        assert_eq!(answer.status, expected, "{path}: {}", answer.text());
    };
    let claude = telemetry::claude_code("a", "req_1").to_string();
    send("/v1/logs", &[JSON], claude.as_bytes(), 200);
    send("/v1/logs", &[JSON], telemetry::codex("b").to_string().as_bytes(), 200);
    send("/v1/traces", &[PROTOBUF], &telemetry::genai_span("chatcmpl-1"), 200);
    let lynex = telemetry::lynex_token_usage("lynex-1").to_string();
    send("/api/v1/event", &[JSON], lynex.as_bytes(), 202);
    let summary = sandbox.json(&["usage", "summary", "--by", "model"]);
    let row = |key: &str| {
        let rows = summary["rows"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["key"] == key).cloned();
        row.unwrap_or_else(|| panic!("no row {key} in {summary:#}"))
    };
    let check = |key: &str, requests: u64, input: u64, output: u64| {
        let row = row(key);
        assert_eq!(row["requests"], requests, "{row:#}");
        assert_eq!(row["input_tokens"], input, "{row:#}");
        assert_eq!(row["output_tokens"], output, "{row:#}");
    };
    check("claude-sonnet-4-5", 1, 1_200, 34);
    check("gpt-5.1-codex", 1, 1_200, 34);
    check("gpt-4o-mini", 2, 126, 54);
    assert_eq!(row("gpt-5.1-codex")["reasoning_tokens"], 10);
    assert_eq!(summary["total"]["requests"], 4);
}

#[test]
fn sessions_switches_and_exports() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    for (number, model) in ["claude-sonnet-4-5", "claude-haiku-4-5"].iter().enumerate() {
        let body = telemetry::claude_code("session-a", &format!("req_{number}")).to_string();
        let body = body.replace("claude-sonnet-4-5", model);
        assert_eq!(post(&daemon, "/v1/logs", &[JSON], body.as_bytes()).status, 200);
    }
    let sessions = sandbox.json(&["usage", "sessions"]);
    let session = &sessions[0];
    assert_eq!(sessions.as_array().map(Vec::len), Some(1), "{sessions:#}");
    assert_eq!((&session["requests"], &session["model_switches"]), (&2.into(), &1.into()));
    assert_ne!(session["session_id"], "session-a", "it is a pseudonym");
    assert_eq!(session["client"], "claude-code");

    let jsonl = sandbox.lodestar(&["usage", "export", "--format", "jsonl"]);
    assert_eq!(jsonl.stdout.lines().count(), 2, "{jsonl:#?}");
    for line in jsonl.stdout.lines() {
        let row: Value = serde_json::from_str(line).expect("a line is JSON");
        for key in ["event_id", "dedupe_key", "response_model", "input_tokens", "cost_nano_usd"] {
            assert!(!row[key].is_null() || !row["request_model"].is_null(), "{key} of {row:#}");
        }
    }
    let json = sandbox.lodestar(&["usage", "export", "--format", "json"]).json();
    assert_eq!(json.as_array().map(Vec::len), Some(2), "{json:#}");
    let file = sandbox.path("usage.csv");
    let name = file.display().to_string();
    let csv = sandbox.lodestar(&["usage", "export", "--format", "csv", "--out", &name]);
    assert_eq!(csv.code, 0, "{csv:#?}");
    let text = std::fs::read_to_string(&file).expect("it was written");
    assert_eq!(text.lines().count(), 3, "{text}");
    let again = sandbox.lodestar(&["usage", "export", "--format", "csv", "--out", &name]);
    assert_ne!(again.code, 0, "a file is not overwritten: {again:#?}");
    // A script has rows and answer in one place.
    let whole = sandbox.lodestar(&["usage", "export", "--json"]);
    assert_eq!((whole.code, whole.stderr.as_str()), (0, ""));
    let answer = whole.stdout.lines().last().expect("it answers");
    assert_eq!(serde_json::from_str::<Value>(answer).expect("JSON"), json!({"requests": 2}));
    assert_eq!(whole.stdout.lines().count(), 3, "{whole:#?}");
}

#[test]
fn a_backup_is_taken_up_in_the_place_of_the_database() {
    for isolation in ISOLATIONS {
        let config = format!(
            "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  usage_tracker:\n    isolation: \
             {isolation}\n"
        );
        let sandbox = Sandbox::new(&["ingest", "usage_tracker"], &config);
        let daemon = sandbox.start();
        let send = |number: u32| {
            let body = telemetry::claude_code("session-a", &format!("req_{number}")).to_string();
            assert_eq!(post(&daemon, "/v1/logs", &[JSON], body.as_bytes()).status, 200);
        };
        send(1);
        let first = sandbox.json(&["usage", "backup", "copy.db"]);
        let file = first["file"].as_str().expect("it says where").to_owned();
        assert!(std::path::Path::new(&file).is_file(), "{isolation}: {first:#}");
        send(2);
        assert_eq!(total(&sandbox)["requests"], 2);
        let again = sandbox.lodestar(&["usage", "backup", "copy.db"]);
        assert_eq!(again.code, 2, "{isolation}: {again:#?}");
        assert!(again.stderr.contains("--force"), "{again:#?}");
        assert_eq!(sandbox.lodestar(&["modules", "disable", "usage_tracker"]).code, 0);
        let database = file.replace("copy.db", "usage.db");
        std::fs::rename(&file, &database).expect("it is ours");
        assert_eq!(sandbox.lodestar(&["modules", "enable", "usage_tracker"]).code, 0);
        assert_eq!(total(&sandbox)["requests"], 1, "{isolation}");
        // That it is an older one is told.
        assert_eq!(daemon.module("usage_tracker")["health"]["status"], "degraded");
    }
}

#[test]
fn what_nobody_understands_is_counted_and_shown() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let record = json!([{"timeUnixNano": telemetry::now_ns().to_string(), "attributes": []}]);
    let body = telemetry::logs("strange-tool", "strange.scope", &record).to_string();
    assert_eq!(post(&daemon, "/v1/logs", &[JSON], body.as_bytes()).status, 200);
    let sources = sandbox.lodestar(&["ingest", "sources"]);
    assert!(sources.stdout.contains("strange-tool"), "{sources:#?}");
    assert_eq!(total(&sandbox)["requests"], 0);
}

#[test]
fn the_sum_of_an_agents_run_is_taken_off_again() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let now = telemetry::now_ns();
    let span = |id: &str, parent: &str, operation: Option<&str>, counts: [u64; 2]| {
        let text = |key: &str, text: &str| json!({"key": key, "value": {"stringValue": text}});
        let count = |kind: &str, count: u64| {
            let key = format!("gen_ai.usage.{kind}_tokens");
            json!({"key": key, "value": {"intValue": count.to_string()}})
        };
        let mut attributes = vec![count("input", counts[0]), count("output", counts[1])];
        attributes.push(text("gen_ai.request.model", "gpt-4o"));
        attributes.extend(operation.map(|name| text("gen_ai.operation.name", name)));
        json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": id, "parentSpanId": parent,
               "name": "span", "startTimeUnixNano": now.to_string(),
               "endTimeUnixNano": now.to_string(), "attributes": attributes})
    };
    let send = |span: Value| {
        let scopes = json!([{"scope": {"name": "agents"}, "spans": [span]}]);
        let body = json!({"resourceSpans": [{"resource": {}, "scopeSpans": scopes}]});
        let answer = post(&daemon, "/v1/traces", &[JSON], body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let check = |requests: u64, input: u64, output: u64| {
        let total = total(&sandbox);
        let found = [&total["requests"], &total["input_tokens"], &total["output_tokens"]];
        assert_eq!(found, [requests, input, output], "{total:#}");
    };
    send(span("aaaaaaaaaaaaaaaa", "", None, [1130, 110]));
    check(1, 1130, 110);
    send(span("bbbbbbbbbbbbbbb1", "aaaaaaaaaaaaaaaa", Some("chat"), [560, 50]));
    check(1, 560, 50);
    send(span("bbbbbbbbbbbbbbb2", "aaaaaaaaaaaaaaaa", Some("chat"), [570, 60]));
    check(2, 1130, 110);
    send(span("aaaaaaaaaaaaaaaa", "", None, [1130, 110]));
    check(2, 1130, 110);
}

#[test]
fn bad_bodies_are_answered_and_harm_nothing() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let good = telemetry::protobuf(&telemetry::claude_code("a", "good"));
    let check = |what: &str, path: &str, headers: &[&str], body: &[u8], expected: &[u16]| {
        let answer = post(&daemon, path, headers, body);
        assert!(expected.contains(&answer.status), "{what}: {}: {}", answer.status, answer.text());
        assert!(!answer.text().contains("panicked"), "{what}: {}", answer.text());
    };
    check("truncated", "/v1/logs", &[PROTOBUF], &good[..good.len() / 2], &[400]);
    check("not JSON", "/v1/logs", &[JSON], b"{\"resourceLogs\":[", &[400]);
    check("not UTF-8", "/v1/logs", &[JSON], b"{\"resourceLogs\":\"\xff\xfe\"}", &[400]);
    check("wrong type", "/v1/logs", &["Content-Type: text/plain"], b"x", &[415]);
    check("no type", "/v1/logs", &[], b"x", &[400, 415]);
    let unknown = [PROTOBUF, "Content-Encoding: br"];
    check("unknown encoding", "/v1/logs", &unknown, &good, &[415]);
    let compressed = [PROTOBUF, "Content-Encoding: gzip"];
    check("no gzip", "/v1/logs", &compressed, b"not gzip", &[400]);
    let bomb = gzip(&vec![0; 80 << 20]);
    check("a bomb", "/v1/logs", &compressed, &bomb, &[413]);
    let deep = "[".repeat(100_000);
    check("deep JSON", "/v1/logs", &[JSON], deep.as_bytes(), &[400]);
    check("too big", "/v1/logs", &[JSON], &vec![b' '; 33 << 20], &[413]);
    check("unknown path", "/v1/nothing", &[JSON], b"{}", &[404]);
    check("no event", "/api/v1/event", &[JSON], b"{}", &[400, 422]);
    let strange = telemetry::lynex("x", "telepathy", json!({})).to_string();
    check("unknown type", "/api/v1/event", &[JSON], strange.as_bytes(), &[400, 422]);
    let from_a_page = [JSON, "Origin: https://evil.example"];
    check("a web page", "/api/v1/event", &from_a_page, strange.as_bytes(), &[403]);
    assert_eq!(post(&daemon, "/v1/logs", &[PROTOBUF], &good).status, 200);
    assert_eq!(total(&sandbox)["requests"], 1);
    assert_eq!(daemon.module("ingest")["restarts"], 0);
}

#[test]
fn absurd_numbers_and_clocks_poison_nothing() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let plain = telemetry::claude_code("a", "req").to_string();
    let time = telemetry::now_ns().to_string();
    let negative = plain.replace("{\"intValue\":400}", "{\"intValue\":-400}");
    let huge = plain.replace("{\"intValue\":34}", "{\"intValue\":\"99999999999999999999999\"}");
    let most = plain.replace("{\"intValue\":34}", "{\"intValue\":\"9223372036854775807\"}");
    let old = plain.replace(&time[..9], "000000000");
    let future = plain.replace(&time[..3], "407");
    assert!([&negative, &huge, &most, &old, &future].iter().all(|body| **body != plain));
    for (number, body) in [&negative, &huge, &most, &old, &future].iter().enumerate() {
        let body = body.replace("\"req\"", &format!("\"req_{number}\""));
        let answer = post(&daemon, "/v1/logs", &[JSON], body.as_bytes());
        assert!(matches!(answer.status, 200 | 400), "{number}: {}", answer.text());
    }
    assert_eq!(post(&daemon, "/v1/logs", &[JSON], plain.as_bytes()).status, 200);
    let tracker = daemon.module("usage_tracker");
    assert_eq!(tracker["state"], "running", "{tracker:#}");
    assert!(total(&sandbox)["requests"].as_u64().is_some_and(|count| count >= 1));
    assert_eq!(sandbox.json(&["events", "dead"]), json!([]), "no batch was poisoned");
}

#[test]
fn an_event_of_ten_mebibytes_is_taken_or_refused_and_harms_nothing() {
    let sandbox = Sandbox::usual();
    let daemon = sandbox.start();
    let body = json!({"role": "user", "content": "x".repeat(10 << 20)});
    let event = telemetry::lynex("big", "message", body).to_string();
    let answer = post(&daemon, "/api/v1/event", &[JSON], event.as_bytes());
    assert!(matches!(answer.status, 202 | 413), "{}", answer.text());
    let small = telemetry::lynex_token_usage("small").to_string();
    assert_eq!(post(&daemon, "/api/v1/event", &[JSON], small.as_bytes()).status, 202);
    assert_eq!(total(&sandbox)["requests"], 1);
}
