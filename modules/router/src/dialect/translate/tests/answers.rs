//! Whole answers.

use serde_json::{Value, json};

use super::{
    super::TranslateError, CLIENTS, CONTEXT, Chat, Dialect, Messages, OllamaChat, OllamaGenerate,
    PROVIDERS, Responses, answer, replay_text,
};

/// Returns an answer with reasoning, text and two calls.
pub(super) fn full(dialect: Dialect) -> Value {
    match dialect {
        Chat => json!({"id": "id1", "object": "chat.completion", "created": 1, "model": "u",
            "choices": [{"index": 0, "finish_reason": "tool_calls", "logprobs": null,
                "message": {"role": "assistant", "content": "Hi", "refusal": null,
                "reasoning_content": "hm", "tool_calls": [
                {"id": "a", "type": "function",
                    "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function",
                    "function": {"name": "g", "arguments": "{}"}}]}}],
            "usage": {"prompt_tokens": 120, "completion_tokens": 34, "total_tokens": 154,
                "prompt_tokens_details": {"cached_tokens": 64},
                "completion_tokens_details": {"reasoning_tokens": 10}}}),
        Responses => json!({"id": "id1", "object": "response", "status": "completed",
            "output": [
                {"id": "rs_1", "type": "reasoning",
                    "summary": [{"type": "summary_text", "text": "hm"}]},
                {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
                    "content": [{"type": "output_text", "text": "Hi", "annotations": []}]},
                {"id": "fc_1", "type": "function_call", "call_id": "a", "name": "f",
                    "arguments": "{\"x\":1}", "status": "completed"},
                {"id": "fc_2", "type": "function_call", "call_id": "b", "name": "g",
                    "arguments": "{}", "status": "completed"}],
            "usage": {"input_tokens": 120, "output_tokens": 34, "total_tokens": 154,
                "input_tokens_details": {"cached_tokens": 64},
                "output_tokens_details": {"reasoning_tokens": 10}}}),
        Messages => json!({"id": "id1", "type": "message", "role": "assistant", "model": "u",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "text", "text": "Hi"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}}],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 56, "cache_read_input_tokens": 64, "output_tokens": 34,
                "output_tokens_details": {"thinking_tokens": 10}}}),
        _ => json!({"model": "u", "created_at": "2024-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": "Hi", "thinking": "hm", "tool_calls": [
                {"id": "a", "function": {"name": "f", "arguments": {"x": 1}}},
                {"id": "b", "function": {"name": "g", "arguments": {}}}]},
            "done": true, "done_reason": "stop", "total_duration": 9, "load_duration": 1,
            "prompt_eval_count": 120, "prompt_eval_duration": 2, "eval_count": 34,
            "eval_duration": 3}),
    }
}

#[test]
fn to_a_client_of_chat() {
    for from in PROVIDERS {
        let body = answer(from, Chat, &full(from));
        let is_ollama = from == OllamaChat;
        let id = if is_ollama { "chatcmpl-r1" } else { "id1" };
        let mut expected = full(Chat);
        expected["id"] = json!(id);
        expected["created"] = json!(1_700_000_000);
        expected["model"] = json!("asked");
        if is_ollama {
            expected["usage"] =
                json!({"prompt_tokens": 120, "completion_tokens": 34, "total_tokens": 154});
        }
        assert_eq!(body, expected, "{from:?}");
    }
}

#[test]
fn to_a_client_of_messages() {
    for from in PROVIDERS {
        let body = answer(from, Messages, &full(from));
        let is_ollama = from == OllamaChat;
        let usage = if is_ollama {
            json!({"input_tokens": 120, "output_tokens": 34})
        } else {
            json!({"input_tokens": 56, "cache_read_input_tokens": 64, "output_tokens": 34})
        };
        assert_eq!(
            body,
            json!({"id": if is_ollama { "msg_r1" } else { "id1" },
            "type": "message", "role": "assistant", "model": "asked",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "lodestar"},
                {"type": "text", "text": "Hi"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "g", "input": {}}],
            "stop_reason": "tool_use", "stop_sequence": null, "usage": usage}),
            "{from:?}"
        );
    }
}

#[test]
fn to_a_client_of_responses() {
    for from in PROVIDERS {
        let body = answer(from, Responses, &full(from));
        assert_eq!(body["object"], "response");
        assert_eq!(body["status"], "completed");
        assert_eq!(body["model"], "asked");
        assert_eq!(body["output"][0]["summary"][0]["text"], "hm", "{from:?}");
        assert_eq!(body["output"][1]["content"][0]["text"], "Hi");
        assert_eq!(body["output"][2]["call_id"], "a");
        assert_eq!(body["output"][2]["arguments"], "{\"x\":1}");
        assert_eq!(body["output"][3]["arguments"], "{}");
        assert_eq!(body["usage"]["input_tokens"], 120);
        assert_eq!(body["usage"]["total_tokens"], 154);
        let cached = if from == OllamaChat { 0 } else { 64 };
        assert_eq!(body["usage"]["input_tokens_details"]["cached_tokens"], cached);
    }
}

