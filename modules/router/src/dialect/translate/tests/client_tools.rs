//! Tools that a client knows in another form than providers do.

use serde_json::{Value, json};

use super::{
    super::{AnswerContext, ClientTools, StreamTranslator, answer as answer_bytes, replay},
    CONTEXT, Chat, Dialect, Messages, OllamaChat, PROVIDERS, Responses, events, request,
};

const PATCH: &str = "*** Begin Patch\n*** Add File: a\n+{\"x\":1}\n*** End Patch";

/// Returns a request of Codex with tools of every form.
fn codex() -> Value {
    json!({"model": "m", "input": [
        {"role": "user", "content": "patch"},
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": PATCH},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
        {"type": "function_call", "call_id": "d", "name": "search", "namespace": "mcp__docs__",
            "arguments": "{}"},
        {"type": "function_call_output", "call_id": "d", "output": "found"}],
        "tools": [
            {"type": "custom", "name": "apply_patch", "description": "Edits files.",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
            {"type": "function", "name": "plain", "parameters": {"type": "object"}},
            {"type": "namespace", "name": "mcp__docs__", "tools": [
                {"type": "function", "name": "search", "parameters": {"type": "object"}}]},
            {"type": "web_search"}]})
}

fn names(body: &Value) -> Vec<&str> {
    let tools = body["tools"].as_array().expect("tools");
    tools
        .iter()
        .map(|tool| &tool.get("function").unwrap_or(tool)["name"])
        .map(|name| name.as_str().expect("a name"))
        .collect()
}

#[test]
fn each_is_a_function_for_the_provider() {
    for to in PROVIDERS {
        let body = request(Responses, to, &codex());
        assert_eq!(names(&body), ["apply_patch", "plain", "mcp__docs__search"], "{to:?}");
        let text = body.to_string();
        assert!(text.contains("start: x") && text.contains("lark"), "{to:?}: {text}");
    }
    let body = request(Responses, Chat, &codex());
    let function = &body["tools"][0]["function"];
    assert_eq!(function["parameters"]["required"], json!(["input"]));
    assert_eq!(function["parameters"]["properties"]["input"]["type"], "string");
    // What was called before bears the same names.
    let calls = &body["messages"][1]["tool_calls"];
    assert_eq!(calls[0]["function"]["name"], "apply_patch");
    assert_eq!(calls[0]["function"]["arguments"], json!({"input": PATCH}).to_string());
    let calls = &body["messages"][3]["tool_calls"];
    assert_eq!(calls[0]["function"]["name"], "mcp__docs__search");
}

#[test]
fn tools_that_come_in_the_conversation_are_tools() {
    let mut body = codex();
    let tools = body["tools"].take();
    let item = json!({"type": "additional_tools", "role": "developer", "tools": tools});
    body["input"].as_array_mut().expect("items").insert(0, item);
    body.as_object_mut().expect("an object").remove("tools");
    for to in PROVIDERS {
        let body = request(Responses, to, &body);
        assert_eq!(names(&body), ["apply_patch", "plain", "mcp__docs__search"], "{to:?}");
    }
}

#[test]
fn a_tool_that_is_named_is_its_function() {
    let choice = |choice: Value| {
        let mut body = codex();
        body["tool_choice"] = choice;
        request(Responses, Chat, &body)["tool_choice"]["function"]["name"].clone()
    };
    assert_eq!(choice(json!({"type": "custom", "name": "apply_patch"})), "apply_patch");
    assert_eq!(
        choice(json!({"type": "function", "name": "search", "namespace": "mcp__docs__"})),
        "mcp__docs__search"
    );
}

#[test]
fn names_that_no_provider_takes_are_always_replaced_by_the_same() {
    let name = |namespace: &str, name: &str| {
        let body = json!({"input": "x", "tools": [{"type": "namespace", "name": namespace,
            "tools": [{"type": "function", "name": name}]}]});
        request(Responses, Chat, &body)["tools"][0]["function"]["name"].as_str().map(str::to_owned)
    };
    assert_eq!(name("docs", "search").as_deref(), Some("docs__search"));
    let long = name("mcp__docs__", &"x".repeat(80)).expect("a name");
    assert!(long.len() <= 64 && long.starts_with("mcp__docs__xxx"), "{long}");
    assert_eq!(name("mcp__docs__", &"x".repeat(80)), Some(long.clone()));
    assert_ne!(name("mcp__docs__", &"x".repeat(81)), Some(long));
    let odd = name("mcp.ö", "a b").expect("a name");
    assert!(odd.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'), "{odd}");
}

/// Returns a request of Codex that has searched for tools, twice.
fn searched() -> Value {
    let found = json!([
        {"type": "namespace", "name": "mcp__docs__", "description": "Docs.", "tools": [
            {"type": "function", "name": "search", "defer_loading": true,
                "parameters": {"type": "object"}}]},
        {"type": "function", "name": "late", "defer_loading": true, "parameters": {}}]);
    let call = |id: &str| {
        json!({"type": "tool_search_call", "call_id": id, "status": "completed",
        "execution": "client", "arguments": {"query": "docs", "limit": 8}})
    };
    let output = |id: &str, tools: &Value| {
        json!({"type": "tool_search_output", "call_id": id,
        "status": "completed", "execution": "client", "tools": tools})
    };
    json!({"model": "m", "input": [{"role": "user", "content": "read the docs"},
        call("c"), output("c", &found), call("d"), output("d", &found),
        call("e"), output("e", &json!([]))],
        "tools": [
            {"type": "tool_search", "execution": "client", "description": "Finds tools.",
                "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
            {"type": "function", "name": "plain", "parameters": {"type": "object"}}]})
}

#[test]
fn a_search_of_the_client_is_a_function_and_offers_what_it_found() {
    for to in PROVIDERS {
        let body = request(Responses, to, &searched());
        let expected = ["mcp__docs__search", "late", "tool_search", "plain"];
        assert_eq!(names(&body), expected, "{to:?}");
    }
    let body = request(Responses, Chat, &searched());
    let call = &body["messages"][1]["tool_calls"][0];
    assert_eq!((&call["id"], &call["function"]["name"]), (&json!("c"), &json!("tool_search")));
    let arguments = call["function"]["arguments"].as_str().expect("a text");
    assert_eq!(
        serde_json::from_str::<Value>(arguments).expect("JSON"),
        json!({"query": "docs", "limit": 8})
    );
    let told = |index: usize| body["messages"][index]["content"].as_str().unwrap_or_default();
    assert!(told(2).ends_with(": mcp__docs__search, late"), "{body}");
    assert!(told(4).contains("mcp__docs__"), "{body}");
    assert_eq!(told(6), "No tool was found.", "{body}");
    assert_eq!(body["tools"][2]["function"]["description"], "Finds tools.");
}

#[test]
fn a_search_of_the_provider_is_its_own() {
    let body = json!({"input": "x", "tools": [{"type": "tool_search"},
        {"type": "function", "name": "plain", "defer_loading": true, "parameters": {}}]});
    assert_eq!(names(&request(Responses, Chat, &body)), ["plain"]);
}

#[test]
fn a_call_of_the_search_comes_back_as_the_client_knows_it() {
    let expected = |id: &str, arguments: Value| {
        json!([{"id": id, "type": "tool_search_call", "status": "completed",
            "execution": "client", "call_id": "k", "arguments": arguments}])
    };
    let asked = json!({"query": "docs"});
    let body = whole(Responses, &searched(), &called("tool_search", &asked.to_string()));
    assert_eq!(body["output"], expected("tsc_lodestar_r1_0", asked.clone()));
    // Whatever a model says, the client gets an object.
    let odd = whole(Responses, &searched(), &called("tool_search", "docs"));
    assert!(odd["output"][0]["arguments"].is_object(), "{odd}");
    let tools = ClientTools::of(Responses, searched().to_string().as_bytes());
    let context = AnswerContext { tools: Some(&tools), ..CONTEXT };
    // As a stream: made of another dialect's, and of a whole response.
    let chat = called("tool_search", &asked.to_string());
    for (from, body) in [(Chat, &chat), (Responses, &body)] {
        let mut out = Vec::new();
        replay(from, Responses, body.to_string().as_bytes(), &context, &mut out).expect("replayed");
        let out = events(&out, Responses);
        assert_eq!(
            super::names(&out),
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.output_item.done",
                "response.completed",
            ]
        );
        assert_eq!(out[2].1["item"]["arguments"], json!({}), "{from:?}");
        assert_eq!(out[3].1["item"]["arguments"], asked, "{from:?}");
        assert_eq!(out[4].1["response"]["output"][0]["type"], "tool_search_call", "{from:?}");
    }
}

/// Returns an answer of a chat model that calls a function with arguments.
fn called(function: &str, arguments: &str) -> Value {
    json!({"choices": [{"message": {"content": null, "tool_calls": [{"id": "k",
        "type": "function", "function": {"name": function, "arguments": arguments}}]}}]})
}

fn whole(to: Dialect, asked: &Value, body: &Value) -> Value {
    let tools = ClientTools::of(to, asked.to_string().as_bytes());
    let context = AnswerContext { tools: Some(&tools), ..CONTEXT };
    let body = answer_bytes(Chat, to, body.to_string().as_bytes(), &context).expect("translated");
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn a_call_comes_back_in_the_form_of_the_client() {
    let body =
        whole(Responses, &codex(), &called("apply_patch", &json!({"input": PATCH}).to_string()));
    assert_eq!(
        body["output"],
        json!([{"id": "ctc_lodestar_r1_0", "type": "custom_tool_call", "status": "completed",
            "call_id": "k", "name": "apply_patch", "input": PATCH}])
    );
    let body = whole(Responses, &codex(), &called("mcp__docs__search", "{\"q\":1}"));
    assert_eq!(
        body["output"],
        json!([{"id": "fc_lodestar_r1_0", "type": "function_call", "status": "completed",
            "call_id": "k", "name": "search", "namespace": "mcp__docs__",
            "arguments": "{\"q\":1}"}])
    );
    let body = whole(Responses, &codex(), &called("plain", "{}"));
    assert_eq!(body["output"][0]["type"], "function_call");
    assert_eq!(body["output"][0].get("namespace"), None);
}

#[test]
fn models_give_the_text_in_many_ways() {
    let check = |arguments: &str, expected: &str| {
        let body = whole(Responses, &codex(), &called("apply_patch", arguments));
        assert_eq!(body["output"][0]["input"], expected, "{arguments}");
    };
    check(r#"{"input":"p"}"#, "p");
    check(r#"{"input":"p","more":1}"#, "p");
    check(r#"{"patch":"p"}"#, "p");
    check(r#"{"_raw_arguments":"p"}"#, "p");
    check(r#""p""#, "p");
    check("*** Begin Patch", "*** Begin Patch");
    check(r#"{"a":"p","b":"q"}"#, r#"{"a":"p","b":"q"}"#);
    check("{}", "");
    check("", "");
    // A text that is itself JSON stays as it is.
    check(r#"{"input":"{\"input\":\"p\"}"}"#, r#"{"input":"p"}"#);
}

#[test]
fn a_stream_has_the_events_of_the_client() {
    let tools = ClientTools::of(Responses, codex().to_string().as_bytes());
    let context = AnswerContext { tools: Some(&tools), ..CONTEXT };
    let arguments = json!({"input": PATCH}).to_string();
    let (first, second) = arguments.split_at(17);
    let chunk = |call: Value| json!({"choices": [{"delta": {"tool_calls": [call]}}]});
    let mut translator = StreamTranslator::new(Chat, Responses, &context).expect("a pair");
    let mut out = Vec::new();
    for data in [
        chunk(json!({"index": 0, "id": "k", "function": {"name": "apply_patch"}})),
        chunk(json!({"index": 0, "function": {"arguments": first}})),
        chunk(json!({"index": 0, "function": {"arguments": second}})),
        chunk(json!({"index": 1, "id": "l",
            "function": {"name": "mcp__docs__search", "arguments": "{}"}})),
        json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}),
    ] {
        super::push(&mut translator, &data, &mut out).expect("translated");
    }
    translator.finish(&mut out);
    let out = events(&out, Responses);
    assert_eq!(
        super::names(&out),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.custom_tool_call_input.delta",
            "response.custom_tool_call_input.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    let id = "ctc_lodestar_resp_r1_0";
    assert_eq!(out[2].1["item"]["type"], "custom_tool_call");
    assert_eq!((&out[2].1["item"]["input"], &out[2].1["item"]["id"]), (&json!(""), &json!(id)));
    assert_eq!((&out[3].1["delta"], &out[3].1["item_id"]), (&json!(PATCH), &json!(id)));
    assert_eq!(out[4].1["input"], PATCH);
    assert_eq!(out[5].1["item"]["input"], PATCH);
    assert_eq!(out[5].1["item"]["status"], "completed");
    assert_eq!(out[9].1["item"]["name"], "search");
    assert_eq!(out[9].1["item"]["namespace"], "mcp__docs__");
    assert_eq!(out[10].1["response"]["output"][0]["type"], "custom_tool_call");
}

#[test]
fn a_whole_answer_is_replayed_in_the_form_of_the_client() {
    let tools = ClientTools::of(Responses, codex().to_string().as_bytes());
    let context = AnswerContext { tools: Some(&tools), ..CONTEXT };
    let arguments = json!({"input": PATCH}).to_string();
    let body = called("apply_patch", &arguments).to_string();
    let body = answer_bytes(Chat, Responses, body.as_bytes(), &context).expect("translated");
    let mut out = Vec::new();
    replay(Responses, Responses, &body, &context, &mut out).expect("replayed");
    let out = events(&out, Responses);
    let last = &out.last().expect("an end").1["response"]["output"][0];
    assert_eq!((&last["type"], &last["input"]), (&json!("custom_tool_call"), &json!(PATCH)));
}

/// Returns a request of a client of chat with a custom tool.
fn chat() -> Value {
    json!({"messages": [{"role": "user", "content": "x"}], "tools": [{"type": "custom",
        "custom": {"name": "sql", "description": "Asks.", "format": {"type": "grammar",
            "grammar": {"syntax": "regex", "definition": "SELECT .*"}}}}],
        "tool_choice": {"type": "custom", "custom": {"name": "sql"}}})
}

#[test]
fn clients_of_chat_have_custom_tools_too() {
    let body = request(Chat, Messages, &chat());
    assert_eq!(body["tools"][0]["name"], "sql");
    let description = body["tools"][0]["description"].as_str().expect("a description");
    assert!(description.contains("SELECT .*") && description.contains("regex"), "{description}");
    assert_eq!(body["tool_choice"]["name"], "sql");
    assert_eq!(names(&request(Chat, OllamaChat, &chat())), ["sql"]);
    let tools = ClientTools::of(Chat, chat().to_string().as_bytes());
    let context = AnswerContext { tools: Some(&tools), ..CONTEXT };
    let body = json!({"type": "message", "role": "assistant", "content": [
        {"type": "tool_use", "id": "k", "name": "sql", "input": {"input": "SELECT 1"}}]});
    let mut out = Vec::new();
    replay(Messages, Chat, body.to_string().as_bytes(), &context, &mut out).expect("replayed");
    let out = events(&out, Chat);
    let calls: Vec<_> = out
        .iter()
        .map(|(_, data)| &data["choices"][0]["delta"]["tool_calls"][0])
        .filter(|call| !call.is_null())
        .collect();
    assert_eq!(
        calls,
        [
            &json!({"index": 0, "id": "k", "type": "custom", "custom":
                {"name": "sql", "input": ""}}),
            &json!({"index": 0, "custom": {"input": "SELECT 1"}}),
        ]
    );
    let body = answer_bytes(Messages, Chat, body.to_string().as_bytes(), &context);
    let body: Value = serde_json::from_slice(&body.expect("translated")).expect("JSON");
    assert_eq!(
        body["choices"][0]["message"]["tool_calls"],
        json!([{"id": "k", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}])
    );
}

#[test]
fn a_body_without_such_tools_is_not_read() {
    let none = ClientTools::default();
    for dialect in [Chat, Responses, Messages, OllamaChat] {
        assert_eq!(ClientTools::of(dialect, b"no JSON at all"), none);
    }
    let said = json!({"input": "a \"custom\" one", "tools": [{"type": "function", "name": "f"}]});
    assert_eq!(ClientTools::of(Responses, said.to_string().as_bytes()), none);
}
