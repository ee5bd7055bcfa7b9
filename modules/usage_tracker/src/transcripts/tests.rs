//! Transcripts of each tool, in the forms that it writes.

use module_sdk::events::{CostSource, UsageSource};
use serde_json::json;

use super::*;

/// Reads a file of a tool.
fn read(tool: Tool, name: &str, text: &str) -> (Harvest, Vec<(u64, Fault)>) {
    let origin = Origin { name, changed_ms: 1_795_000_000_000 };
    let (mut harvest, mut faults) = (Harvest::default(), Vec::new());
    match reading(tool, origin) {
        Reading::Lines(mut reader) => {
            let mut lines = Lines::new(text.as_bytes(), 0, 0);
            while let Some((number, line)) = lines.next_line().expect("it is read") {
                let (Line::Whole(line) | Line::Last(line)) = line else { continue };
                if let Err(fault) = reader.line(line, number, &mut harvest) {
                    faults.push((number, fault));
                }
            }
            reader.end(&mut harvest);
        }
        Reading::Document(read) => {
            if let Err(fault) = read(text.as_bytes(), origin, &mut harvest) {
                faults.push((0, fault));
            }
        }
    }
    (harvest, faults)
}

/// Reads a file without faults.
fn found(tool: Tool, name: &str, text: &str) -> Vec<Found> {
    let (harvest, faults) = read(tool, name, text);
    assert_eq!(faults, []);
    harvest.found
}

type Counts = (Option<u64>, Option<u64>, Option<u64>, Option<u64>);

/// Returns the counts: input, read from the cache, output, reasoning.
fn counts(found: &Found) -> Counts {
    let request = &found.request;
    (
        request.input_tokens,
        request.cache_read_tokens,
        request.output_tokens,
        request.reasoning_tokens,
    )
}

/// Returns a part of an answer of Claude Code.
fn claude(message: &str, request: &str, output: u64, at: &str) -> String {
    let usage = json!({
        "input_tokens": 400, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 500,
        "output_tokens": output, "output_tokens_details": {"thinking_tokens": 0},
        "service_tier": "standard", "speed": "standard",
        "cache_creation": {"ephemeral_1h_input_tokens": 200, "ephemeral_5m_input_tokens": 100},
    });
    let message = json!({
        "id": message, "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "\"usage\" secret"}], "stop_reason": "end_turn",
        "usage": usage,
    });
    let line = json!({
        "parentUuid": "p", "isSidechain": false, "message": message, "requestId": request,
        "requestRef": format!("ref-{request}"), "type": "assistant", "uuid": format!("u-{output}"),
        "timestamp": format!("2026-11-20T23:48:{at}Z"), "cwd": "/home/eve/site",
        "sessionId": "s1", "version": "2.1.329", "gitBranch": "main",
    });
    line.to_string()
}

fn sent(request: &str, at: &str) -> String {
    let line = json!({
        "type": "api-request", "sessionId": "s1", "id": format!("ref-{request}"),
        "timestamp": format!("2026-11-20T23:48:{at}Z"), "params": {"model": "claude-sonnet-4-5"},
    });
    line.to_string()
}

/// Returns a sample as a tool has written it.
macro_rules! sample {
    ($name:literal) => {
        include_str!(concat!("../../tests/transcripts/", $name)).trim_end()
    };
}

