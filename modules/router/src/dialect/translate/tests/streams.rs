//! Streams, event by event.

use serde_json::{Value, json};

use super::{
    super::{AnswerContext, StreamTranslator, TranslateError},
    CLIENTS, CONTEXT, Chat, Dialect, Event, Messages, OllamaChat, OllamaGenerate, PROVIDERS,
    Responses, events, names, push, stream,
};

/// Returns a stream with reasoning, text and two calls.
pub(super) fn full(dialect: Dialect) -> Vec<Value> {
    let chunk = |delta: Value| json!({"id": "id1", "choices": [{"index": 0, "delta": delta}]});
    match dialect {
        Chat => vec![
            chunk(json!({"role": "assistant", "content": ""})),
            chunk(json!({"reasoning_content": "hm"})),
            chunk(json!({"content": "H"})),
            chunk(json!({"content": "i"})),
            chunk(json!({"tool_calls": [{"index": 0, "id": "a", "type": "function",
                "function": {"name": "f", "arguments": ""}}]})),
            chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"x\""}}]})),
            chunk(json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]})),
            chunk(json!({"tool_calls": [{"index": 1, "id": "b", "type": "function",
                "function": {"name": "g", "arguments": "{}"}}]})),
            json!({"id": "id1", "choices":
                [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
            json!({"id": "id1", "choices": [], "usage": {"prompt_tokens": 120,
                "completion_tokens": 34, "prompt_tokens_details": {"cached_tokens": 64}}}),
            json!("[DONE]"),
        ],
        Responses => {
            let call = |at: u8, id: &str, name: &str, arguments: &str| {
                [
                    json!({"type": "response.output_item.added", "output_index": at, "item":
                    {"type": "function_call", "call_id": id, "name": name, "arguments": ""}}),
                    json!({"type": "response.function_call_arguments.delta", "output_index": at,
                    "delta": arguments}),
                    json!({"type": "response.output_item.done", "output_index": at, "item":
                    {"type": "function_call", "call_id": id, "name": name,
                     "arguments": arguments}}),
                ]
            };
            let mut all = vec![
                json!({"type": "response.created", "response": {"id": "id1"}}),
                json!({"type": "response.output_item.added", "output_index": 0,
                    "item": {"type": "reasoning", "summary": []}}),
                json!({"type": "response.reasoning_summary_part.added", "output_index": 0,
                    "summary_index": 0}),
                json!({"type": "response.reasoning_summary_text.delta", "output_index": 0,
                    "delta": "hm"}),
                json!({"type": "response.output_item.added", "output_index": 1,
                    "item": {"type": "message", "content": []}}),
                json!({"type": "response.output_text.delta", "output_index": 1, "delta": "H"}),
                json!({"type": "response.output_text.delta", "output_index": 1, "delta": "i"}),
                json!({"type": "response.output_item.done", "output_index": 1, "item":
                    {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}}),
            ];
            all.extend(call(2, "a", "f", "{\"x\":1}"));
            all.extend(call(3, "b", "g", "{}"));
            all.push(json!({"type": "response.completed", "response": {"id": "id1",
                "status": "completed", "usage": {"input_tokens": 120, "output_tokens": 34,
                "input_tokens_details": {"cached_tokens": 64}}}}));
            all
        }
        Messages => {
            let delta = |at: u8, delta: Value| {
                json!({"type": "content_block_delta", "index": at,
                "delta": delta})
            };
            let start = |at: u8, block: Value| {
                json!({"type": "content_block_start", "index": at,
                "content_block": block})
            };
            let stop = |at: u8| json!({"type": "content_block_stop", "index": at});
            vec![
                json!({"type": "message_start", "message": {"id": "id1", "usage":
                    {"input_tokens": 56, "cache_read_input_tokens": 64, "output_tokens": 1}}}),
                start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
                delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
                delta(0, json!({"type": "signature_delta", "signature": "sig"})),
                stop(0),
                json!({"type": "ping"}),
                start(1, json!({"type": "text", "text": ""})),
                delta(1, json!({"type": "text_delta", "text": "H"})),
                delta(1, json!({"type": "text_delta", "text": "i"})),
                stop(1),
                start(2, json!({"type": "tool_use", "id": "a", "name": "f", "input": {}})),
                delta(2, json!({"type": "input_json_delta", "partial_json": ""})),
                delta(2, json!({"type": "input_json_delta", "partial_json": "{\"x\""})),
                delta(2, json!({"type": "input_json_delta", "partial_json": ":1}"})),
                stop(2),
                start(3, json!({"type": "tool_use", "id": "b", "name": "g", "input": {}})),
                stop(3),
                json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"},
                    "usage": {"output_tokens": 34}}),
                json!({"type": "message_stop"}),
            ]
        }
        _ => vec![
            json!({"model": "u", "message": {"role": "assistant", "content": "",
                "thinking": "hm"}, "done": false}),
            json!({"message": {"content": "H"}, "done": false}),
            json!({"message": {"content": "i"}, "done": false}),
            json!({"message": {"content": "", "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}}]}, "done": false}),
            json!({"message": {"content": "", "tool_calls": [
                {"id": "b", "function": {"name": "g", "arguments": {}}}]}, "done": false}),
            json!({"message": {"content": ""}, "done": true, "done_reason": "stop",
                "prompt_eval_count": 120, "eval_count": 34, "total_duration": 9}),
        ],
    }
}

/// An answer as a client collects it from a stream.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Collected {
    pub thinking: String,
    pub text: String,
    pub calls: Vec<(String, String, String)>,
}

