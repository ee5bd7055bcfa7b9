//! Requests that pass.

use module_sdk::events::{CostSource, RequestStatus, UsageSource};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Act, End, Upstream, chat, chat_body, chat_events, models},
};

fn openai(url: &str) -> Value {
    json!({"cloud": {"base_url": format!("{url}/v1"), "api": "openai", "key": "sk-1",
        "models": ["gpt-4o"]}})
}

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

#[test]
fn a_request_passes_and_is_reported() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("hi"),
    });
    let gateway = Gateway::start(openai(&upstream.url()), json!({}));
    let body =
        r#"{ "model" : "gpt-4o", "messages": [{"role": "user","content":"hello"}], "x": 1.0e0 }"#;
    let headers = [
        ("authorization", "Bearer anything"),
        ("x-lodestar-project", "shop"),
        ("user-agent", "OpenAI/Python 2.20.0"),
    ];
    let answer = gateway.post_with("/v1/chat/completions", &headers, body);
    assert_eq!((answer.status, answer.body.as_str()), (200, chat_body("hi").as_str()));
    assert!(answer.header("x-lodestar-route").is_some_and(|it| it.starts_with("cloud/gpt-4o")));
    let id = answer.header("x-lodestar-request-id").expect("an id").to_owned();
    let asked = &upstream.asked("/chat/completions")[0];
    assert_eq!(asked.body, body, "the bytes are those of the client");
    assert_eq!(asked.header("authorization"), Some("Bearer sk-1"));
    assert_eq!(asked.header("x-lodestar-project"), None);
    let report = &gateway.reports(1)[0];
    assert_eq!(report.dedupe_key, "cloud:chatcmpl-1");
    assert_ne!(id, "");
    assert_eq!(report.status, Some(RequestStatus::Ok));
    assert_eq!((report.input_tokens, report.output_tokens), (Some(100), Some(20)));
    assert_eq!(report.usage_source, Some(UsageSource::Provider));
    // 100 at 2.50 and 20 at 10 USD per million.
    assert_eq!(report.cost_nano_usd, Some(450_000));
    assert_eq!(report.cost_source, Some(CostSource::PriceTable));
    assert_eq!(report.project.as_deref(), Some("shop"));
    assert_eq!(report.client.as_deref(), Some("openai-python"));
}

#[test]
fn the_usage_of_a_stream_is_asked_for_and_kept_back() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => Act::Stream("text/event-stream", chat_events(&["one", "two"]), End::Good),
    });
    let gateway = Gateway::start(openai(&upstream.url()), json!({}));
    let mut body = hello("gpt-4o");
    body["stream"] = json!(true);
    let answer = gateway.post("/v1/chat/completions", &body);
    let mut expected = chat_events(&["one", "two"]);
    expected.remove(expected.len() - 2);
    assert_eq!(answer.body, expected.concat());
    let asked = upstream.asked("/chat/completions")[0].json();
    assert_eq!(asked["stream_options"], json!({"include_usage": true}));
    let report = &gateway.reports(1)[0];
    assert_eq!((report.input_tokens, report.output_tokens), (Some(100), Some(20)));
    assert_eq!(report.stream, Some(true));

    body["stream_options"] = json!({"include_usage": true});
    let answer = gateway.post("/v1/chat/completions", &body);
    assert_eq!(answer.body, chat_events(&["one", "two"]).concat());
}

