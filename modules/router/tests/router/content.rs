//! The text of requests, for those who subscribe to it.

use module_sdk::events::{ContentRole, LlmRequestContent};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Act, End, Upstream, chat, chat_events, models},
};

const CANARY: &str = "canary-3391";

fn start(cache: bool) -> (Upstream, Gateway) {
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ if asked.body.contains("\"stream\":true") => {
            Act::Stream("text/event-stream", chat_events(&["Hi ", "there"]), End::Good)
        }
        _ => chat("Hi there"),
    });
    let providers = json!({
        "cloud": {"base_url": cloud.url(), "api": "openai", "key": "k", "models": ["gpt-4o"]},
    });
    let gateway = Gateway::start(providers, json!({"cache": {"enabled": cache}}));
    (cloud, gateway)
}

fn contents(gateway: &Gateway) -> Vec<LlmRequestContent> {
    gateway.bench.host().emitted_as().expect("they are texts")
}

fn ask(gateway: &Gateway, path: &str, stream: bool, project: Option<&str>) {
    let body = json!({"model": "gpt-4o", "stream": stream, "max_tokens": 50,
        "messages": [{"role": "user", "content": CANARY}]});
    let headers: Vec<_> = project.map(|it| ("x-lodestar-project", it)).into_iter().collect();
    let answer = gateway.post_with(path, &headers, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn without_a_subscriber_or_a_project_no_text_leaves() {
    let (_cloud, gateway) = start(false);
    ask(&gateway, "/v1/chat/completions", false, Some("shop"));
    gateway.reports(1);
    gateway.bench.host().want("llm.request.content");
    ask(&gateway, "/v1/chat/completions", false, None);
    gateway.reports(2);
    let emitted = gateway.bench.host().emitted();
    assert!(!format!("{emitted:?}").contains(CANARY));
    assert!(contents(&gateway).is_empty());
}

#[test]
fn the_text_of_requests_and_answers_is_told_in_every_form() {
    let (_cloud, gateway) = start(true);
    gateway.bench.host().want("llm.request.content");
    let mut asked = 0;
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for stream in [false, true] {
            // The second one is answered from the cache.
            for _ in 0..2 {
                ask(&gateway, path, stream, Some("shop"));
                asked += 1;
                let reports = gateway.reports(asked);
                let report = reports.last().expect("it was reported");
                let contents = contents(&gateway);
                assert_eq!(contents.len(), asked, "{path} {stream}");
                let content = contents.last().expect("it was told");
                let of = |role, messages: &[module_sdk::events::ContentMessage]| {
                    let it = messages.iter().filter(|it| it.role == role);
                    it.map(|it| it.text.clone()).collect::<Vec<_>>()
                };
                assert_eq!(of(ContentRole::User, &content.request), [CANARY], "{path} {stream}");
                assert_eq!(of(ContentRole::Assistant, &content.answer), ["Hi there"], "{path}");
                assert_eq!(content.dedupe_key, report.dedupe_key);
                let id = content.request_id.as_deref().expect("it has the id of its request");
                assert_eq!(id.len(), 32, "{id}");
                assert_eq!(report.content_ref.as_ref(), Some(&report.dedupe_key));
                assert_eq!((content.project.as_str(), content.truncated), ("shop", false));
            }
        }
    }
    let cached = gateway.reports(asked).iter().filter(|it| it.cache.is_some()).count();
    assert_eq!(cached, asked / 2);
}

#[test]
fn nothing_is_told_of_a_request_that_must_not_be_learnt_from() {
    let (cloud, gateway) = start(false);
    gateway.bench.host().want("llm.request.content");
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": CANARY}]});
    let headers = [("x-lodestar-project", "shop"), ("x-lodestar-learn", "off")];
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let body = json!({"max_tokens": 9, "model": body["model"], "messages": body["messages"]});
        let answer = gateway.post_with(path, &headers, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let reports = gateway.reports(2);
    assert!(reports.iter().all(|report| report.content_ref.is_none()), "{reports:?}");
    assert!(contents(&gateway).is_empty());
    assert!(!format!("{:?}", gateway.bench.host().emitted()).contains(CANARY));
    // The wish is for this router, and goes no further.
    let sent = format!("{:?}", cloud.asked(""));
    assert!(sent.contains(CANARY) && !sent.contains("x-lodestar-learn"), "{sent}");
    // The same client's next request is its own.
    ask(&gateway, "/v1/chat/completions", false, Some("shop"));
    gateway.reports(3);
    assert_eq!(contents(&gateway).len(), 1);
}

#[test]
fn vectors_are_no_text() {
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["text-embedding-3-small"]),
        _ => Act::Answer(
            200,
            Vec::new(),
            json!({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 1}}).to_string(),
        ),
    });
    let providers = json!({"cloud": {"base_url": cloud.url(), "api": "openai", "key": "k",
        "models": ["text-embedding-3-small"]}});
    let gateway = Gateway::start(providers, json!({}));
    gateway.bench.host().want("llm.request.content");
    let body: Value = json!({"model": "text-embedding-3-small", "input": CANARY});
    let headers = [("x-lodestar-project", "shop")];
    gateway.post_with("/v1/embeddings", &headers, &body.to_string());
    gateway.reports(1);
    assert!(contents(&gateway).is_empty());
}
