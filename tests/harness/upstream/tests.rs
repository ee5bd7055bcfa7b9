//! Tests of the fake upstream over sockets.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::*;
use crate::http::{self, Answer as Reply};

const CHAT: &str = "/v1/chat/completions";

fn post(upstream: &FakeUpstream, path: &str, body: &Value) -> Reply {
    post_with(upstream, path, &[], body)
}

fn post_with(upstream: &FakeUpstream, path: &str, headers: &[&str], body: &Value) -> Reply {
    let answer = http::post(&upstream.address(), path, headers, body.to_string().as_bytes());
    answer.expect("it answers")
}

fn asked(stream: bool) -> Value {
    json!({
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream,
        "stream_options": {"include_usage": true},
    })
}

/// Returns the data of a stream of events.
fn data(reply: &Reply) -> Vec<String> {
    let text = reply.text();
    text.lines().filter_map(|line| Some(line.strip_prefix("data: ")?.to_owned())).collect()
}

#[test]
fn every_dialect_answers_with_text_and_usage() {
    let upstream = FakeUpstream::start();
    let answer = Answer {
        usage: Usage { cache_write_5m: 100, cache_write_1h: 200, reasoning: 4, ..Usage::default() },
        ..Answer::text("forty-two")
    };
    upstream.always(answer);
    let check = |path: &str, body: Value, text: &str, usage: &[(&str, u64)]| {
        let reply = post(&upstream, path, &body);
        assert_eq!(reply.status, 200, "{path}");
        let json = reply.json();
        let found = json.pointer(text).unwrap_or_else(|| panic!("{path}: {json:#}"));
        assert_eq!(found, "forty-two", "{path}");
        for (place, count) in usage {
            assert_eq!(json.pointer(place), Some(&json!(count)), "{path} {place}: {json:#}");
        }
    };
    check(
        CHAT,
        asked(false),
        "/choices/0/message/content",
        &[
            ("/usage/prompt_tokens", 1200),
            ("/usage/prompt_tokens_details/cached_tokens", 500),
            ("/usage/completion_tokens_details/reasoning_tokens", 4),
        ],
    );
    check(
        "/v1/responses",
        json!({"model": "m", "input": "hi"}),
        "/output/0/content/0/text",
        &[("/usage/input_tokens", 1200), ("/usage/output_tokens", 34)],
    );
    check(
        "/v1/completions",
        json!({"model": "m", "prompt": "hi"}),
        "/choices/0/text",
        &[("/usage/completion_tokens", 34)],
    );
    check(
        "/v1/messages",
        asked(false),
        "/content/0/text",
        &[
            ("/usage/input_tokens", 400),
            ("/usage/cache_read_input_tokens", 500),
            ("/usage/cache_creation_input_tokens", 300),
            ("/usage/cache_creation/ephemeral_1h_input_tokens", 200),
        ],
    );
    check(
        "/api/chat",
        asked(false),
        "/message/content",
        &[("/prompt_eval_count", 1200), ("/eval_count", 34)],
    );
    check("/api/generate", json!({"model": "m", "stream": false}), "/response", &[]);
    check(
        "/v1beta/models/m:generateContent",
        json!({"contents": []}),
        "/candidates/0/content/parts/0/text",
        &[("/usageMetadata/candidatesTokenCount", 30), ("/usageMetadata/thoughtsTokenCount", 4)],
    );
    let json = |path: &str, body: Value| post(&upstream, path, &body).json();
    let embedded = json("/v1/embeddings", json!({"model": "m", "input": ["a", "b"]}));
    assert_eq!(embedded["data"][1]["embedding"][0], 0.5);
    let base64 = json!({"model": "m", "input": "a", "encoding_format": "base64"});
    assert_eq!(json("/v1/embeddings", base64)["data"][0]["embedding"], "AAAAPwAAgL4AAAA+");
    let embedded = json("/api/embed", json!({"model": "m", "input": ["a", "b"]}));
    assert_eq!(embedded["embeddings"].as_array().map(Vec::len), Some(2));
    assert_eq!(json("/v1/messages/count_tokens", asked(false)), json!({"input_tokens": 1200}));
    assert_eq!(json("/api/show", json!({"name": "m"}))["capabilities"][0], "completion");
    assert_eq!(post(&upstream, "/v1/nothing", &json!({})).status, 404);
}

