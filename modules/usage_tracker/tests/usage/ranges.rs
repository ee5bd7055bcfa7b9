//! Sums over any range, in any zone, from rollups, compared with a plain count of the same
//! requests.

use crate::common::{NOW, bench, ms, request, row, summary};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use module_sdk::{events::LlmRequestCompleted, testing::Bench};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use usage_tracker::UsageTracker;

const MODEL: &str = "claude-haiku-4-5";

/// Returns a request every 37 minutes for nine days, over the end of summer time in Europe, with
/// the number of the request as its input.
fn requests() -> Vec<LlmRequestCompleted> {
    let start = ms("2026-10-20T00:00:00Z");
    (0..350_u32)
        .map(|number| {
            let ended_at = start + i64::from(number) * 37 * 60_000;
            let at = Timestamp::from_millisecond(ended_at).expect("a time").to_string();
            LlmRequestCompleted {
                input_tokens: Some(u64::from(number)),
                // Of five requests one has no price.
                request_model: Some(
                    if number % 5 == 0 { "nobody-knows" } else { MODEL }.to_owned(),
                ),
                session_id: (number % 3 > 0).then(|| format!("s{}", number / 40)),
                duration_ms: Some(100 + number * 13),
                ..request(&format!("k{number}"), &at, MODEL)
            }
        })
        .collect()
}

fn filled(zone: &str) -> Bench<UsageTracker> {
    let mut bench = bench(json!({"timezone": zone}));
    for part in requests().chunks(50) {
        bench.send_all(part).1.expect("it is handled");
    }
    bench
}

#[test]
fn every_range_sums_up_exactly() {
    let mut bench = filled("UTC");
    let mut check = |since: &str, until: &str| {
        let (from, to) = (ms(since), ms(until));
        let within: Vec<LlmRequestCompleted> =
            requests().into_iter().filter(|r| (from..to).contains(&r.ended_at)).collect();
        let input: u64 = within.iter().filter_map(|request| request.input_tokens).sum();
        let unpriced = within.iter().filter(|r| r.request_model.as_deref() != Some(MODEL)).count();
        for by in ["model", "session", "day", "hour", "branch"] {
            let args = json!({"since": since, "until": until, "by": by});
            let summary = summary(&mut bench, args);
            let rows = summary["rows"].as_array().expect("rows");
            for figures in [&summary["total"], &add_up(rows)] {
                assert_eq!(figures["requests"], within.len(), "{by} {since} {until}");
                assert_eq!(figures["input_tokens"], input, "{by} {since} {until}");
                assert_eq!(figures["unpriced_requests"], unpriced, "{by} {since} {until}");
            }
            let mut durations: Vec<u32> = within.iter().filter_map(|r| r.duration_ms).collect();
            durations.sort_unstable();
            if let Some(median) = durations.get(durations.len().div_ceil(2).saturating_sub(1)) {
                let answer = summary["total"]["latency_ms"]["p50"].as_f64().expect("a number");
                assert!((answer - f64::from(*median)).abs() <= f64::from(*median) * 0.02);
            }
        }
    };
    check("2026-10-20T00:00:00Z", "2026-10-22T00:00:00Z");
    check("2026-10-20T00:00:00Z", "2026-10-20T00:00:00.001Z");
    check("2026-10-20T10:17:00Z", "2026-10-20T10:50:00Z");
    check("2026-10-20T10:17:00Z", "2026-10-20T12:10:00Z");
    check("2026-10-20T22:17:00Z", "2026-10-26T01:10:00Z");
    check("2026-10-21T23:59:59.999Z", "2026-10-23T00:00:00.001Z");
    check("2026-01-01T00:00:00Z", "2026-11-20T00:00:00Z");
    check("2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z");
}

fn add_up(rows: &[Value]) -> Value {
    let sum = |field: &str| rows.iter().filter_map(|row| row[field].as_i64()).sum::<i64>();
    let fields = ["requests", "input_tokens", "unpriced_requests"];
    fields.into_iter().map(|field| (field.to_owned(), json!(sum(field)))).collect()
}

