//! Single tokens, calls of tools and memory, as each kind of server tells them.

use super::*;

/// Answers as each kind of server does.
fn all(line: &str, _: &[u8]) -> (u16, String) {
    let call = json!([{"function": {"name": "price", "arguments": "{\"order\": 7}"}}]);
    let message = json!({"content": "", "tool_calls": call});
    let text = match line {
        "GET /lora-adapters" => json!([{"id": 0, "path": "/a"}]),
        "POST /completion" => json!({"content": " Paris", "tokens_evaluated": 12}),
        "POST /api/generate" => json!({"response": " Paris", "prompt_eval_count": 12}),
        "POST /v1/completions" => {
            json!({"choices": [{"text": " Paris"}], "usage": {"prompt_tokens": 12}})
        }
        "POST /api/chat" => json!({"message": message, "prompt_eval_count": 9}),
        "POST /v1/chat/completions" => {
            json!({"choices": [{"message": message}], "usage": {"prompt_tokens": 9}})
        }
        "POST /api/show" => json!({"details": {"quantization_level": "Q4_K_M"}}),
        "GET /api/ps" => json!({"models": [{"name": "lodestar-shop:v1", "size": 5_000_000}]}),
        _ => return (404, String::new()),
    };
    (200, text.to_string())
}

const KINDS: [Kind; 3] = [Kind::Ollama, Kind::LlamaServer, Kind::Vllm];

#[tokio::test]
async fn each_kind_of_server_tells_its_next_token() {
    let fake = FakeServer::start(all).await;
    for kind in KINDS {
        let server = Server::new(kind, &fake.base_url);
        let next = server.next_token(Model::Base("qwen"), "The capital").await.expect("one");
        assert_eq!((next.text.as_str(), next.tokens), (" Paris", Some(12)), "{kind:?}");
        assert!(!format!("{next:?}").contains("Paris"));
        let messages = json!([{"role": "user", "content": "a"}]);
        let tokens = server.chat_tokens(Model::Base("qwen"), &messages, None).await.expect("some");
        assert_eq!(tokens, Some(9), "{kind:?}");
        let is_quantised = server.is_quantised("qwen").await.expect("it answers");
        assert_eq!(is_quantised, kind == Kind::Ollama);
    }
    // No penalty for a word that was said, no template, one token.
    let asked = fake.body("POST /api/generate");
    assert_eq!((&asked["raw"], &asked["options"]["repeat_penalty"]), (&json!(true), &json!(1.0)));
    assert_eq!(asked["options"]["num_predict"], 1);
    let asked = fake.body("POST /completion");
    assert_eq!(asked["lora"], json!([{"id": 0, "scale": 0}]));
    assert_eq!(asked["n_predict"], 1);
    let asked = fake.body("POST /v1/completions");
    assert_eq!((&asked["model"], &asked["add_special_tokens"]), (&json!("qwen"), &json!(false)));
}

#[tokio::test]
async fn each_kind_of_server_calls_tools() {
    let fake = FakeServer::start(all).await;
    for kind in KINDS {
        let server = Server::new(kind, &fake.base_url);
        let messages = json!([{"role": "user", "content": "a"}]);
        let tools = json!([{"type": "x"}]);
        let asked = server.answer_with_tools(Model::Base("qwen"), &messages, &tools, 16);
        let called = asked.await.expect("it answers");
        assert_eq!(called.calls.len(), 1, "{kind:?}");
        assert_eq!(called.calls[0].arguments, Some(json!({"order": 7})), "{kind:?}");
        assert!(!format!("{called:?}").contains("order"));
    }
    assert_eq!(fake.body("POST /api/chat")["tools"], json!([{"type": "x"}]));
    assert_eq!(fake.body("POST /v1/chat/completions")["tools"], json!([{"type": "x"}]));
}

#[tokio::test]
async fn memory_is_told_where_it_can_be() {
    let directory = tempfile::tempdir().expect("a directory");
    let (adapter, fake) = (adapter(directory.path()), FakeServer::start(all).await);
    let of = |kind, url: &str| Server::new(kind, url);
    let ollama = of(Kind::Ollama, &fake.base_url).memory(&adapter).await.expect("it answers");
    assert!(matches!(ollama, Memory::Bytes { bytes: 5_000_000, is_here: true, .. }));
    let other = Adapter { version: "v2".to_owned(), ..adapter.clone() };
    let other = of(Kind::Ollama, &fake.base_url).memory(&other).await.expect("it answers");
    assert!(matches!(other, Memory::Untold { .. }));
    let vllm = of(Kind::Vllm, &fake.base_url).memory(&adapter).await.expect("it needs no answer");
    assert!(matches!(vllm, Memory::Untold { .. }));
    let far = of(Kind::LlamaServer, "http://gpu.example:80").memory(&adapter).await;
    assert!(matches!(far, Ok(Memory::Untold { reason }) if reason.contains("this machine")));
    // This process is the server.
    let own = of(Kind::LlamaServer, &fake.base_url).memory(&adapter).await.expect("it is here");
    assert!(matches!(own, Memory::Bytes { bytes, is_here: true, .. } if bytes > 1_000_000));
}

#[tokio::test]
async fn a_server_without_the_endpoint_says_so() {
    let fake = FakeServer::start(|line, _| match line {
        "GET /lora-adapters" => (200, "[]".to_owned()),
        _ => (200, "{}".to_owned()),
    });
    let fake = fake.await;
    for kind in KINDS {
        let server = Server::new(kind, &fake.base_url);
        let error = server.next_token(Model::Base("qwen"), "a").await.expect_err("no text");
        assert!(error.to_string().contains("no text after a prompt"), "{error}");
        assert!(!is_for_all(&error));
        let messages = json!([]);
        let none = server.chat_tokens(Model::Base("qwen"), &messages, None).await;
        assert_eq!(none.expect("it answers"), None);
    }
    for (status, expected) in [(500, true), (503, true), (501, false), (404, false)] {
        let fake = FakeServer::start(move |_, _| (status, String::new())).await;
        let server = Server::new(Kind::Ollama, &fake.base_url);
        let error = server.next_token(Model::Base("qwen"), "a").await.expect_err("no answer");
        assert_eq!(is_for_all(&error), expected, "{error}");
    }
}
