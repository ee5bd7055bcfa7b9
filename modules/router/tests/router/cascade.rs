//! A local model first, whose answer is checked before it counts.

use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Gateway},
    upstream::{Act, End, Upstream, chat, chat_events, models},
};

/// Starts a router whose local model says this, and whose paid one says `paid`.
fn start(local: &'static str) -> (Upstream, Upstream, Gateway) {
    let home = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["small"]),
        _ => chat(local),
    });
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ if asked.json()["stream"] == true => {
            Act::Stream("text/event-stream", chat_events(&["paid"]), End::Good)
        }
        _ => chat("paid"),
    });
    let providers = json!({
        "home": {"base_url": home.url(), "api": "openai", "local": true, "models": ["small"]},
        "cloud": {"base_url": cloud.url(), "api": "openai", "key": "k", "models": ["gpt-4o"]},
    });
    let routing = json!({"strategy": "cascade", "cascade": {"second": "never"}});
    // With the cache: a draft that is turned down must not be in it.
    let settings = json!({"routing": routing, "cache": {"enabled": true}});
    (home, cloud, Gateway::start(providers, settings))
}

fn ask(gateway: &Gateway, stream: bool) -> Answer {
    let body = json!({"model": "auto", "stream": stream, "temperature": 0,
        "response_format": {"type": "json_object"},
        "messages": [{"role": "user", "content": "Say hello in French, as JSON."}]});
    let answer = gateway.post("/v1/chat/completions", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn text(answer: &Answer) -> Value {
    answer.json()["choices"][0]["message"]["content"].clone()
}

#[test]
fn an_answer_that_stands_its_check_is_the_local_ones() {
    let (home, cloud, gateway) = start(r#"{"hello": "Bonjour."}"#);
    let answer = ask(&gateway, false);
    assert_eq!(text(&answer), r#"{"hello": "Bonjour."}"#);
    assert!(answer.header("x-lodestar-route").is_some_and(|it| it.starts_with("home/small")));
    let stream = ask(&gateway, true).body;
    assert!(stream.contains("Bonjour.") && stream.ends_with("data: [DONE]\n\n"), "{stream}");
    assert!(home.asked("/chat/completions").iter().all(|asked| asked.json()["stream"] != true));
    assert!(cloud.asked("/chat/completions").is_empty());
}

#[test]
fn an_answer_that_does_not_is_asked_of_the_paid_one_and_never_given() {
    for stream in [false, true] {
        let (home, cloud, mut gateway) = start("I can't assist with that.");
        for number in 1..=2 {
            let answer = ask(&gateway, stream);
            assert!(answer.body.contains("paid"), "{answer:?}");
            assert!(!answer.body.contains("assist with"), "{answer:?}");
            let route = answer.header("x-lodestar-route").unwrap_or_default();
            assert!(route.starts_with("cloud/gpt-4o"), "{route}");
            assert_eq!(home.asked("/chat/completions").len(), number);
            assert_eq!(cloud.asked("/chat/completions").len(), number);
            let id = answer.header("x-lodestar-request-id").expect("an id").to_owned();
            gateway.reports(2 * number);
            let told = gateway.bench.command("explain", json!({"id": id})).expect("a story").data;
            assert_eq!(told["attempts"][0]["did_not_count"], "not_json", "{told:#}");
            assert_eq!(told["attempts"][1]["did_not_count"], Value::Null, "{told:#}");
        }
    }
}
