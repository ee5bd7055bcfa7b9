//! A judge, its agreement with people, and what it may drop. The judge is a server that rates as
//! the tests say.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Bytes, routing::post};
use learning::Learning;
use module_sdk::{ErrorKind, testing::Bench};
use serde_json::{Value, json};

use crate::common::{after_days, bench, build, chat, dropped, file, grant, imported, refused, run};

/// Starts a server that finds the answers with an even number good, and counts its ratings.
fn start() -> (String, Arc<AtomicUsize>) {
    start_with("9", "<think>hm</think> 2/10")
}

/// Starts one that says the one of answers with an even number, and the other of all others.
fn start_with(good: &'static str, bad: &'static str) -> (String, Arc<AtomicUsize>) {
    let asked: Arc<AtomicUsize> = Arc::default();
    let counter = asked.clone();
    let rate = move |body: Bytes| {
        counter.fetch_add(1, Ordering::Relaxed);
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = body["messages"][1]["content"].as_str().unwrap_or_default().to_owned();
        let question = text.lines().nth(1).unwrap_or_default();
        let number: String = question.chars().filter(char::is_ascii_digit).collect();
        let is_even = number.parse::<u64>().is_ok_and(|number| number % 2 == 0);
        let rating = if is_even { good } else { bad };
        async move { json!({"message": {"content": rating}}).to_string() }
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            sender.send(listener.local_addr().expect("it is bound")).expect("the test waits");
            let app = Router::new().route("/api/chat", post(rate));
            axum::serve(listener, app).await.expect("it serves");
        });
    });
    (format!("http://{}", receiver.recv().expect("it starts")), asked)
}

/// Starts the module with 60 conversations, of which people judged the first ones.
fn with_judged(base_url: &str, judged: u32, per_day: u32) -> Bench<Learning> {
    let judge = json!({"model": "judge", "base_url": base_url, "per_day": per_day});
    let mut bench = bench(json!({"quality": {"judge": judge}}));
    grant(&mut bench, "shop");
    let lines: Vec<Value> = (0..60)
        .map(|number| {
            let mut line = chat(number);
            if number < judged {
                line["feedback"] = json!(if number % 2 == 0 { "good" } else { "bad" });
            }
            line
        })
        .collect();
    let path = file(&bench, "chats.jsonl", &lines);
    imported(&mut bench, json!({"format": "jsonl", "path": path, "project": "shop"}));
    bench
}

fn judge(bench: &mut Bench<Learning>) -> Value {
    run(bench, "judge", json!({"action": "run", "project": "shop"}))
}

#[test]
fn a_judge_that_agrees_with_people_drops_what_they_did_not_see() {
    let (base_url, asked) = start();
    let mut bench = with_judged(&base_url, 40, 500);
    let found = judge(&mut bench);
    assert_eq!((&found["rated"], &found["unclear"]), (&json!(60), &json!(0)), "{found:#}");
    let agreement = &found["agreement"];
    assert_eq!((&agreement["number"], &agreement["kappa"]), (&json!(40), &json!(1.0)));
    assert_eq!(found["may_drop"], true);
    let dataset = build(&mut bench);
    assert_eq!((dropped(&dataset, "feedback_low"), dropped(&dataset, "judged_low")), (20, 10));
    // What was rated is not rated again.
    assert_eq!(judge(&mut bench)["rated"], 0);
    assert_eq!(asked.load(Ordering::Relaxed), 60);
    // What is forgotten has no score any more.
    run(&mut bench, "forget", json!({"project": "shop"}));
    assert_eq!(run(&mut bench, "judge", json!({}))["agreement"]["number"], 0);
}

#[test]
fn before_people_said_enough_a_judge_drops_nothing() {
    let (base_url, asked) = start();
    let mut bench = with_judged(&base_url, 29, 50);
    let found = judge(&mut bench);
    assert_eq!((&found["rated"], &found["may_drop"]), (&json!(50), &json!(false)), "{found:#}");
    assert_eq!(dropped(&build(&mut bench), "judged_low"), 0);
    // The ratings of a day have an end.
    let error = bench.command("judge", json!({"action": "run", "project": "shop"}));
    assert_eq!(error.expect_err("there is no room").kind(), ErrorKind::Refused);
    assert_eq!(asked.load(Ordering::Relaxed), 50);
}

#[test]
fn each_question_counts_whatever_is_answered() {
    // Its ratings are no numbers.
    let (base_url, asked) = start_with("I would rather not say.", "Nor here.");
    let mut bench = with_judged(&base_url, 0, 10);
    let found = judge(&mut bench);
    assert_eq!((&found["rated"], &found["unclear"]), (&json!(0), &json!(10)), "{found:#}");
    let error = refused(&mut bench, "judge", json!({"action": "run", "project": "shop"}));
    assert!(error.contains("asked 10 times within a day"), "{error}");
    assert_eq!(asked.load(Ordering::Relaxed), 10);
    after_days(&mut bench, 2);
    assert_eq!(judge(&mut bench)["unclear"], 10);
}

#[test]
fn without_a_judge_nobody_is_asked() {
    let mut bench = bench(json!({}));
    let error = refused(&mut bench, "judge", json!({}));
    assert!(error.contains("no judge is configured"), "{error}");
}
