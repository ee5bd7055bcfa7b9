//! Benchmark of storing requests and summing them up, each compared with a bare loop.
//!
//! `cargo bench -p usage_tracker -- ROWS [DIRECTORY]`: stores `ROWS` requests (200,000) spread over
//! 90 days in batches of 256, as the module does; then inserts the same rows into the same schema
//! with nothing but prepared statements; then asks for the 30-day summary by model, once over a
//! fresh connection and then as the median of 20. Prints one JSON object.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use jiff::{Timestamp, tz::TimeZone};
use module_sdk::{
    TimeRangeArgs,
    events::{LlmRequestCompleted, RequestSource, RequestStatus},
};
use rusqlite::{Connection, params_from_iter, types::Value};
use serde_json::json;
use usage_tracker::{
    query::{By, Reader, summary},
    sanitize::Report,
    store::{Options, Store},
};
use uuid::Uuid;

const BATCH: usize = 256;
const NOW_MS: i64 = 1_795_262_400_000;
const SPAN_MS: i64 = 90 * 24 * 3_600_000;
/// Largest number of rows that the bare loop inserts again: they are held in memory.
const COMPARED: usize = 200_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with("--"));
    let rows: usize = args.next().map_or(Ok(200_000), |rows| rows.parse())?;
    let directory = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = directory.join(format!("lodestar-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("usage.db");
    let (stored_s, first_s) = fill(&path, rows).map_err(|error| error.to_string())?;
    let compared = rows.min(COMPARED);
    let bare_s = bare(&path, &directory.join("bare.db"), compared)?;
    let (first_ms, median_ms) = ask(&path).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    drop(Store::open(&path, Options::default()).map_err(|error| error.to_string())?);
    let open_ms = begun.elapsed().as_secs_f64() * 1e3;
    let rate = |rows: usize, seconds: f64| (rows as f64 / seconds).round();
    let bytes = path.metadata()?.len() / rows.max(1) as u64;
    for figure in [
        json!({
            "name": format!("usage: rows stored, batches of {BATCH}"), "unit": "rows/s",
            "value": rate(compared, first_s),
            "baseline": {"name": "a bare rusqlite loop", "value": rate(compared, bare_s)},
            "goal": {"at_least": 0.6, "of": "ratio"},
        }),
        json!({
            "name": format!("usage: rows stored, mean of {rows}"), "unit": "rows/s",
            "value": rate(rows, stored_s),
        }),
        json!({
            "name": format!("usage: 30-day summary by model, {rows} rows"), "unit": "ms",
            "value": median_ms, "baseline": {"name": "the first time", "value": first_ms},
            "goal": {"at_most": 100, "of": "value"},
        }),
        json!({"name": "usage: opening that database", "unit": "ms", "value": open_ms}),
        json!({"name": "usage: size of a row", "unit": "bytes", "value": bytes}),
    ] {
        println!("{figure}");
    }
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// Stores `rows` requests; returns the seconds for all, and for the first [`COMPARED`].
fn fill(path: &Path, rows: usize) -> module_sdk::Result<(f64, f64)> {
    let mut store = Store::open(path, Options::default())?;
    let (mut all, mut first) = (0.0, 0.0);
    let mut number = 0;
    while number < rows {
        let batch: Vec<Report> =
            (number..rows.min(number + BATCH)).map(|number| report(number, rows)).collect();
        let count = batch.len();
        let begun = Instant::now();
        store.write(batch, NOW_MS)?;
        let seconds = begun.elapsed().as_secs_f64();
        all += seconds;
        if number < COMPARED {
            first += seconds;
        }
        number += count;
    }
    store.checkpoint()?;
    Ok((all, first))
}

/// Inserts the first rows of one database into a new one of the same schema, in batches of the same
/// size; returns the seconds.
fn bare(from: &Path, to: &Path, rows: usize) -> Result<f64, Box<dyn std::error::Error>> {
    drop(Store::open(to, Options::default()).map_err(|error| error.to_string())?);
    let source = Connection::open(from)?;
    let mut target = Connection::open(to)?;
    // As the store sets them, so that only the work differs.
    for (pragma, value) in
        [("synchronous", 1), ("cache_size", -16_000), ("wal_autocheckpoint", 4_000)]
    {
        target.pragma_update(None, pragma, value)?;
    }
    let read = |sql: &str| -> rusqlite::Result<Vec<Vec<Value>>> {
        let mut statement = source.prepare(sql)?;
        let columns = statement.column_count();
        let found = statement.query_map([rows as i64], |row| {
            (0..columns).map(|column| row.get(column)).collect::<rusqlite::Result<Vec<Value>>>()
        })?;
        found.collect()
    };
    let requests = read("SELECT * FROM request ORDER BY id LIMIT ?1")?;
    let keys = read("SELECT * FROM request_key WHERE request <= ?1 ORDER BY request")?;
    let places = vec!["?"; requests.first().map_or(0, Vec::len)].join(",");
    let begun = Instant::now();
    for (requests, keys) in requests.chunks(BATCH).zip(keys.chunks(BATCH)) {
        let transaction = target.transaction()?;
        {
            let mut key = transaction.prepare_cached("INSERT INTO request_key VALUES (?,?)")?;
            let insert = format!("INSERT INTO request VALUES ({places})");
            let mut request = transaction.prepare_cached(&insert)?;
            for (row, row_key) in requests.iter().zip(keys) {
                key.execute(params_from_iter(row_key))?;
                request.execute(params_from_iter(row))?;
            }
        }
        transaction.commit()?;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Measures the 30-day summary by model: returns the milliseconds of the first and the median of
/// 20.
fn ask(path: &Path) -> module_sdk::Result<(f64, f64)> {
    let now = Timestamp::from_millisecond(NOW_MS)?;
    let period = TimeRangeArgs::default().resolve("30d", now, &TimeZone::UTC.into())?;
    let mut times = Vec::new();
    for _ in 0..21 {
        let begun = Instant::now();
        let answer = summary(&mut Reader::open(path)?, &period, By::Model)?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        assert!(!answer.rows.is_empty(), "the database holds the last 30 days");
    }
    let first = times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok((first, times[times.len() / 2]))
}

/// Creates the report of request `number` of `rows`: 12 models, 24 projects, 4 tools, sessions of
/// 40 requests.
fn report(number: usize, rows: usize) -> Report {
    const MODELS: [(&str, &str); 12] = [
        ("anthropic", "claude-sonnet-4-5-20250929"),
        ("anthropic", "claude-opus-4-5-20251101"),
        ("anthropic", "claude-haiku-4-5-20251001"),
        ("openai", "gpt-5"),
        ("openai", "gpt-5-mini"),
        ("openai", "gpt-5.1-codex"),
        ("gcp.gemini", "gemini-2.5-pro"),
        ("gcp.gemini", "gemini-2.5-flash"),
        ("x_ai", "grok-code-fast-1"),
        ("ollama", "llama3.2:3b"),
        ("ollama", "qwen3:8b"),
        ("mistral_ai", "codestral-2508"),
    ];
    const CLIENTS: [&str; 4] = ["claude-code", "codex", "aider", "gemini-cli"];
    // A multiplicative hash: the same numbers on every machine.
    let noise = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let session = number / 40;
    let (provider, model) = MODELS[(session + noise as usize % 2) % 12];
    let ended_at = NOW_MS - SPAN_MS + (SPAN_MS as i128 * number as i128 / rows as i128) as i64;
    let duration_ms = 200 + (noise % 20_000) as u32;
    let input = 500 + noise % 50_000;
    let text = |text: String| Some(text);
    let request = LlmRequestCompleted {
        schema: 1,
        source: Some(RequestSource::OtlpLog),
        dedupe_key: format!("{provider}:req_{noise:012x}{number}"),
        started_at: ended_at - i64::from(duration_ms),
        ended_at,
        client: text(CLIENTS[session % 4].to_owned()),
        client_version: text("2.1.329".to_owned()),
        session_id: text(format!("session_{session:026}")),
        project: text(format!("project-{}", session % 24)),
        branch: text("main".to_owned()),
        provider: text(provider.to_owned()),
        operation: text("chat".to_owned()),
        request_model: text(model.to_owned()),
        response_model: text(model.to_owned()),
        stream: Some(true),
        status: Some(if noise.is_multiple_of(50) {
            RequestStatus::Error
        } else {
            RequestStatus::Ok
        }),
        input_tokens: Some(input),
        cache_read_tokens: Some(input / 2),
        output_tokens: Some(noise % 2_000),
        duration_ms: Some(duration_ms),
        ttft_ms: Some(duration_ms / 4),
        upstream_request_id: text(format!("req_{noise:012x}{number}")),
        ..Default::default()
    };
    Report::new(Uuid::now_v7(), request, NOW_MS)
}
