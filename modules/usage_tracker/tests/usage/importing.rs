//! The import of transcripts: what it counts, and that it counts it once.

use module_sdk::testing::Bench;
use serde_json::{Value, json};
use usage_tracker::UsageTracker;

use crate::{
    common::{bench, summary},
    samples::{claude, codex, file, import, import_as_sent, lines},
};

const EARLIER: &str = "2026-11-20T23:48:30.500Z";
const LATER: &str = "2026-11-21T08:00:00.000Z";

fn two_answers() -> Vec<u8> {
    lines(&[
        json!({"type": "user", "sessionId": "session-of-eve", "message": {"content": "words"}}),
        json!({"type": "api-request", "id": "r1", "timestamp": "2026-11-20T23:48:30.000Z"}),
        claude("msg_1", "req_1", 1, EARLIER),
        claude("msg_1", "req_1", 34, EARLIER),
        claude("msg_2", "req_2", 34, LATER),
    ])
}

fn total(bench: &mut Bench<UsageTracker>) -> Value {
    summary(bench, json!({"since": "2026-01-01"}))["total"].clone()
}

#[test]
fn what_claude_code_has_written_is_counted_once() {
    let mut bench = bench(json!({"projects": {"site": ["/home/eve/work"]}}));
    let transcript = file("claude-code", "/home/eve/.claude/projects/a/s.jsonl", two_answers());
    let first = import(&mut bench, std::slice::from_ref(&transcript));
    assert_eq!(first["files"], 1, "{first:#}");
    assert_eq!((&first["records"], &first["imported"]), (&json!(3), &json!(2)));
    assert_eq!((&first["duplicates"], &first["merged"]), (&json!(1), &json!(0)));
    assert_eq!(first["sessions"], 1);
    assert_eq!(first["cost_usd"].to_string(), "0.00687");
    assert_eq!(
        first["tokens"],
        json!({
            "input_tokens": 2_400, "cached_input_tokens": 1_000, "cache_write_input_tokens": 600,
            "output_tokens": 68, "reasoning_tokens": 0,
        })
    );
    assert_eq!(first["tools"][0]["tool"], "claude-code");
    assert_eq!(first["skipped"], json!([]));
    let counted = total(&mut bench);
    assert_eq!(counted["cost_usd"].to_string(), "0.00687");
    assert_eq!((&counted["requests"], &counted["input_tokens"]), (&json!(2), &json!(2_400)));
    for (by, key) in [("project", "site"), ("branch", "main"), ("client", "claude-code")] {
        let rows = summary(&mut bench, json!({"since": "2026-01-01", "by": by}));
        assert_eq!(rows["rows"][0]["key"], key, "{by}");
    }
    // Nothing is sent again, and what is sent under another name is known.
    let again = import(&mut bench, std::slice::from_ref(&transcript));
    assert_eq!((&again["files"], &again["unchanged"]), (&json!(0), &json!(1)));
    let moved = file("claude-code", "/elsewhere/s.jsonl", two_answers());
    let moved = import(&mut bench, &[moved]);
    assert_eq!((&moved["imported"], &moved["duplicates"]), (&json!(0), &json!(3)));
    assert_eq!(total(&mut bench), counted);
    // It is history: nobody is told of it.
    assert!(bench.host().emitted().is_empty(), "{:?}", bench.host().emitted());
    let metrics = bench.host().metrics();
    assert!(!metrics.keys().any(|name| name.starts_with("lodestar_requests_total")), "{metrics:?}");
}

