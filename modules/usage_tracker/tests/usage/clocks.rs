//! Machines whose clocks are wrong.

use std::time::Duration;

use module_sdk::{HealthStatus, events::LlmRequestCompleted, testing::Bench};
use serde_json::{Value, json};
use usage_tracker::UsageTracker;

use crate::common::{NOW, ms, request, summary};

const MODEL: &str = "claude-haiku-4-5";

fn at(directory: &std::path::Path, now: &str) -> Bench<UsageTracker> {
    let config = json!({"timezone": "UTC", "retention_days": 90});
    let bench = Bench::<UsageTracker>::start_in(directory, config).expect("it starts");
    bench.host().set_now(now.parse().expect("a time"));
    bench
}

/// Returns the `ended_at` of all requests that an export writes.
fn exported(bench: &mut Bench<UsageTracker>) -> Vec<i64> {
    let (lines, _) = bench.stream("export", json!({})).expect("it answers");
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("it is JSON");
    lines.lines().map(|text| line(text)["ended_at"].as_i64().expect("a time")).collect()
}

#[test]
fn what_was_accepted_while_the_clock_stood_wrong_is_counted() {
    for wrong in ["1972-06-01T00:00:00Z", "2099-06-01T00:00:00Z"] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut bench = at(directory.path(), NOW);
        bench.send(&request("before", "2026-11-20T10:00:00Z", MODEL)).expect("it is handled");
        bench.host().set_now(wrong.parse().expect("a time"));
        let of_sender = request("of a sender", "2026-11-21T11:00:00Z", MODEL);
        bench.send(&of_sender).expect("it is handled");
        // A sender on the same machine, and one that says nothing.
        bench.send(&request("same clock", wrong, MODEL)).expect("it is handled");
        let timeless =
            LlmRequestCompleted { ended_at: 0, started_at: 0, ..request("none", NOW, MODEL) };
        bench.send(&timeless).expect("it is handled");
        let health = bench.health();
        assert_eq!(health.status, HealthStatus::Degraded, "{wrong}");
        assert!(health.message.contains("clock of this machine stands at"), "{}", health.message);

        let expected = [
            ms("2026-11-20T10:00:00Z"),
            ms("2026-11-21T11:00:00Z"),
            ms("2026-11-21T11:00:00Z"),
            ms("2026-11-21T11:00:00Z"),
        ];
        for _ in 0..2 {
            // Retention and the end of sessions run, and delete nothing.
            bench.advance(Duration::from_secs(60)).expect("the timers run");
            assert_eq!(exported(&mut bench), expected, "{wrong}");
            assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 4, "{wrong}");
            let days = summary(&mut bench, json!({"by": "day"}));
            assert_eq!(days["rows"].as_array().map(Vec::len), Some(2), "{days}");
            let listed = bench.command("requests", json!({})).expect("it answers").data;
            assert_eq!(listed.as_array().map(Vec::len), Some(4), "{wrong}");
            bench.host().set_now(NOW.parse().expect("a time"));
        }
        assert_eq!(bench.health().status, HealthStatus::Ok);
    }
}
