//! A round trip of requests through the database to an export.

use crate::common::{NOW, bench, ms, request};
use jiff::Timestamp;
use module_sdk::events::{
    ApiFormat, CacheOutcome, CostSource, LlmRequestCompleted, RequestSource, RequestStatus,
    UsageSource,
};
use serde_json::{Value, json};
use uuid::Uuid;

const MODEL: &str = "claude-haiku-4-5";

/// Returns a request with every field set.
fn full() -> LlmRequestCompleted {
    let text = |text: &str| Some(text.to_owned());
    LlmRequestCompleted {
        schema: 1,
        source: Some(RequestSource::Gateway),
        source_ref: text("scope"),
        dedupe_key: "k".to_owned(),
        started_at: ms(NOW) - 2_000,
        ended_at: ms(NOW),
        client: text("codex"),
        client_version: text("0.169.0"),
        session_id: text("session_abcdefghijklmnopqrstuvwxyz"),
        turn_id: text("turn_abcdefghijklmnopqrstuvwxyz"),
        trace_id: text("0af7651916cd43dd8448eb211c80319c"),
        span_id: text("b7ad6b7169203331"),
        project: text("=site, \"quoted\""),
        branch: text("main"),
        user: text("user_abcdefghijklmnopqrstuvwxyz"),
        provider: text("anthropic"),
        upstream: text("primary"),
        dialect: Some(ApiFormat::Messages),
        operation: text("chat"),
        request_model: text(MODEL),
        response_model: text("claude-haiku-4-5-20251001"),
        routed_model: text(MODEL),
        service_tier: text("standard"),
        stream: Some(true),
        status: Some(RequestStatus::UpstreamCut),
        http_status: Some(200),
        attempt: Some(2),
        retry_of: text("0191f0c2-0000-7000-8000-000000000000"),
        error_type: text("cut"),
        finish_reason: text("length"),
        input_tokens: Some(1_200),
        cache_read_tokens: Some(500),
        cache_write_5m_tokens: Some(100),
        cache_write_1h_tokens: Some(200),
        output_tokens: Some(34),
        reasoning_tokens: Some(10),
        usage_source: Some(UsageSource::Partial),
        cost_nano_usd: Some(1_145_000),
        cost_source: Some(CostSource::PriceTable),
        price_version: text("2026-11-29"),
        duration_ms: Some(2_000),
        ttfb_ms: Some(1),
        ttft_ms: Some(2),
        upstream_ms: Some(3),
        queue_ms: Some(4),
        load_ms: Some(5),
        prompt_eval_ms: Some(6),
        eval_ms: Some(7),
        cache: Some(CacheOutcome::Miss),
        route_rule: text("rule"),
        variant: text("b"),
        fallback_from: text("gpt-5"),
        response_id: text("msg_1"),
        upstream_request_id: text("req_1"),
        request_bytes: Some(u64::MAX >> 1),
        response_bytes: Some(0),
        content_ref: None,
    }
}

#[test]
fn every_field_comes_out_as_it_went_in() {
    let mut bench = bench(json!({}));
    let id = Uuid::now_v7();
    bench.send_with_ids(&[full()], &[id]).1.expect("it is handled");
    // Keys that are made of other fields come out whole, too.
    for key in ["anthropic:req_1", "anthropic:msg_1"] {
        let mut bench = crate::common::bench(json!({}));
        let request = LlmRequestCompleted { dedupe_key: key.to_owned(), ..full() };
        bench.send(&request).expect("it is handled");
        let (text, _) = bench.stream("export", json!({})).expect("it answers");
        let out: LlmRequestCompleted = serde_json::from_str(&text).expect("the form is right");
        assert_eq!(out, request);
    }
    let (text, _) = bench.stream("export", json!({"format": "jsonl"})).expect("it answers");
    let line: Value = serde_json::from_str(text.trim_end()).expect("a line of JSON");
    assert_eq!(line["event_id"], id.to_string());
    let out: LlmRequestCompleted = serde_json::from_value(line).expect("the form is right");
    assert_eq!(out, full());

    let (text, _) = bench.stream("export", json!({"format": "csv"})).expect("it answers");
    let mut lines = text.split("\r\n");
    let (head, row) = (lines.next().expect("a head"), lines.next().expect("a row"));
    assert!(head.starts_with("event_id,") && row.starts_with(&id.to_string()), "{text}");
    assert!(row.contains("\"'=site, \"\"quoted\"\"\""), "{row}");
    assert_eq!(lines.collect::<Vec<_>>(), [""]);
}

#[test]
fn pages_lose_and_double_nothing() {
    let mut bench = bench(json!({}));
    // More than two pages, many of them with the same time.
    let events: Vec<LlmRequestCompleted> = (0..2_500_u32)
        .map(|number| {
            let at = ms(NOW) - i64::from(number / 700) * 1_000;
            let at = Timestamp::from_millisecond(at).expect("a time").to_string();
            request(&format!("k{number}"), &at, MODEL)
        })
        .collect();
    bench.send_all(&events).1.expect("it is handled");
    for format in ["jsonl", "json"] {
        let (text, reply) = bench.stream("export", json!({"format": format})).expect("it answers");
        let rows: Vec<Value> = if format == "json" {
            serde_json::from_str(&text).expect("an array")
        } else {
            text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
        };
        let mut keys: Vec<&str> =
            rows.iter().filter_map(|row| row["dedupe_key"].as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((rows.len(), keys.len()), (2_500, 2_500), "{format}");
        assert!(rows.is_sorted_by_key(|row| row["ended_at"].as_i64()), "{format}");
        assert_eq!(reply.data["requests"], 2_500);
    }
    let since = json!({"since": "2026-11-21T11:59:58Z", "until": "2026-11-21T11:59:59Z"});
    let (text, _) = bench.stream("export", since).expect("it answers");
    assert_eq!(text.lines().count(), 700);
}

#[test]
fn an_empty_export_is_well_formed() {
    let mut bench = bench(json!({}));
    let mut check = |format: &str, lines: usize| {
        let (text, reply) = bench.stream("export", json!({"format": format})).expect("it answers");
        assert_eq!((text.lines().count(), &reply.data["requests"]), (lines, &json!(0)), "{text}");
    };
    check("jsonl", 0);
    check("csv", 1);
    check("json", 1);
}
