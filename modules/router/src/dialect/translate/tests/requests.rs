//! Requests.

use serde_json::{Value, json};

use super::{
    super::{RequestOptions, TranslateError, request_with_report},
    CLIENTS, Chat, Dialect, Messages, OPTIONS, OllamaChat, OllamaGenerate, PROVIDERS, Responses,
    refusal, request, request_with,
};

pub(super) const PNG: &str = "iVBORw0KGgo=";

fn weather_schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

/// Returns a conversation of an agent in a dialect: system, image, two calls at once, their
/// results, a failed one among them, and the person's next words.
pub(super) fn agent(dialect: Dialect) -> Value {
    let schema = weather_schema();
    match dialect {
        Chat => json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url",
                     "image_url": {"url": format!("data:image/png;base64,{PNG}")}}]},
                {"role": "assistant", "content": "I ask.", "tool_calls": [
                    {"id": "call_a", "type": "function",
                     "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}},
                    {"id": "call_b", "type": "function",
                     "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}}]},
                {"role": "tool", "tool_call_id": "call_a", "content": "warm"},
                {"role": "tool", "tool_call_id": "call_b", "content": "cold"},
                {"role": "user", "content": "And now?"}],
            "tools": [{"type": "function", "function":
                {"name": "weather", "description": "Weather", "parameters": schema}}],
            "tool_choice": "required", "max_tokens": 100, "temperature": 0.5}),
        Responses => json!({
            "model": "m", "instructions": "Be brief.",
            "input": [
                {"type": "message", "role": "user", "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "detail": "auto",
                     "image_url": format!("data:image/png;base64,{PNG}")}]},
                {"type": "message", "role": "assistant",
                 "content": [{"type": "output_text", "text": "I ask."}]},
                {"type": "function_call", "call_id": "call_a", "name": "weather",
                 "arguments": "{\"city\":\"Rome\"}"},
                {"type": "function_call", "call_id": "call_b", "name": "weather",
                 "arguments": "{\"city\":\"Oslo\"}"},
                {"type": "function_call_output", "call_id": "call_a", "output": "warm"},
                {"type": "function_call_output", "call_id": "call_b", "output": "cold"},
                {"type": "message", "role": "user",
                 "content": [{"type": "input_text", "text": "And now?"}]}],
            "tools": [{"type": "function", "name": "weather", "description": "Weather",
                       "parameters": schema, "strict": false}],
            "tool_choice": "required", "max_output_tokens": 100, "temperature": 0.5,
            "store": false, "stream": false}),
        Messages => json!({
            "model": "m", "max_tokens": 100, "system": "Be brief.",
            "messages": [
                {"role": "user", "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source":
                        {"type": "base64", "media_type": "image/png", "data": PNG}}]},
                {"role": "assistant", "content": [
                    {"type": "text", "text": "I ask."},
                    {"type": "tool_use", "id": "call_a", "name": "weather",
                     "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "call_b", "name": "weather",
                     "input": {"city": "Oslo"}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "call_a",
                     "content": [{"type": "text", "text": "warm"}]},
                    {"type": "tool_result", "tool_use_id": "call_b",
                     "content": [{"type": "text", "text": "cold"}]},
                    {"type": "text", "text": "And now?"}]}],
            "tools": [{"name": "weather", "description": "Weather", "input_schema": schema}],
            "tool_choice": {"type": "any"}, "temperature": 0.5, "stream": false}),
        _ => json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Look", "images": [PNG]},
                {"role": "assistant", "content": "I ask.", "tool_calls": [
                    {"id": "call_a", "function":
                        {"index": 0, "name": "weather", "arguments": {"city": "Rome"}}},
                    {"id": "call_b", "function":
                        {"index": 1, "name": "weather", "arguments": {"city": "Oslo"}}}]},
                {"role": "tool", "content": "warm", "tool_name": "weather",
                 "tool_call_id": "call_a"},
                {"role": "tool", "content": "cold", "tool_name": "weather",
                 "tool_call_id": "call_b"},
                {"role": "user", "content": "And now?"}],
            "tools": [{"type": "function", "function":
                {"name": "weather", "description": "Weather", "parameters": schema}}],
            "options": {"num_predict": 100, "temperature": 0.5}, "stream": false}),
    }
}

/// Returns what every pair must give, without what only the client's dialect can say.
fn expected(from: Dialect, to: Dialect) -> Value {
    let mut body = agent(to);
    body["model"] = json!("upstream");
    if from == OllamaChat {
        body.as_object_mut().expect("an object").remove("tool_choice");
    }
    body
}