#[test]
fn parts_of_an_answer_of_claude_code_are_one_request() {
    let text = [
        r#"{"type":"user","message":{"role":"user","content":"hi \"usage\""},"sessionId":"s1"}"#,
        &sent("req_1", "30.000"),
        &claude("msg_1", "req_1", 1, "30.500"),
        &claude("msg_1", "req_1", 34, "31.000"),
        &sent("req_2", "32.000"),
        &claude("msg_2", "req_2", 5, "32.250"),
    ]
    .join("\n");
    let (harvest, faults) = read(Tool::ClaudeCode, "s1.jsonl", &text);
    assert_eq!((harvest.records, harvest.found.len(), faults.len()), (3, 2, 0));
    let first = &harvest.found[0];
    assert_eq!(counts(first), (Some(1200), Some(500), Some(34), Some(0)));
    let request = &first.request;
    let writes = (request.cache_write_5m_tokens, request.cache_write_1h_tokens);
    assert_eq!(writes, (Some(100), Some(200)));
    assert_eq!(request.dedupe_key, "anthropic:req_1");
    assert_eq!(request.response_id.as_deref(), Some("msg_1"));
    assert_eq!(request.duration_ms, Some(1_000), "from when it was sent to its last part");
    assert_eq!(request.ended_at - request.started_at, 1_000);
    let names = [&request.session_id, &request.branch, &request.client_version, &first.folder];
    let names: Vec<&str> = names.iter().filter_map(|name| name.as_deref()).collect();
    assert_eq!(names, ["s1", "main", "2.1.329", "/home/eve/site"]);
    assert_eq!(request.service_tier.as_deref(), Some("standard"));
    assert!(!format!("{harvest:?}").contains("secret"));
}

#[test]
fn json_with_spaces_is_read_as_well() {
    let line = claude("msg_1", "req_1", 34, "30.500");
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let spaced = serde_json::to_string_pretty(&value).expect("JSON").replace('\n', " ");
    assert_eq!(
        found(Tool::ClaudeCode, "s1.jsonl", &spaced),
        found(Tool::ClaudeCode, "s1.jsonl", &line)
    );
}

#[test]
fn refusals_of_claude_code_are_failed_requests_and_its_own_notes_are_none() {
    let text = [
        &sent("req_1", "30.000"),
        sample!("claude_refused_attempt.jsonl"),
        sample!("claude_refused.jsonl"),
        sample!("claude_gave_up.jsonl"),
        sample!("claude_note.jsonl"),
    ]
    .join("\n");
    let found = found(Tool::ClaudeCode, "s1.jsonl", &text);
    let keys: Vec<&str> = found.iter().map(|it| it.request.dedupe_key.as_str()).collect();
    assert_eq!(keys, ["anthropic:req_a", "anthropic:req_b"]);
    for failed in &found {
        assert_eq!(failed.request.status, Some(RequestStatus::Error));
        assert_eq!(failed.request.http_status, Some(529));
        assert_eq!(failed.request.usage_source, Some(UsageSource::None));
        assert_eq!(failed.request.request_model.as_deref(), Some("claude-sonnet-4-5"));
    }
    assert_eq!(found[1].request.error_type.as_deref(), Some("overloaded_error"));
}

#[test]
fn side_chains_and_sums_of_claude_code_are_told() {
    let text = [
        claude("msg_1", "req_9", 34, "30.500").replace("chain\":false", "chain\":true"),
        sample!("claude_sub_agent.jsonl").to_owned(),
        sample!("claude_sum.jsonl").to_owned(),
    ]
    .join("\n");
    let (harvest, _) = read(Tool::ClaudeCode, "s1.jsonl", &text);
    assert_eq!(harvest.found.iter().map(|it| it.is_side_chain).collect::<Vec<_>>(), [true, true]);
    assert_eq!(harvest.found[1].request.dedupe_key, "anthropic:req_5");
    let stated = Statement {
        session: "s1".to_owned(),
        cost_nano_usd: Some(6_870_000),
        input_tokens: 2_400,
        output_tokens: 68,
    };
    assert_eq!(harvest.statements, [stated]);
}

#[test]
fn a_line_that_cannot_be_read_is_named_without_its_text() {
    let whole = claude("msg_1", "req_1", 34, "30.500");
    let text =
        format!("{whole}\n{}\nnonsense \"usage\" secret\n{whole}", &whole[..whole.len() / 2]);
    let (harvest, faults) = read(Tool::ClaudeCode, "s1.jsonl", &text);
    assert_eq!(harvest.found.len(), 1, "the same answer before and after");
    assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(faults[0].1, Fault::Cut);
    assert!(!faults[1].1.to_string().contains("secret"), "{}", faults[1].1);
}