#[test]
fn lists_of_models_have_the_shape_of_the_dialect() {
    let upstream = FakeUpstream::start();
    upstream.only_models(&["m", "n"]);
    let get = |path: &str| http::get(&upstream.address(), path).expect("it answers").json();
    assert_eq!(get("/v1/models")["data"][1]["id"], "n");
    assert_eq!(get("/v1/models/n")["object"], "model");
    assert_eq!(get("/api/tags")["models"][0]["name"], "m");
    assert_eq!(get("/api/ps")["models"].as_array().map(Vec::len), Some(1));
    let address = upstream.address();
    let request = format!(
        "GET /v1/models?limit=1000 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         anthropic-version: 2026-10-21\r\n\r\n"
    );
    let list = http::raw(&address, &request).expect("it answers").json();
    assert_eq!((&list["data"][0]["type"], &list["has_more"]), (&json!("model"), &json!(false)));
    // Lists take no answer from the queue.
    upstream.next(Answer::status(500));
    assert_eq!(get("/v1/models")["object"], "list");
    let unknown = json!({"model": "o", "messages": []});
    let error = post(&upstream, "/v1/messages", &unknown);
    assert_eq!((error.status, &error.json()["error"]["type"]), (404, &json!("not_found_error")));
    assert_eq!(post(&upstream, CHAT, &asked(false)).status, 500);
}