#[test]
fn an_agent_s_conversation_goes_from_each_dialect_to_each() {
    for from in PROVIDERS {
        for to in PROVIDERS {
            assert_eq!(request(from, to, &agent(from)), expected(from, to), "{from:?} to {to:?}");
        }
    }
}

#[test]
fn a_prompt_goes_to_each_dialect() {
    let body = json!({"model": "m", "system": "Be brief.", "prompt": "Look", "images": [PNG],
        "options": {"num_predict": 5}, "stream": false});
    for to in PROVIDERS {
        let body = request(OllamaGenerate, to, &body).to_string();
        for part in ["Be brief.", "Look", PNG, ":5"] {
            assert!(body.contains(part), "{to:?} lacks {part}: {body}");
        }
    }
}

#[test]
fn a_pair_that_is_not_there_is_named() {
    for from in CLIENTS {
        let error = refusal(from, OllamaGenerate, &agent(from));
        assert!(
            matches!(error, TranslateError::NoPair { .. } | TranslateError::Malformed(_)),
            "{error:?}"
        );
    }
}

/// Checks the whole of a translated request.
#[track_caller]
pub(super) fn check(from: Dialect, body: Value, to: Dialect, expected: Value) {
    assert_eq!(request(from, to, &body), expected);
}

/// Checks some keys of a translated request.
#[track_caller]
pub(super) fn check_keys(from: Dialect, body: Value, to: Dialect, expected: Value) {
    check_keys_with(from, body, to, &OPTIONS, expected);
}

#[track_caller]
pub(super) fn check_keys_with(
    from: Dialect,
    body: Value,
    to: Dialect,
    options: &RequestOptions<'_>,
    expected: Value,
) {
    let mut body = body;
    if matches!(from, Chat | Messages | OllamaChat) && body.get("messages").is_none() {
        body["messages"] = json!([{"role": "user", "content": "x"}]);
    }
    if from == Responses && body.get("input").is_none() {
        body["input"] = json!("x");
    }
    let translated = request_with(from, to, &body, options);
    for (key, value) in expected.as_object().expect("an object") {
        assert_eq!(translated.get(key).unwrap_or(&Value::Null), value, "{key} of {translated}");
    }
}

#[track_caller]
fn check_dropped(from: Dialect, body: Value, to: Dialect, expected: &[&str]) {
    let body = body.to_string();
    let translated = request_with_report(from, to, body.as_bytes(), &OPTIONS).expect("translated");
    assert_eq!(translated.dropped.parts(), expected);
}

pub(super) fn user(content: Value) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

#[test]
fn the_least_request() {
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    check(
        Chat,
        chat.clone(),
        Responses,
        json!({"model": "upstream", "store": false,
        "stream": false, "input": [{"type": "message", "role": "user",
            "content": [{"type": "input_text", "text": "hi"}]}]}),
    );
    check(
        Chat,
        chat.clone(),
        Messages,
        json!({"model": "upstream", "max_tokens": 4096,
        "messages": [{"role": "user", "content": "hi"}], "stream": false}),
    );
    check(
        Chat,
        chat,
        OllamaChat,
        json!({"model": "upstream",
        "messages": [{"role": "user", "content": "hi"}], "stream": false}),
    );
    check(
        Responses,
        json!({"input": "hi"}),
        Chat,
        json!({"model": "upstream",
        "messages": [{"role": "user", "content": "hi"}]}),
    );
}

#[test]
fn a_stream_is_asked_for_in_each_dialect() {
    let options = RequestOptions { stream: true, include_usage: true, ..OPTIONS };
    check_keys_with(
        Messages,
        json!({}),
        Chat,
        &options,
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    );
    let options = RequestOptions { stream: true, ..OPTIONS };
    check_keys_with(
        Messages,
        json!({}),
        Chat,
        &options,
        json!({"stream": true, "stream_options": null}),
    );
    for to in [Responses, Messages, OllamaChat] {
        check_keys_with(
            Chat,
            json!({}),
            to,
            &options,
            json!({"stream": true, "stream_options": null}),
        );
    }
}

