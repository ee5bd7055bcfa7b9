//! Text of requests, their endings, and feedback.

use learning::Learning;
use module_sdk::{
    events::{LlmFeedbackGiven, LlmRequestCompleted, RequestStatus},
    testing::Bench,
};
use serde_json::{Value, json};

use crate::common::{NOW, bench, build, content, dropped, grant, ms, refused, run, with_consent};

fn completed(key: &str, finish_reason: &str, status: RequestStatus) -> LlmRequestCompleted {
    LlmRequestCompleted {
        dedupe_key: key.to_owned(),
        content_ref: Some(key.to_owned()),
        finish_reason: Some(finish_reason.to_owned()),
        status: Some(status),
        ended_at: ms(NOW),
        ..LlmRequestCompleted::default()
    }
}

fn signals(bench: &mut Bench<Learning>, id: &str) -> Value {
    run(bench, "feedback", json!({"id": id}))["signals"].clone()
}

#[test]
fn nothing_is_kept_before_somebody_agrees() {
    let mut bench = bench(json!({}));
    bench.send(&content("a", "What does it cost?")).expect("it is handled");
    grant(&mut bench, "shop");
    // Text of before the consent does not become one that was agreed to.
    let mut early = content("b", "What did it cost?");
    early.at -= 1;
    bench.send(&early).expect("it is handled");
    assert_eq!(build(&mut bench)["examples"], 0);
    bench.send(&content("c", "What does it cost now?")).expect("it is handled");
    bench.send(&content("c", "What does it cost now?")).expect("it comes again");
    assert_eq!(build(&mut bench)["examples"], 1);
    let metrics = bench.host().metrics();
    let of = |name: &str| metrics.iter().find(|(key, _)| key.contains(name)).map(|(_, it)| *it);
    assert_eq!(of("learning_examples_total"), Some(1.0));
    assert_eq!(of("without_consent_total"), Some(2.0));
}

#[test]
fn text_of_another_project_is_not_kept() {
    let mut bench = with_consent();
    let mut other = content("a", "What does it cost?");
    other.project = "secret project".to_owned();
    bench.send(&other).expect("it is handled");
    grant(&mut bench, "secret project");
    let args = json!({"action": "build", "project": ["secret project", "shop"]});
    assert_eq!(run(&mut bench, "datasets", args)["funnel"][0]["seen"], 0);
}

#[test]
fn the_end_of_a_request_counts_whichever_comes_first() {
    let mut bench = with_consent();
    bench.send(&completed("early", "length", RequestStatus::Ok)).expect("it is handled");
    for (key, question) in
        [("early", "What does it cost?"), ("cut", "And that one?"), ("good", "And this one here?")]
    {
        bench.send(&content(key, question)).expect("it is handled");
    }
    bench.send(&completed("cut", "stop", RequestStatus::UpstreamCut)).expect("it is handled");
    bench.send(&completed("good", "stop", RequestStatus::Ok)).expect("it is handled");
    let dataset = build(&mut bench);
    assert_eq!(dataset["examples"], 1);
    assert_eq!((dropped(&dataset, "truncated"), dropped(&dataset, "failed")), (1, 1));
}

#[test]
fn the_same_question_within_a_minute_is_a_retry() {
    let mut bench = with_consent();
    let at = |key: &str, seconds: i64| {
        let mut content = content(key, "What does it cost?");
        content.at += seconds * 1_000;
        content
    };
    bench.send(&at("a", 0)).expect("it is handled");
    bench.host().set_now("2026-11-21T13:00:00Z".parse().expect("a time"));
    bench.send(&at("b", 60)).expect("it is handled");
    bench.send(&at("c", 200)).expect("it is handled");
    let retried = signals(&mut bench, "a");
    assert_eq!(retried[0]["retried"], true);
    assert_eq!((&retried[0]["origin"], &retried[0]["weight"]), (&json!("implicit"), &json!(0.3)));
    assert_eq!(signals(&mut bench, "b"), json!([]));
    assert_eq!(dropped(&build(&mut bench), "retried"), 1);
}

#[test]
fn feedback_comes_from_events_and_from_people() {
    let mut bench = with_consent();
    bench.send(&content("gateway:r1", "What does it cost?")).expect("it is handled");
    let feedback = LlmFeedbackGiven {
        schema: 1,
        request_id: Some("r1".to_owned()),
        good: Some(true),
        origin: "person".to_owned(),
        at: ms(NOW),
        ..LlmFeedbackGiven::default()
    };
    bench.send(&feedback).expect("it is handled");
    assert_eq!(signals(&mut bench, "r1")[0]["value"], 1.0);
    let answer = run(&mut bench, "feedback", json!({"id": "r1", "failed": true, "by": "ci"}));
    let origins = ["check", "person"].map(|origin| {
        let all = answer["signals"].as_array().expect("a list");
        all.iter().filter(|signal| signal["origin"] == origin).count()
    });
    assert_eq!(origins, [1, 1]);
    // 1.0 of a person and 0.0 of a check: 1 / 1.8.
    let dataset = build(&mut bench);
    assert_eq!((&dataset["examples"], &dataset["with_feedback"]), (&json!(1), &json!(1)));
    run(&mut bench, "feedback", json!({"session": "s1", "bad": true}));
    assert_eq!(dropped(&build(&mut bench), "feedback_low"), 1);
}

