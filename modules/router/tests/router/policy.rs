//! Labels, and the policy that decides by what was learned from them.

use module_sdk::{ErrorKind, Reply, events::LlmFeedbackGiven};
use serde_json::{Value, json};

use crate::{
    gateway::Gateway,
    upstream::{Upstream, chat, models},
};

const EASY: &[&str] = &["colour", "river", "animal", "city", "fruit", "street", "bird", "flower"];
const HARD: &[&str] =
    &["integral", "tensor", "lemma", "manifold", "kernel", "cohomology", "functor", "spectrum"];

struct Site {
    _home: Upstream,
    _cloud: Upstream,
    gateway: Gateway,
    directory: tempfile::TempDir,
}

fn start() -> Site {
    let home = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["small"]),
        _ => chat("local"),
    });
    let cloud = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["gpt-4o"]),
        _ => chat("paid"),
    });
    let providers = json!({
        "home": {"base_url": home.url(), "api": "openai", "local": true, "models": ["small"]},
        "cloud": {"base_url": cloud.url(), "api": "openai", "key": "k", "models": ["gpt-4o"]},
    });
    let directory = tempfile::tempdir().expect("a directory");
    let settings = json!({"routing": {"strategy": "learned"}});
    let gateway = Gateway::start_in(directory.path(), providers, settings);
    Site { _home: home, _cloud: cloud, gateway, directory }
}

/// Returns a question of which the local model answers the easy ones.
fn question(index: usize) -> (String, bool) {
    let is_easy = index.is_multiple_of(2);
    let topics = if is_easy { EASY } else { HARD };
    let (first, second) = (topics[index / 2 % 8], topics[index / 16 % 8]);
    (format!("Tell me what the {first} of the {second} number {} is", index % 30), is_easy)
}

impl Site {
    fn ask(&self, model: &str, text: &str, headers: &[(&str, &str)]) -> String {
        let body = json!({"model": model, "messages": [{"role": "user", "content": text}]});
        let answer = self.gateway.post_with("/v1/chat/completions", headers, &body.to_string());
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-lodestar-request-id").expect("it has an id").to_owned()
    }

    fn judge(&mut self, id: &str, good: bool, origin: &str) {
        let event = LlmFeedbackGiven {
            schema: 1,
            request_id: Some(id.to_owned()),
            good: Some(good),
            origin: origin.to_owned(),
            at: 5,
            ..LlmFeedbackGiven::default()
        };
        self.gateway.bench.send(&event).expect("it is handled");
    }

    fn policy(&mut self, args: Value) -> Value {
        self.gateway.bench.command("policy", args).expect("it answers").data
    }

    fn reasons(&mut self, text: &str) -> Vec<String> {
        let decided = self.gateway.bench.command("route", json!({"text": text})).expect("decided");
        let reasons = decided.data["reasons"].as_array().expect("a list").clone();
        reasons.iter().filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
    }

    /// Lets the host answer as `learning` does.
    fn approved(&self, digest: &Value, file: &Value) {
        let told = json!({"version": "r1", "digest": digest, "file": file});
        self.gateway.bench.host().answer("learning", "policy", move |_, _| Reply::json(&told));
    }
}

#[test]
fn judged_requests_become_labels_without_their_text() {
    let mut site = start();
    let shop = [("x-lodestar-project", "shop"), ("x-lodestar-session", "s1")];
    let local = site.ask("home/small", "what is the canary of 3391", &shop);
    let paid = site.ask("cloud/gpt-4o", "and the other canary", &shop);
    let silent = site.ask("home/small", "nobody judges it", &shop);
    let private = [("x-lodestar-project", "shop"), ("x-lodestar-learn", "off")];
    let secret = site.ask("home/small", "learn nothing of it", &private);
    site.judge(&local, true, "person");
    site.judge(&local, false, "judge");
    site.judge(&paid, false, "person");
    site.judge(&secret, true, "person");
    let told = site.policy(json!({"action": "labels"}));
    let all = told["labels"].as_array().expect("a list");
    let of = |id: &str| all.iter().find(|it| it["id"] == id);
    assert_eq!((all.len(), of(&silent), of(&secret)), (2, None, None), "{told:#}");
    let label = of(&local).expect("it is a label");
    assert_eq!(label["project"], "shop");
    let signs = label["signs"].as_array().expect("a list");
    let shown =
        signs.iter().map(|it| (it["origin"].as_str(), it["local"] == true, it["right"] == true));
    let expected = [(Some("person"), true, true), (Some("judge"), true, false)];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(of(&paid).expect("it is a label")["signs"][0]["local"], false);
    let text = std::fs::read_to_string(site.directory.path().join("labels.jsonl")).expect("a file");
    assert!(!text.contains("canary") && !text.contains("3391"), "{text}");
    // What is forgotten is gone from the file.
    assert_eq!(site.policy(json!({"action": "forget", "project": "shop"}))["labels"], 2);
    assert_eq!(site.policy(json!({"action": "labels"}))["labels"], json!([]));
    let error = site.gateway.bench.command("policy", json!({"action": "forget"}));
    assert_eq!(error.expect_err("it says nothing").kind(), ErrorKind::Usage);
}

