//! Providers that answer in another form than they were asked for: whole instead of as a stream, or
//! as a stream nobody wanted. And streams whose end is not where it seems to be.

use std::io::BufRead as _;

use module_sdk::events::{RequestStatus, UsageSource};
use serde_json::{Value, json};

use crate::{
    faults::{ask, two},
    gateway::{Gateway, read},
    upstream::{Act, End, Gate, Upstream, chat_events, models},
};

/// Starts a router with one provider that answers every request for a model so.
fn one(api: &str, act: impl Fn() -> Act + Send + Sync + 'static) -> Gateway {
    let upstream = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["m"]),
        _ => act(),
    });
    let provider = json!({"base_url": upstream.url(), "api": api, "key": "k", "models": ["m"]});
    Gateway::start(json!({"a": provider}), json!({"retries": {"attempts": 0}}))
}

fn message() -> Value {
    json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 100, "output_tokens": 20}})
}

fn response() -> Value {
    json!({"id": "resp_1", "object": "response", "status": "completed", "model": "m",
        "output": [{"type": "message", "role": "assistant", "id": "msg_1",
            "content": [{"type": "output_text", "text": "hello", "annotations": []}]}],
        "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}})
}

fn completion() -> Value {
    json!({"id": "cmpl-1", "object": "text_completion", "model": "m",
        "choices": [{"index": 0, "text": "hello", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}})
}

/// Returns the same as a stream of these texts.
fn completion_events(texts: &[&str]) -> Vec<String> {
    let event = |choices: Value| {
        let chunk = json!({"id": "cmpl-1", "object": "text_completion", "model": "m",
            "choices": choices});
        format!("data: {chunk}\n\n")
    };
    let text = |text: &&str| {
        event(json!([{"index": 0, "text": text, "logprobs": null, "finish_reason": null}]))
    };
    let mut events: Vec<String> = texts.iter().map(text).collect();
    events.push(event(json!([{"index": 0, "text": "", "finish_reason": "length"}])));
    let mut last = completion();
    last["choices"] = json!([]);
    events.push(format!("data: {last}\n\n"));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn gemini() -> Value {
    json!({"candidates": [{"index": 0, "finishReason": "STOP",
            "content": {"role": "model", "parts": [{"text": "hello"}]}}],
        "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 20}})
}

fn ollama() -> Value {
    json!({"model": "m", "created_at": "2026-11-30T00:00:00Z", "done": true,
        "message": {"role": "assistant", "content": "hello"}, "done_reason": "stop",
        "prompt_eval_count": 100, "eval_count": 20})
}

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";
const COMPLETIONS: &str = "/v1/completions";
const OLLAMA: &str = "/api/chat";
const STREAM_OF_GEMINI: &str = "/v1beta/models/m:streamGenerateContent";

fn asked(path: &str, stream: bool) -> Value {
    let words = json!([{"role": "user", "content": "hi"}]);
    match path {
        RESPONSES => json!({"model": "m", "stream": stream, "input": "hi"}),
        COMPLETIONS => json!({"model": "m", "stream": stream, "prompt": "hi"}),
        STREAM_OF_GEMINI => json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
        MESSAGES => json!({"model": "m", "stream": stream, "max_tokens": 50, "messages": words}),
        _ => json!({"model": "m", "stream": stream, "messages": words}),
    }
}

#[test]
fn a_whole_answer_becomes_the_stream_that_was_asked_for() {
    let whole = |body: Value| {
        // As some write it, over several lines.
        let text = serde_json::to_string_pretty(&body).expect("it is JSON");
        move || Act::Answer(200, vec![], text.clone())
    };
    let chat = serde_json::from_str(&crate::upstream::chat_body("hello")).expect("it is JSON");
    let check = |api: &str, path: &str, body: &Value, end: &str| {
        let gateway = one(api, whole(body.clone()));
        let answer = gateway.post(path, &asked(path, true));
        assert_eq!(answer.status, 200, "{api} {path}: {answer:?}");
        let kind = answer.header("content-type").expect("a type");
        assert!(kind.starts_with("text/event-stream") || kind.contains("ndjson"), "{kind}");
        assert!(answer.body.contains("hello"), "{api} {path}: {answer:?}");
        assert!(answer.body.trim_end().ends_with(end), "{api} {path}: {}", answer.body);
        assert!(!answer.body.contains("\"error\":{"), "{api} {path}: {}", answer.body);
        let report = &gateway.reports(1)[0];
        assert_eq!(report.status, Some(RequestStatus::Ok), "{api} {path}");
        assert_eq!(report.usage_source, Some(UsageSource::Provider), "{api} {path}");
        assert_eq!((report.input_tokens, report.output_tokens), (Some(100), Some(20)), "{path}");
    };
    check("openai", CHAT, &chat, "data: [DONE]");
    check("openai", MESSAGES, &chat, "{\"type\":\"message_stop\"}");
    check("openai", RESPONSES, &response(), "}");
    check("openai", COMPLETIONS, &completion(), "data: [DONE]");
    check("openai", OLLAMA, &chat, "}");
    check("anthropic", MESSAGES, &message(), "{\"type\":\"message_stop\"}");
    check("anthropic", CHAT, &message(), "data: [DONE]");
    check("gemini", STREAM_OF_GEMINI, &gemini(), "}");
}

#[test]
fn a_stream_nobody_asked_for_becomes_a_whole_answer() {
    let check = |api: &str, path: &str, kind: &'static str, pieces: &[String], place: &str| {
        let pieces = pieces.to_vec();
        let gateway = one(api, move || Act::Stream(kind, pieces.clone(), End::Good));
        let answer = gateway.post(path, &asked(path, false));
        assert_eq!(answer.status, 200, "{api} {path}: {answer:?}");
        let kind = answer.header("content-type");
        assert!(kind.is_some_and(|kind| kind.starts_with("application/json")), "{kind:?}");
        let text = answer.json().pointer(place).cloned();
        assert_eq!(text, Some(json!("hello you")), "{api} {path}: {answer:?}");
        let report = &gateway.reports(1)[0];
        assert_eq!(report.status, Some(RequestStatus::Ok), "{api} {path}");
        assert_eq!((report.input_tokens, report.output_tokens), (Some(100), Some(20)), "{path}");
    };
    let events = "text/event-stream";
    let chunks = chat_events(&["hello ", "you"]);
    check("openai", CHAT, events, &chunks, "/choices/0/message/content");
    check("openai", MESSAGES, events, &chunks, "/content/0/text");
    check("openai", COMPLETIONS, events, &completion_events(&["hello ", "you"]), "/choices/0/text");
    let lines = ["hello ", "you"].map(|word| {
        let message = json!({"role": "assistant", "content": word});
        format!("{}\n", json!({"model": "m", "done": false, "message": message}))
    });
    let mut lines = lines.to_vec();
    let mut last = ollama();
    last["message"]["content"] = "".into();
    lines.push(format!("{last}\n"));
    check("ollama", OLLAMA, "application/x-ndjson", &lines, "/message/content");
}

#[test]
fn half_a_stream_nobody_asked_for_is_no_answer() {
    let part = chat_events(&["one", "two"])[..2].to_vec();
    let (_, _, gateway) =
        two(move |_| Act::Stream("text/event-stream", part.clone(), End::Good), json!({}));
    let answer = ask(&gateway, false);
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "good");
    let part = completion_events(&["one", "two"])[..2].to_vec();
    let gateway = one("openai", move || Act::Stream("text/event-stream", part.clone(), End::Good));
    assert_eq!(gateway.post(COMPLETIONS, &asked(COMPLETIONS, false)).status, 502);
}

#[test]
fn a_text_that_came_as_a_stream_says_why_it_ended() {
    let events = completion_events(&["hello"]);
    let gateway =
        one("openai", move || Act::Stream("text/event-stream", events.clone(), End::Good));
    let answer = gateway.post(COMPLETIONS, &asked(COMPLETIONS, false)).json();
    assert_eq!(answer["object"], "text_completion", "{answer}");
    assert_eq!(answer["id"], "cmpl-1", "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "length", "{answer}");
    assert_eq!(answer["usage"]["total_tokens"], 120, "{answer}");
}

#[test]
fn the_route_names_what_the_provider_has_no_word_for() {
    let gateway = one("anthropic", || Act::Answer(200, vec![], message().to_string()));
    let route = |body: &Value| {
        let answer = gateway.post(RESPONSES, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-lodestar-route").expect("a route").to_owned()
    };
    let mut body = asked(RESPONSES, false);
    assert!(!route(&body).contains("left_out"));
    body["tools"] = json!([{"type": "web_search"}]);
    let route = route(&body);
    assert!(route.ends_with("; left_out=tools of the provider"), "{route}");
}

#[test]
fn an_error_in_json_instead_of_a_stream_falls_back() {
    let error = r#"{"error":{"message":"x"}}"#;
    let (_, _, gateway) = two(move |_| Act::Answer(200, vec![], error.into()), json!({}));
    assert!(ask(&gateway, true).body.contains("good"));
    assert_eq!(gateway.reports(3)[0].error_type.as_deref(), Some("error_in_200"));
}

#[test]
fn of_several_answers_one_that_begins_late_is_waited_for() {
    let event = |index: u32, delta: Value, finish: Value| {
        let choices = json!([{"index": index, "delta": delta, "finish_reason": finish}]);
        format!("data: {}\n\n", json!({"id": "chatcmpl-1", "choices": choices}))
    };
    let first = vec![
        event(0, json!({"role": "assistant", "content": "one"}), Value::Null),
        event(0, json!({}), json!("stop")),
    ];
    let mut both = first.clone();
    both.push(event(1, json!({"role": "assistant", "content": "two"}), Value::Null));
    both.push(event(1, json!({}), json!("stop")));
    let check = |pieces: Vec<String>, end, n: u32, is_whole: bool| {
        let gateway = one("openai", move || Act::Stream("text/event-stream", pieces.clone(), end));
        let body = json!({"model": "m", "stream": true, "n": n, "messages": []});
        let answer = gateway.post(CHAT, &body);
        assert_eq!(!answer.body.contains("\"error\""), is_whole, "{}", answer.body);
        let status = if is_whole { RequestStatus::Ok } else { RequestStatus::UpstreamCut };
        assert_eq!(gateway.reports(1)[0].status, Some(status));
    };
    check(first.clone(), End::Cut, 2, false);
    check(first.clone(), End::Good, 2, false);
    check(first.clone(), End::Good, 1, true);
    check(both, End::Good, 2, true);
    let mut fewer = first;
    fewer.push("data: [DONE]\n\n".to_owned());
    check(fewer, End::Good, 2, true);
}

#[test]
fn an_attempt_names_the_one_before_by_the_key_that_it_got() {
    let head = chat_events(&["one"])[..1].to_vec();
    let (_, _, gateway) =
        two(move |_| Act::Stream("text/event-stream", head.clone(), End::Cut), json!({}));
    assert!(ask(&gateway, true).body.contains("good"));
    let reports = gateway.reports(3);
    assert_eq!(reports[0].dedupe_key, "a:chatcmpl-1");
    for (before, after) in reports.iter().zip(&reports[1..]) {
        assert_eq!(after.retry_of.as_ref(), Some(&before.dedupe_key), "{reports:#?}");
    }
}

#[test]
fn one_that_waits_for_the_answer_of_another_hears_of_it() {
    let gate = Gate::default();
    let (slow, opened) = (gate.clone(), gate);
    let upstream = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["m"]),
        _ => {
            let stream = Act::Stream("text/event-stream", chat_events(&["same"]), End::Good);
            Act::Gated(slow.clone(), Box::new(stream))
        }
    });
    let provider = json!({"base_url": upstream.url(), "api": "openai", "models": ["m"]});
    let gateway = Gateway::start(
        json!({"a": provider}),
        json!({"cache": {"enabled": true, "wait_s": 60},
            "timeouts": {"silence_seconds": 1, "first_byte_seconds": 60}}),
    );
    let body = json!({"model": "m", "stream": true,
        "messages": [{"role": "user", "content": "hello"}]});
    let mut first = gateway.open(CHAT, &body);
    while upstream.asked("/chat/completions").is_empty() {
        std::thread::yield_now();
    }
    let mut second = gateway.open(CHAT, &body);
    // Neither is at its end; what is read is the head, and then a sign of life.
    let mut head = String::new();
    while !head.contains(": waiting") {
        assert_ne!(second.read_line(&mut head).expect("a line"), 0, "{head}");
    }
    opened.open();
    let whole = read(&mut first);
    assert!(whole.body.contains("same") && whole.body.ends_with("data: [DONE]\n\n"));
    let mut rest = String::new();
    while !rest.contains("[DONE]") {
        assert_ne!(second.read_line(&mut rest).expect("a line"), 0, "{rest}");
    }
    assert!(rest.contains("same"), "{rest}");
}
