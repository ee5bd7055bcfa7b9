//! Conversations of requests: turns, calls, media, and what cannot be said.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{RequestOptions, TranslateError},
    Chat, Messages, OPTIONS, OllamaChat, OllamaGenerate, Responses, refusal, request,
    requests::{PNG, agent, check, check_keys, check_keys_with, user},
};

#[test]
fn reasoning_of_earlier_turns() {
    let body = json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "t", "signature": "lodestar"},
            {"type": "text", "text": "y"}]}]});
    let plain = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]);
    check_keys(Messages, body.clone(), Chat, json!({"messages": plain}));
    check_keys(
        Messages,
        body.clone(),
        OllamaChat,
        json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "thinking": "t"}]}),
    );
    let options = RequestOptions { model: "deepseek-reasoner", ..OPTIONS };
    check_keys_with(
        Messages,
        body,
        Chat,
        &options,
        json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y", "reasoning_content": "t"}]}),
    );
    let sealed = json!({"messages": [{"role": "assistant", "content": [
        {"type": "thinking", "thinking": "t", "signature": "EqQB"},
        {"type": "text", "text": "y"}]}]});
    check_keys_with(
        Messages,
        sealed,
        Chat,
        &options,
        json!({"messages": [{"role": "assistant", "content": "y"}]}),
    );
}

#[test]
fn arguments_that_are_no_object_are_kept() {
    let chat = |arguments: &str| {
        json!({"messages": [{"role": "assistant", "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}]}]})
    };
    for (arguments, input) in [
        ("", json!({})),
        ("null", json!({})),
        ("{\"a\":1}", json!({"a": 1})),
        ("{\"a\":", json!({"_raw_arguments": "{\"a\":"})),
        ("[1]", json!({"_raw_arguments": "[1]"})),
    ] {
        let body = request(Chat, Messages, &chat(arguments));
        assert_eq!(body["messages"][0]["content"][0]["input"], input, "{arguments}");
        let back = request(Messages, Chat, &body);
        let text = &back["messages"][0]["tool_calls"][0]["function"]["arguments"];
        let expected = if input == json!({}) { "{}" } else { arguments };
        assert_eq!(text, expected);
    }
}

#[test]
fn results_stand_behind_their_calls() {
    // The person speaks before the tools have answered, and the answers come in another order.
    let body = json!({"messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "b", "content": "B"},
        {"role": "user", "content": "wait"},
        {"role": "tool", "tool_call_id": "a", "content": "A"},
        {"role": "tool", "tool_call_id": "lost", "content": "L"}]});
    let translated = request(Chat, Messages, &body);
    assert_eq!(
        translated["messages"][2],
        json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "b", "content": [{"type": "text", "text": "B"}]},
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "A"}]},
        {"type": "tool_result", "tool_use_id": "lost",
         "content": [{"type": "text", "text": "L"}]},
        {"type": "text", "text": "wait"}]})
    );
    let translated = request(Messages, Chat, &translated);
    let ids: Vec<_> = translated["messages"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|message| {
            message["tool_call_id"].as_str().or(message["role"].as_str()).expect("a role")
        })
        .collect();
    assert_eq!(ids, ["user", "assistant", "b", "a", "lost", "user"]);
}

#[test]
fn ids_that_come_again_belong_to_their_own_turn() {
    let turn = |result: &str| {
        [
            json!({"role": "assistant", "tool_calls": [{"id": "call_0", "type": "function",
            "function": {"name": "f", "arguments": "{}"}}]}),
            json!({"role": "tool", "tool_call_id": "call_0", "content": result}),
        ]
    };
    let messages: Vec<_> = [turn("1"), turn("2")].concat();
    let body = request(Chat, Chat, &json!({"messages": messages}));
    let contents: Vec<_> =
        body["messages"].as_array().expect("a list").iter().map(|m| m["content"].clone()).collect();
    assert_eq!(contents, [Value::Null, json!("1"), Value::Null, json!("2")]);
}

#[test]
fn calls_of_ollama_without_ids_get_stable_ones() {
    let body = json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "f", "arguments": {}}},
            {"function": {"name": "g", "arguments": {}}}]},
        {"role": "tool", "tool_name": "g", "content": "G"},
        {"role": "tool", "content": "F"}]});
    let translated = request(OllamaChat, Chat, &body);
    assert_eq!(translated, request(OllamaChat, Chat, &body));
    let messages = translated["messages"].as_array().expect("a list");
    let id = |at: usize| &messages[1]["tool_calls"][at]["id"];
    assert_ne!(id(0), id(1));
    assert_eq!((&messages[2]["tool_call_id"], &messages[2]["content"]), (id(1), &json!("G")));
    assert_eq!((&messages[3]["tool_call_id"], &messages[3]["content"]), (id(0), &json!("F")));
}

