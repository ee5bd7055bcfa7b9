//! Experiments that another module begins and ends by a command.

use std::time::Duration;

use module_sdk::ErrorKind;
use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Gateway},
    upstream::{Upstream, chat, models},
};

const CONFIG: &str = r#"{"discovery_seconds": 3600}"#;

fn upstream(name: &'static str) -> Upstream {
    Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["shop", "shop-v2"]),
        _ if asked.body.contains("shop-v2") => chat("of the challenger"),
        _ => chat(name),
    })
}

fn start(directory: &std::path::Path, upstream: &Upstream) -> Gateway {
    let providers = json!({"home": {"base_url": upstream.url(), "api": "openai", "key": "k",
        "local": true}});
    let config = serde_json::from_str(CONFIG).expect("it is JSON");
    let gateway = Gateway::start_in(directory, providers, config);
    gateway.knows("shop");
    gateway
}

fn begin(gateway: &mut Gateway, change: Value) -> module_sdk::Result<Value> {
    let mut args = json!({"action": "begin", "id": "v2-a1", "models": ["shop"],
        "use": ["shop-v2"], "share": 0.5});
    let all = args.as_object_mut().expect("an object");
    all.extend(change.as_object().expect("an object").clone());
    gateway.bench.command("experiments", args).map(|reply| reply.data)
}

fn list(gateway: &mut Gateway) -> Vec<Value> {
    let all = gateway.bench.command("experiments", json!({})).expect("it answers").data;
    all.as_array().expect("a list").clone()
}

fn ask(gateway: &Gateway, session: &str) -> Answer {
    let body = json!({"model": "shop", "messages": [{"role": "user", "content": "Hi"}]});
    let headers = [("x-lodestar-session", session)];
    gateway.post_with("/v1/chat/completions", &headers, &body.to_string())
}

#[test]
fn one_is_begun_split_kept_and_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let upstream = upstream("of the champion");
    let mut gateway = start(directory.path(), &upstream);
    begin(&mut gateway, json!({})).expect("it begins");
    begin(&mut gateway, json!({})).expect("the same once more changes nothing");
    let running = list(&mut gateway);
    assert_eq!(running.len(), 1, "{running:#?}");
    assert_eq!((&running[0]["id"], &running[0]["state"]), (&json!("v2-a1"), &json!("running")));
    let told: Vec<bool> = (0..40)
        .map(|session| {
            let answer = ask(&gateway, &session.to_string());
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.body.contains("of the challenger")
        })
        .collect();
    let challenged = told.iter().filter(|is| **is).count();
    assert!((10..31).contains(&challenged), "{challenged}");
    for (report, is_challenged) in gateway.reports(40).iter().zip(&told) {
        let side = if *is_challenged { "v2-a1:variant" } else { "v2-a1:control" };
        assert_eq!(report.variant.as_deref(), Some(side));
        assert!(report.source_ref.as_ref().is_some_and(|id| id.len() == 32), "{report:?}");
    }

    // After a restart everybody is where they were; after the end nobody gets the variant.
    drop(gateway);
    let mut gateway = start(directory.path(), &upstream);
    for (session, is_challenged) in told.iter().enumerate() {
        let answer = ask(&gateway, &session.to_string());
        assert_eq!(answer.body.contains("of the challenger"), *is_challenged);
    }
    let ended = json!({"action": "end", "id": "v2-a1"});
    gateway.bench.command("experiments", ended.clone()).expect("it ends");
    let error = gateway.bench.command("experiments", ended).expect_err("it has ended");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for session in 0..40 {
        let answer = ask(&gateway, &session.to_string());
        assert!(answer.body.contains("of the champion"), "{answer:?}");
    }
    assert!(list(&mut gateway).is_empty());
}

#[test]
fn one_that_nobody_renews_lapses() {
    let directory = tempfile::tempdir().expect("a directory");
    let upstream = upstream("of the champion");
    let mut gateway = start(directory.path(), &upstream);
    begin(&mut gateway, json!({"share": 1, "lease_seconds": 60})).expect("it begins");
    assert!(ask(&gateway, "1").body.contains("of the challenger"));
    gateway.bench.advance(Duration::from_secs(70)).expect("timers run");
    assert!(ask(&gateway, "1").body.contains("of the champion"));
    assert!(list(&mut gateway).is_empty());
}

#[test]
fn what_cannot_be_tried_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let upstream = upstream("of the champion");
    let mut gateway = start(directory.path(), &upstream);
    let mut check = |change: Value, kind: ErrorKind, words: &str| {
        let error = begin(&mut gateway, change).expect_err("it is refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    check(json!({"use": ["shop-v9"]}), ErrorKind::NotFound, "shop-v9");
    check(json!({"use": []}), ErrorKind::Usage, "tries nothing");
    check(json!({"use": ["auto"]}), ErrorKind::Usage, "must name models");
    check(json!({"shadow": "auto"}), ErrorKind::Usage, "must name a model");
    check(json!({"use": [" "]}), ErrorKind::Usage, "is empty");
    check(json!({"id": "a:b"}), ErrorKind::Usage, "has another form");
    check(json!({"share": 1.5}), ErrorKind::Usage, "share");
    begin(&mut gateway, json!({"dry_run": true})).expect("it could begin");
    assert!(list(&mut gateway).is_empty());
    let unnamed = gateway.bench.command("experiments", json!({"action": "end"}));
    assert_eq!(unnamed.expect_err("it has no id").kind(), ErrorKind::Usage);
}
