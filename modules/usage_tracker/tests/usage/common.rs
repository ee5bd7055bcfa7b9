//! The helpers that the tests of the module share.

use jiff::Timestamp;
use module_sdk::{
    events::{LlmRequestCompleted, RequestSource, RequestStatus},
    testing::Bench,
};
use serde_json::{Value, json};
use usage_tracker::UsageTracker;

/// Time of the fake clock in these tests.
pub(crate) const NOW: &str = "2026-11-21T12:00:00Z";

/// Returns a time in milliseconds since the Unix epoch.
pub(crate) fn ms(time: &str) -> i64 {
    time.parse::<Timestamp>().expect("a time").as_millisecond()
}

/// Starts the module with its clock at [`NOW`].
pub(crate) fn bench(config: Value) -> Bench<UsageTracker> {
    let mut config = config;
    config["timezone"] = config.get("timezone").cloned().unwrap_or_else(|| json!("UTC"));
    let bench = Bench::start(config).expect("it starts");
    bench.host().set_now(NOW.parse().expect("a time"));
    bench
}

/// Returns a successful request: 1,000 tokens in, 100 out.
pub(crate) fn request(key: &str, ended_at: &str, model: &str) -> LlmRequestCompleted {
    let ended_at = ms(ended_at);
    LlmRequestCompleted {
        schema: 1,
        source: Some(RequestSource::OtlpLog),
        dedupe_key: key.to_owned(),
        started_at: ended_at - 1_500,
        ended_at,
        provider: Some("anthropic".to_owned()),
        request_model: Some(model.to_owned()),
        status: Some(RequestStatus::Ok),
        input_tokens: Some(1_000),
        output_tokens: Some(100),
        duration_ms: Some(1_500),
        ..Default::default()
    }
}

/// Returns the answer of `summary`.
pub(crate) fn summary(bench: &mut Bench<UsageTracker>, args: Value) -> Value {
    bench.command("summary", args).expect("it answers").data
}

/// Returns the row with a key.
pub(crate) fn row(summary: &Value, key: &str) -> Value {
    let rows = summary["rows"].as_array().expect("it has rows");
    let row = rows.iter().find(|row| row["key"] == key);
    row.unwrap_or_else(|| panic!("no row {key} in {summary:#}")).clone()
}
