//! `lodestar router test`, `compare` and `vote`.

use std::io::{Read as _, Write as _};

use module_sdk::events::LlmRequestCompleted;
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Act, Upstream, chat, models},
};

fn one(act: impl Fn() -> Act + Send + Sync + 'static) -> (Upstream, Gateway) {
    let upstream = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o", "gpt-4o-mini", "text-embedding-3-small"]),
        _ => act(),
    });
    let gateway = gateway(json!({"base_url": upstream.url(), "api": "openai", "key": "sk-1"}));
    (upstream, gateway)
}

fn gateway(provider: Value) -> Gateway {
    Gateway::start(json!({"cloud": provider}), json!({"retries": {"attempts": 0}}))
}

fn test(gateway: &mut Gateway, args: Value) -> (u8, Value) {
    let reply = gateway.bench.command("test", args).expect("it answers");
    (reply.exit_code, reply.data)
}

#[test]
fn a_provider_that_answers_is_asked_at_its_cheapest_model() {
    let (upstream, mut gateway) = one(|| chat("hello"));
    let (code, found) = test(&mut gateway, json!({"provider": "cloud"}));
    assert_eq!((code, &found["ok"]), (0, &json!(true)), "{found:#}");
    assert_eq!(found["model"], "gpt-4o-mini");
    assert!(found["cost_usd"].is_number() && found["duration_ms"].is_number(), "{found:#}");
    let asked = upstream.asked("/chat/completions");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].json()["max_tokens"], 16);
    let reports: Vec<LlmRequestCompleted> = gateway.reports(1);
    assert_eq!(reports[0].client.as_deref(), Some("lodestar"));
    let savings = gateway.bench.command("savings", json!({})).expect("savings").data;
    assert_eq!(savings["requests"], 0, "a test is nobody's request");
    let error = gateway.bench.command("test", json!({"provider": "clod"})).expect_err("none");
    assert!(error.to_string().contains("did you mean `cloud`"), "{error}");
}

#[test]
fn what_is_wrong_with_a_provider_is_said_in_words() {
    let status =
        |status: u16, body: &'static str| move || Act::Answer(status, vec![], body.to_owned());
    let check = |act: Box<dyn Fn() -> Act + Send + Sync>, args: Value, words: &[&str]| {
        let (_upstream, mut gateway) = one(act);
        gateway.knows("gpt-4o");
        let (code, found) = test(&mut gateway, args);
        let error = found["error"].as_str().unwrap_or_else(|| panic!("an error: {found:#}"));
        assert_eq!(code, 1, "{found:#}");
        for word in words {
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(!error.contains("canary"), "{error}");
    };
    let plain = || json!({"provider": "cloud"});
    let of = |model: &str| json!({"provider": "cloud", "model": model});
    check(Box::new(status(401, "canary")), plain(), &["401", "providers.cloud.key"]);
    check(Box::new(status(403, "{}")), plain(), &["403", "may not do this"]);
    check(Box::new(status(404, "{}")), of("gpt-4p"), &["404", "did you mean `gpt-4o`"]);
    check(Box::new(status(429, "{}")), plain(), &["429", "quota"]);
    check(Box::new(status(500, "canary")), plain(), &["500", "fault of its own"]);
    check(Box::new(status(200, "<html>canary</html>")), plain(), &["web page", "base_url"]);
    check(Box::new(|| Act::Close), of("gpt-4o"), &["cloud/gpt-4o"]);
    let slow = json!({"provider": "cloud", "wait": 1});
    check(Box::new(|| Act::Hang), slow, &["did not answer within 1 s"]);
}

#[test]
fn a_provider_that_is_not_there_is_said_in_words() {
    let check = |provider: Value, words: &str| {
        let mut gateway = gateway(provider);
        let (code, found) = test(&mut gateway, json!({"provider": "cloud"}));
        let error = found["error"].as_str().unwrap_or_default();
        assert!(code == 1 && error.contains(words), "{words}: {found:#}");
    };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let url = format!("http://{address}");
    let named = json!({"base_url": url, "api": "openai", "key": "k", "models": ["m"]});
    check(named, "nobody listens there");
    check(json!({"base_url": url, "api": "ollama", "local": true, "models": ["m"]}), "start it");
    check(json!({"base_url": url, "api": "openai"}), "does not tell its models");
    let nowhere = "http://no-such-host.invalid";
    check(json!({"base_url": nowhere, "api": "openai", "models": ["m"]}), "leads nowhere");
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}", plain.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for mut stream in plain.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    check(json!({"base_url": url, "api": "openai", "models": ["m"]}), "encryption");
}

#[test]
fn models_are_compared_and_votes_make_a_board() {
    let upstream = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o", "gpt-4o-mini", "bad"]),
        _ if asked.body.contains("\"bad\"") => Act::Answer(500, vec![], "{}".into()),
        _ if asked.body.contains("-mini") => chat("a short answer"),
        _ => chat("a long\nanswer \u{1b}[31m"),
    });
    let mut gateway = gateway(json!({"base_url": upstream.url(), "api": "openai", "key": "k",
        "models": ["gpt-4o", "gpt-4o-mini", "bad"]}));
    let args = json!({"prompt": "canary-1188", "models": "gpt-4o, gpt-4o-mini,bad,nowhere"});
    let reply = gateway.bench.command("compare", args).expect("it answers");
    assert_eq!(reply.exit_code, 0);
    let answers = reply.data["answers"].as_array().expect("a list").clone();
    let names: Vec<_> = answers.iter().map(|it| it["model"].as_str().expect("a name")).collect();
    assert_eq!(names, ["cloud/gpt-4o", "cloud/gpt-4o-mini", "cloud/bad", "nowhere"]);
    assert_eq!(answers[1]["answer"], "a short answer");
    assert!(answers[1]["cost_usd"].is_number() && answers[1]["duration_ms"].is_number());
    assert!(answers[2]["error"].is_string() && answers[3]["error"].is_string());
    let table = reply.table.expect("a table");
    let text = table.notes.join("\n");
    assert!(text.contains("── cloud/gpt-4o\na long\nanswer"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    let id = reply.data["id"].as_str().expect("an id").to_owned();
    let mut vote =
        |winner: &str| gateway.bench.command("vote", json!({"id": id, "winner": winner}));
    assert!(vote("bad").is_err(), "it did not answer");
    assert_eq!(vote("gpt-4o-mini").expect("it counts").data["winner"], "cloud/gpt-4o-mini");
    assert!(vote("tie").is_err(), "once");
    let board = gateway.bench.command("compare", json!({"board": true})).expect("a board").data;
    assert_eq!(board[0]["model"], "cloud/gpt-4o-mini", "{board:#}");
    assert_eq!((&board[0]["won"], &board[1]["lost"]), (&json!(1), &json!(1)));
    let state = gateway.bench.data_dir().join("tournament.json");
    let state = std::fs::read_to_string(state).expect("it is kept");
    assert!(!state.contains("canary") && !state.contains("answer"), "{state}");
    for wrong in [json!({"prompt": "x", "models": "gpt-4o"}), json!({"models": "a,b"})] {
        assert!(gateway.bench.command("compare", wrong.clone()).is_err(), "{wrong}");
    }
}