#[test]
fn to_a_client_of_ollama() {
    for from in PROVIDERS {
        let body = answer(from, OllamaChat, &full(from));
        let mut expected = json!({"model": "asked", "created_at": "2023-11-14T22:13:20Z",
            "message": {"role": "assistant", "content": "Hi", "thinking": "hm", "tool_calls": [
                {"id": "a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
                {"id": "b", "function": {"index": 1, "name": "g", "arguments": {}}}]},
            "done": true, "done_reason": "stop", "prompt_eval_count": 120, "eval_count": 34});
        if from == OllamaChat {
            for (key, value) in [
                ("total_duration", 9),
                ("load_duration", 1),
                ("prompt_eval_duration", 2),
                ("eval_duration", 3),
            ] {
                expected[key] = json!(value);
            }
        }
        assert_eq!(body, expected, "{from:?}");
        let body = answer(from, OllamaGenerate, &full(from));
        assert_eq!(body["response"], "Hi", "{from:?}");
        assert_eq!(body["thinking"], "hm");
        assert_eq!(body["done"], true);
    }
}

#[test]
fn reasons_to_stop() {
    let chat = |reason: &str| {
        json!({"choices": [{"finish_reason": reason,
        "message": {"content": "x"}}]})
    };
    for (reason, claude, ollama, status) in [
        ("stop", "end_turn", "stop", "completed"),
        ("length", "max_tokens", "length", "incomplete"),
        ("content_filter", "refusal", "stop", "incomplete"),
        // It says so and calls none.
        ("tool_calls", "end_turn", "stop", "completed"),
        ("unheard_of", "end_turn", "stop", "completed"),
    ] {
        assert_eq!(answer(Chat, Messages, &chat(reason))["stop_reason"], claude);
        assert_eq!(answer(Chat, OllamaChat, &chat(reason))["done_reason"], ollama);
        assert_eq!(answer(Chat, Responses, &chat(reason))["status"], status);
    }
    let claude = |reason: &str| {
        json!({"content": [{"type": "text", "text": "x"}],
        "stop_reason": reason, "stop_sequence": "END"})
    };
    for (reason, finish) in [
        ("end_turn", "stop"),
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("refusal", "content_filter"),
        ("pause_turn", "stop"),
        ("model_context_window_exceeded", "length"),
    ] {
        assert_eq!(answer(Messages, Chat, &claude(reason))["choices"][0]["finish_reason"], finish);
    }
    assert_eq!(answer(Messages, Messages, &claude("stop_sequence"))["stop_sequence"], "END");
}

#[test]
fn counts_of_caches() {
    let body = json!({"content": [], "usage": {"input_tokens": 400, "output_tokens": 34,
        "cache_read_input_tokens": 500, "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}}});
    let usage = &answer(Messages, Chat, &body)["usage"];
    assert_eq!(usage["prompt_tokens"], 1_200);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 500);
    let usage = &answer(Messages, Messages, &body)["usage"];
    assert_eq!(usage["input_tokens"], 400);
    assert_eq!(usage["cache_creation_input_tokens"], 300);
    // DeepSeek's own words.
    let body = json!({"choices": [{"message": {"content": ""}}], "usage":
        {"prompt_tokens": 10, "prompt_cache_hit_tokens": 4, "completion_tokens": 1}});
    assert_eq!(answer(Chat, Messages, &body)["usage"]["input_tokens"], 6);
}

#[test]
fn unknown_counts_stay_unknown() {
    let body = json!({"choices": [{"message": {"content": "x"}}]});
    assert_eq!(
        answer(Chat, Messages, &body)["usage"],
        json!({"input_tokens": null, "output_tokens": null})
    );
    assert_eq!(answer(Chat, Responses, &body)["usage"], Value::Null);
    assert_eq!(answer(Chat, OllamaChat, &body).get("eval_count"), None);
    let body = json!({"message": {"content": "x"}, "done": true});
    assert_eq!(answer(OllamaChat, Chat, &body).get("usage"), None);
}

#[test]
fn an_error_in_an_answer_is_no_answer() {
    let error = json!({"error": {"message": "secret words"}});
    for from in PROVIDERS {
        let result = super::super::answer(from, Chat, error.to_string().as_bytes(), &CONTEXT);
        let Err(error @ TranslateError::Upstream { .. }) = result else {
            panic!("{from:?}: {result:?}");
        };
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    for (from, body) in [
        (Chat, "{\"choices\":[]}"),
        (Messages, "{}"),
        (Responses, "{}"),
        (OllamaChat, "{}"),
        (Chat, "<html>"),
        (Chat, "[]"),
    ] {
        assert!(super::super::answer(from, Messages, body.as_bytes(), &CONTEXT).is_err());
    }
}

#[test]
fn an_answer_is_replayed_as_a_stream() {
    for from in PROVIDERS {
        for to in CLIENTS {
            let text = replay_text(from, to);
            assert!(text.contains("Hi") && text.contains("hm"), "{from:?} to {to:?}: {text}");
            assert!(text.contains("34"), "{from:?} to {to:?}: {text}");
        }
    }
}