#[test]
fn impossible_counts_of_claude_code_are_marked_and_texts_with_cut_surrogates_are_skipped_over() {
    let text = claude("msg_1", "req_1", 34, "30.500")
        .replace("\"output_tokens\":34", "\"output_tokens\":-34")
        .replace("secret", "\\ud83d cut");
    let found = found(Tool::ClaudeCode, "s1.jsonl", &text);
    assert_eq!(found[0].request.output_tokens, Some(u64::MAX));
    let mut bytes = text.into_bytes();
    let at = bytes.windows(3).position(|it| it == b"cut").expect("it is there");
    bytes[at] = 0xff;
    let mut harvest = Harvest::default();
    let Reading::Lines(mut reader) =
        reading(Tool::ClaudeCode, Origin { name: "s1.jsonl", changed_ms: 0 })
    else {
        unreachable!("it is read line by line")
    };
    reader.line(&bytes, 1, &mut harvest).expect("the text is not looked at");
    reader.end(&mut harvest);
    assert_eq!(harvest.found.len(), 1);
}

const CODEX: &str = include_str!("../../tests/transcripts/codex_begin.jsonl");

fn count(second: &str, last: Option<(u64, u64)>, total: Option<(u64, u64)>) -> String {
    let usage = |counts: Option<(u64, u64)>| {
        counts.map(|(input, output)| {
            json!({
                "input_tokens": input, "cached_input_tokens": input / 2, "output_tokens": output,
                "cache_write_input_tokens": 0, "reasoning_output_tokens": output / 4,
            })
        })
    };
    let info = json!({"last_token_usage": usage(last), "total_token_usage": usage(total)});
    let line = json!({
        "timestamp": format!("2026-11-20T23:49:{second}Z"), "type": "event_msg",
        "payload": {"type": "token_count", "info": info},
    });
    line.to_string()
}

#[test]
fn records_of_codex_have_ids_and_the_sums_behind_them_repeat_them() {
    let text = [
        CODEX.trim_end(),
        sample!("codex_turn.jsonl"),
        sample!("codex_record.jsonl"),
        &count("20.617", Some((1200, 34)), Some((1200, 34))),
        sample!("codex_end.jsonl"),
    ]
    .join("\n");
    let found = found(Tool::Codex, "rollout-x.jsonl", &text);
    assert_eq!(found.len(), 1);
    assert_eq!(counts(&found[0]), (Some(1200), Some(600), Some(34), Some(8)));
    let request = &found[0].request;
    assert_eq!(request.dedupe_key, "openai:resp_03a31d940006");
    assert_eq!((request.ttft_ms, request.duration_ms), (Some(231), Some(456)));
    let names = [&request.session_id, &request.turn_id, &request.request_model, &request.branch];
    let names: Vec<&str> = names.iter().filter_map(|name| name.as_deref()).collect();
    assert_eq!(names, ["c1", "t1", "gpt-5.1-codex", "main"]);
    assert!(!format!("{found:?}").contains("secret"));
}

#[test]
fn sums_of_older_codex_count_what_they_add() {
    let text = [
        CODEX.trim_end(),
        &count("21.000", Some((1000, 30)), Some((1000, 30))),
        // Told again, as limits are told.
        &count("22.000", Some((1000, 30)), Some((1000, 30))),
        &count("23.000", None, None),
        &count("24.000", Some((500, 10)), Some((1500, 40))),
        &count("25.000", None, Some((1700, 45))),
        // A new sum has begun.
        &count("26.000", Some((300, 5)), Some((300, 5))),
        &count("27.000", Some((70, 7)), None),
    ]
    .join("\n");
    let found = found(Tool::Codex, "rollout-x.jsonl", &text);
    let counts: Vec<(u64, u64)> = found
        .iter()
        .map(|it| (it.request.input_tokens.unwrap_or(0), it.request.output_tokens.unwrap_or(0)))
        .collect();
    assert_eq!(counts, [(1000, 30), (500, 10), (200, 5), (300, 5), (70, 7)]);
}