#[test]
fn limits_of_tokens() {
    let options = RequestOptions { model: "gpt-5", ..OPTIONS };
    let body = json!({"max_tokens": 7});
    check_keys(Messages, body.clone(), Chat, json!({"max_tokens": 7}));
    check_keys_with(
        Messages,
        body.clone(),
        Chat,
        &options,
        json!({"max_completion_tokens": 7, "max_tokens": null}),
    );
    check_keys(Messages, body.clone(), OllamaChat, json!({"options": {"num_predict": 7}}));
    check_keys(
        Chat,
        json!({"max_completion_tokens": 7, "max_tokens": 8}),
        Messages,
        json!({"max_tokens": 7}),
    );
    check_keys(
        OllamaChat,
        json!({"options": {"num_predict": -1}}),
        Messages,
        json!({"max_tokens": 4096}),
    );
}

#[test]
fn sampling() {
    let body = json!({"temperature": 1.5, "top_p": 0.9, "seed": 7, "stop": ["a", " "],
        "frequency_penalty": 0.5, "presence_penalty": 0.25});
    check_keys(
        Chat,
        body.clone(),
        Messages,
        json!({"temperature": 1, "top_p": null, "seed": null, "stop_sequences": ["a"]}),
    );
    check_keys(
        Chat,
        body.clone(),
        OllamaChat,
        json!({"options": {"temperature": 1.5,
        "top_p": 0.9, "seed": 7, "stop": ["a", " "], "frequency_penalty": 0.5,
        "presence_penalty": 0.25}}),
    );
    check_keys(Chat, body, Responses, json!({"temperature": 1.5, "top_p": 0.9, "stop": null}));
    check_keys(
        Messages,
        json!({"top_k": 40, "stop_sequences": ["a"]}),
        OllamaChat,
        json!({"options": {"top_k": 40, "stop": ["a"]}}),
    );
    check_keys(Messages, json!({"top_k": 40}), Chat, json!({"top_k": null}));
    check_keys(Chat, json!({"stop": "a"}), Messages, json!({"stop_sequences": ["a"]}));
}

#[test]
fn options_of_ollama() {
    let options = RequestOptions { num_ctx: Some(8192), ..OPTIONS };
    check_keys_with(Chat, json!({}), OllamaChat, &options, json!({"options": {"num_ctx": 8192}}));
    let body =
        json!({"prompt": "x", "keep_alive": "5m", "options": {"num_ctx": 4096, "mirostat": 1}});
    check_keys_with(
        OllamaGenerate,
        body,
        OllamaChat,
        &options,
        json!({"keep_alive": "5m", "options": {"num_ctx": 4096, "mirostat": 1}}),
    );
}

#[test]
fn the_order_of_a_schema_is_kept() {
    let body = r#"{"messages": [], "response_format": {"type": "json_schema", "json_schema":
        {"name": "a", "schema": {"type": "object", "properties": {"why": {}, "answer": {}}}}}}"#;
    let body =
        super::super::request(Chat, OllamaChat, body.as_bytes(), &OPTIONS).expect("translated");
    let body = String::from_utf8(body).expect("text");
    assert!(body.contains(r#""properties":{"why":{},"answer":{}}"#), "{body}");
}

#[test]
fn forms_of_answers() {
    let schema = json!({"type": "object"});
    let chat = json!({"response_format": {"type": "json_schema",
        "json_schema": {"name": "a", "strict": true, "schema": schema}}});
    check_keys(Chat, chat.clone(), OllamaChat, json!({"format": schema}));
    check_keys(
        Chat,
        chat.clone(),
        Responses,
        json!({"text": {"format":
        {"type": "json_schema", "name": "a", "strict": true, "schema": schema}}}),
    );
    check_keys(Chat, chat.clone(), Messages, json!({"output_config": null}));
    let options = RequestOptions { model: "claude-sonnet-4-5", ..OPTIONS };
    let claude = json!({"output_config": {"format": {"type": "json_schema", "schema": schema}}});
    check_keys_with(Chat, chat, Messages, &options, claude.clone());
    check_keys(
        Messages,
        claude,
        Chat,
        json!({"response_format": {"type": "json_schema",
        "json_schema": {"name": "answer", "strict": true, "schema": schema}}}),
    );
    let any = json!({"response_format": {"type": "json_object"}});
    check_keys(Chat, any.clone(), OllamaChat, json!({"format": "json"}));
    check_keys(Chat, any.clone(), Responses, json!({"text": {"format": {"type": "json_object"}}}));
    check_keys_with(Chat, any, Messages, &options, json!({"output_config": null}));
    check_keys(
        OllamaChat,
        json!({"format": "json"}),
        Chat,
        json!({"response_format": {"type": "json_object"}}),
    );
}

#[test]
fn reasoning() {
    let effort = json!({"reasoning_effort": "medium"});
    check_keys(Chat, effort.clone(), Responses, json!({"reasoning": {"effort": "medium"}}));
    check_keys(
        Responses,
        json!({"reasoning": {"effort": "high"}}),
        Chat,
        json!({"reasoning_effort": "high"}),
    );
    // A model that is not known to reason is not asked to.
    check_keys(Chat, effort.clone(), OllamaChat, json!({"think": null}));
    let options = RequestOptions { model: "gpt-oss:20b", ..OPTIONS };
    check_keys_with(Chat, effort.clone(), OllamaChat, &options, json!({"think": "medium"}));
    check_keys_with(
        Messages,
        json!({"thinking": {"type": "enabled", "budget_tokens": 1500}}),
        OllamaChat,
        &options,
        json!({"think": "low"}),
    );
    check_keys(
        Messages,
        json!({"thinking": {"type": "disabled"}}),
        OllamaChat,
        json!({"think": false}),
    );
    // Claude Code says so to every model.
    let adaptive = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}});
    check_keys(Messages, adaptive.clone(), Chat, json!({"reasoning_effort": null}));
    let options = RequestOptions { model: "openai/gpt-5-mini", ..OPTIONS };
    check_keys_with(Messages, adaptive, Chat, &options, json!({"reasoning_effort": "high"}));
}

