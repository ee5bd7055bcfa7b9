//! Lynex events over HTTP.

use serde_json::{Value, json};

use crate::http::{Answer, Site};

fn event(id: &str, kind: &str, body: Value) -> Value {
    json!({
        "eventId": id,
        "projectId": "shop",
        "type": kind,
        "timestamp": "2026-11-20T23:48:21.711",
        "sdk": {"name": "lynex-python", "version": "0.1.0"},
        "context": {},
        "body": body,
    })
}

fn log(id: &str) -> Value {
    event(id, "log", json!({"level": "info", "message": "hello"}))
}

const KEY: &str = "sk_live_abcdefghijklmnopqrstuvwx";

fn with_key() -> Site {
    Site::start(json!({"projects": {"shop": {"key": KEY}}}))
}

#[test]
fn one_event_is_queued() {
    for path in ["/api/v1/event", "/api/v1/events"] {
        let site = Site::plain();
        let answer = site.post_json(path, &log("e-1"));
        assert_eq!(answer.status, 202, "{}", answer.text());
        let expected = json!({
            "status": "queued", "eventId": "e-1", "message": "Event received successfully",
        });
        assert_eq!(answer.json(), expected);
        let emitted = site.bench.host().emitted();
        assert_eq!((emitted[0].topic.as_str(), emitted[0].ledger), ("lynex.log", true));
        assert_eq!(site.lynex_events()[0].fields["level"], "info");
    }
}

#[test]
fn a_batch_comes_in_two_forms() {
    let list = json!([log("a"), log("b")]);
    for (path, body) in [
        ("/api/v1/events/batch", json!({"events": list})),
        ("/api/v1/events/batch", list.clone()),
        ("/api/v1/events", list.clone()),
    ] {
        let site = Site::plain();
        let answer = site.post_json(path, &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(answer.json()["count"], 2);
        assert_eq!(answer.json()["event_ids"], json!(["a", "b"]));
        assert_eq!(answer.json()["status"], "queued");
        assert_eq!(site.lynex_events().len(), 2);
    }
}

#[test]
fn a_batch_is_taken_as_a_whole_or_not_at_all() {
    let site = Site::plain();
    let usage = event("u", "token_usage", json!({"model": "m", "inputTokens": 1}));
    let answer = site.post_json("/api/v1/events/batch", &json!([log("a"), usage]));
    assert_eq!(answer.status, 422);
    let error = &answer.json()["error"];
    assert_eq!(error["path"], "/1/body/outputTokens");
    assert_eq!(error["message"], "/1/body/outputTokens is missing");
    assert!(site.bench.host().emitted().is_empty());
    let many: Vec<Value> = (0..101).map(|index| log(&index.to_string())).collect();
    let answer = site.post_json("/api/v1/events/batch", &json!(many));
    assert_eq!((answer.status, answer.json()["error"]["path"].as_str()), (422, Some("/events")));
    assert_eq!(site.post_json("/api/v1/events/batch", &json!(many[..100])).status, 202);
    assert_eq!(site.post_json("/api/v1/events/batch", &json!([])).status, 422);
    assert_eq!(site.post_json("/api/v1/events/batch", &log("e")).status, 422);
}

#[test]
fn all_eleven_types_are_taken() {
    let site = Site::plain();
    let bodies = [
        ("log", json!({"level": "info", "message": "m"})),
        ("error", json!({"message": "m", "stack": "s"})),
        ("span", json!({"spanId": "s", "start": "2026-11-20T23:48:21Z"})),
        ("token_usage", json!({"model": "m", "inputTokens": 1, "outputTokens": 2})),
        ("message", json!({"role": "tool", "content": "c"})),
        ("eval_metric", json!({"suiteId": "s", "metric": "m", "value": 1})),
        ("agent_action", json!({"action": "a", "input": "i"})),
        ("retrieval", json!({"query": "q", "results": []})),
        ("tool_call", json!({"toolName": "t", "arguments": {}})),
        ("model_response", json!({"model": "m", "prompt": "p", "response": "r", "latencyMs": 1})),
        ("custom", json!({"payload": {}})),
    ];
    let events: Vec<Value> =
        bodies.into_iter().map(|(kind, body)| event(kind, kind, body)).collect();
    let answer = site.post_json("/api/v1/events/batch", &json!(events));
    assert_eq!(answer.status, 202, "{}", answer.text());
    let mut topics: Vec<String> =
        site.bench.host().emitted().into_iter().map(|event| event.topic).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 10, "{topics:?}");
    assert_eq!(site.requests().len(), 2);
    assert_eq!(site.lynex_events().len(), 9);
}

#[test]
fn mistakes_are_told_with_their_place() {
    let site = Site::plain();
    let check = |answer: Answer, status: u16, code: &str, part: &str| {
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["code"].as_str()), (status, Some(code)), "{error}");
        assert!(error["message"].as_str().expect("a text").contains(part), "{error}");
    };
    let json = [("content-type", "application/json")];
    let path = "/api/v1/event";
    check(site.post(path, &json, b"{\"eventId\":"), 400, "not_json", "line 1 column 11");
    check(site.post(path, &json, b""), 400, "not_json", "ends too early");
    check(site.post(path, &json, b"\xff"), 400, "not_json", "is not JSON");
    check(site.post(path, &[], b"{}"), 415, "unsupported_media_type", "application/json");
    let answer = site.post_json(path, &event("e", "logs", json!({})));
    check(answer, 422, "invalid_event", "/type must be one of log, error");
    check(site.post_json(path, &json!(5)), 422, "invalid_event", "must be an event");
    let mut unnamed = log("e");
    unnamed["projectId"] = json!("");
    check(site.post_json(path, &unnamed), 422, "invalid_event", "/projectId must have 1 to 128");
    let small = Site::start(json!({"max_body_bytes": 100}));
    check(small.post_json(path, &log("e")), 413, "too_large", "max_body_bytes");
    site.bench.host().refuse_events(Some("the disk is full"));
    let answer = site.post_json(path, &log("e"));
    assert!(answer.has_header("retry-after"));
    check(answer, 503, "unavailable", "come again");
}