#[test]
fn what_a_sub_agent_of_codex_has_copied_counts_to_its_parent() {
    let agent = CODEX.replace(
        r#""source":"exec""#,
        r#""source":{"subagent":{"thread_spawn":{"parent_thread_id":"c0"}}}"#,
    );
    let inputs = |lines: &[String]| -> Vec<u64> {
        let text = format!("{agent}{}", lines.join("\n"));
        let found = found(Tool::Codex, "rollout-x.jsonl", &text);
        found.iter().filter_map(|it| it.request.input_tokens).collect()
    };
    let copied = [
        count("20.500", Some((1000, 30)), Some((1000, 30))),
        count("20.501", Some((500, 10)), Some((1500, 40))),
        count("29.000", Some((200, 5)), Some((1700, 45))),
    ];
    assert_eq!(inputs(&copied), [200]);
    let of_its_own = [
        count("20.500", Some((1000, 30)), Some((1000, 30))),
        count("25.000", Some((500, 10)), Some((1500, 40))),
    ];
    assert_eq!(inputs(&of_its_own), [1000, 500]);
    assert_eq!(inputs(&of_its_own[..1]), [1000]);
}

#[test]
fn gemini_is_read_with_patches_and_as_a_document() {
    let message = sample!("gemini.jsonl");
    let lines = format!(
        "{}\n{}\n{message}\n{}",
        r#"{"sessionId":"g1","projectHash":"81b6","startTime":"2026-11-20T23:50:42.273Z"}"#,
        format_args!(r#"{{"$set":{{"messages":[{{"id":"u","type":"user"}},{message}]}}}}"#),
        r#"{"$set":{"lastUpdated":"2026-11-20T23:50:43.335Z"}}"#,
    );
    let both = found(Tool::Gemini, "session-1.jsonl", &lines);
    assert_eq!(both.len(), 2);
    assert_eq!(both[0].request.dedupe_key, both[1].request.dedupe_key);
    assert_eq!(counts(&both[0]), (Some(1200), Some(800), Some(34), Some(10)));
    assert_eq!(both[0].request.session_id.as_deref(), Some("g1"));
    let document = format!("{{\"sessionId\":\"g1\",\n\"messages\":[{message}]}}");
    let one = found(Tool::Gemini, "session-1.json", &document);
    assert_eq!(one[0].request, both[0].request);
    // Where the total shows it, the cache is no part of the input; what tools were given is.
    let other =
        message.replace("\"total\":1234", "\"total\":2041").replace("\"tool\":0", "\"tool\":7");
    let one = found(Tool::Gemini, "session-1.jsonl", &other);
    assert_eq!(counts(&one[0]), (Some(2007), Some(800), Some(34), Some(10)));
}

#[test]
fn opencode_is_read_from_rows_and_files() {
    let row = sample!("opencode.jsonl");
    let one = found(Tool::Opencode, "opencode.db", row);
    assert_eq!(counts(&one[0]), (Some(1200), Some(500), Some(34), Some(10)));
    let request = &one[0].request;
    assert_eq!((request.duration_ms, request.cost_nano_usd), (Some(1_500), Some(500_000)));
    assert_eq!(request.cost_source, Some(CostSource::Client));
    assert_eq!(request.provider.as_deref(), Some("anthropic"));
    let file = row.replace("\"error\":null", "\"error\":{\"name\":\"AbortedError\",\"data\":{}}");
    let failed = found(Tool::Opencode, "storage/message/ses_1/msg_a.json", &file);
    assert_eq!(failed[0].request.status, Some(RequestStatus::Error));
    assert_eq!(failed[0].request.error_type.as_deref(), Some("AbortedError"));
    assert_eq!(failed[0].request.dedupe_key, request.dedupe_key);
    let asked = row.replace("assistant", "user");
    assert_eq!(found(Tool::Opencode, "opencode.db", &asked), []);
}

#[test]
fn aider_states_estimates_and_hides_names() {
    let text = sample!("aider.jsonl");
    let two = found(Tool::Aider, "analytics.jsonl", text);
    let request = &two[0].request;
    assert_eq!(request.usage_source, Some(UsageSource::Estimated));
    assert_eq!((request.provider.as_deref(), &request.request_model), (Some("anthropic"), &None));
    assert_eq!(request.cost_nano_usd, Some(7_740_000));
    assert_eq!(two[1].request.request_model.as_deref(), Some("gpt-4o"));
    assert_eq!(two[1].request.cost_nano_usd, None, "0 is no price");
    assert_eq!(two[0].request.session_id, two[1].request.session_id);
}

#[test]
fn the_further_tools_are_read() {
    let check = |tool: Tool, name: &str, text: &str, expected: Counts, key_of: &str| {
        let (harvest, faults) = read(tool, name, text);
        assert_eq!(faults, [], "{tool}");
        assert_eq!(harvest.found.iter().map(counts).collect::<Vec<_>>(), [expected], "{tool}");
        let found = &harvest.found[0];
        assert!(found.request.dedupe_key.starts_with(key_of), "{}", found.request.dedupe_key);
        assert!(found.request.session_id.is_some() && found.request.ended_at > 0, "{tool}");
        assert!(name.ends_with(".db") || tool_of(text.as_bytes()).is_some(), "{tool}");
    };
    let some = |input, read, output, reasoning| (Some(input), Some(read), Some(output), reasoning);
    check(
        Tool::Amp,
        "threads/T-1.json",
        sample!("amp_ledger.json"),
        some(12_368, 11_372, 178, None),
        "amp:",
    );
    check(
        Tool::Amp,
        "threads/T-1.json",
        sample!("amp.json"),
        some(12_368, 11_372, 178, None),
        "amp:",
    );
    check(
        Tool::Codebuddy,
        "p/x.jsonl",
        sample!("codebuddy.jsonl"),
        some(74_408, 0, 281, None),
        "codebuddy:",
    );
    check(
        Tool::Codebuff,
        "projects/p/chats/c/chat-messages.json",
        sample!("codebuff.json"),
        some(100, 40, 7, None),
        "codebuff:",
    );
    check(
        Tool::Copilot,
        "otel/a.jsonl",
        sample!("copilot.jsonl"),
        some(1_200, 800, 34, None),
        "copilot:",
    );
    check(
        Tool::Droid,
        "sessions/u.settings.json",
        sample!("droid.json"),
        some(1_200, 500, 34, Some(10)),
        "droid:",
    );
    check(
        Tool::Goose,
        "sessions.db",
        sample!("goose.jsonl"),
        (Some(1_200), None, Some(34), None),
        "goose:",
    );
    check(
        Tool::Hermes,
        "state.db",
        sample!("hermes.jsonl"),
        some(1_200, 500, 34, Some(10)),
        "hermes:",
    );
    check(
        Tool::Kimi,
        "sessions/g/s1/wire.jsonl",
        sample!("kimi.jsonl"),
        some(1_200, 500, 34, None),
        "kimi:",
    );
    let pi = sample!("pi.jsonl");
    check(Tool::Pi, "p.jsonl", pi, some(1_200, 500, 34, None), "pi:");
    check(Tool::Openclaw, "p.jsonl", pi, some(1_200, 500, 34, None), "openclaw:");
    check(
        Tool::Qwen,
        "projects/p/chats/c.jsonl",
        sample!("qwen.jsonl"),
        some(1_200, 500, 34, Some(10)),
        "qwen:",
    );
    let kilo = sample!("kilo.jsonl");
    check(Tool::Kilo, "kilo.db", kilo, some(1_200, 500, 34, Some(10)), "kilo:");
}

#[test]
fn the_tool_of_a_file_is_found_by_its_keys() {
    let check = |text: &str, expected: Option<Tool>| {
        assert_eq!(tool_of(text.as_bytes()), expected, "{text}");
    };
    check(CODEX, Some(Tool::Codex));
    check(&claude("m", "r", 1, "30.000"), Some(Tool::ClaudeCode));
    check(r#"{"type":"queue-operation","sessionId":"s","content":"hi"}"#, Some(Tool::ClaudeCode));
    check(r#"{"sessionId":"g1","projectHash":"81b6"}"#, Some(Tool::Gemini));
    check(r#"{"event": "launched", "properties": {}, "user_id": "p"}"#, Some(Tool::Aider));
    check("# a note", None);
    // What a person has written is in quotes with a backslash.
    let quoted =
        r#"{"type":"user","sessionId":"s","message":{"content":"\"session_meta\" \"payload\""}}"#;
    check(quoted, Some(Tool::ClaudeCode));
}
