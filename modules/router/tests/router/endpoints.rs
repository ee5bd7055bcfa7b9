//! Endpoints and tools that a provider does not have in the form in which a client asks.

use serde_json::{Value, json};

use crate::{
    gateway::{Gateway, read},
    upstream::{Act, Upstream, chat},
};

/// Words of OpenAI.
const NO_COMPLETIONS: &str = r#"{"error":{"message":"This is a chat model and not supported in the
    v1/completions endpoint.","type":"invalid_request_error","param":"model"}}"#;

/// Returns a router with one provider of OpenAI's API, which has the endpoint of chat alone.
fn chat_only(missing: (u16, &'static str), answer: Act) -> (Upstream, Gateway) {
    let upstream = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/chat/completions" => answer.clone(),
        _ => Act::Answer(missing.0, vec![], missing.1.to_owned()),
    });
    let provider = json!({"base_url": upstream.url(), "api": "openai", "key": "sk-1",
        "models": ["m"]});
    let config = json!({"retries": {"attempts": 0}});
    let gateway = Gateway::start(json!({"cloud": provider}), config);
    (upstream, gateway)
}

#[test]
fn the_first_request_is_answered_where_an_endpoint_is_missing() {
    for (path, body, missing) in [
        ("/v1/responses", json!({"model": "m", "input": "x"}), (404, r#"{"detail":"Not Found"}"#)),
        ("/v1/responses", json!({"model": "m", "input": "x"}), (405, "")),
        ("/v1/completions", json!({"model": "m", "prompt": "x"}), (404, "404 page not found")),
        ("/v1/completions", json!({"model": "m", "prompt": "x"}), (404, NO_COMPLETIONS)),
    ] {
        let (upstream, gateway) = chat_only(missing, chat("good"));
        for _ in 0..2 {
            let answer = gateway.post(path, &body);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert!(answer.body.contains("good"), "{path}: {answer:?}");
        }
        // What is missing is asked for once.
        let asked = upstream.asked(path).into_iter().filter(|asked| asked.path == path);
        assert_eq!(asked.count(), 1, "{path}");
        assert_eq!(upstream.asked("/v1/chat/completions").len(), 2, "{path}");
        assert_eq!(gateway.reports(3)[0].http_status, Some(missing.0));
    }
}

#[test]
fn an_ollama_without_the_endpoints_of_openai_is_asked_in_its_own_form() {
    let chat = json!({"model": "m", "message": {"role": "assistant", "content": "good"},
        "done": true, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 1});
    for has_chat in [true, false] {
        let chat = chat.to_string();
        let upstream = Upstream::start(move |asked| match asked.path.as_str() {
            "/api/chat" if has_chat => Act::Answer(200, vec![], chat.clone()),
            _ => Act::Answer(404, vec![], "404 page not found".to_owned()),
        });
        let provider = json!({"base_url": upstream.url(), "api": "ollama", "local": true,
            "models": ["m"]});
        let config = json!({"retries": {"attempts": 0}});
        let gateway = Gateway::start(json!({"home": provider}), config);
        let answer = gateway.post("/v1/completions", &json!({"model": "m", "prompt": "x"}));
        assert_eq!(answer.status == 200, has_chat, "{answer:?}");
        assert_eq!(answer.body.contains("good"), has_chat, "{answer:?}");
        // Each endpoint is asked once, also where there is none.
        assert_eq!(upstream.asked("/v1/completions").len(), 1);
        assert_eq!(upstream.asked("/api/chat").len(), 1);
    }
}

#[test]
fn a_model_that_is_not_there_is_no_missing_endpoint() {
    let body = r#"{"error":{"message":"The model `m` does not exist","code":"model_not_found"}}"#;
    let (upstream, gateway) = chat_only((404, body), chat("good"));
    let answer = gateway.post("/v1/completions", &json!({"model": "m", "prompt": "x"}));
    assert_eq!((answer.status, answer.body.as_str()), (404, body));
    assert_eq!(upstream.asked("/chat/completions").len(), 0);
}

#[test]
fn completions_are_asked_of_a_provider_of_another_dialect() {
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "a time"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2}});
    let upstream = Upstream::start(move |_| Act::Answer(200, vec![], message.to_string()));
    let provider = json!({"base_url": upstream.url(), "api": "anthropic", "key": "sk-1",
        "models": ["m"]});
    let gateway = Gateway::start(json!({"claude": provider}), json!({}));
    let answer = gateway.post("/v1/completions", &json!({"model": "m", "prompt": "Once upon"}));
    assert_eq!(answer.json()["choices"][0]["text"], "a time", "{answer:?}");
    let asked = &upstream.asked("/messages")[0].json();
    assert_eq!(asked["messages"][0]["content"], "Once upon");
    let answer =
        gateway.post("/v1/completions", &json!({"model": "m", "prompt": "x", "suffix": "y"}));
    assert_eq!(answer.status, 400);
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        message,
        "claude/m: text between a prompt and a suffix (suffix) cannot be asked of this model"
    );
}