#[test]
fn the_least_configuration_works() {
    let home = Upstream::start(|asked| match asked.path.as_str() {
        "/api/tags" => {
            Act::Answer(200, vec![], json!({"models": [{"name": "llama3.2:3b"}]}).to_string())
        }
        "/api/ps" => Act::Answer(200, vec![], json!({"models": []}).to_string()),
        "/api/show" => Act::Answer(
            200,
            vec![],
            json!({"capabilities": ["completion", "tools"],
                "model_info": {"llama.context_length": 131_072}})
            .to_string(),
        ),
        _ => Act::Answer(
            200,
            vec![],
            json!({"model": "llama3.2:3b", "message": {"role": "assistant", "content": "local"},
                "done": true, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 3,
                "load_duration": 1_000_000, "prompt_eval_duration": 2_000_000,
                "eval_duration": 3_000_000})
            .to_string(),
        ),
    });
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["big-model"]),
        _ => chat("paid"),
    });
    let providers = json!({
        "home": {"base_url": home.url(), "api": "ollama", "local": true},
        "cloud": {"base_url": format!("{}/v1", cloud.url()), "api": "openai", "key": "k",
            "models": ["big-model"]},
    });
    let gateway = Gateway::start(providers, json!({}));
    gateway.knows("llama3.2:3b");
    let local = gateway.post("/v1/chat/completions", &hello("llama3.2:3b"));
    assert_eq!(local.json()["choices"][0]["message"]["content"], "local");
    let asked = home.asked("/api/chat")[0].json();
    assert_eq!(asked["stream"], false);
    let paid = gateway.post("/v1/chat/completions", &hello("big-model"));
    assert_eq!(paid.json()["choices"][0]["message"]["content"], "paid");
    let outright = gateway.post("/v1/chat/completions", &hello("home/llama3.2:3b"));
    assert_eq!(outright.json()["choices"][0]["message"]["content"], "local");
    let messages = json!({"model": "llama3.2:3b", "max_tokens": 50,
        "messages": [{"role": "user", "content": "hello"}]});
    let answer = gateway.post("/v1/messages", &messages);
    assert_eq!(answer.json()["content"][0]["text"], "local", "{answer:?}");
    let unknown = gateway.post("/v1/chat/completions", &hello("big-modle"));
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("big-model"), "{}", unknown.body);
    let reports = gateway.reports(4);
    assert_eq!(reports[0].cost_nano_usd, Some(0));
    assert_eq!(reports[0].eval_ms, Some(3));
}

#[test]
fn credentials_reach_the_one_provider_that_they_are_for() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("hi"),
    });
    let open = || json!({"base_url": upstream.url(), "api": "openai", "models": ["gpt-4o"]});
    let ask = |providers: Value, model: &str, credential: &str| {
        let gateway = Gateway::start(providers, json!({}));
        let headers = [("authorization", credential)];
        let body = hello(model).to_string();
        let answer = gateway.post_with("/v1/chat/completions", &headers, &body);
        let asked = upstream.asked("/chat/completions");
        let last = asked.last().and_then(|asked| asked.header("authorization"));
        (answer.status, last.map(str::to_owned))
    };
    let (status, got) = ask(json!({"a": open()}), "gpt-4o", "Bearer sk-mine");
    assert_eq!((status, got.as_deref()), (200, Some("Bearer sk-mine")));
    let (status, got) = ask(json!({"a": open(), "b": open()}), "a/gpt-4o", "Bearer sk-mine");
    assert_eq!((status, got), (200, None), "it may be for the other one");
    // A key of the router's own is known here or refused; it never goes on.
    let before = upstream.asked("/chat/completions").len();
    let (status, _) =
        ask(json!({"a": open()}), "gpt-4o", "Bearer lk_0123456789abcdef0123456789abcdef");
    assert_eq!((status, upstream.asked("/chat/completions").len()), (401, before));
}

#[test]
fn answers_with_one_id_are_still_two_requests() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("hi"),
    });
    let gateway = Gateway::start(openai(&upstream.url()), json!({}));
    for _ in 0..2 {
        gateway.post("/v1/chat/completions", &hello("gpt-4o"));
    }
    let reports = gateway.reports(2);
    assert_eq!(reports[0].dedupe_key, "cloud:chatcmpl-1");
    assert!(reports[1].dedupe_key.starts_with("gateway:"), "{:?}", reports[1].dedupe_key);
}
