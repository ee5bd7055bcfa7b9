//! Embeddings, Google's dialect, and reasoning of another provider.

use serde_json::{Value, json};

use super::{
    super::{AnswerContext, answer as answer_bytes, foreign::without_foreign_reasoning},
    CLIENTS, CONTEXT, Chat, Dialect, Messages, OllamaChat, PROVIDERS, Responses, answer, events,
    refusal, replay_text, request, stream,
};
use crate::dialect::Dialect::{Embeddings, Gemini, OllamaEmbed};

#[test]
fn requests_for_embeddings() {
    let body = json!({"model": "m", "input": ["a", "b"], "dimensions": 2,
        "encoding_format": "base64"});
    assert_eq!(
        request(Embeddings, OllamaEmbed, &body),
        json!({"model": "upstream", "input": ["a", "b"], "dimensions": 2})
    );
    assert_eq!(
        request(OllamaEmbed, Embeddings, &json!({"input": "a"})),
        json!({"model": "upstream", "input": "a", "encoding_format": "float"})
    );
    for input in [json!([1, 2]), json!([[1]]), json!(1)] {
        refusal(Embeddings, OllamaEmbed, &json!({"input": input}));
    }
    refusal(Embeddings, Chat, &body);
}

#[test]
fn answers_with_embeddings() {
    let ollama = json!({"model": "u", "embeddings": [[0.5, -0.25], [0.1]], "prompt_eval_count": 3});
    let openai = answer(OllamaEmbed, Embeddings, &ollama);
    assert_eq!(
        openai,
        json!({"object": "list", "model": "asked", "data": [
        {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]},
        {"object": "embedding", "index": 1, "embedding": [0.1]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3}})
    );
    let back = json!({"model": "asked", "embeddings": [[0.5, -0.25], [0.1]],
        "prompt_eval_count": 3});
    assert_eq!(answer(Embeddings, OllamaEmbed, &openai), back);
    // The official clients ask for base64.
    let context = AnswerContext { base64_embeddings: true, ..CONTEXT };
    let bytes = ollama.to_string().into_bytes();
    let coded = answer_bytes(OllamaEmbed, Embeddings, &bytes, &context).expect("translated");
    let coded: Value = serde_json::from_slice(&coded).expect("JSON");
    assert_eq!(coded["data"][0]["embedding"], "AAAAPwAAgL4=");
    assert_eq!(answer(Embeddings, OllamaEmbed, &coded), back);
    for body in ["{}", "{\"embeddings\":[[\"a\"]]}", "{\"error\":\"x\"}"] {
        assert!(answer_bytes(OllamaEmbed, Embeddings, body.as_bytes(), &context).is_err());
    }
}

fn gemini_request() -> Value {
    json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Look"},
                {"inlineData": {"mimeType": "image/png", "data": "AA=="}}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"x": 1}}},
                {"functionCall": {"name": "g", "args": {}}}]},
            {"role": "user", "parts": [
                {"functionResponse": {"name": "g", "response": {"output": "G"}}},
                {"functionResponse": {"name": "f", "response": {"a": 1, "b": 2}}}]}],
        "tools": [{"functionDeclarations": [{"name": "f", "description": "F",
            "parameters": {"type": "OBJECT", "properties": {"x": {"type": "INTEGER"}}}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {"maxOutputTokens": 9, "temperature": 0.5, "topK": 4,
            "stopSequences": ["x"], "responseMimeType": "application/json",
            "thinkingConfig": {"thinkingBudget": 0}}})
}

#[test]
fn a_request_of_gemini_goes_to_a_provider_of_chat() {
    let body = request(Gemini, Chat, &gemini_request());
    let calls = &body["messages"][2]["tool_calls"];
    let (first, second) = (&calls[0]["id"], &calls[1]["id"]);
    assert_eq!(
        body,
        json!({"model": "upstream", "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": first, "type": "function",
                "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": second, "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": second, "content": "G"},
        {"role": "tool", "tool_call_id": first, "content": "{\"a\":1,\"b\":2}"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "F",
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}],
        "tool_choice": "required", "max_tokens": 9, "temperature": 0.5, "stop": ["x"],
        "response_format": {"type": "json_object"}})
    );
}

#[test]
fn a_request_of_chat_goes_to_gemini_and_back() {
    let chat = request(Gemini, Chat, &gemini_request());
    let body = request(Chat, Gemini, &chat);
    assert_eq!(body["contents"][1]["parts"][0]["functionCall"]["args"], json!({"x": 1}));
    assert_eq!(body["contents"][2]["parts"][0]["functionResponse"]["name"], "g");
    assert_eq!(body["generationConfig"]["maxOutputTokens"], 9);
    assert_eq!(request(Gemini, Chat, &body), chat);
}