#[test]
fn days_are_those_of_the_zone() {
    for zone in ["Europe/Vienna", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "UTC"] {
        let mut bench = filled(zone);
        let zone = TimeZone::get(zone).expect("the zones are built in");
        let mut days: BTreeMap<String, i64> = BTreeMap::new();
        for request in requests() {
            let at = Timestamp::from_millisecond(request.ended_at).expect("a time");
            *days.entry(at.to_zoned(zone.clone()).date().to_string()).or_default() += 1;
        }
        let summary = summary(&mut bench, json!({"by": "day", "since": "2026-10-01"}));
        let rows = summary["rows"].as_array().expect("rows").iter();
        let answered: BTreeMap<String, i64> = rows
            .map(|row| {
                let key = row["key"].as_str().expect("a text").to_owned();
                (key, row["requests"].as_i64().expect("a number"))
            })
            .collect();
        assert_eq!(answered, days, "{zone:?}");
    }
}

#[test]
fn retention_deletes_requests_and_keeps_the_rollups() {
    let mut bench = bench(json!({"retention_days": 10}));
    let old = request("old", "2026-11-12T09:20:00Z", MODEL);
    let new = request("new", NOW, MODEL);
    bench.send_all(&[old.clone(), new]).1.expect("it is handled");
    let listed = |bench: &mut Bench<UsageTracker>| {
        let reply = bench.command("requests", json!({})).expect("it answers");
        reply.data.as_array().expect("a list").len()
    };
    assert_eq!(listed(&mut bench), 2);
    pass_days(&mut bench, 2);
    assert_eq!(listed(&mut bench), 1);
    let by_day = summary(&mut bench, json!({"by": "day"}));
    assert_eq!(row(&by_day, "2026-11-12")["requests"], 1);

    // What comes again after its request is deleted still counts once.
    bench.send(&old).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
    assert_eq!(listed(&mut bench), 1);

    // Numbers of deleted rows are not used again, even where all rows are gone.
    pass_days(&mut bench, 20);
    assert_eq!(listed(&mut bench), 0);
    bench.send(&request("third", "2026-12-13T11:00:00Z", MODEL)).expect("it is handled");
    bench.send(&old).expect("it is handled");
    assert_eq!(listed(&mut bench), 1);
    let args = json!({"since": "2026-11-01"});
    assert_eq!(summary(&mut bench, args)["total"]["requests"], 3);

    // Within an hour whose requests are gone nothing can be told apart, and that is said.
    let args = json!({"since": "2026-11-12T09:30:00Z", "until": "2026-11-12T10:30:00Z"});
    let reply = bench.command("summary", args).expect("it answers");
    assert_eq!(reply.data["total"]["requests"], 0);
    assert_eq!(reply.data["rounded_to_hours"], true);
    assert!(reply.table.expect("a table").notes.join("").contains("whole hours"));
}

/// Lets days pass, and then runs every timer once.
fn pass_days(bench: &mut Bench<UsageTracker>, days: i64) {
    let now: Timestamp = NOW.parse().expect("a time");
    let later = now + SignedDuration::from_hours(24 * days);
    let host = bench.host().clone();
    host.set_now(later);
    bench.advance(Duration::from_secs(60)).expect("the timers run");
}

#[test]
fn a_clock_that_runs_ahead_is_seen_at_once() {
    let mut bench = bench(json!({}));
    bench.send(&request("a", "2026-11-21T12:00:30Z", MODEL)).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 1);
    let until_now = summary(&mut bench, json!({"until": "now"}));
    assert_eq!(until_now["total"]["requests"], 0);
}

#[test]
fn rows_can_be_limited_and_the_total_still_counts_all() {
    let mut bench = bench(json!({}));
    for (number, model) in ["a", "b", "c"].iter().enumerate() {
        bench.send(&request(&number.to_string(), NOW, model)).expect("it is handled");
    }
    let reply = bench.command("summary", json!({"limit": 1})).expect("it answers");
    assert_eq!(reply.data["rows"].as_array().map(Vec::len), Some(1));
    assert_eq!(reply.data["total"]["requests"], 3);
    assert!(reply.table.expect("a table").notes.join("").contains("1 of 3 rows"));
}