#[test]
fn keys_open_their_own_project_only() {
    let site = with_key();
    let body = serde_json::to_vec(&log("e")).expect("it serialises");
    let post = |key: (&str, &str)| {
        site.post("/api/v1/event", &[("content-type", "application/json"), key], &body)
    };
    assert_eq!(post(("x-api-key", KEY)).status, 202);
    assert_eq!(post(("authorization", &format!("Bearer {KEY}"))).status, 202);
    let refused = post(("x-api-key", "sk_live_somebodyelseskeyofothers"));
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(refused.json()["error"]["code"], "unknown_key");
    assert!(!refused.text().contains("sk_live"));
    assert_eq!(site.post_json("/api/v1/event", &log("e")).status, 401);
    let mut other = log("e");
    other["projectId"] = json!("bank");
    let body = serde_json::to_vec(&json!([log("a"), other])).expect("it serialises");
    let headers = [("content-type", "application/json"), ("x-api-key", KEY)];
    let refused = site.post("/api/v1/events/batch", &headers, &body);
    assert_eq!(
        (refused.status, refused.json()["error"]["path"].as_str()),
        (401, Some("/1/projectId"))
    );
    assert_eq!(site.lynex_events().len(), 2);
}

#[test]
fn what_is_refused_shows_in_the_sources() {
    let mut site = Site::plain();
    let refused = |site: &mut Site| -> Vec<String> {
        let args = json!({"outcome": "refused"});
        let reply = site.bench.command("sources", args).expect("it answers");
        let rows = reply.data["rows"].as_array().expect("rows").iter();
        let text = |row: &Value, field: &str| row[field].as_str().expect("a text").to_owned();
        rows.map(|row| {
            assert_eq!(text(row, "signal"), "lynex");
            let (source, record) = (text(row, "source"), text(row, "record"));
            format!("{source} {record} {}: {}", row["count"], text(row, "reason"))
        })
        .collect()
    };
    let path = "/api/v1/events";
    let json = [("content-type", "application/json")];
    assert_eq!(site.post(path, &json, b"{\"eventId\":").status, 400);
    assert_eq!(site.post(path, &json, b"{\n\"eventId\":\n").status, 400);
    let usage = event("u", "token_usage", json!({"model": "m", "inputTokens": 1}));
    assert_eq!(site.post_json(path, &usage).status, 422);
    assert_eq!(site.post_json(path, &json!([log("a"), usage])).status, 422);
    let canary = event("e", "log", json!({"level": "secret canary", "message": "canary"}));
    assert_eq!(site.post_json(path, &canary).status, 422);
    // What comes again later is not refused.
    site.bench.host().refuse_events(Some("the disk is full"));
    assert_eq!(site.post_json(path, &log("e")).status, 503);
    let found = refused(&mut site);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert_eq!(found[0], "(unnamed) (unnamed) 2: the body ends too early");
    assert_eq!(found[1], "shop token_usage 2: body/outputTokens is missing");
    assert!(found[2].starts_with("shop log 1: body/level must be one of "), "{found:#?}");
    assert!(!format!("{found:?}").contains("canary"), "{found:#?}");
    // Where keys are asked for, the project is that of the key.
    let mut site = with_key();
    assert_eq!(site.post_json(path, &log("e")).status, 401);
    let mut other = log("e");
    other["projectId"] = json!("bank");
    let body = serde_json::to_vec(&other).expect("it serialises");
    let headers = [("content-type", "application/json"), ("x-api-key", KEY)];
    assert_eq!(site.post(path, &headers, &body).status, 401);
    let found = refused(&mut site);
    assert!(found[0].starts_with("(unnamed) (unnamed) 1: this server needs an API key"));
    assert_eq!(found[1], "shop log 1: projectId is not the project of the API key");
}

#[test]
fn who_asks_too_often_is_told_when_to_come_again() {
    let site = Site::start(json!({"rate_limit": {"requests_per_second": 1, "burst": 3}}));
    let statuses: Vec<u16> = (0..5)
        .map(|index| site.post_json("/api/v1/event", &log(&index.to_string())).status)
        .collect();
    assert_eq!(statuses[..3], [202, 202, 202]);
    assert!(statuses[3..].contains(&429), "{statuses:?}");
    let refused = site.post_json("/api/v1/event", &log("e"));
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=2).contains(&wait), "{wait}");
}

#[test]
fn an_event_of_ten_megabytes_leaves_its_text_behind() {
    let site = Site::plain();
    let text = "x".repeat(10 * 1024 * 1024);
    let body = json!({"role": "user", "content": text});
    assert_eq!(site.post_json("/api/v1/event", &event("e", "message", body)).status, 202);
    assert_eq!(site.lynex_events()[0].fields["content_chars"], 10 * 1024 * 1024);
    let emitted = serde_json::to_vec(&site.lynex_events()[0]).expect("it serialises");
    assert!(emitted.len() < 1000);
}
