//! Transcripts as tools write them, and their import.

use module_sdk::{
    FileMark, Reply,
    testing::{Bench, SentFile},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use usage_tracker::UsageTracker;

/// Returns a part of an answer of Claude Code: 400 tokens of input, 500 read from the cache, 100
/// and 200 written to it.
pub(crate) fn claude(message: &str, request: &str, output: u64, at: &str) -> Value {
    json!({
        "parentUuid": "p",
        "isSidechain": false,
        "message": {
            "id": message,
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5",
            "content": [{"type": "text", "text": "words \"usage\" of the answer"}],
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 400,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 500,
                "cache_creation": {
                    "ephemeral_1h_input_tokens": 200,
                    "ephemeral_5m_input_tokens": 100,
                },
                "output_tokens": output,
                "service_tier": "standard",
            },
        },
        "requestId": request,
        "type": "assistant",
        "uuid": format!("{message}-{output}"),
        "timestamp": at,
        "cwd": "/home/eve/work/site",
        "sessionId": "session-of-eve",
        "version": "2.1.329",
        "gitBranch": "main",
    })
}

/// Returns values as lines.
pub(crate) fn lines(values: &[Value]) -> Vec<u8> {
    let lines: Vec<String> = values.iter().map(|value| format!("{value}\n")).collect();
    lines.concat().into_bytes()
}

/// Returns a rollout of Codex with one request: 1,200 tokens of input, 800 of them read from the
/// cache, 34 of output. Without an id of the answer it is in the older form.
pub(crate) fn codex(session: &str, answer: Option<&str>, at: &str) -> Vec<u8> {
    let usage = json!({
        "input_tokens": 1200, "cached_input_tokens": 800, "output_tokens": 34,
        "reasoning_output_tokens": 10, "total_tokens": 1234,
    });
    let mut all = vec![
        json!({"timestamp": at, "type": "session_meta", "payload": {
            "id": session, "cwd": "/home/eve/work/site", "cli_version": "0.169.0",
            "source": "exec", "base_instructions": {"text": "words"},
        }}),
        json!({"timestamp": at, "type": "turn_context", "payload": {"model": "gpt-5.1-codex"}}),
    ];
    if let Some(answer) = answer {
        all.push(json!({"timestamp": at, "type": "token_usage_record", "payload": {
            "thread_id": session, "response_id": answer, "usage": usage,
        }}));
    }
    all.push(json!({"timestamp": at, "type": "event_msg", "payload": {
        "type": "token_count", "info": {"total_token_usage": usage, "last_token_usage": usage},
    }}));
    lines(&all)
}

/// Returns a file of a tool as it is sent: the whole of it.
pub(crate) fn file(tool: &str, name: &str, content: impl Into<Vec<u8>>) -> SentFile {
    let content = content.into();
    let mark = FileMark {
        device: 1,
        inode: 7,
        bytes: content.len() as u64,
        modified_ns: 1_795_218_510_000_000_000,
    };
    let head = head(&content);
    SentFile {
        tool: Some(tool.to_owned()),
        mark: Some(mark),
        head: Some(head),
        ..SentFile::new(name, content)
    }
}

fn head(content: &[u8]) -> String {
    let digest = Sha256::digest(&content[..content.len().min(4_096)]);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Imports files as the command line does: those that are known are not sent, or in part.
pub(crate) fn import_as_sent(
    bench: &mut Bench<UsageTracker>,
    args: Value,
    files: &[SentFile],
) -> Reply {
    let asked: Vec<Value> = files
        .iter()
        .map(|file| json!({"name": file.name, "tool": file.tool, "mark": file.mark}))
        .collect();
    let known = bench.command("import-known", json!({"files": asked})).expect("it answers").data;
    let (mut sent, mut unchanged) = (Vec::new(), 0);
    for (file, known) in files.iter().zip(known["files"].as_array().expect("an array")) {
        if known.is_null() {
            unchanged += 1;
            continue;
        }
        let mut file = file.clone();
        let from = usize::try_from(known["from"].as_u64().expect("a number")).expect("it fits");
        let bytes = usize::try_from(known["head_bytes"].as_u64().expect("a number"));
        let bytes = bytes.expect("it fits").min(file.content.len());
        let begins_alike = known["head"] == head(&file.content[..bytes]).as_str();
        if from > 0 && from <= file.content.len() && begins_alike {
            file.from = from as u64;
            file.content.drain(..from);
        }
        sent.push(file);
    }
    bench.command_with_sent_files("import", args, &sent, unchanged).expect("it is imported")
}

/// Imports files and returns the answer.
pub(crate) fn import(bench: &mut Bench<UsageTracker>, files: &[SentFile]) -> Value {
    import_as_sent(bench, json!({}), files).data
}