#[test]
fn streams_come_in_events_and_end_as_the_dialect_ends() {
    let upstream = FakeUpstream::start();
    upstream.always(Answer {
        reasoning: Some("let me think".to_owned()),
        ..Answer::text("forty-two, in äöü pieces")
    });
    let text = |path: &str, body: Value, pieces: &[&str], last: &str| {
        let reply = post(&upstream, path, &body);
        let mut events: Vec<String> = if path.starts_with("/api") {
            reply.text().lines().map(str::to_owned).collect()
        } else {
            data(&reply)
        };
        let text: String = events
            .iter()
            .filter_map(|event| serde_json::from_str::<Value>(event).ok())
            .filter_map(|event| {
                let piece = pieces.iter().find_map(|place| event.pointer(place));
                let thought = event.pointer("/candidates/0/content/parts/0/thought").is_some();
                Some(piece?.as_str().filter(|_| !thought)?.to_owned())
            })
            .collect();
        let end = events.pop().unwrap_or_default();
        assert!(end.contains(last), "{path}: {end}");
        assert_eq!(text, "forty-two, in äöü pieces", "{path}");
        events
    };
    let chunks = text(CHAT, asked(true), &["/choices/0/delta/content"], "[DONE]");
    let last: Value = serde_json::from_str(chunks.last().expect("chunks")).expect("JSON");
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens"]), (&json!([]), &json!(1200)));
    assert!(chunks[0].contains("\"usage\":null"), "{}", chunks[0]);
    text("/v1/completions", asked(true), &["/choices/0/text"], "[DONE]");
    let events = text("/v1/messages", asked(true), &["/delta/text"], "message_stop");
    assert!(events[0].contains("\"output_tokens\":1,"), "{}", events[0]);
    text("/api/chat", asked(true), &["/message/content"], "\"done\":true");
    text("/api/generate", asked(true), &["/response"], "\"eval_count\":34");
    let path = "/v1beta/models/m:streamGenerateContent?alt=sse";
    text(path, json!({}), &["/candidates/0/content/parts/0/text"], "usageMetadata");
    let array = post(&upstream, "/v1beta/models/m:streamGenerateContent", &json!({})).json();
    assert!(array.as_array().is_some_and(|chunks| chunks.len() > 4));
    let reply = post(&upstream, "/v1/responses", &json!({"model": "m", "stream": true}));
    let events: Vec<Value> =
        data(&reply).iter().map(|it| serde_json::from_str(it).expect("JSON")).collect();
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .map(|event| event["delta"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(text, "forty-two, in äöü pieces");
    let last = events.last().expect("events");
    assert_eq!(last["response"]["usage"]["output_tokens"], 34);
    assert_eq!(last["sequence_number"], events.len() - 1);
}

#[test]
fn tools_are_called_whole_and_in_pieces() {
    let upstream = FakeUpstream::start();
    upstream.always(Answer::tool("weather", r#"{"city":"Oslo"}"#));
    let chat = post(&upstream, CHAT, &asked(false)).json();
    let call = &chat["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (&call["name"], &call["arguments"]),
        (&json!("weather"), &json!(r#"{"city":"Oslo"}"#))
    );
    assert_eq!(chat["choices"][0]["finish_reason"], "tool_calls");
    let pieces = |path: &str, place: &str| -> String {
        let reply = post(&upstream, path, &asked(true));
        let events = data(&reply);
        let events = events.iter().filter_map(|it| serde_json::from_str::<Value>(it).ok());
        events.filter_map(|it| Some(it.pointer(place)?.as_str()?.to_owned())).collect()
    };
    let place = "/choices/0/delta/tool_calls/0/function/arguments";
    assert_eq!(pieces(CHAT, place), r#"{"city":"Oslo"}"#);
    assert_eq!(pieces("/v1/messages", "/delta/partial_json"), r#"{"city":"Oslo"}"#);
    assert_eq!(pieces("/v1/responses", "/delta"), r#"{"city":"Oslo"}"#);
    let ollama = post(&upstream, "/api/chat", &asked(false)).json();
    assert_eq!(ollama["message"]["tool_calls"][0]["function"]["arguments"]["city"], "Oslo");
}

#[test]
fn usage_stands_where_it_is_put() {
    let upstream = FakeUpstream::start();
    let usages = |place: UsagePlace, include: bool| {
        upstream.always(Answer { usage_place: place, ..Answer::default() });
        let mut body = asked(true);
        body["stream_options"]["include_usage"] = json!(include);
        let events = data(&post(&upstream, CHAT, &body));
        let chunks = events.iter().filter_map(|it| serde_json::from_str::<Value>(it).ok());
        let with: Vec<Value> = chunks.filter(|chunk| chunk["usage"].is_object()).collect();
        (with.len(), with.last().cloned().unwrap_or_default())
    };
    assert_eq!(usages(UsagePlace::Usual, false).0, 0);
    assert_eq!(usages(UsagePlace::Unasked, false).0, 1);
    assert_eq!(usages(UsagePlace::Missing, true).0, 0);
    assert_eq!(
        usages(UsagePlace::EmptyDelta, true).1["choices"],
        json!([{"index": 0, "delta": {}}])
    );
    assert_eq!(usages(UsagePlace::NoDelta, true).1["choices"], json!([{"index": 0}]));
    assert_eq!(usages(UsagePlace::WithFinish, true).1["choices"][0]["finish_reason"], "stop");
    let (count, last) = usages(UsagePlace::EveryChunk, true);
    assert_eq!((count, &last["usage"]["completion_tokens"]), (6, &json!(34)));
}

#[test]
fn errors_have_the_shape_of_the_dialect_or_none() {
    let upstream = FakeUpstream::start();
    upstream.always(Answer::rate_limited(7));
    let check = |path: &str, place: &str, value: Value| {
        let reply = post(&upstream, path, &asked(false));
        assert_eq!(reply.status, 429, "{path}");
        assert!(reply.head.contains("retry-after: 7"), "{}", reply.head);
        assert_eq!(reply.json().pointer(place), Some(&value), "{path}");
    };
    check(CHAT, "/error/type", json!("rate_limit_exceeded"));
    check("/v1/messages", "/error/type", json!("rate_limit_error"));
    check("/api/chat", "/error", json!("the upstream was told to fail"));
    check("/v1beta/models/m:generateContent", "/error/status", json!("RESOURCE_EXHAUSTED"));
    upstream.next(Answer::fault(Fault::Html));
    let html = post(&upstream, CHAT, &asked(true));
    assert!(html.status == 502 && html.text().starts_with("<html>"), "{html:?}");
    upstream.next(Answer::fault(Fault::ErrorInOk));
    let error = post(&upstream, CHAT, &asked(true));
    assert!(error.status == 200 && error.json()["error"].is_object(), "{error:?}");
    upstream.next(Answer::fault(Fault::Redirect { to: "http://127.0.0.1:1/".to_owned() }));
    let redirect = post(&upstream, CHAT, &asked(true));
    assert!(redirect.head.contains("location: http://127.0.0.1:1/"), "{redirect:?}");
    upstream.next(Answer::fault(Fault::ErrorAfter { events: 1 }));
    let begun = post(&upstream, "/v1/messages", &asked(true)).text();
    assert!(begun.contains("message_start") && begun.contains("event: error"), "{begun}");
    assert!(!begun.contains("message_stop"), "{begun}");
}

/// Sends a request and returns everything up to the end of the connection, and how it ended.
fn to_the_end(upstream: &FakeUpstream, stream: bool) -> (String, std::io::Result<usize>) {
    let mut socket = TcpStream::connect(upstream.address()).expect("it accepts");
    let body = asked(stream).to_string();
    write!(
        socket,
        "POST {CHAT} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it reads");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("it is a socket");
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes);
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

#[test]
fn answers_are_cut_in_three_ways() {
    let upstream = FakeUpstream::start();
    let cut = |how| Answer::fault(Fault::CutAfter { events: 2, how });
    upstream.next(cut(Cut::Reset));
    let (_, end) = to_the_end(&upstream, true);
    assert_eq!(end.expect_err("it is reset").kind(), std::io::ErrorKind::ConnectionReset);
    for stream in [true, false] {
        upstream.next(cut(Cut::Close));
        let (text, end) = to_the_end(&upstream, stream);
        assert!(end.is_ok() && text.contains("HTTP/1.1 200"), "{text}");
        assert!(!text.ends_with("0\r\n\r\n") && !text.ends_with('}'), "{text}");
    }
    upstream.next(cut(Cut::End));
    let reply = post(&upstream, CHAT, &asked(true));
    assert_eq!(data(&reply).len(), 2, "{}", reply.text());
    upstream.next(cut(Cut::End));
    let reply = post(&upstream, CHAT, &asked(false));
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err(), "{}", reply.text());
    for index in 0..5 {
        assert_eq!(upstream.outcome(index).outcome, Outcome::Faulted, "{index}");
    }
}

#[test]
fn a_client_that_goes_is_seen() {
    let upstream = FakeUpstream::start();
    for fault in [Fault::HangBeforeHead, Fault::HangAfter { events: 2 }] {
        upstream.next(Answer::fault(fault));
    }
    for index in 0..2 {
        let mut socket = TcpStream::connect(upstream.address()).expect("it accepts");
        let body = asked(true).to_string();
        write!(
            socket,
            "POST {CHAT} HTTP/1.1\r\nHost: m\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("it reads");
        if index == 1 {
            let events = BufReader::new(&socket).lines().map_while(Result::ok);
            assert_eq!(events.filter(|line| line.starts_with("data: ")).take(2).count(), 2);
        }
        upstream.wait("the request is there", |all| {
            assert!(all.iter().all(|it| it.outcome != Outcome::Whole));
            (all.len() > index).then_some(())
        });
        drop(socket);
        assert_eq!(upstream.outcome(index).outcome, Outcome::Abandoned);
    }
    assert_eq!(upstream.exchanges()[1].events, 2);
}

#[test]
fn the_wire_is_as_odd_as_it_is_told_to_be() {
    let upstream = FakeUpstream::start();
    let usual = post(&upstream, CHAT, &asked(true));
    let with = |wire: Wire| {
        upstream.next(Answer { wire, ..Answer::default() });
        post(&upstream, CHAT, &asked(true))
    };
    let odd = with(Wire { crlf: true, comments: true, bytewise: true, encoding: None });
    assert!(odd.text().starts_with(": keep-alive\r\n\r\ndata: {"), "{}", odd.text());
    assert_eq!(data(&odd).len(), data(&usual).len());
    let gzip = with(Wire { encoding: Some(Encoding::Gzip), ..Wire::default() });
    assert!(gzip.head.contains("content-encoding: gzip"), "{}", gzip.head);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gzip.body[..]).read_to_string(&mut text).expect("it is gzip");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let zstd = with(Wire { encoding: Some(Encoding::Zstd), ..Wire::default() });
    let mut text = String::new();
    let decoder = ruzstd::decoding::StreamingDecoder::new(&zstd.body[..]);
    decoder.expect("a frame").read_to_string(&mut text).expect("it is Zstandard");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    upstream.next(Answer { pieces: 1, ..Answer::sized(2_000_000) });
    let giant = post(&upstream, CHAT, &asked(true));
    assert!(data(&giant).iter().any(|event| event.len() > 2_000_000));
}

#[test]
fn what_was_asked_is_recorded_and_answers_are_chosen() {
    let upstream = FakeUpstream::start();
    upstream.model("small", Answer::text("small"));
    upstream
        .decide(|asked| (asked.header("x-kind") == Some("odd")).then(|| Answer::text("decided")));
    let text = |model: &str, headers: &[&str]| {
        let body = json!({"model": model, "messages": []});
        let reply = post_with(&upstream, CHAT, headers, &body);
        reply.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(text("small", &["X-Kind: odd"]), "small");
    assert_eq!(text("large", &["X-Kind: odd"]), "decided");
    upstream.next(Answer::text("queued"));
    assert_eq!(text("small", &[]), "queued");
    let [first, second, third] = &upstream.asked()[..] else { panic!("three requests") };
    assert_eq!((first.model.as_str(), first.header("x-kind")), ("small", Some("odd")));
    assert_eq!((second.json()["model"].as_str(), second.connection), (Some("large"), 1));
    assert_ne!(second.response_id, third.response_id);
    assert_eq!(third.usage, Some(Usage::default()));
}

#[test]
fn it_stops_and_starts_again_at_its_address() {
    let mut upstream = FakeUpstream::start();
    assert_eq!(post(&upstream, CHAT, &asked(false)).status, 200);
    upstream.stop();
    assert!(http::post(&upstream.address(), CHAT, &[], b"{}").is_err());
    upstream.start_again();
    assert_eq!(post(&upstream, CHAT, &asked(false)).status, 200);
    assert_eq!(upstream.exchanges().len(), 2);
}
