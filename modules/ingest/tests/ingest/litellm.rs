//! LiteLLM's callback `generic_api`.

use module_sdk::events::{RequestSource, RequestStatus};
use serde_json::{Value, json};

use crate::{
    bodies::*,
    http::{Answer, Site, gzip},
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// Returns a standard log of a streamed call of Claude: the counts of [`claude_request`].
fn log(request_id: &str) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let now = now_ns() as f64 / 1e9;
    let usage = json!({
        "prompt_tokens": 1200, "completion_tokens": 34, "total_tokens": 1234,
        "completion_tokens_details": {"reasoning_tokens": 0, "text_tokens": 34},
        "prompt_tokens_details": {
            "cached_tokens": 500, "cache_creation_tokens": 300,
            "cache_creation_token_details": {
                "ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200,
            },
        },
        "cache_creation_input_tokens": 300, "cache_read_input_tokens": 500,
    });
    json!({
        "id": format!("chatcmpl-{request_id}"), "litellm_call_id": "e72cd49e",
        "session_id": "session of jane",
        "call_type": "acompletion", "cache_hit": false, "stream": true, "status": "success",
        "custom_llm_provider": "anthropic", "model": "claude-sonnet-4-5",
        "startTime": now - 0.5, "endTime": now, "completionStartTime": now - 0.25,
        "metadata": {"usage_object": usage, "user_api_key_user_id": "jane", "user_agent": null},
        "response_cost": 0.003435, "prompt_tokens": 1200, "completion_tokens": 34,
        "messages": [{"role": "user", "content": "a secret question"}],
        "response": {
            "model": "claude-sonnet-4-5", "service_tier": "default", "usage": usage,
            "choices": [{
                "finish_reason": "stop", "message": {"content": "a secret answer"},
            }],
        },
        "hidden_params": {"additional_headers": {"llm_provider-request-id": request_id}},
        "error_str": null, "end_user": null,
    })
}

fn failed_log() -> Value {
    let mut log = log("none");
    log["status"] = json!("failure");
    log["response_cost"] = json!(0.0);
    log["metadata"] = json!({});
    log["response"] = json!({});
    log["hidden_params"] = json!({"additional_headers": {}});
    log["id"] = log["litellm_call_id"].clone();
    for count in ["prompt_tokens", "completion_tokens"] {
        log[count] = json!(0);
    }
    log["error_information"] = json!({
        "error_code": "429", "error_class": "RateLimitError", "error_message": "secret words",
        "error_provider_request_id": "req_429",
    });
    log
}

fn told(answer: &Answer) -> (u16, Value, Value) {
    let body = answer.json();
    (answer.status, body["accepted"].clone(), body["refused"].clone())
}

#[test]
fn a_list_of_logs_is_a_list_of_requests() {
    let mut site = Site::plain();
    let answer = site.post_json("/generic_api", &json!([log("req_1"), failed_log()]));
    assert_eq!(told(&answer), (200, json!(2), json!(0)), "{}", answer.text());
    let requests = site.requests();
    let [good, bad] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(good.dedupe_key, "anthropic:req_1");
    assert_eq!(good.source, Some(RequestSource::Litellm));
    assert_eq!((good.input_tokens, good.output_tokens), (Some(1200), Some(34)));
    assert_eq!(good.cache_read_tokens, Some(500));
    assert_eq!((good.cache_write_5m_tokens, good.cache_write_1h_tokens), (Some(100), Some(200)));
    assert_eq!(good.cost_nano_usd, Some(3_435_000));
    assert_eq!((good.duration_ms, good.ttft_ms), (Some(500), Some(250)));
    assert_eq!(good.status, Some(RequestStatus::Ok));
    assert_eq!(good.operation.as_deref(), Some("chat"));
    assert_eq!(good.finish_reason.as_deref(), Some("stop"));
    assert_eq!(good.service_tier.as_deref(), Some("standard"));
    assert!(good.session_id.as_deref().is_some_and(|id| id.starts_with("session_")));
    assert_eq!(bad.status, Some(RequestStatus::Error));
    assert_eq!((bad.http_status, bad.error_type.as_deref()), (Some(429), Some("RateLimitError")));
    assert_eq!((bad.input_tokens, bad.output_tokens, bad.cost_nano_usd), (None, None, None));
    assert_eq!(bad.upstream_request_id.as_deref(), Some("req_429"));
    assert_eq!(bad.response_id, None, "it is LiteLLM's own");
    let told = site.everything_told();
    for text in ["secret", "jane"] {
        assert!(!told.contains(text), "{text}: {told}");
    }
}

