//! Calls of tools in streams.

use serde_json::{Value, json};

use super::{
    Chat, Messages, OllamaChat, Responses, stream,
    streams::{call, collect},
};

fn calls(deltas: &[Value]) -> Vec<Value> {
    let mut all: Vec<_> = deltas
        .iter()
        .map(|delta| match delta {
            Value::String(text) => json!({"choices": [{"delta": {"content": text}}]}),
            calls => json!({"choices": [{"delta": {"tool_calls": calls}}]}),
        })
        .collect();
    all.push(json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}));
    all
}

fn begin(index: u8, id: &str, name: &str) -> Value {
    json!([{"index": index, "id": id, "function": {"name": name, "arguments": ""}}])
}

fn more(index: u8, arguments: &str) -> Value {
    json!([{"index": index, "function": {"arguments": arguments}}])
}

#[track_caller]
fn check_calls(deltas: &[Value], text: &str, expected: &[(&str, &str, &str)]) {
    for to in [Chat, Messages, Responses, OllamaChat] {
        let out = stream(Chat, to, &calls(deltas));
        let expected: Vec<_> = expected.iter().map(|(a, b, c)| call(a, b, c)).collect();
        let got = collect(&out, to);
        assert_eq!((got.text.as_str(), got.calls), (text, expected), "{to:?}");
    }
}

#[test]
fn calls_that_arrive_mixed_go_out_one_after_another() {
    check_calls(
        &[
            begin(0, "a", "f"),
            begin(1, "b", "g"),
            more(1, "{\"y\""),
            more(0, "{\"x\":"),
            more(1, ":2}"),
            more(0, "1}"),
        ],
        "",
        &[("a", "f", "{\"x\":1}"), ("b", "g", "{\"y\":2}")],
    );
}

#[test]
fn text_waits_for_a_call_that_is_not_whole() {
    check_calls(
        &[begin(0, "a", "f"), more(0, "{\"x\":"), json!("so"), more(0, "1}"), json!(" on")],
        "so on",
        &[("a", "f", "{\"x\":1}")],
    );
    let out = stream(Chat, Messages, &calls(&[begin(0, "a", "f"), more(0, "{}"), json!("x")]));
    let kinds: Vec<_> = out
        .iter()
        .filter_map(|(name, data)| match name.as_str() {
            "content_block_start" => data["content_block"]["type"].as_str(),
            "content_block_stop" => Some("stop"),
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["tool_use", "stop", "text", "stop"]);
}

#[test]
fn calls_are_told_apart_by_their_ids_where_the_index_is_always_the_same() {
    check_calls(
        &[
            json!([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]),
            json!([{"index": 0, "id": "b", "function": {"name": "g", "arguments": "{}"}}]),
        ],
        "",
        &[("a", "f", "{}"), ("b", "g", "{}")],
    );
    // No index, and the id again with each piece.
    check_calls(
        &[
            json!([{"id": "a", "function": {"name": "f", "arguments": "{\"x\""}}]),
            json!([{"id": "a", "function": {"name": "f", "arguments": ":1}"}}]),
            json!([{"id": "b", "function": {"name": "f", "arguments": "{\"x\":2}"}}]),
        ],
        "",
        &[("a", "f", "{\"x\":1}"), ("b", "f", "{\"x\":2}")],
    );
}

#[test]
fn a_call_without_arguments_has_an_empty_object() {
    check_calls(
        &[begin(0, "a", "f"), begin(1, "b", "g")],
        "",
        &[("a", "f", "{}"), ("b", "g", "{}")],
    );
}

#[test]
fn arguments_that_are_no_object_are_an_object_for_a_client_that_wants_one() {
    let deltas = calls(&[begin(0, "a", "f"), more(0, "[1"), more(0, ",2]")]);
    let out = collect(&stream(Chat, Messages, &deltas), Messages);
    assert_eq!(out.calls, [call("a", "f", "{\"_raw_arguments\":\"[1,2]\"}")]);
    let out = collect(&stream(Chat, OllamaChat, &deltas), OllamaChat);
    assert_eq!(out.calls, [call("a", "f", "{\"_raw_arguments\":\"[1,2]\"}")]);
}