#[test]
fn feedback_that_does_not_fit_is_told() {
    let mut bench = with_consent();
    bench.send(&content("a", "What does it cost?")).expect("it is handled");
    let mut check = |args: Value, part: &str| {
        let error = refused(&mut bench, "feedback", args.clone());
        assert!(error.contains(part), "{args}: {error}");
    };
    check(json!({}), "name one answer by its id");
    check(json!({"id": "a", "session": "s1"}), "name one answer by its id");
    check(json!({"id": "nothing", "good": true}), "no example or request of which text is kept");
    check(json!({"session": "nothing", "good": true}), "no session of which text is kept");
    check(json!({"session": "s1"}), "say how good the answers were");
    check(json!({"id": "a", "good": true, "bad": true}), "contradict each other");
    check(json!({"id": "a", "good": true, "rating": 0.1}), "contradicts the word beside it");
    check(json!({"id": "a", "passed": true, "good": true}), "two origins");
    check(json!({"id": "a", "rating": 1.5}), "rating");
}

#[test]
fn no_text_is_logged() {
    let mut bench = with_consent();
    let mut hostile = content("a", "my password is hunter2 hunter2");
    hostile.model = Some("hunter2".to_owned());
    bench.send(&hostile).expect("it is handled");
    build(&mut bench);
    let logged = format!("{:?} {:?}", bench.host().logged(), bench.host().emitted());
    assert!(!logged.contains("hunter2"), "{logged}");
}

#[test]
fn feedback_finds_an_answer_by_the_id_of_its_request_whatever_its_key_is() {
    let mut bench = with_consent();
    let id = "0190e2d4aaaa7000800000000000000a";
    let mut named = content("openai:chatcmpl-1", "What does it cost?");
    named.request_id = Some(id.to_owned());
    bench.send(&named).expect("it is handled");
    let feedback = LlmFeedbackGiven {
        schema: 1,
        request_id: Some(id.to_owned()),
        rating: Some(0.75),
        origin: "person".to_owned(),
        at: ms(NOW),
        ..LlmFeedbackGiven::default()
    };
    bench.send(&feedback).expect("it is handled");
    let dashed = "0190E2D4-AAAA-7000-8000-00000000000A";
    for name in [id, dashed, "openai:chatcmpl-1"] {
        assert_eq!(signals(&mut bench, name)[0]["value"], 0.75, "{name}");
    }
    let said = run(&mut bench, "feedback", json!({"id": dashed, "good": true, "by": "ada"}));
    let mut sources: Vec<&str> = said["signals"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["source"].as_str())
        .collect();
    sources.sort_unstable();
    assert_eq!(sources, ["llm.feedback.given", "lodestar learning feedback"]);
    // Others hear of it by the id of the request.
    let told: Vec<LlmFeedbackGiven> = bench.host().emitted_as().expect("they are feedback");
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].request_id.as_deref(), told[0].good), (Some(id), Some(true)));
}

#[test]
fn what_is_said_of_a_request_is_said_of_its_last_answer() {
    let mut bench = with_consent();
    for (key, second) in [("gateway:r1", 0), ("openai:9", 1)] {
        let mut attempt = content(key, "What does it cost?");
        attempt.request_id = Some("r1".to_owned());
        attempt.at += second;
        bench.send(&attempt).expect("it is handled");
    }
    run(&mut bench, "feedback", json!({"id": "r1", "good": true}));
    assert_eq!(signals(&mut bench, "openai:9")[0]["value"], 1.0);
    let first = signals(&mut bench, "gateway:r1");
    let says: Vec<&Value> = first.as_array().expect("a list").iter().collect();
    assert!(says.iter().all(|it| it["value"].is_null()), "{first}");
    assert!(says.iter().any(|it| it["says"] == "retried"), "{first}");
    let dataset = build(&mut bench);
    assert_eq!((&dataset["examples"], &dataset["with_feedback"]), (&json!(1), &json!(1)));
    assert_eq!(dropped(&dataset, "retried"), 1);
}

#[test]
fn signs_that_nobody_gave_are_shown_with_weight_and_source() {
    let mut bench = with_consent();
    let mut check = |key: &str,
                     change: &dyn Fn(&mut module_sdk::events::LlmRequestContent),
                     reason: &str,
                     status,
                     expected: &[(&str, &str)]| {
        let mut text = content(key, &format!("What does {key} cost?"));
        text.session_id = Some(key.to_owned());
        change(&mut text);
        bench.send(&text).expect("it is handled");
        bench.send(&completed(key, reason, status)).expect("it is handled");
        let shown = signals(&mut bench, key);
        let found: Vec<(&str, &str)> = shown
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| {
                assert_eq!((&it["origin"], &it["weight"]), (&json!("implicit"), &json!(0.3)));
                let word = |key: &str| it[key].as_str().unwrap_or_default();
                (word("says"), word("source"))
            })
            .collect();
        assert_eq!(found, expected, "{key}");
    };
    let ok = RequestStatus::Ok;
    check("fine", &|_| (), "stop", ok, &[]);
    check("cut", &|_| (), "length", ok, &[("truncated", "reason of the end")]);
    check("long", &|it| it.truncated = true, "stop", ok, &[("truncated", "length of the text")]);
    check("filtered", &|_| (), "content_filter", ok, &[("refusal", "reason of the end")]);
    let refuse = |it: &mut module_sdk::events::LlmRequestContent| {
        it.answer[0].text = "I'm sorry, but I can't help with that.".to_owned();
    };
    check("refused", &refuse, "stop", ok, &[("refusal", "words of the answer")]);
    let broken = RequestStatus::UpstreamCut;
    check("broken", &|_| (), "stop", broken, &[("failed", "end of the request")]);
}
