//! Bounds of a key's list of models, and of whose account a provider charges.

use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Act, Asked, Upstream, chat, models},
};

/// Starts a router before a provider of each API that has the models `cheap` and `dear`. Returns it
/// with the secret of a key that may ask `cheap`.
fn start() -> (Upstream, Gateway, String) {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        path if path.ends_with("/models") => models(&["cheap", "dear"]),
        _ => chat("hi"),
    });
    let names = ["cheap", "dear"];
    let provider =
        |api: &str| json!({"base_url": upstream.url(), "api": api, "key": "k", "models": names});
    let providers = json!({"o": provider("openai"), "a": provider("anthropic"),
        "l": provider("ollama"), "g": provider("gemini")});
    let mut gateway = Gateway::start(providers, json!({}));
    let args = json!({"action": "create", "name": "bot", "models": "cheap"});
    let made = gateway.bench.command("keys", args).expect("it is made").data;
    let secret = made["key"].as_str().expect("a secret").to_owned();
    (upstream, gateway, secret)
}

#[test]
fn no_field_of_a_body_leads_a_key_to_another_model() {
    let (upstream, gateway, secret) = start();
    let gemini = "/v1beta/models/cheap:generateContent";
    let asked = |path: &str, body: &str, status: u16| {
        let answer = gateway.post_with(path, &[("x-lodestar-key", &secret)], body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
    };
    for path in [
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/api/chat",
        "/api/generate",
        "/api/embed",
        gemini,
    ] {
        let model = if path == gemini { "" } else { r#""model": "cheap", "# };
        for (field, status) in [
            (r#""models": ["dear"]"#, 403),
            (r#""mod\u0065ls": ["dear"]"#, 403),
            (r#""Models": ["dear"]"#, 403),
            (r#""route": "fallback""#, 403),
            (r#""fallbacks": ["dear"]"#, 403),
            (r#""fallback_models": ["dear"]"#, 403),
            (r#""preset": "dear""#, 403),
            (r#""tools": [{"type": "x", "model": "dear"}]"#, 403),
            (r#""tools": [{"type": "namespace", "tools": [{"model": "dear"}]}]"#, 403),
            (r#""input": [{"type": "namespace", "tools": [{"model": "dear"}]}]"#, 403),
            (r#""input": [{"type": "additional_tools", "tools": [{"model": "dear"}]}]"#, 403),
            (r#""Model": "dear""#, 400),
            (r#""\u004dODEL": "dear""#, 400),
        ] {
            asked(path, &format!("{{{model}{field}, \"max_tokens\": 5}}"), status);
        }
        if path != gemini {
            asked(path, r#"{"model": "cheap", "model": "dear"}"#, 400);
            asked(path, r#"{"model": "cheap", "mod\u0065l": "dear"}"#, 400);
            asked(path, r#"{"model": "dear"}"#, 403);
        }
    }
    asked(gemini, r#"{"model": "models/dear", "contents": []}"#, 403);
    asked("/v1beta/models/dear:generateContent", r#"{"contents": []}"#, 403);
    asked("/v1/messages/count_tokens", r#"{"model": "cheap", "models": ["dear"]}"#, 403);
    asked("/v1/chat/completions", r#"{"model": "o/cheap", "messages": []}"#, 200);
    let is_of_client = |it: &&Asked| it.body.contains("dear") && !it.path.ends_with("/show");
    assert_eq!(upstream.asked("").iter().filter(is_of_client).count(), 0);

    // Without such a list it is between the client and its provider.
    let body = json!({"model": "o/cheap", "models": ["dear"], "messages": []}).to_string();
    let answer = gateway.post_with("/v1/chat/completions", &[], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let last = upstream.asked("/chat/completions").pop().expect("it was asked");
    assert_eq!(last.json()["models"], json!(["dear"]));
}

#[test]
fn a_clients_word_on_the_account_goes_with_its_own_credentials_alone() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("hi"),
    });
    let ask = |key: Option<&str>| {
        let mut provider =
            json!({"base_url": upstream.url(), "api": "openai", "models": ["gpt-4o"]});
        if let Some(key) = key {
            provider["key"] = key.into();
        }
        let gateway = Gateway::start(json!({"cloud": provider}), json!({}));
        let headers = [
            ("authorization", "Bearer sk-mine"),
            ("openai-organization", "org-mine"),
            ("openai-project", "proj-mine"),
            ("openai-beta", "assistants=v2"),
        ];
        let body = json!({"model": "gpt-4o", "messages": []}).to_string();
        gateway.post_with("/v1/chat/completions", &headers, &body);
        upstream.asked("/chat/completions").pop().expect("it was asked")
    };
    let operators = ask(Some("k"));
    assert_eq!(operators.header("openai-organization"), None);
    assert_eq!(operators.header("openai-project"), None);
    assert_eq!(operators.header("openai-beta"), Some("assistants=v2"));
    let clients = ask(None);
    assert_eq!(clients.header("openai-organization"), Some("org-mine"));
    assert_eq!(clients.header("openai-project"), Some("proj-mine"));
}

#[test]
fn what_is_for_anthropic_reaches_no_other_provider_of_its_dialect() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        path if path.ends_with("/models") => models(&["m"]),
        _ => Act::Answer(
            200,
            Vec::new(),
            json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "m",
                "stop_reason": "end_turn", "content": [{"type": "text", "text": "hi"}],
                "usage": {"input_tokens": 1, "output_tokens": 1}})
            .to_string(),
        ),
    });
    let ask = |path: &str, key: Option<&str>, settings: Value| {
        let mut provider = json!({"base_url": upstream.url(), "api": "anthropic", "models": ["m"]});
        if let Some(key) = key {
            provider["key"] = key.into();
        }
        let gateway = Gateway::start(json!({"other": provider}), settings);
        let headers = [
            ("anthropic-beta", "context-1m-2025-08-07,oauth-2025-04-20"),
            ("x-api-key", "sk-mine"),
        ];
        let body = r#"{"model": "m", "max_tokens": 5, "safeguards": {"x": 1}, "messages": []}"#;
        let answer = gateway.post_with(path, &headers, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let asked = upstream.asked(path).pop().expect("it was asked");
        (asked.header("anthropic-beta").map(str::to_owned), asked.body)
    };
    let all = Some("context-1m-2025-08-07,oauth-2025-04-20".to_owned());
    let without = r#"{"model": "m", "max_tokens": 5,  "messages": []}"#.to_owned();
    let known = json!({"anthropic_betas": {"other": ["context-1m-*"]}});
    let some = Some("context-1m-2025-08-07".to_owned());
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        assert_eq!(ask(path, Some("k"), json!({})), (all.clone(), without.clone()));
        assert_eq!(ask(path, Some("k"), known.clone()), (some.clone(), without.clone()));
    }
    // Who gets the client's own credentials is who the client takes it for.
    let (betas, body) = ask("/v1/messages", None, json!({}));
    assert_eq!(betas, all);
    assert!(body.contains("safeguards"), "{body}");
}

#[test]
fn the_project_of_a_key_counts_for_more_than_a_header() {
    let (_upstream, mut gateway, _) = start();
    let args = json!({"action": "create", "name": "shop", "project": "shop"});
    let made = gateway.bench.command("keys", args).expect("it is made").data;
    let secret = made["key"].as_str().expect("a secret").to_owned();
    let body = json!({"model": "o/cheap", "messages": []}).to_string();
    let of_key = [("x-lodestar-key", secret.as_str()), ("x-lodestar-project", "bank")];
    gateway.post_with("/v1/chat/completions", &of_key, &body);
    gateway.post_with("/v1/chat/completions", &[("x-lodestar-project", "größe")], &body);
    let projects: Vec<_> =
        gateway.reports(2).into_iter().map(|report| report.project.unwrap_or_default()).collect();
    assert_eq!(projects, ["shop", "größe"]);
}