pub(super) fn collect(events: &[Event], dialect: Dialect) -> Collected {
    let mut all = Collected::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (name, data) in events {
        match dialect {
            Chat => {
                let delta = &data["choices"][0]["delta"];
                all.thinking += &text(&delta["reasoning_content"]);
                all.text += &text(&delta["content"]);
                for call in delta["tool_calls"].as_array().into_iter().flatten() {
                    let at =
                        usize::try_from(call["index"].as_u64().expect("index")).expect("usize");
                    if call["id"].is_string() {
                        assert_eq!(at, all.calls.len());
                        let function = &call["function"];
                        all.calls.push((text(&call["id"]), text(&function["name"]), String::new()));
                    }
                    all.calls[at].2 += &text(&call["function"]["arguments"]);
                }
            }
            Messages => match name.as_str() {
                "content_block_start" if data["content_block"]["type"] == "tool_use" => {
                    let block = &data["content_block"];
                    assert_eq!(block["input"], json!({}));
                    all.calls.push((text(&block["id"]), text(&block["name"]), String::new()));
                }
                "content_block_delta" => {
                    let delta = &data["delta"];
                    all.thinking += &text(&delta["thinking"]);
                    all.text += &text(&delta["text"]);
                    if let Some(last) = all.calls.last_mut() {
                        last.2 += &text(&delta["partial_json"]);
                    }
                }
                _ => {}
            },
            Responses => match name.as_str() {
                "response.output_text.delta" => all.text += &text(&data["delta"]),
                "response.reasoning_summary_text.delta" => all.thinking += &text(&data["delta"]),
                "response.output_item.done" if data["item"]["type"] == "function_call" => {
                    let item = &data["item"];
                    all.calls.push((
                        text(&item["call_id"]),
                        text(&item["name"]),
                        text(&item["arguments"]),
                    ));
                }
                _ => {}
            },
            _ => {
                let message = &data["message"];
                all.thinking += &(text(&message["thinking"]) + &text(&data["thinking"]));
                all.text += &(text(&message["content"]) + &text(&data["response"]));
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let function = &call["function"];
                    all.calls.push((
                        text(&call["id"]),
                        text(&function["name"]),
                        function["arguments"].to_string(),
                    ));
                }
            }
        }
    }
    all
}

pub(super) fn call(id: &str, name: &str, arguments: &str) -> (String, String, String) {
    (id.to_owned(), name.to_owned(), arguments.to_owned())
}