#[test]
fn tools_that_were_called_are_declared_to_claude() {
    let mut body = agent(Chat);
    let object = body.as_object_mut().expect("an object");
    object.remove("tools");
    object.remove("tool_choice");
    let translated = request(Chat, Messages, &body);
    assert_eq!(
        translated["tools"],
        json!([{"name": "weather", "input_schema": {"type": "object", "properties": {}}}])
    );
    assert_eq!(translated["tool_choice"], json!({"type": "none"}));
}

#[test]
fn odd_ids_are_replaced_alike() {
    let long = "x".repeat(50);
    let body = json!({"messages": [
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": long, "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": long}]}]});
    let translated = request(Messages, Chat, &body);
    let id = translated["messages"][0]["tool_calls"][0]["id"].as_str().expect("an id");
    assert!(id.len() <= 40 && id.starts_with("call_"), "{id}");
    assert_eq!(translated["messages"][1]["tool_call_id"], id);
}

#[test]
fn images_of_tools_follow_their_results() {
    let body = json!({"messages": [
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "a", "name": "shot", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [
            {"type": "image", "source":
                {"type": "base64", "media_type": "image/png", "data": PNG}}]}]}]});
    let chat = request(Messages, Chat, &body);
    assert_eq!(chat["messages"][1]["content"], "(see the image below)");
    assert_eq!(chat["messages"][2]["content"][0]["type"], "image_url");
    let responses = request(Messages, Responses, &body);
    assert_eq!(responses["input"][1]["output"][0]["type"], "input_image");
    let ollama = request(Messages, OllamaChat, &body);
    assert_eq!(ollama["messages"][1]["images"], json!([PNG]));
}

#[test]
fn what_cannot_be_said_is_refused() {
    let at_an_address = user(json!([
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]));
    assert_eq!(
        refusal(Chat, OllamaChat, &at_an_address),
        TranslateError::Unsupported("an image at an address")
    );
    assert!(request(Chat, Messages, &at_an_address).to_string().contains("example.com"));
    for (from, body) in [
        (Chat, json!({"messages": [], "n": 2})),
        (Chat, json!({"messages": [], "functions": [{"name": "f"}]})),
        (Chat, user(json!([{"type": "input_audio", "input_audio": {}}]))),
        (Chat, user(json!([{"type": "file", "file": {"file_id": "f"}}]))),
        (Responses, json!({"input": "x", "previous_response_id": "resp_1"})),
        (Responses, json!({"input": [{"type": "item_reference", "id": "a"}]})),
        (Messages, user(json!([{"type": "image", "source": {"type": "file", "file_id": "f"}}]))),
        (OllamaGenerate, json!({"prompt": "x", "raw": true})),
        (OllamaGenerate, json!({"prompt": "x", "suffix": "y"})),
        (OllamaGenerate, json!({"prompt": "x", "context": [1]})),
    ] {
        let to = if from == Chat { Messages } else { Chat };
        let error = refusal(from, to, &body);
        assert!(matches!(error, TranslateError::Unsupported(_)), "{body}: {error:?}");
    }
}

#[test]
fn what_is_no_request_is_malformed() {
    for from in [Chat, Messages, Responses] {
        for body in [
            json!([]),
            json!({}),
            json!({"messages": {}}),
            json!({"input": 1}),
            json!({"messages": [{"role": "wizard"}], "input": [{"role": "wizard"}]}),
            json!({"messages": [1], "input": [1]}),
        ] {
            let error = refusal(from, OllamaChat, &body);
            assert!(matches!(error, TranslateError::Malformed(_)), "{from:?} {body}: {error:?}");
        }
    }
    let error = super::super::request(Chat, Messages, b"{\"a\":\n\xff}", &OPTIONS);
    assert!(matches!(error, Err(TranslateError::NotJson { line: 2, .. })), "{error:?}");
}