#[test]
fn reasoning_of_claude() {
    let effort = json!({"reasoning_effort": "high", "temperature": 0.2});
    let claude = |model| RequestOptions { model, default_max_tokens: 32_000, ..OPTIONS };
    check_keys_with(
        Chat,
        effort.clone(),
        Messages,
        &claude("claude-opus-4-6"),
        json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"},
            "temperature": null}),
    );
    check_keys_with(
        Chat,
        effort.clone(),
        Messages,
        &claude("claude-sonnet-4-5-20250929"),
        json!({"thinking": {"type": "enabled", "budget_tokens": 16_384}}),
    );
    check_keys_with(
        Chat,
        effort.clone(),
        Messages,
        &claude("claude-3-5-haiku-20241022"),
        json!({"thinking": null, "temperature": 0.2}),
    );
    // No room for it.
    let body = json!({"reasoning_effort": "high", "max_tokens": 1_500});
    check_keys_with(Chat, body, Messages, &claude("claude-sonnet-4-5"), json!({"thinking": null}));
    // A tool is forced, or the sealed reasoning of the turn under way is missing.
    let mut body = agent(Chat);
    body["reasoning_effort"] = json!("low");
    let options = claude("claude-sonnet-4-5");
    check_keys_with(Chat, body.clone(), Messages, &options, json!({"thinking": null}));
    body["tool_choice"] = json!("auto");
    check_keys_with(Chat, body, Messages, &options, json!({"thinking": null}));
}

#[test]
fn what_is_dropped_is_listed() {
    let body = json!({"system": [{"type": "text", "text": "s", "cache_control": {}}],
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "sig"},
                {"type": "redacted_thinking", "data": "d"}, {"type": "text", "text": "y"}]},
            {"role": "user", "content": "z"}],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "safeguards": {}, "context_management": {}, "top_k": 5});
    check_dropped(
        Messages,
        body.clone(),
        Chat,
        &[
            "cache_control",
            "tools of the provider",
            "context_management",
            "safeguards",
            "thinking",
            "top_k",
        ],
    );
    check_dropped(
        Messages,
        body,
        OllamaChat,
        &["cache_control", "tools of the provider", "context_management", "safeguards", "thinking"],
    );
    check_dropped(
        Chat,
        json!({"messages": [], "logprobs": true, "seed": 1}),
        Responses,
        &["logprobs", "seed"],
    );
}

#[test]
fn a_body_that_cannot_be_read_is_refused_with_the_reason() {
    let check = |body: &str, words: &str| {
        let error = request_with_report(Chat, Messages, body.as_bytes(), &OPTIONS);
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    let deep = format!("{{\"x\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    check(&deep, "nests too deeply");
    check(r#"{"messages": [{"role": "user", "content": "\ud83d"}]}"#, "middle of a character");
    check(r#"{"messages": [{"role": "user", "content": "\ud83dx"}]}"#, "middle of a character");
    check("{", "ends too early");
    check("{]", "no JSON");
}
