//! Memory that answers under way may take.

use std::time::{Duration, Instant};

use module_sdk::events::LlmRequestCompleted;
use serde_json::json;

use crate::{
    gateway::Gateway,
    upstream::{Act, End, Upstream, chat, chat_body, models},
};

const KIB: usize = 1024;

fn long(bytes: usize) -> String {
    chat_body(&"x".repeat(bytes))
}

#[test]
fn an_answer_that_is_too_large_is_asked_of_another_once() {
    let large = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["m"]),
        _ => Act::Answer(200, vec![], long(1100 * KIB)),
    });
    let small = Upstream::start(|_| chat("good"));
    let provider = |it: &Upstream| json!({"base_url": it.url(), "api": "openai", "models": ["m"]});
    let gateway = Gateway::start(
        json!({"a": provider(&large), "b": provider(&small)}),
        json!({"max_answer_bytes": 1024 * KIB, "max_buffered_answer_bytes": 1024 * KIB,
            "routing": {"aliases": {"x": ["a/m", "b/m"]}}}),
    );
    let answer = gateway.post("/v1/chat/completions", &json!({"model": "x", "messages": []}));
    assert!(answer.body.contains("good"), "{answer:?}");
    assert_eq!(large.asked("/chat/completions").len(), 1);
    assert_eq!(gateway.reports(2)[0].error_type.as_deref(), Some("too_large"));
}

#[test]
fn answers_share_their_memory_and_one_beyond_it_is_asked_to_come_again() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["whole", "half"]),
        _ if asked.json()["model"] == "half" => {
            let body = long(800 * KIB);
            let half = vec![body[..700 * KIB].to_owned()];
            Act::Stream("application/json", half, End::Hang)
        }
        _ => Act::Answer(200, vec![], long(500 * KIB)),
    });
    let provider =
        json!({"base_url": upstream.url(), "api": "openai", "models": ["whole", "half"]});
    let gateway = Gateway::start(
        json!({"a": provider}),
        json!({"max_answer_bytes": 1024 * KIB, "max_buffered_answer_bytes": 1024 * KIB}),
    );
    let ask = |model: &str| {
        gateway.post("/v1/chat/completions", &json!({"model": model, "messages": []}))
    };
    let refused = |model: &str| {
        let reports: Vec<LlmRequestCompleted> =
            gateway.bench.host().emitted_as().expect("they are reports");
        let is_it = |it: &&LlmRequestCompleted| {
            it.error_type.as_deref() == Some("no_memory")
                && it.routed_model.as_deref() == Some(model)
        };
        reports.iter().filter(is_it).count()
    };
    let open = || gateway.open("/v1/chat/completions", &json!({"model": "half", "messages": []}));
    assert_eq!(ask("whole").status, 200);
    let end = Instant::now() + Duration::from_secs(20);
    let (mut held, mut opened) = (open(), 1);
    let answer = loop {
        let answer = ask("whole");
        if answer.status == 503 {
            break answer;
        }
        assert!(Instant::now() < end, "{} and not 503", answer.status);
        // It came while a whole one was there, and was itself the one too many.
        if refused("half") == opened {
            (held, opened) = (open(), opened + 1);
        }
    };
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.body.contains("max_buffered_answer_bytes"), "{}", answer.body);
    assert_ne!(refused("whole"), 0);
    drop(held);
    while ask("whole").status != 200 {
        assert!(Instant::now() < end, "the memory is given back");
    }
}