#[test]
fn each_stream_says_the_same_in_each_dialect() {
    for from in PROVIDERS {
        for to in CLIENTS {
            let out = stream(from, to, &full(from));
            let calls = match to {
                OllamaGenerate => Vec::new(),
                _ => vec![call("a", "f", "{\"x\":1}"), call("b", "g", "{}")],
            };
            let expected = Collected { thinking: "hm".into(), text: "Hi".into(), calls };
            assert_eq!(collect(&out, to), expected, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn a_client_of_messages_gets_each_block_by_itself() {
    let block = |deltas: usize| {
        let mut names = vec!["content_block_start"];
        names.extend(std::iter::repeat_n("content_block_delta", deltas));
        names.push("content_block_stop");
        names
    };
    let out = stream(Chat, Messages, &full(Chat));
    // Reasoning ends with its signature.
    let expected = [
        vec!["message_start"],
        block(2),
        block(2),
        block(2),
        block(1),
        vec!["message_delta", "message_stop"],
    ];
    assert_eq!(names(&out), expected.concat());
    let indexes: Vec<_> = out.iter().filter_map(|(_, data)| data["index"].as_u64()).collect();
    assert!(indexes.is_sorted() && indexes.last() == Some(&3), "{indexes:?}");
    let (_, start) = &out[0];
    assert_eq!(start["message"]["id"], "id1");
    assert_eq!(start["message"]["model"], "asked");
    assert_eq!(start["message"]["usage"], json!({"input_tokens": 0, "output_tokens": 0}));
    let (_, delta) = &out[out.len() - 2];
    assert_eq!(delta["delta"], json!({"stop_reason": "tool_use", "stop_sequence": null}));
    assert_eq!(
        delta["usage"],
        json!({"input_tokens": 56, "cache_read_input_tokens": 64,
        "output_tokens": 34})
    );
    // A provider that tells its input first.
    let out = stream(Messages, Messages, &full(Messages));
    assert_eq!(
        out[0].1["message"]["usage"],
        json!({"input_tokens": 56, "cache_read_input_tokens": 64, "output_tokens": 1})
    );
}

#[test]
fn a_client_of_responses_gets_the_full_order_of_events() {
    let out = stream(Messages, Responses, &full(Messages));
    assert_eq!(
        names(&out),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (at, (name, data)) in out.iter().enumerate() {
        assert_eq!(data["sequence_number"], at);
        assert_eq!(data["type"], name.as_str());
    }
    let response = &out.last().expect("an end").1["response"];
    assert_eq!(response["output"].as_array().expect("a list").len(), 4);
    assert_eq!(response["output"][1]["content"][0]["text"], "Hi");
    assert_eq!(response["usage"]["input_tokens"], 120);
    assert_eq!(response["usage"]["output_tokens"], 34);
}

#[test]
fn a_client_of_chat_gets_its_role_first_and_its_usage_last() {
    let out = stream(OllamaChat, Chat, &full(OllamaChat));
    assert_eq!(out[0].1["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(out[0].1["id"], "chatcmpl-r1");
    assert!(out.iter().rev().skip(2).all(|(_, chunk)| chunk["usage"].is_null()));
    let last: Vec<_> = out.iter().rev().take(3).map(|(_, data)| data).collect();
    assert_eq!(last[0], "[DONE]");
    assert_eq!(last[1]["choices"], json!([]));
    assert_eq!(last[1]["usage"]["total_tokens"], 154);
    assert_eq!(last[2]["choices"][0]["finish_reason"], "tool_calls");
    // A client that did not ask for the usage does not get it.
    let context = AnswerContext { include_usage: false, ..CONTEXT };
    let mut translator = StreamTranslator::new(Messages, Chat, &context).expect("a pair");
    let mut out = Vec::new();
    for data in full(Messages) {
        push(&mut translator, &data, &mut out).expect("translated");
    }
    translator.finish(&mut out);
    let out = events(&out, Chat);
    assert!(out.iter().all(|(_, chunk)| chunk.get("usage").is_none()));
}

#[test]
fn a_client_of_ollama_gets_its_counts_in_the_last_line() {
    let out = stream(OllamaChat, OllamaGenerate, &full(OllamaChat));
    let (_, last) = out.last().expect("a line");
    assert_eq!(
        *last,
        json!({"model": "asked", "created_at": "2023-11-14T22:13:20Z",
        "response": "", "done": true, "done_reason": "stop", "total_duration": 9,
        "prompt_eval_count": 120, "eval_count": 34})
    );
    assert!(out[..out.len() - 1].iter().all(|(_, line)| line["done"] == false));
}

#[test]
fn a_stream_without_an_end_does_not_end_well() {
    for from in PROVIDERS {
        let all = full(from);
        for to in CLIENTS {
            // Whatever is cut off, from nothing to all but what says that the answer is whole.
            for length in 0..all.len() {
                let mut translator = StreamTranslator::new(from, to, &CONTEXT).expect("a pair");
                let mut out = Vec::new();
                for data in &all[..length] {
                    push(&mut translator, data, &mut out).expect("translated");
                }
                if translator.is_whole() {
                    break;
                }
                translator.finish(&mut out);
                translator.finish(&mut out);
                translator.fail("again", &mut out);
                check_broken(&events(&out, to), to);
            }
        }
    }
}

/// Checks that a stream ends with one error in its dialect, and has no good end.
fn check_broken(out: &[Event], dialect: Dialect) {
    let (name, last) = out.last().expect("an error");
    match dialect {
        Messages => {
            assert_eq!((name.as_str(), &last["type"]), ("error", &json!("error")));
            assert_eq!(last["error"]["type"], "api_error");
        }
        Responses => {
            assert_eq!(name, "response.failed");
            assert_eq!(last["response"]["status"], "failed");
            assert_eq!(last["response"]["error"]["code"], "server_error");
        }
        Chat => assert!(last["error"]["message"].is_string()),
        _ => assert!(last["error"].is_string()),
    }
    let text = format!("{out:?}");
    for end in [
        "message_stop",
        "[DONE]",
        "response.completed",
        "\"done\": Bool(true)",
        "finish_reason\": String",
    ] {
        assert!(!text.contains(end), "{end} in {text}");
    }
    assert_eq!(text.matches("before it was whole").count(), 1, "{text}");
}

#[test]
fn an_error_in_a_stream_is_told_and_writes_nothing() {
    for (from, data) in [
        (Chat, json!({"error": {"message": "overloaded"}})),
        (Messages, json!({"type": "error", "error": {"message": "overloaded"}})),
        (Responses, json!({"type": "error", "message": "overloaded"})),
        (
            Responses,
            json!({"type": "response.failed",
            "response": {"error": {"message": "overloaded"}}}),
        ),
        (OllamaChat, json!({"error": "overloaded"})),
    ] {
        let mut translator = StreamTranslator::new(from, Chat, &CONTEXT).expect("a pair");
        let mut out = Vec::new();
        let error = push(&mut translator, &data, &mut out).expect_err("an error");
        assert_eq!(error, TranslateError::Upstream { message: "overloaded".to_owned() });
        assert!(out.is_empty() && !translator.has_content());
    }
}

#[test]
fn content_is_told_from_what_stands_before_it() {
    for from in PROVIDERS {
        let mut translator = StreamTranslator::new(from, Messages, &CONTEXT).expect("a pair");
        let mut out = Vec::new();
        for data in full(from) {
            push(&mut translator, &data, &mut out).expect("translated");
            assert_eq!(translator.has_content(), !out.is_empty(), "{data}");
        }
        assert_eq!(translator.usage().input, Some(120), "{from:?}");
        assert_eq!(translator.usage().output, Some(34));
    }
}

#[test]
fn a_giant_event_goes_through() {
    let text = "x\u{1F600}\"\\\n".repeat(150_000);
    for from in PROVIDERS {
        let data = match from {
            Chat => json!({"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}),
            Messages => json!({"type": "content_block_start", "index": 0,
                "content_block": {"type": "text", "text": text}}),
            Responses => json!({"type": "response.output_text.delta", "delta": text}),
            _ => json!({"message": {"content": text}, "done": true}),
        };
        for to in CLIENTS {
            let mut translator = StreamTranslator::new(from, to, &CONTEXT).expect("a pair");
            let mut out = Vec::new();
            push(&mut translator, &data, &mut out).expect("translated");
            assert_eq!(collect(&events(&out, to), to).text, text, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn an_empty_answer_is_whole_too() {
    for to in CLIENTS {
        let out = stream(OllamaChat, to, &[json!({"message": {"content": ""}, "done": true})]);
        assert!(!out.is_empty(), "{to:?}");
        let text = format!("{out:?}");
        assert!(!text.contains("error\": String") && !text.contains("failed"), "{text}");
    }
}

#[test]
fn items_without_deltas_are_told_from_their_whole() {
    let out = stream(
        Responses,
        Chat,
        &[
            json!({"type": "response.output_item.done", "output_index": 0, "item":
            {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}}),
            json!({"type": "response.output_item.added", "output_index": 1, "item":
            {"type": "function_call", "call_id": "a", "name": "f"}}),
            json!({"type": "response.output_item.done", "output_index": 1, "item":
            {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{\"x\":1}"}}),
            json!({"type": "response.completed", "response": {"status": "completed"}}),
        ],
    );
    let got = collect(&out, Chat);
    assert_eq!((got.text.as_str(), got.calls), ("Hi", vec![call("a", "f", "{\"x\":1}")]));
}