#[test]
fn an_odd_log_costs_itself_only() {
    let site = Site::plain();
    let mut negative = log("req_2");
    negative["metadata"]["usage_object"]["prompt_tokens"] = json!(-5);
    let mut half = log("req_3");
    half["metadata"] = json!("secret");
    half["messages"] = json!("a half \u{fffd}");
    let list = json!([7, "secret", null, [log("req_0")], negative, {}, half, log("req_1")]);
    let answer = site.post_json("/api/v1/litellm", &list);
    assert_eq!(told(&answer), (200, json!(2), json!(5)), "{}", answer.text());
    assert_eq!(answer.json()["ignored"], 1);
    assert_eq!(answer.json()["first_refused"], "/0: the log must be an object");
    assert!(!answer.text().contains("secret"), "{}", answer.text());
    let requests = site.requests();
    let inputs: Vec<_> = requests.iter().map(|request| request.input_tokens).collect();
    assert_eq!(inputs, [Some(1200), Some(1200)]);
}

#[test]
fn one_log_and_one_a_line_are_read_too() {
    let site = Site::plain();
    let one = log("req_1").to_string();
    let lines = format!("{}\n{}\n", log("req_2"), log("req_3"));
    assert_eq!(told(&site.post("/generic_api", &[JSON], one.as_bytes())).1, 1);
    let kind = ("content-type", "application/x-ndjson");
    assert_eq!(told(&site.post("/generic_api", &[kind], lines.as_bytes())).1, 2);
    let zipped = [JSON, ("content-encoding", "gzip")];
    assert_eq!(told(&site.post("/generic_api", &zipped, &gzip(one.as_bytes()))).1, 1);
    assert_eq!(site.distinct_requests(), 3);
    for wrong in ["{", "[{}", "secret"] {
        let answer = site.post("/generic_api", &[JSON], wrong.as_bytes());
        assert_eq!(answer.status, 400, "{wrong}");
        assert!(!answer.text().contains("secret"));
    }
    assert_eq!(site.post("/generic_api", &[("content-type", "text/plain")], b"[]").status, 415);
}

#[test]
fn a_call_that_an_instrumentation_reports_too_counts_once() {
    let site = Site::plain();
    site.post_json("/generic_api", &json!([log("req_1")]));
    site.post_protobuf("/v1/logs", &claude_logs(vec![claude_request(now_ns(), "req_1")]));
    assert_eq!((site.requests().len(), site.distinct_requests()), (2, 1));
}

#[test]
fn a_price_that_litellm_does_not_know_is_unknown_and_a_cached_answer_is_free() {
    let site = Site::plain();
    let (mut unknown, mut cached) = (log("req_1"), log("req_2"));
    unknown["response_cost"] = json!(0.0);
    (cached["response_cost"], cached["cache_hit"]) = (json!(0.0), json!(true));
    site.post_json("/generic_api", &json!([unknown, cached]));
    let requests = site.requests();
    let found: Vec<_> = requests.iter().map(|it| (it.status, it.cost_nano_usd)).collect();
    let expected = [(Some(RequestStatus::Ok), None), (Some(RequestStatus::Cached), Some(0))];
    assert_eq!(found, expected);
}

#[test]
fn where_projects_have_keys_a_key_is_asked_and_names_the_project() {
    const KEY: &str = "sk_live_0123456789abcdef";
    let site = Site::start(json!({"projects": {"shop": {"key": KEY}}}));
    let body = json!([log("req_1")]).to_string();
    assert_eq!(site.post("/generic_api", &[JSON], body.as_bytes()).status, 401);
    let bearer = format!("Bearer {KEY}");
    let answer = site.post("/generic_api", &[JSON, ("authorization", &bearer)], body.as_bytes());
    assert_eq!(told(&answer).1, 1, "{}", answer.text());
    assert_eq!(site.requests()[0].project.as_deref(), Some("shop"));
}

#[test]
fn more_logs_than_may_be_are_refused_as_a_whole() {
    let site = Site::plain();
    let body = format!("[{}7]", "7,".repeat(10_000));
    assert_eq!(site.post("/generic_api", &[JSON], body.as_bytes()).status, 422);
    let body = format!("[{}7]", "7,".repeat(9_999));
    assert_eq!(told(&site.post("/generic_api", &[JSON], body.as_bytes())).2, 10_000);
}
