//! Transcripts that are broken, hostile or private.

use module_sdk::testing::SentFile;
use serde_json::{Value, json};

use crate::{
    common::{bench, ms, summary},
    samples::{claude, codex, file, import, import_as_sent, lines},
};

const AT: &str = "2026-11-20T23:48:30.500Z";

fn answer(message: &str) -> Value {
    claude(message, &message.replace("msg", "req"), 34, AT)
}

#[test]
fn lines_of_all_kinds_are_read_or_named_and_the_rest_goes_on() {
    let mut bench = bench(json!({}));
    let whole = |message: &str| answer(message).to_string().into_bytes();
    let mut content = b"\xef\xbb\xbf".to_vec();
    let mut add = |line: &[u8], end: &str| {
        content.extend_from_slice(line);
        content.extend_from_slice(end.as_bytes());
    };
    add(&whole("msg_1"), "\r\n");
    add(&whole("msg_2")[..200], "\n");
    add(b"", "\r\n");
    add(b"nonsense", "\n");
    let mut third = whole("msg_3");
    let at = third.windows(5).position(|it| it == b"words").expect("words");
    third[at] = 0xff;
    add(&third, "\n");
    let fourth = answer("msg_4").to_string().replace("words", "\\ud83d");
    add(fourth.as_bytes(), "\n");
    add(&vec![b'x'; 50 << 20], "\n");
    add(&whole("msg_5"), "");
    let read = import(&mut bench, &[file("claude-code", "/p/a.jsonl", content)]);
    assert_eq!(read["imported"], 4, "{:#}", read["skipped"]);
    let skipped: Vec<(u64, &str)> = read["skipped"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|it| (it["line"].as_u64().expect("a number"), it["reason"].as_str().expect("words")))
        .collect();
    assert_eq!(
        skipped,
        [(2, "is cut off"), (4, "is no JSON, from column 1"), (7, "is longer than 16 MiB"),]
    );
}

#[test]
fn impossible_counts_and_times_are_unknown_and_the_request_counts() {
    let mut bench = bench(json!({}));
    let with = |message: &str, field: &str, count: Value, at: &str| {
        let mut line = claude(message, &message.replace("msg", "req"), 34, at);
        line["message"]["usage"][field] = count;
        line
    };
    let content = lines(&[
        with("msg_1", "output_tokens", json!(-34), AT),
        with("msg_2", "input_tokens", json!(1e300), AT),
        with("msg_3", "cache_read_input_tokens", json!(u64::MAX), AT),
        with("msg_4", "output_tokens", json!(34), "2099-01-01T00:00:00Z"),
        with("msg_5", "output_tokens", json!("34"), "not a time"),
    ]);
    let read = import(&mut bench, &[file("claude-code", "/p/a.jsonl", content)]);
    assert_eq!((&read["imported"], &read["skipped_lines"]), (&json!(5), &json!(0)), "{read:#}");
    let rows = bench.command("requests", json!({"since": "2026-01-01"})).expect("it answers").data;
    let row = |key: &str| {
        let rows = rows.as_array().expect("rows");
        rows.iter().find(|row| row["dedupe_key"] == key).expect(key).clone()
    };
    assert!(row("anthropic:req_1")["output_tokens"].is_null());
    assert!(row("anthropic:req_2")["input_tokens"].is_null());
    assert!(row("anthropic:req_3")["cache_read_tokens"].is_null());
    let clock = row("anthropic:req_4")["ended_at"].to_string();
    assert!(!clock.contains("2099") && !clock.contains("4070908800000"), "{clock}");
    let total = summary(&mut bench, json!({"since": "2026-01-01"}))["total"].clone();
    assert_eq!(total["unpriced_requests"], 3, "no count, no cost: {total:#}");
}

