//! Whatever arrives, nothing panics, and whole events come out.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{StreamTranslator, answer, replay, request},
    CLIENTS, CONTEXT, OPTIONS, PROVIDERS, events,
};
use crate::dialect::Dialect::{Completions, Gemini};

/// Words that the dialects know.
const WORDS: [&str; 92] = [
    "a",
    "added",
    "additional_tools",
    "allowed_tools",
    "any",
    "arguments",
    "assistant",
    "auto",
    "base64",
    "choices",
    "content",
    "content_block",
    "content_block_delta",
    "content_block_start",
    "custom",
    "custom_tool_call",
    "data",
    "delta",
    "done",
    "error",
    "file",
    "finish_reason",
    "format",
    "function",
    "function_call",
    "function_call_output",
    "id",
    "image",
    "image_url",
    "images",
    "index",
    "input",
    "input_image",
    "input_json_delta",
    "input_text",
    "instructions",
    "item",
    "items",
    "json_schema",
    "media_type",
    "message",
    "message_delta",
    "message_start",
    "messages",
    "metadata",
    "model",
    "name",
    "namespace",
    "none",
    "options",
    "output",
    "output_index",
    "output_text",
    "parameters",
    "partial_json",
    "prompt",
    "reasoning",
    "reasoning_content",
    "refusal",
    "response",
    "response.completed",
    "response.function_call_arguments.delta",
    "response.output_item.added",
    "response.output_item.done",
    "response.output_text.delta",
    "response_format",
    "role",
    "schema",
    "source",
    "stop",
    "stop_reason",
    "suffix",
    "summary",
    "system",
    "text",
    "thinking",
    "think",
    "tool",
    "tool_call_id",
    "tool_calls",
    "tool_choice",
    "tool_result",
    "tool_use",
    "tool_use_id",
    "tools",
    "type",
    "url",
    "usage",
    "input_tokens",
    "user",
    "call_id",
    "{}",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![8 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned), 1 => ".{0,8}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::from),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        8 => word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::hash_map(word(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Returns a request, an answer and an event that are right, each with some places replaced.
fn mutated() -> impl Strategy<Value = Value> {
    let seeds = vec![
        json!({"model": "m", "messages": [{"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{"}}]},
            {"role": "tool", "tool_call_id": "a", "content": "r"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "stop": "x", "options": {"num_ctx": 1}}),
        json!({"input": [{"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "t"}]},
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "a", "output": "r"},
            {"type": "reasoning", "summary": [{"text": "t"}]}], "instructions": "s"}),
        json!({"choices": [{"index": 0, "delta": {"content": "t", "tool_calls": [
                {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}]},
            "message": {"content": "t", "tool_calls": []}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1}}),
        json!({"type": "content_block_start", "index": 0, "content_block":
            {"type": "tool_use", "id": "a", "name": "f", "input": {}}, "delta": {"text": "t"},
            "content": [{"type": "text", "text": "t"}]}),
        json!({"type": "response.output_item.done", "output_index": 1, "item":
            {"type": "message", "content": [{"type": "output_text", "text": "t"}]},
            "output": [{"type": "message", "content": []}]}),
        json!({"contents": [{"role": "user", "parts": [{"text": "t"}, {"functionResponse":
            {"name": "f", "response": {}}}]}], "generationConfig": {"topK": 1},
            "candidates": [{"content": {"parts": [{"functionCall": {"name": "f"}}]},
            "finishReason": "STOP"}], "tools": [{"functionDeclarations": [{"name": "f"}]}]}),
        json!({"message": {"content": "t", "thinking": "h", "tool_calls": [
            {"function": {"name": "f", "arguments": {}}}]}, "done": true}),
    ];
    let replaced = proptest::collection::vec((any::<proptest::sample::Index>(), value()), 0..4);
    (proptest::sample::select(seeds), replaced).prop_map(|(mut seed, replaced)| {
        for (at, value) in replaced {
            let count = places(&seed);
            replace(&mut seed, &mut at.index(count), value);
        }
        seed
    })
}

/// Returns the number of values in a tree.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(places).sum(),
        Value::Object(map) => map.values().map(places).sum(),
        _ => 0,
    }
}

/// Replaces the value at a place; returns whether it was found.
fn replace(tree: &mut Value, at: &mut usize, value: Value) -> bool {
    if *at == 0 {
        *tree = value;
        return true;
    }
    *at -= 1;
    let children: Vec<&mut Value> = match tree {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => Vec::new(),
    };
    children.into_iter().any(|child| replace(child, at, value.clone()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_panics_on_a_body(body in prop_oneof![mutated(), value()]) {
        let body = body.to_string();
        for from in CLIENTS.into_iter().chain([Gemini, Completions]) {
            for to in PROVIDERS.into_iter().chain([Gemini]) {
                if let Ok(body) = request(from, to, body.as_bytes(), &OPTIONS) {
                    let _: Value = serde_json::from_slice(&body).expect("JSON");
                }
            }
        }
        for from in PROVIDERS.into_iter().chain([Gemini]) {
            for to in CLIENTS.into_iter().chain([Gemini, Completions]) {
                if let Ok(body) = answer(from, to, body.as_bytes(), &CONTEXT) {
                    let _: Value = serde_json::from_slice(&body).expect("JSON");
                }
                let mut out = Vec::new();
                if replay(from, to, body.as_bytes(), &CONTEXT, &mut out).is_ok() {
                    let _ = events(&out, to);
                }
            }
        }
    }

    #[test]
    fn nothing_panics_on_a_stream(
        input in proptest::collection::vec(prop_oneof![3 => mutated(), 1 => value()], 0..8),
    ) {
        for from in PROVIDERS.into_iter().chain([Gemini]) {
            for to in CLIENTS.into_iter().chain([Gemini, Completions]) {
                let mut translator = StreamTranslator::new(from, to, &CONTEXT).expect("a pair");
                let mut out = Vec::new();
                for data in &input {
                    let length = out.len();
                    if translator.push(None, data.to_string().as_bytes(), &mut out).is_err() {
                        prop_assert_eq!(out.len(), length);
                    }
                }
                translator.finish(&mut out);
                let _ = events(&out, to);
            }
        }
    }

    #[test]
    fn nothing_panics_on_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for from in PROVIDERS {
            let _ = request(from, PROVIDERS[0], &bytes, &OPTIONS);
            let _ = answer(from, CLIENTS[0], &bytes, &CONTEXT);
            let mut translator = StreamTranslator::new(from, CLIENTS[0], &CONTEXT).expect("a pair");
            let _ = translator.push(None, &bytes, &mut Vec::new());
        }
    }
}
