//! Correlation of one reply that arrives in several forms into one request.

use serde_json::json;

use ingest::Ingest;
use module_sdk::{events::RequestSource, testing::Bench};

use crate::{
    bodies::*,
    http::{Site, connect, request},
};

#[test]
fn claude_codes_log_span_and_metric_are_one_request() {
    let site = Site::plain();
    let now = now_ns();
    site.post_protobuf("/v1/traces", &claude_span(now, "req_1"));
    site.post_protobuf("/v1/logs", &claude_logs(vec![claude_request(now, "req_1")]));
    site.post_protobuf("/v1/metrics", &claude_metrics());
    let sources: Vec<_> = site.requests().iter().filter_map(|request| request.source).collect();
    assert_eq!(sources, [RequestSource::OtlpSpan, RequestSource::OtlpLog]);
    assert_eq!(site.distinct_requests(), 1);
}

#[test]
fn codex_log_and_span_are_one_request() {
    let now = now_ns();
    for log_first in [true, false] {
        let site = Site::plain();
        let log = || site.post_protobuf("/v1/logs", &codex_logs(vec![codex_completed(now)]));
        let spans = || site.post_protobuf("/v1/traces", &codex_spans(now + 2_000_000));
        if log_first {
            (log(), spans())
        } else {
            (spans(), log())
        };
        assert_eq!((site.requests().len(), site.distinct_requests()), (2, 1), "{log_first}");
    }
}

#[test]
fn two_records_of_one_source_are_two_requests() {
    let site = Site::plain();
    let now = now_ns();
    let two = vec![claude_request(now, "req_1"), claude_request(now, "req_2")];
    site.post_protobuf("/v1/logs", &claude_logs(two));
    assert_eq!(site.distinct_requests(), 2);
    let two = vec![codex_completed(now), codex_completed(now + 1_000_000)];
    site.post_protobuf("/v1/logs", &codex_logs(two));
    assert_eq!(site.distinct_requests(), 4);
}

#[test]
fn an_sdks_span_within_an_instrumentations_is_one_request() {
    let site = Site::plain();
    let now = now_ns();
    let native = |ids: (u8, u8, u8), request: &str, response: &str| {
        let more = vec![
            attr("anthropic.request.id", request),
            attr("anthropic.usage.cache_creation.ephemeral_5m_input_tokens", 100),
            attr("anthropic.usage.cache_creation.ephemeral_1h_input_tokens", 200),
        ];
        chat_span(ids, now, response, more)
    };
    let error = |ids: (u8, u8, u8), error: &str| {
        let attributes = vec![
            attr("gen_ai.operation.name", "chat"),
            attr("gen_ai.provider.name", "anthropic"),
            attr("gen_ai.request.model", "claude-sonnet-4-5"),
            attr("error.type", error),
        ];
        failed(span("chat", ids, now, attributes))
    };
    let instrumentation = vec![
        chat_span((1, 2, 0), now, "msg_1", vec![]),
        chat_span((3, 4, 0), now, "msg_2", vec![]),
        error((5, 6, 0), "anthropic.OverloadedError"),
    ];
    let sdk = vec![
        native((1, 7, 2), "req_1", "msg_1"),
        native((3, 8, 4), "req_2", "msg_2"),
        error((5, 9, 6), "overloaded_error"),
    ];
    let message = traces("program", vec![("instrumentation", instrumentation), ("sdk", sdk)]);
    site.post_protobuf("/v1/traces", &message);
    assert_eq!((site.requests().len(), site.distinct_requests()), (6, 3));
    // Who does not know how the cache writes split does not guess.
    let requests = site.requests();
    let first = requests.iter().find(|r| r.upstream_request_id.is_some()).expect("a request");
    assert_eq!(first.cache_write_1h_tokens, Some(200));
    for request in requests.iter().filter(|r| r.upstream_request_id.is_none()) {
        assert_eq!(request.cache_write_1h_tokens, None);
    }
}

#[test]
fn a_resent_batch_counts_once_also_after_a_kill() {
    let directory = tempfile::tempdir().expect("a directory");
    let now = now_ns();
    let logs = codex_logs(vec![codex_completed(now)]);
    let spans = codex_spans(now + 1_000_000);
    let run = || -> Vec<String> {
        let bench = Bench::<Ingest>::start_in(directory.path(), json!({})).expect("it starts");
        let address = bench.host().listener_address("http").expect("it listens");
        let site = Site { bench, address };
        site.post_protobuf("/v1/traces", &spans);
        site.post_protobuf("/v1/logs", &logs);
        let keys = site.requests().into_iter().map(|request| request.dedupe_key).collect();
        // A kill: no stop, no destructor.
        std::mem::forget(site);
        keys
    };
    let first = run();
    assert_eq!(first[0], first[1]);
    assert_eq!(run(), first);
}

#[test]
fn two_generations_side_by_side_join_alike() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        let bench = Bench::<Ingest>::start_in(directory.path(), json!({})).expect("it starts");
        let address = bench.host().listener_address("http").expect("it listens");
        Site { bench, address }
    };
    let (old, new) = (start(), start());
    let now = now_ns();
    old.post_protobuf("/v1/logs", &codex_logs(vec![codex_completed(now)]));
    new.post_protobuf("/v1/traces", &codex_spans(now + 1_000_000));
    assert_eq!(old.requests()[0].dedupe_key, new.requests()[0].dedupe_key);
}

#[test]
fn token_usage_and_model_response_of_one_trace_are_one_request() {
    let site = Site::plain();
    let event = |id: &str, kind: &str, trace: &str, body: serde_json::Value| {
        json!({"eventId": id, "projectId": "shop", "type": kind, "context": {"traceId": trace},
               "timestamp": jiff::Timestamp::now().to_string(), "body": body})
    };
    let usage = json!({"model": "gpt-5", "inputTokens": 12, "outputTokens": 3});
    let response = json!({"model": "gpt-5", "prompt": "p", "response": "r", "latencyMs": 250});
    site.post_json("/api/v1/event", &event("a", "token_usage", "t1", usage.clone()));
    site.post_json("/api/v1/event", &event("b", "model_response", "t1", response));
    site.post_json("/api/v1/event", &event("c", "token_usage", "t2", usage.clone()));
    site.post_json("/api/v1/event", &event("c", "token_usage", "t2", usage));
    let keys: Vec<_> = site.requests().into_iter().map(|request| request.dedupe_key).collect();
    assert_eq!(keys, ["lynex:shop:a", "lynex:shop:a", "lynex:shop:c", "lynex:shop:c"]);
}

#[test]
fn a_journal_that_cannot_be_written_degrades_and_takes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("joins"), "a file where a directory should be")
        .expect("it is written");
    let mut bench = Bench::<Ingest>::start_in(directory.path(), json!({})).expect("it starts");
    let health = bench.health();
    assert_eq!(health.status, module_sdk::HealthStatus::Degraded);
    assert!(health.message.contains("a restart may count a request twice"), "{health:?}");
    let address = bench.host().listener_address("http").expect("it listens");
    let body = serde_json::to_vec(&claude_logs(vec![claude_request(now_ns(), "req_1")]));
    let headers = [("content-type", "application/json")];
    let body = body.expect("it serialises");
    let answer = request(&mut connect(address), "POST", "/v1/logs", &headers, &body);
    assert_eq!(answer.status, 200);
}
