//! Transcripts as Claude Code and Codex keep them, of some days before the daemon was started, and
//! their import.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{daemon::Daemon, heading, traffic::rfc3339};

/// Days that the tools were used before, sessions of each a day, and answers in a session.
const DAYS: u64 = 3;
const SESSIONS: u64 = 2;
const ANSWERS: u64 = 4;

/// Writes transcripts into the home directory of the demonstration, and imports them twice; returns
/// the number of requests that they tell of.
pub(super) fn show(daemon: &Daemon) -> Result<u64> {
    heading("Reading what Claude Code and Codex wrote before there was a daemon");
    write(daemon.person(), SystemTime::now())?;
    daemon.shown(&["usage", "import", "all"])?;
    println!("Again: what is known already is not read a second time.\n");
    daemon.shown(&["usage", "import", "all"])?;
    daemon.shown(&["usage", "summary", "--by", "day"])?;
    let summary = daemon.json(&["usage", "summary"])?;
    let (counted, told) = (summary["total"]["requests"].as_u64(), 2 * DAYS * SESSIONS * ANSWERS);
    ensure!(counted == Some(told), "of {told} requests {counted:?} were counted");
    Ok(told)
}

fn write(home: &Path, now: SystemTime) -> Result<()> {
    let claude = home.join(".claude/projects/-home-dev-shop");
    fs::create_dir_all(&claude)?;
    for day in 1..=DAYS {
        let begin = (now - Duration::from_secs(day * 86_400)).duration_since(UNIX_EPOCH)?;
        for session in 0..SESSIONS {
            let begin = begin + Duration::from_secs(session * 3_600);
            let id = format!("{:08x}-0000-4000-8000-{session:012x}", begin.as_secs());
            fs::write(claude.join(format!("{id}.jsonl")), lines(&claude_code(&id, begin)))?;
            let date = rfc3339(begin);
            let folder = home.join(".codex/sessions").join(date[..10].replace('-', "/"));
            fs::create_dir_all(&folder)?;
            let moment = date[..19].replace(':', "-");
            let id = id.replacen("-0000-", "-7000-", 1);
            let name = format!("rollout-{moment}-{id}.jsonl");
            fs::write(folder.join(name), lines(&codex(&id, begin)))?;
        }
    }
    Ok(())
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

/// Returns a session of Claude Code: each answer fills two lines, and each has all the counts.
fn claude_code(session: &str, begin: Duration) -> Vec<Value> {
    let answer = |number: u64| {
        let at = begin + Duration::from_secs(40 * (number + 1));
        let message = |content: Value| {
            json!({
                "type": "assistant", "sessionId": session, "version": "2.1.329",
                "cwd": "/home/dev/shop", "gitBranch": "claude/basket", "isSidechain": false,
                "timestamp": rfc3339(at), "requestId": format!("req_{session}_{number}"),
                "message": {
                    "id": format!("msg_{session}_{number}"), "type": "message",
                    "role": "assistant", "model": "claude-sonnet-4-5", "content": [content],
                    "usage": {
                        "input_tokens": 400 + 10 * number,
                        "cache_creation_input_tokens": 300,
                        "cache_read_input_tokens": 20_000 + 500 * number,
                        "output_tokens": 200 + 30 * number,
                        "cache_creation": {
                            "ephemeral_5m_input_tokens": 100,
                            "ephemeral_1h_input_tokens": 200,
                        },
                    },
                },
            })
        };
        [
            message(json!({"type": "thinking", "thinking": "Let me see."})),
            message(json!({"type": "text", "text": "It is done."})),
        ]
    };
    (0..ANSWERS).flat_map(answer).collect()
}

/// Returns a session of Codex.
fn codex(session: &str, begin: Duration) -> Vec<Value> {
    let record = |seconds: u64, kind: &str, payload: Value| {
        let at = rfc3339(begin + Duration::from_secs(seconds));
        json!({"timestamp": at, "type": kind, "payload": payload})
    };
    let (cwd, model) = ("/home/dev/shop", "gpt-5.1-codex");
    let meta = json!({"id": session, "session_id": session, "cwd": cwd, "cli_version": "0.169.0"});
    let context = json!({"turn_id": format!("turn_{session}"), "cwd": cwd, "model": model});
    let mut records = vec![record(0, "session_meta", meta), record(1, "turn_context", context)];
    records.extend((0..ANSWERS).map(|number| {
        let (input, output) = (9_000 + 700 * number, 150 + 20 * number);
        let usage = json!({
            "input_tokens": input, "cached_input_tokens": 8_000, "cache_write_input_tokens": 0,
            "output_tokens": output, "reasoning_output_tokens": 64, "total_tokens": input + output,
        });
        let payload = json!({
            "session_id": session, "turn_id": format!("turn_{session}"), "usage": usage,
            "response_id": format!("resp_{session}_{number}"),
        });
        record(30 * (number + 1), "token_usage_record", payload)
    }));
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_lie_where_the_tools_keep_them() {
        let home = tempfile::tempdir().expect("a directory");
        write(home.path(), UNIX_EPOCH + Duration::from_secs(1_795_218_501)).expect("they are new");
        let claude = home.path().join(".claude/projects/-home-dev-shop");
        assert_eq!(fs::read_dir(claude).expect("it is there").count() as u64, DAYS * SESSIONS);
        let day = home.path().join(".codex/sessions/2026/11/19");
        let mut names = fs::read_dir(day).expect("it is there").map(|it| it.expect("it is read"));
        let name = names.next().expect("there is one").file_name();
        assert!(name.to_string_lossy().starts_with("rollout-2026-11-19T"), "{name:?}");
    }
}