fn gemini_answer() -> Value {
    json!({"candidates": [{"content": {"role": "model", "parts": [
        {"text": "hm", "thought": true}, {"text": "Hi"},
        {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}}]},
        "finishReason": "STOP", "index": 0}], "modelVersion": "asked", "responseId": "id1",
        "usageMetadata": {"promptTokenCount": 10, "cachedContentTokenCount": 4,
            "candidatesTokenCount": 5, "thoughtsTokenCount": 2, "totalTokenCount": 17}})
}

#[test]
fn answers_of_gemini_go_both_ways() {
    let chat = answer(Gemini, Chat, &gemini_answer());
    assert_eq!(chat["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(chat["choices"][0]["message"]["content"], "Hi");
    assert_eq!(chat["choices"][0]["message"]["reasoning_content"], "hm");
    assert_eq!(chat["usage"]["completion_tokens"], 7);
    assert_eq!(answer(Chat, Gemini, &chat), gemini_answer());
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}});
    assert_eq!(answer(Gemini, Chat, &blocked)["choices"][0]["finish_reason"], "content_filter");
}

#[test]
fn streams_of_gemini_go_both_ways() {
    let part = |part: Value| json!({"candidates": [{"content": {"parts": [part]}}]});
    let input = [
        part(json!({"text": "hm", "thought": true})),
        part(json!({"text": "Hi"})),
        part(json!({"functionCall": {"name": "f", "args": {"x": 1}}})),
        json!({"candidates": [{"finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5}}),
    ];
    for to in CLIENTS.into_iter().chain([Gemini]) {
        let text = format!("{:?}", stream(Gemini, to, &input));
        assert!(text.contains("hm") && text.contains("Hi"), "{to:?}: {text}");
    }
    let out = stream(Gemini, Gemini, &input);
    let last = &out.last().expect("an end").1;
    assert_eq!(last["candidates"][0]["finishReason"], "STOP");
    assert_eq!(last["usageMetadata"]["totalTokenCount"], 15);
    // Cut before its end.
    let out = stream(Gemini, Gemini, &input[..2]);
    assert_eq!(out.last().expect("an error").1["error"]["status"], "UNAVAILABLE");
    for from in PROVIDERS {
        assert!(replay_text(from, Gemini).contains("Hi"), "{from:?}");
    }
}

#[test]
fn reasoning_of_another_provider_is_taken_out() {
    let strip = |dialect: Dialect, body: &Value| {
        let body = body.to_string();
        let body = without_foreign_reasoning(dialect, body.as_bytes()).expect("JSON");
        body.map(|body| serde_json::from_slice::<Value>(&body).expect("JSON"))
    };
    let foreign = json!({"type": "thinking", "thinking": "t", "signature": "lodestar"});
    let own = json!({"type": "thinking", "thinking": "t", "signature": "EqQB"});
    let text = json!({"type": "text", "text": "y"});
    let turn = |blocks: &[&Value]| json!({"role": "assistant", "content": blocks});
    let body = |turns: &[Value]| json!({"model": "m", "messages": turns});
    assert_eq!(strip(Messages, &body(&[turn(&[&own, &text])])), None);
    assert_eq!(
        strip(
            Messages,
            &body(&[turn(&[&foreign, &text]), turn(&[&own, &text]), turn(&[&foreign])])
        ),
        Some(body(&[turn(&[&text]), turn(&[&own, &text])]))
    );
    // The word alone is no mark.
    let said = json!({"messages": [{"role": "user", "content": "lodestar"}]});
    assert_eq!(strip(Messages, &said), Some(said.clone()));
    assert_eq!(strip(Chat, &said), None);
    assert_eq!(strip(OllamaChat, &said), None);
    let item = |id: &str, kind: &str| json!({"type": kind, "id": id, "summary": []});
    let body = json!({"input": [item("rs_lodestar_r1_0", "reasoning"), item("rs_1", "reasoning"),
        item("msg_lodestar_r1_1", "message")]});
    assert_eq!(
        strip(Responses, &body),
        Some(json!({"input": [item("rs_1", "reasoning"),
        {"type": "message", "summary": []}]}))
    );
}

#[test]
fn what_is_written_here_is_known_as_foreign() {
    let body = json!({"choices": [{"message": {"content": "y", "reasoning_content": "t"}}]});
    let content = &answer(Chat, Messages, &body)["content"];
    let history = json!({"messages": [{"role": "assistant", "content": content}]}).to_string();
    let stripped = without_foreign_reasoning(Messages, history.as_bytes()).expect("JSON");
    assert!(!String::from_utf8(stripped.expect("stripped")).expect("text").contains("thinking"));
    let output = &answer(Chat, Responses, &body)["output"];
    let history = json!({"input": output}).to_string();
    let stripped = without_foreign_reasoning(Responses, history.as_bytes()).expect("JSON");
    assert!(!String::from_utf8(stripped.expect("stripped")).expect("text").contains("lodestar"));
    let mut out = Vec::new();
    super::super::replay(Chat, Messages, body.to_string().as_bytes(), &CONTEXT, &mut out)
        .expect("replayed");
    assert!(
        format!("{:?}", events(&out, Messages)).contains("\"signature\": String(\"lodestar\")")
    );
}
