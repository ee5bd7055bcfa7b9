//! Stories of requests, savings and feedback.

use std::time::{Duration, Instant};

use module_sdk::{ErrorKind, events::LlmFeedbackGiven};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Act, Upstream, chat, models},
};

/// Text that must lie nowhere.
const CANARY: &str = "canary-7391";

struct Pair {
    _home: Upstream,
    _cloud: Upstream,
    gateway: Gateway,
}

/// Starts a router with a local model and a paid one. Asked for what ends in `broken`, the paid one
/// fails with the text that it was asked.
fn pair() -> Pair {
    let home = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["small"]),
        _ => chat(&format!("the answer to {CANARY}")),
    });
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o", "broken"]),
        _ if asked.body.contains("\"broken\"") => {
            Act::Answer(500, vec![], json!({"error": {"message": asked.body}}).to_string())
        }
        _ => chat(&format!("the answer to {CANARY}")),
    });
    let providers = json!({
        "home": {"base_url": home.url(), "api": "openai", "local": true, "models": ["small"]},
        "cloud": {"base_url": cloud.url(), "api": "openai", "key": "sk-secret-5512",
            "models": ["gpt-4o", "broken"]},
    });
    let settings = json!({
        "retries": {"attempts": 0},
        "routing": {"aliases": {"either": ["cloud/broken", "home/small"]}},
    });
    Pair { _home: home, _cloud: cloud, gateway: Gateway::start(providers, settings) }
}

impl Pair {
    /// Asks for a model and returns the id of the request.
    fn ask(&self, model: &str) -> String {
        let body = json!({"model": model,
            "messages": [{"role": "user", "content": format!("tell me about {CANARY}")}]});
        let headers = [
            ("x-lodestar-project", "shop"),
            ("x-session-id", "session-of-anna"),
            ("authorization", "Bearer client-secret-8820"),
        ];
        let answer = self.gateway.post_with("/v1/chat/completions", &headers, &body.to_string());
        answer.header("x-lodestar-request-id").expect("an id").to_owned()
    }