#[test]
fn exactly_the_approved_policy_decides_and_is_taken_back() {
    let mut site = start();
    for index in 0..300 {
        let (text, is_easy) = question(index);
        let id = site.ask("home/small", &text, &[]);
        site.judge(&id, is_easy, "person");
    }
    let told = site.policy(json!({"action": "labels"}));
    let labels = told["labels"].as_array().expect("a list").clone();
    assert_eq!(labels.len(), 300);
    let chosen = |it: &Value| {
        let right = &it["signs"][0]["right"];
        json!({"id": it["id"], "features": it["features"], "local": right})
    };
    let (train, held) = labels.split_at(240);
    let args = json!({
        "action": "train", "promises": [0.9, 1.0],
        "train": train.iter().map(chosen).collect::<Vec<_>>(),
        "held_out": held.iter().map(chosen).collect::<Vec<_>>(),
    });
    let learnt = site.policy(args.clone());
    let said = learnt["held_out"].as_array().expect("a list");
    assert_eq!(said.len(), 60);
    let is_right = |(said, label): &(&Value, &Value)| {
        let is_easy = label["signs"][0]["right"] == true;
        (said["local"].as_f64().expect("a number") > 0.5) == is_easy
    };
    let right = said.iter().zip(held).filter(is_right).count();
    assert!(right >= 50, "{right} of 60");
    let text = learnt["file"].as_str().expect("a file");
    assert!(!text.contains("river") && !text.contains("tensor"));
    // Learning changes nothing by itself, and other features are refused.
    assert_eq!(site.policy(json!({}))["policy"], Value::Null);
    let mut other = args.clone();
    other["train"][0]["features"] = json!("0".repeat(64));
    let error = site.gateway.bench.command("policy", other).expect_err("it is another one");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let mut few = args;
    few["train"] = json!(few["train"].as_array().expect("a list")[..50]);
    let error = site.gateway.bench.command("policy", few).expect_err("it is too little");
    assert!(error.to_string().contains("too few"), "{error}");

    // Another file than that of the digest is not taken.
    let changed = json!(text.replacen("0.9", "0.6", 1));
    site.approved(&learnt["digest"], &changed);
    let refresh = json!({"action": "refresh"});
    let error = site.gateway.bench.command("policy", refresh.clone()).expect_err("it differs");
    assert!(error.to_string().contains("another file than the one that was approved"), "{error}");
    assert_eq!(site.policy(json!({}))["policy"], Value::Null);

    site.approved(&learnt["digest"], &learnt["file"]);
    assert_eq!(site.policy(refresh.clone())["policy"], learnt["digest"]);
    let (easy, _) = question(0);
    assert_eq!(site.reasons(&easy)[0], "policy");
    let strange = "Wie spaet ist es gerade in Wien, und warum friert der Donaukanal nie zu?";
    assert!(site.reasons(strange).contains(&"unlike_anything_seen".to_owned()));

    // While `learning` fails the last one stays.
    site.gateway.bench.host().answer("learning", "policy", |_, _| {
        Err(module_sdk::Error::unavailable("learning is starting"))
    });
    site.gateway.bench.command("policy", refresh.clone()).expect_err("nobody answers");
    assert_eq!(site.policy(json!({}))["policy"], learnt["digest"]);
    site.approved(&Value::Null, &Value::Null);
    assert_eq!(site.policy(refresh)["policy"], Value::Null);
    assert!(!site.reasons(&easy).contains(&"policy".to_owned()));
}