#[test]
fn words_of_the_system_after_the_first_turn() {
    let body = json!({"messages": [
        {"role": "system", "content": "a"}, {"role": "developer", "content": "b"},
        {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
        {"role": "system", "content": "c"}]});
    check(
        Chat,
        body.clone(),
        Messages,
        json!({"model": "upstream", "max_tokens": 4096,
        "system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
            {"role": "user", "content": "c"}], "stream": false}),
    );
    check_keys(
        Chat,
        body,
        OllamaChat,
        json!({"messages": [
        {"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "x"},
        {"role": "assistant", "content": "y"}, {"role": "system", "content": "c"}]}),
    );
    let alone = json!({"messages": [{"role": "system", "content": "a"}]});
    check_keys(
        Chat,
        alone,
        Messages,
        json!({"system": null, "messages": [{"role": "user", "content": "a"}]}),
    );
}

#[test]
fn people() {
    check_keys(Messages, json!({"metadata": {"user_id": "u1"}}), Chat, json!({"user": "u1"}));
    check_keys(Chat, json!({"user": "u1"}), Messages, json!({"metadata": {"user_id": "u1"}}));
    // Claude Code writes device and account into it.
    let body = json!({"metadata": {"user_id": "{\"device_id\":\"d\",\"account_uuid\":\"a\"}"},
        "messages": []});
    let user = request(Messages, Chat, &body)["user"].as_str().expect("a user").to_owned();
    assert!(user.starts_with("user_") && !user.contains("device"), "{user}");
}

#[test]
fn documents() {
    let body = user(json!([{"type": "document", "title": "a.pdf", "source":
        {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}]));
    check_keys(
        Messages,
        body.clone(),
        Chat,
        json!({"messages": [{"role": "user", "content": [
        {"type": "file", "file": {"filename": "a.pdf",
            "file_data": "data:application/pdf;base64,JVBERi0="}}]}]}),
    );
    let chat = request(Messages, Chat, &body);
    assert_eq!(request(Chat, Messages, &chat)["messages"], body["messages"]);
    assert_eq!(refusal(Messages, OllamaChat, &body), TranslateError::Unsupported("a document"));
}

#[test]
fn custom_calls_of_codex_stay_in_the_conversation() {
    let body = json!({"input": [
        {"role": "user", "content": "patch"},
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "*** Begin"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}],
        "tools": [{"type": "web_search"}]});
    check(
        Responses,
        body,
        Chat,
        json!({"model": "upstream", "messages": [
        {"role": "user", "content": "patch"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c", "type": "function",
            "function": {"name": "apply_patch", "arguments": "{\"input\":\"*** Begin\"}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "done"}]}),
    );
}

prop_compose! {
    /// Returns a conversation whose turns alternate and whose calls are answered.
    fn conversation()(
        system in proptest::option::of("[a-z ]{1,20}"),
        turns in proptest::collection::vec(
            ("[^\\pC]{1,20}", proptest::option::of("[^\\pC]{1,20}"),
                proptest::collection::vec(("[a-z]{1,8}", "[a-z]{1,8}", "[^\\pC]{1,20}"), 0..3)),
            0..5,
        ),
        last in "[^\\pC]{1,20}",
    ) -> Value {
        let mut messages = Vec::new();
        messages.extend(system.map(|text| json!({"role": "system", "content": text})));
        for (turn, (question, words, calls)) in turns.into_iter().enumerate() {
            messages.push(json!({"role": "user", "content": question}));
            if words.is_none() && calls.is_empty() {
                messages.pop();
                continue;
            }
            let mut answer = json!({"role": "assistant", "content": words});
            let id = |at: usize| format!("call_{turn}_{at}");
            if !calls.is_empty() {
                answer["tool_calls"] = calls.iter().enumerate().map(|(at, (name, value, _))| {
                    let arguments = json!({"a": value}).to_string();
                    json!({"id": id(at), "type": "function",
                        "function": {"name": name, "arguments": arguments}})
                }).collect();
            }
            messages.push(answer);
            for (at, (_, _, result)) in calls.iter().enumerate() {
                messages.push(json!({"role": "tool", "tool_call_id": id(at), "content": result}));
            }
            if !calls.is_empty() {
                messages.push(json!({"role": "assistant", "content": "so"}));
            }
        }
        messages.push(json!({"role": "user", "content": last}));
        json!({"model": "upstream", "messages": messages, "temperature": 0.5})
    }
}

proptest! {
    #[test]
    fn a_conversation_comes_back_as_it_went(body in conversation()) {
        prop_assert_eq!(request(Chat, Chat, &body), body.clone());
        for other in [Responses, OllamaChat] {
            let mut back = request(other, Chat, &request(Chat, other, &body));
            if let Some(object) = back.as_object_mut() {
                object.remove("max_tokens");
            }
            prop_assert_eq!(back, body.clone(), "by {:?}", other);
        }
    }
}