#[test]
fn a_custom_tool_of_codex_is_called_by_a_model_of_another_dialect() {
    let patch = "*** Begin Patch\n*** End Patch";
    let line = |message: Value, is_done: bool| {
        format!("{}\n", json!({"model": "m", "message": message, "done": is_done}))
    };
    let call = json!({"function": {"name": "apply_patch", "arguments": {"input": patch}}});
    let lines = vec![
        line(json!({"role": "assistant", "content": "", "tool_calls": [call]}), false),
        line(json!({"role": "assistant", "content": ""}), true),
    ];
    let upstream = Upstream::start(move |asked| match asked.path.as_str() {
        "/api/chat" => {
            let end = crate::upstream::End::Good;
            Act::Stream("application/x-ndjson", lines.clone(), end)
        }
        _ => Act::Answer(404, vec![], "{}".to_owned()),
    });
    let provider = json!({"base_url": upstream.url(), "api": "ollama", "local": true,
        "models": ["m"]});
    let gateway = Gateway::start(json!({"home": provider}), json!({}));
    let tools = json!([{"type": "custom", "name": "apply_patch", "description": "Edits.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}]);
    let body = json!({"model": "m", "input": "x", "stream": true, "tools": tools});
    let answer = read(&mut gateway.open("/v1/responses", &body));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("response.custom_tool_call_input.delta"), "{}", answer.body);
    assert!(answer.body.contains(r#""type":"custom_tool_call""#), "{}", answer.body);
    assert!(answer.body.contains(r#""input":"*** Begin Patch\n*** End Patch""#), "{}", answer.body);
    let asked = &upstream.asked("/api/chat")[0].json();
    assert_eq!(asked["tools"][0]["function"]["name"], "apply_patch");
}

#[test]
fn a_client_is_told_not_to_come_again_with_what_cannot_work() {
    for (status, told, should_retry, words) in [
        (401, 424, Some("false"), "check its key in `providers`"),
        (302, 424, Some("false"), "mend its base_url"),
        (502, 502, None, "answered 502 with a web page"),
    ] {
        let (_, gateway) = chat_only((404, ""), Act::Answer(status, vec![], "<html>".to_owned()));
        let messages = json!([{"role": "user", "content": "x"}]);
        let body = json!({"model": "m", "messages": messages});
        let answer = gateway.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, told, "{answer:?}");
        assert_eq!(answer.header("x-should-retry"), should_retry, "{answer:?}");
        assert!(answer.body.contains(words), "{answer:?}");
    }
}

#[test]
fn a_base_url_may_leave_the_version_out() {
    let (_, gateway) = chat_only((404, "Not Found"), chat("good"));
    let models = gateway.get("/models");
    assert!(models.body.contains("\"m\""), "{models:?}");
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body) in [
        ("/chat/completions", json!({"model": "m", "messages": messages})),
        ("/completions", json!({"model": "m", "prompt": "x"})),
    ] {
        let answer = gateway.post(path, &body);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let embeddings = gateway.post("/embeddings", &json!({"model": "m", "input": "x"}));
    assert!(embeddings.body.contains("cloud/m"), "{embeddings:?}");
}