#[test]
fn a_file_that_has_grown_is_read_on_and_its_unfinished_line_left_for_later() {
    let mut bench = bench(json!({}));
    let whole = two_answers();
    let cut = whole.len() - 40;
    let name = "/home/eve/.claude/projects/a/s.jsonl";
    let first = import(&mut bench, &[file("claude-code", name, &whole[..cut])]);
    assert_eq!((&first["imported"], &first["skipped_lines"]), (&json!(1), &json!(0)));
    let grown = file("claude-code", name, whole.clone());
    let known = bench.command(
        "import-known",
        json!({"files": [
            {"name": name, "tool": "claude-code", "mark": grown.mark},
        ]}),
    );
    let from = known.expect("it answers").data["files"][0]["from"].as_u64().expect("a number");
    assert!(from > 0 && from < cut as u64, "{from}");
    let second = import(&mut bench, &[grown]);
    assert_eq!((&second["records"], &second["imported"]), (&json!(1), &json!(1)));
    assert_eq!(total(&mut bench)["requests"], 2);
    // One that shrank, and one that is another file under its name, are read from the beginning.
    let shrunk = import(&mut bench, &[file("claude-code", name, &whole[..cut])]);
    assert_eq!((&shrunk["records"], &shrunk["duplicates"]), (&json!(2), &json!(2)));
    let rotated = lines(&[claude("msg_3", "req_3", 34, LATER)]);
    let rotated = import(&mut bench, &[file("claude-code", name, rotated)]);
    assert_eq!(rotated["imported"], 1);
    assert_eq!(total(&mut bench)["requests"], 3);
}

#[test]
fn a_rollout_that_has_grown_counts_only_what_is_new() {
    let mut bench = bench(json!({}));
    let name = "/home/eve/.codex/sessions/rollout-1.jsonl";
    let mut content = codex("c1", None, "2026-11-20T23:49:20.617Z");
    // Its beginning is long enough to be known again.
    content.splice(0..0, lines(&[json!({"type": "response_item", "text": "x".repeat(5_000)})]));
    assert_eq!(import(&mut bench, &[file("codex", name, content.clone())])["imported"], 1);
    let usage = |input: u64| json!({"input_tokens": input, "output_tokens": 40});
    content.extend(lines(&[json!({
        "timestamp": "2026-11-20T23:50:00.000Z", "type": "event_msg",
        "payload": {"type": "token_count", "info": {"last_token_usage": usage(1_300)}},
    })]));
    let grown = import(&mut bench, &[file("codex", name, content)]);
    assert_eq!((&grown["records"], &grown["imported"]), (&json!(1), &json!(1)), "{grown:#}");
    let by = summary(&mut bench, json!({"since": "2026-01-01", "by": "model"}));
    assert_eq!(by["rows"][0]["key"], "gpt-5.1-codex", "the model stands at the beginning");
}

#[test]
fn compressed_files_and_files_of_unknown_tools_are_read() {
    let mut bench = bench(json!({}));
    let rollout = codex("c1", Some("resp_1"), "2026-11-20T23:49:20.617Z");
    let level = ruzstd::encoding::CompressionLevel::Fastest;
    let packed = ruzstd::encoding::compress_to_vec(rollout.as_slice(), level);
    let mut files = vec![
        file("codex", "rollout-1.jsonl.zst", packed),
        file("claude-code", "somewhere/s.jsonl", two_answers()),
        file("aider", "note.txt", "# aider chat started\n\n> Tokens: 765 sent, 13 received.\n"),
    ];
    for file in &mut files {
        file.tool = None;
    }
    let answer = import(&mut bench, &files);
    assert_eq!((&answer["imported"], &answer["files"]), (&json!(3), &json!(2)), "{answer:#}");
    let tools: Vec<&Value> =
        answer["tools"].as_array().expect("tools").iter().map(|it| &it["tool"]).collect();
    assert_eq!(tools, ["claude-code", "codex"]);
    assert_eq!(
        (&answer["skipped"][0]["file"], &answer["skipped"][0]["line"]),
        (&json!("note.txt"), &json!(0))
    );
}

