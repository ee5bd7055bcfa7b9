//! `lodestar usage export`: every request of a period as a stream.
//!
//! The export runs on its own thread with its own read-only connection, a page at a time, so it
//! takes constant memory, keeps no transaction open and never blocks the writer.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use module_sdk::{Error, ErrorKind, Job, Output, Reply, Result, Table, TimeRange, TimeRangeArgs};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    query::{Reader, object, page},
    store::Stored,
};

/// Writes every request, or those of a range of time: one object per request, with the field names
/// of `llm.request.completed`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExportArgs {
    /// The form: lines of JSON, one JSON array, or CSV with a header.
    pub(crate) format: Format,
    #[serde(flatten)]
    pub(crate) range: TimeRangeArgs,
}

/// The form of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// One JSON object per line.
    #[default]
    Jsonl,
    /// One JSON array.
    Json,
    /// RFC 4180, with a header.
    Csv,
}

/// Default start of an export: before every request.
pub(crate) const SINCE: &str = "1971-01-01";

/// Requests per page.
const PAGE: u32 = 1_000;

/// The columns of a CSV: `event_id`, what is stored in addition to the event, and every field of
/// the event except the reference to its text, which is never stored.
const COLUMNS: &[&str] = &[
    "event_id",
    "schema",
    "source",
    "source_ref",
    "dedupe_key",
    "started_at",
    "ended_at",
    "client",
    "client_version",
    "session_id",
    "turn_id",
    "trace_id",
    "span_id",
    "project",
    "branch",
    "user",
    "provider",
    "upstream",
    "dialect",
    "operation",
    "request_model",
    "response_model",
    "routed_model",
    "service_tier",
    "stream",
    "status",
    "http_status",
    "attempt",
    "retry_of",
    "error_type",
    "finish_reason",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "usage_source",
    "cost_nano_usd",
    "cost_source",
    "price_version",
    "stated_cost_nano_usd",
    "one_hour_by_cost",
    "duration_ms",
    "ttfb_ms",
    "ttft_ms",
    "upstream_ms",
    "queue_ms",
    "load_ms",
    "prompt_eval_ms",
    "eval_ms",
    "cache",
    "route_rule",
    "variant",
    "fallback_from",
    "response_id",
    "upstream_request_id",
    "request_bytes",
    "response_bytes",
];

/// Creates the job of an export. `stopping` ends it when the module stops.
pub(crate) fn job(
    mut reader: Reader,
    format: Format,
    period: TimeRange,
    stopping: Arc<AtomicBool>,
) -> Job {
    Job::new(move |output| {
        let (from, to) = period.bounds_ms();
        let total = reader.ask(|connection, _| {
            let sql = "SELECT count(*) FROM request WHERE ended_at >= ?1 AND ended_at < ?2";
            connection.query_row(sql, (from, to), |row| row.get::<_, i64>(0))
        })?;
        let total = u64::try_from(total).ok();
        let mut rows = 0;
        begin(output, format)?;
        let mut after = (from, 0);
        loop {
            if stopping.load(Ordering::Relaxed) {
                let message = "usage_tracker is stopping; start the export again";
                return Err(Error::of(ErrorKind::Cancelled, message));
            }
            let page = reader.ask(|connection, texts| page(connection, texts, after, to, PAGE))?;
            let Some(last) = page.last() else { break };
            after = (last.report.request.ended_at, last.id);
            for stored in &page {
                write(output, format, stored, rows == 0)?;
                rows += 1;
            }
            output.progress(rows, total, "requests")?;
        }
        if format == Format::Json {
            output.write_all(if rows == 0 { b"]\n" } else { b"\n]\n" })?;
        }
        let exported = format!(
            "{} exported",
            crate::commands::requests(i64::try_from(rows).unwrap_or(i64::MAX))
        );
        let table = Table { notes: vec![exported], ..Table::default() };
        Ok(Reply::json(&serde_json::json!({"requests": rows}))?.table(table))
    })
}

fn begin(output: &mut Output, format: Format) -> Result<()> {
    match format {
        Format::Jsonl => {}
        Format::Json => output.write_all(b"[")?,
        Format::Csv => writeln!(output, "{}\r", COLUMNS.join(","))?,
    }
    Ok(())
}

fn write(output: &mut Output, format: Format, stored: &Stored, first: bool) -> Result<()> {
    let object = object(stored)?;
    match format {
        Format::Jsonl => {
            serde_json::to_writer(&mut *output, &object)?;
            output.write_all(b"\n")?;
        }
        Format::Json => {
            output.write_all(if first { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut *output, &object)?;
        }
        Format::Csv => {
            let cells: Vec<String> =
                COLUMNS.iter().map(|column| cell(object.get(*column))).collect();
            writeln!(output, "{}\r", cells.join(","))?;
        }
    }
    Ok(())
}

/// Returns a CSV cell by RFC 4180. A text that a spreadsheet would run as a formula is prefixed
/// with `'`.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => {
            let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
            let text = if formula { format!("'{text}") } else { text.clone() };
            if text.contains(['"', ',', '\n', '\r']) {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text
            }
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use module_sdk::events::LlmRequestCompleted;

    use super::*;

    #[test]
    fn every_field_of_the_event_has_a_column() {
        let schema = schemars::schema_for!(LlmRequestCompleted);
        let fields = schema.get("properties").and_then(Value::as_object).expect("it has fields");
        for field in fields.keys().filter(|field| *field != "content_ref") {
            assert!(COLUMNS.contains(&field.as_str()), "{field}");
        }
        let added = ["event_id", "stated_cost_nano_usd", "one_hour_by_cost"];
        assert!(added.iter().all(|column| COLUMNS.contains(column)));
        assert_eq!(COLUMNS.len(), fields.len() - 1 + added.len(), "content_ref is gone");
    }

    #[test]
    fn cells_are_quoted_and_harmless() {
        let check = |value: Value, expected: &str| assert_eq!(cell(Some(&value)), expected);
        check(Value::Null, "");
        check(7.into(), "7");
        check(true.into(), "true");
        check("plain".into(), "plain");
        check("a,\"b\"\n".into(), "\"a,\"\"b\"\"\n\"");
        check("=HYPERLINK(1)".into(), "'=HYPERLINK(1)");
    }
}
