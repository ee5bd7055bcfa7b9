//! Benchmark of importing transcripts.
//!
//! `cargo bench -p usage_tracker --bench import -- MEGABYTES`: writes so many megabytes (100) of
//! transcripts of Claude Code and rollouts of Codex into a temporary folder, imports them into a
//! new database, imports them again, and checks the sums. Prints one JSON object per figure:
//! seconds, megabytes per second, the peak of memory above what the process had before.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use module_sdk::{FileMark, testing::FakeHost};
use module_transcripts::Tool;
use serde_json::json;
use usage_tracker::{
    import::{Local, LocalFile},
    store::{Options, Store},
};

const NOW_MS: i64 = 1_795_262_400_000;
/// Answers in a file.
const ANSWERS: u64 = 40;
/// Bytes of text beside each answer, as tools write it.
const TEXT: usize = 6_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let megabytes = std::env::args().skip(1).find_map(|arg| arg.parse::<u64>().ok());
    let bytes = megabytes.unwrap_or(100) * 1_000_000;
    let directory = tempfile::tempdir()?;
    let files = write(directory.path(), bytes)?;
    let all: u64 = files.iter().map(|file| file.mark.bytes).sum();
    let store = Store::open(&directory.path().join("usage.db"), Options::default());
    let store = Arc::new(Mutex::new(store.map_err(|error| error.to_string())?));
    let host = Arc::new(FakeHost::new(directory.path())).host().map_err(|it| it.to_string())?;
    let local = Local::new(store, host, NOW_MS);
    let run = || {
        let begun = Instant::now();
        let imported = local.run(&files).map_err(|error| error.to_string())?;
        Ok::<_, String>((imported, begun.elapsed().as_secs_f64()))
    };
    // The kernel counts the peak anew.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before = kib("VmRSS:");
    let (imported, cold_s) = run()?;
    let peak_mib = kib("VmHWM:").saturating_sub(before) as f64 / 1_024.0;
    let (again, warm_s) = run()?;
    let expected = files.len() as u64 * ANSWERS;
    if imported != expected || again != 0 {
        return Err(format!("{imported} and {again} imported, {expected} written").into());
    }
    let mb = all as f64 / 1e6;
    let name = format!("usage: import of {mb:.0} MB, {} files, {expected} requests", files.len());
    for figure in [
        json!({"name": name, "unit": "s", "value": cold_s}),
        json!({"name": "usage: import, bytes", "unit": "MB/s", "value": mb / cold_s}),
        json!({
            "name": "usage: import with nothing new", "unit": "ms", "value": warm_s * 1e3,
            "goal": {"at_most": 50, "of": "value"},
        }),
        json!({
            "name": "usage: import, peak of memory", "unit": "MiB", "value": peak_mib,
            "goal": {"at_most": 64, "of": "value"},
        }),
    ] {
        println!("{figure}");
    }
    Ok(())
}

/// Writes transcripts; every third file is of Codex.
fn write(directory: &Path, bytes: u64) -> std::io::Result<Vec<LocalFile>> {
    let (mut files, mut written) = (Vec::new(), 0);
    while written < bytes {
        let number = files.len();
        let (tool, text) = match number % 3 {
            2 => (Tool::Codex, codex(number)),
            _ => (Tool::ClaudeCode, claude(number)),
        };
        let path = directory.join(format!("rollout-{number}.jsonl"));
        fs::write(&path, text)?;
        let mark = FileMark::from(&path.metadata()?);
        written += mark.bytes;
        files.push(LocalFile { path, tool: Some(tool), mark, is_database: false });
    }
    Ok(files)
}

/// Returns the time of an answer: the files are spread over 90 days.
fn at(number: usize, answer: u64) -> String {
    let ms = NOW_MS - (number as i64 % 90) * 86_400_000 - answer as i64 * 60_000;
    let time = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    time.to_string()
}

fn claude(number: usize) -> String {
    let text = "words and \"quoted\" ones \n".repeat(TEXT / 24);
    let mut lines = String::new();
    for answer in 0..ANSWERS {
        let at = at(number, answer);
        let asked = json!({
            "type": "user", "sessionId": format!("s-{number}"), "timestamp": at,
            "message": {"role": "user", "content": text},
        });
        lines.push_str(&format!("{asked}\n"));
        for part in 0..2 {
            let answered = json!({
                "isSidechain": false, "type": "assistant", "timestamp": at,
                "uuid": format!("{number}-{answer}-{part}"), "cwd": "/home/eve/site",
                "sessionId": format!("s-{number}"), "version": "2.1.329", "gitBranch": "main",
                "requestId": format!("req_{number:08x}_{answer:04}"),
                "message": {
                    "id": format!("msg_{number:08x}{answer:04}"), "role": "assistant",
                    "model": "claude-sonnet-4-5", "content": [{"type": "text", "text": text}],
                    "usage": {
                        "input_tokens": 400, "cache_creation_input_tokens": 300,
                        "cache_read_input_tokens": 500, "output_tokens": 34,
                        "cache_creation": {
                            "ephemeral_1h_input_tokens": 200, "ephemeral_5m_input_tokens": 100,
                        },
                        "service_tier": "standard",
                    },
                },
            });
            lines.push_str(&format!("{answered}\n"));
        }
    }
    lines
}

fn codex(number: usize) -> String {
    let text = "words and \"quoted\" ones \n".repeat(TEXT / 24);
    let begun = at(number, ANSWERS);
    let mut lines = format!(
        "{}\n{}\n",
        json!({"timestamp": begun, "type": "session_meta", "payload": {
            "id": format!("c-{number}"), "cwd": "/home/eve/site", "source": "exec",
        }}),
        json!({"timestamp": begun, "type": "turn_context", "payload": {"model": "gpt-5.1-codex"}}),
    );
    for answer in 0..ANSWERS {
        let usage = |times: u64| {
            json!({
                "input_tokens": 1_200 * times, "cached_input_tokens": 800 * times,
                "output_tokens": 34 * times, "reasoning_output_tokens": 10 * times,
            })
        };
        let (at, item) = (at(number, ANSWERS - answer), json!({"type": "message", "text": text}));
        let said = json!({"timestamp": at, "type": "response_item", "payload": item});
        let counted = json!({"timestamp": at, "type": "event_msg", "payload": {
            "type": "token_count",
            "info": {"total_token_usage": usage(answer + 1), "last_token_usage": usage(1)},
        }});
        lines.push_str(&format!("{said}\n{counted}\n"));
    }
    lines
}

/// Returns a figure of the process, in KiB.
fn kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