    /// Returns the story of a request, as soon as it is there.
    fn story(&mut self, id: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match self.gateway.bench.command("explain", json!({"id": id})) {
                Ok(reply) => return reply.data,
                // The connection is being closed.
                Err(error) if error.kind() == ErrorKind::NotFound && Instant::now() < end => {
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn feedback(&self, body: &Value) -> crate::gateway::Answer {
        self.gateway.post("/v1/feedback", body)
    }
}

#[test]
fn a_request_is_explained_with_all_its_attempts() {
    let mut pair = pair();
    let id = pair.ask("either");
    let story = pair.story(&id);
    assert_eq!(story["outcome"], "local", "{story:#}");
    assert_eq!((&story["model"], &story["project"]), (&json!("either"), &json!("shop")));
    assert_eq!(story["rule"], "alias");
    let attempts = story["attempts"].as_array().expect("a list");
    let told: Vec<_> =
        attempts.iter().map(|it| (it["target"].as_str(), it["status"].as_str())).collect();
    let expected = [(Some("cloud/broken"), Some("error")), (Some("home/small"), Some("ok"))];
    assert_eq!(told, expected);
    assert_eq!(attempts[0]["error"], "500");
    assert_eq!((&attempts[1]["local"], &attempts[1]["cost_usd"]), (&json!(true), &json!(0.0)));
    // 100 tokens at 3 and 20 at 15 USD per million.
    assert_eq!(story["baseline_cost_usd"], json!(0.0006));
    assert_eq!(story["savings_usd"], json!(0.0006));
    assert!(!story["candidates"].as_array().expect("a list").is_empty(), "{story:#}");

    let explain =
        |pair: &mut Pair, id: &str| pair.gateway.bench.command("explain", json!({"id": id}));
    let beginning = explain(&mut pair, &id[..24]).expect("it is found").data;
    assert_eq!(beginning["id"], json!(id));
    let last = if id.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &id[..31]);
    let error = explain(&mut pair, &wrong).expect_err("there is none").to_string();
    assert!(error.contains(&format!("did you mean `{id}`")), "{error}");
    let error = explain(&mut pair, "../passwd").expect_err("that is no id");
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn no_text_and_no_secret_reaches_the_journal() {
    let mut pair = pair();
    let ids = [pair.ask("either"), pair.ask("gpt-4o"), pair.ask("broken")];
    for id in &ids {
        pair.story(id);
    }
    let given = json!({"request_id": ids[1], "good": false, "comment": CANARY});
    assert_eq!(pair.feedback(&given).status, 200);
    let story = pair.story(&ids[1]);
    assert_eq!(story["feedback"][0]["has_comment"], true, "{story:#}");
    let mut files = Vec::new();
    collect(pair.gateway.bench.data_dir(), &mut files);
    assert!(files.iter().any(|(name, _)| name.ends_with(".jsonl")), "{files:?}");
    for (name, text) in &files {
        for secret in [CANARY, "sk-secret-5512", "client-secret-8820", "session-of-anna"] {
            assert!(!text.contains(secret), "{secret} is in {name}: {text}");
        }
    }
    for event in pair.gateway.bench.host().emitted() {
        assert!(!event.data.to_string().contains(CANARY), "{event:?}");
    }
    for line in pair.gateway.bench.host().logged() {
        assert!(!format!("{line:?}").contains(CANARY), "{line:?}");
    }
}

fn collect(directory: &std::path::Path, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(directory).expect("it is read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            let text = std::fs::read(&path).expect("it is read");
            files.push((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()));
        }
    }
}

#[test]
fn savings_count_who_answered_and_what_it_would_have_cost() {
    let mut pair = pair();
    let ids = [pair.ask("small"), pair.ask("gpt-4o"), pair.ask("broken")];
    for id in &ids {
        pair.story(id);
    }
    let reply = pair.gateway.bench.command("savings", json!({"since": "1h"})).expect("savings");
    let found = reply.data;
    let counts = ["requests", "local", "cached", "paid", "failed", "unpriced", "lost"];
    let counts = counts.map(|key| found[key].as_u64().expect("a count"));
    assert_eq!(counts, [3, 1, 0, 1, 1, 0, 0], "{found:#}");
    // 100 tokens at 2.50 and 20 at 10 USD per million, against twice 3 and 15.
    assert_eq!(found["cost_usd"], json!(0.00045));
    assert_eq!(found["baseline_cost_usd"], json!(0.0012));
    assert_eq!(found["savings_usd"], json!(0.00075));
    assert!(found["quality"].is_null() && found["from"].is_string(), "{found:#}");
    let table = reply.table.expect("a table");
    assert!(table.notes.iter().any(|note| note.contains("saved $0.0008")), "{table:#?}");

    let none = json!({"since": "2026-01-01", "until": "2026-01-02"});
    let found = pair.gateway.bench.command("savings", none).expect("savings").data;
    assert_eq!(found["requests"], 0);
}

#[test]
fn feedback_is_about_a_request_that_is_known() {
    let mut pair = pair();
    let id = pair.ask("gpt-4o");
    pair.story(&id);
    let check = |pair: &Pair, body: Value, status: u16| {
        let answer = pair.feedback(&body);
        assert_eq!(answer.status, status, "{body} {answer:?}");
        assert!(!answer.body.contains("canary"), "{answer:?}");
    };
    check(&pair, json!({"request_id": id, "good": true, "rating": 0.9, "edited": true}), 200);
    check(&pair, json!({"request_id": "0197a1b2c3d47000800000000000000f", "good": true}), 404);
    check(&pair, json!({"request_id": "canary", "good": true}), 400);
    check(&pair, json!({"good": true}), 400);
    check(&pair, json!({"request_id": id}), 400);
    check(&pair, json!({"request_id": id, "rating": 7}), 400);
    check(&pair, json!({"request_id": id, "rating": "canary"}), 400);
    check(&pair, json!({"request_id": id, "good": true, "canary": 1}), 400);
    let given: Vec<LlmFeedbackGiven> =
        pair.gateway.bench.host().emitted_as().expect("it is feedback");
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!((given[0].request_id.as_deref(), given[0].good), (Some(id.as_str()), Some(true)));
    assert_eq!((given[0].origin.as_str(), given[0].rating), ("person", Some(0.9)));
    assert!(given[0].session_id.is_some(), "{given:?}");

    let mut command = |args: Value| pair.gateway.bench.command("feedback", args);
    let reply = command(json!({"id": id, "bad": true, "retried": true})).expect("it is noted");
    assert_eq!((&reply.data["good"], &reply.data["retried"]), (&json!(false), &json!(true)));
    assert!(command(json!({"id": id, "good": true, "bad": true})).is_err());
    assert!(command(json!({"id": id})).is_err());
    let story = pair.story(&id);
    assert_eq!(story["feedback"].as_array().map(Vec::len), Some(2), "{story:#}");
}

#[test]
fn a_journal_that_cannot_be_written_costs_no_request() {
    let mut pair = pair();
    let blocked = pair.gateway.bench.data_dir().join("journal");
    std::fs::write(&blocked, "in the way").expect("it is ours");
    let id = pair.ask("gpt-4o");
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let status = pair.gateway.bench.command("status", json!({})).expect("status").data;
        if status["journal"]["lost"] == 1 {
            break;
        }
        assert!(Instant::now() < end, "{status:#}");
        // It waits for what is on its way.
        assert!(pair.gateway.bench.command("explain", json!({"id": id})).is_err());
    }
    let health = pair.gateway.bench.health();
    assert!(health.message.contains("journal"), "{health:?}");
}