#[test]
fn a_rehearsal_counts_the_same_and_writes_nothing() {
    let mut bench = bench(json!({}));
    let transcripts = [
        file("claude-code", "/p/a.jsonl", two_answers()),
        file("claude-code", "/p/b.jsonl", two_answers()),
        file("codex", "/c/r.jsonl", codex("c1", Some("resp_1"), EARLIER)),
    ];
    let rehearsed = import_as_sent(&mut bench, json!({"dry_run": true}), &transcripts).data;
    assert_eq!(total(&mut bench)["requests"], 0);
    let done = import(&mut bench, &transcripts);
    for figure in ["records", "imported", "tokens", "cost_usd", "sessions", "files"] {
        assert_eq!(rehearsed[figure], done[figure], "{figure}");
    }
    assert_eq!((&rehearsed["dry_run"], &done["dry_run"]), (&json!(true), &json!(false)));
    let known = import_as_sent(&mut bench, json!({"dry_run": true}), &transcripts).data;
    assert_eq!((&known["unchanged"], &known["imported"]), (&json!(3), &json!(0)));
}

#[test]
fn a_range_of_time_leaves_the_rest_for_later() {
    let mut bench = bench(json!({}));
    let transcript = [file("claude-code", "/p/a.jsonl", two_answers())];
    let late = import_as_sent(&mut bench, json!({"since": "2026-11-21"}), &transcript).data;
    assert_eq!(late["imported"], 1, "{late:#}");
    let rest = import(&mut bench, &transcript);
    assert_eq!((&rest["imported"], &rest["unchanged"]), (&json!(1), &json!(0)));
}

#[test]
fn what_the_tool_states_of_a_session_is_compared() {
    let mut bench = bench(json!({}));
    let sum = |output: u64, cost: f64| {
        json!({
            "type": "cost-state", "sessionId": "session-of-eve", "totalCostUSD": cost,
            "modelUsage": {"claude-sonnet-4-5": {
                "inputTokens": 800, "outputTokens": output, "cacheReadInputTokens": 1_000,
                "cacheCreationInputTokens": 600,
            }},
        })
    };
    let with = |sum: Value| [two_answers(), lines(&[sum])].concat();
    let same = import(&mut bench, &[file("claude-code", "/p/a.jsonl", with(sum(68, 0.006_87)))]);
    assert_eq!(same["differences"], json!([]));
    let other = file("claude-code", "/p/b.jsonl", with(sum(100, 0.5)));
    let answer = import_as_sent(&mut bench, json!({}), &[other]);
    let difference = &answer.data["differences"][0];
    assert_eq!(difference["stated"]["output_tokens"], 100);
    assert_eq!(difference["counted"]["output_tokens"], 68);
    assert_eq!(difference["counted"]["input_tokens"], 2_400);
    let notes = answer.table.expect("a table").notes.join("\n");
    assert!(notes.contains("1 session of which the tool itself states other sums"), "{notes}");
}

#[test]
fn a_wrong_name_of_a_tool_is_told_with_those_that_there_are() {
    let mut bench = bench(json!({}));
    let error = bench.command_with_sent_files("import", json!({"tool": "claude"}), &[], 0);
    let error = error.expect_err("there is no such tool").to_string();
    assert!(error.contains("there is no tool \"claude\""), "{error}");
    let config = json!({"projects": {"site": ["work"]}});
    let error = Bench::<UsageTracker>::start(config).expect_err("it is refused").to_string();
    assert!(error.contains("projects.site"), "{error}");
}

#[test]
fn people_see_what_was_imported_and_what_was_left_out() {
    let mut bench = bench(json!({}));
    let mut content = two_answers();
    content.extend_from_slice(b"{\"usage\": nonsense}\n");
    let transcript = [file("claude-code", "/p/a.jsonl", content)];
    let answer = import_as_sent(&mut bench, json!({}), &transcript);
    let table = answer.table.expect("a table");
    assert_eq!(table.rows[0][..5], ["claude-code", "1", "2", "1", "2,400"].map(str::to_owned));
    let notes = table.notes.join("\n");
    assert!(notes.contains("2 requests of 1 session imported from 1 file"), "{notes}");
    assert!(notes.contains("left out: /p/a.jsonl:6 is no JSON, from column"), "{notes}");
    let again = import_as_sent(&mut bench, json!({}), &transcript).table.expect("a table");
    assert_eq!(again.notes, ["nothing new in 1 file"]);
}