#[test]
fn a_file_without_a_mark_or_an_end_is_read_and_not_remembered() {
    let mut bench = bench(json!({}));
    let piped = [SentFile {
        tool: Some("claude-code".to_owned()),
        ..SentFile::new("standard input", lines(&[answer("msg_1")]))
    }];
    for expected in [(1, 0), (0, 1)] {
        let read = import_as_sent(&mut bench, json!({}), &piped).data;
        assert_eq!(
            (&read["imported"], &read["duplicates"]),
            (&json!(expected.0), &json!(expected.1))
        );
    }
    let torn = ruzstd::encoding::compress_to_vec(
        codex("c1", Some("resp_1"), AT).as_slice(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let torn = file("codex", "/c/r.jsonl.zst", &torn[..torn.len() / 2]);
    let nothing = file("claude-code", "/p/empty.jsonl", "");
    let broken = file("gemini", "/g/session-1.json", "{\"messages\": [");
    let read = import(&mut bench, &[torn, nothing, broken]);
    assert_eq!(read["imported"], 0, "{read:#}");
    let reasons: Vec<&str> = read["skipped"]
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|it| it["reason"].as_str())
        .collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert_eq!(reasons[1], "is cut off");
}

#[test]
fn no_text_of_a_transcript_reaches_database_log_or_answer() {
    let canary = |number: u32| format!("canary-{number}-sk-ant-api03-secret words of a person");
    let mut bench = bench(json!({}));
    let mut line = answer("msg_1");
    line["message"]["content"] = json!([{"type": "text", "text": canary(1)}, {"type": "tool_use",
        "input": {"command": canary(2), "usage": {"input_tokens": canary(3)}}}]);
    line["toolUseResult"] = json!({"usage": {"output_tokens": 99}, "text": canary(4)});
    let mut named = answer("msg_2");
    named["message"]["model"] = json!(canary(5));
    named["gitBranch"] = json!(canary(6));
    named["version"] = json!(canary(7));
    named["message"]["stop_reason"] = json!(canary(8));
    let api_error = json!({"type": "system", "subtype": "api_error", "timestamp": AT,
        "error": {"message": canary(9), "status": 529, "requestId": "req_9"}});
    let mut claude = lines(&[
        json!({"type": "user", "message": {"content": canary(10)}, "sessionId": canary(11)}),
        line,
        named,
        api_error,
    ]);
    claude.extend_from_slice(format!("{{\"usage\": {}\n", canary(12)).as_bytes());
    let rollout = String::from_utf8(codex("c1", Some("resp_1"), AT)).expect("text");
    let rollout = rollout.replace("\"words\"", &json!(canary(13)).to_string());
    let gemini = json!({"sessionId": "g", "messages": [{"id": "m", "type": "gemini",
        "content": canary(14), "thoughts": [{"description": canary(15)}], "model": "gemini-2.5-pro",
        "timestamp": AT, "tokens": {"input": 5, "output": 6, "total": 11}}]});
    let read = import_as_sent(
        &mut bench,
        json!({}),
        &[
            file("claude-code", "/home/canary-16/.claude/projects/-home-canary-16/s.jsonl", claude),
            file("codex", "/c/rollout-1.jsonl", rollout),
            file("gemini", "/g/session-1.json", gemini.to_string()),
        ],
    );
    assert_eq!(read.data["imported"], 5, "{:#}", read.data);
    // The answer names the file whose line is broken: who asks has named it.
    let shown = format!("{} {:?}", read.data, read.table);
    assert!(!shown.contains("secret") && !shown.contains("words"), "{shown}");
    let logged = format!("{:?}", bench.host().logged());
    assert!(!logged.contains("canary") && !logged.contains("secret"), "{logged}");
    for command in ["requests", "sessions", "sources", "summary"] {
        let shown = bench.command(command, json!({"since": "2026-01-01"})).expect("it answers");
        let shown = format!("{} {:?}", shown.data, shown.table);
        assert!(!shown.contains("canary") && !shown.contains("home/eve"), "{command}: {shown}");
    }
    let directory = bench.data_dir().to_owned();
    for entry in std::fs::read_dir(&directory).expect("it is readable") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        for private in ["canary", "secret", "session-of-eve", "/home/eve"] {
            let found = bytes.windows(private.len()).any(|it| it == private.as_bytes());
            assert!(!found, "{private} in {}", path.display());
        }
    }
}

#[test]
fn requests_older_than_retention_stay_in_the_totals() {
    let mut bench = bench(json!({"retention_days": 30}));
    let old = "2026-05-01T10:00:00Z";
    let content = lines(&[claude("msg_1", "req_1", 34, old), answer("msg_2")]);
    import(&mut bench, &[file("claude-code", "/p/a.jsonl", content.clone())]);
    bench.advance(std::time::Duration::from_secs(11)).expect("it is deleted");
    import(&mut bench, &[file("claude-code", "/p/b.jsonl", content)]);
    let total = summary(&mut bench, json!({"since": "2026-01-01"}))["total"].clone();
    assert_eq!(total["requests"], 2);
    assert!(ms(old) < ms(AT));
}
