//! Hedging: another model is asked too where one is slow to begin.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use module_sdk::events::{LlmRequestCompleted, RequestStatus, UsageSource};
use serde_json::{Value, json};

use crate::{
    gateway::{Answer, Gateway, read},
    upstream::{Act, End, Gate, Upstream, chat, chat_events, models},
};

/// Starts a router with two providers of one model, of which each acts as told.
fn start(
    first: impl Fn() -> Act + Send + Sync + 'static,
    second: impl Fn() -> Act + Send + Sync + 'static,
    hedge: Value,
    further: &Value,
) -> (Upstream, Upstream, Gateway) {
    let upstream = |act: Box<dyn Fn() -> Act + Send + Sync>| {
        Upstream::start(move |asked| match asked.path.as_str() {
            "/v1/models" => models(&["gpt-4o"]),
            _ => act(),
        })
    };
    let (first, second) = (upstream(Box::new(first)), upstream(Box::new(second)));
    let provider = |upstream: &Upstream| {
        let url = upstream.url();
        json!({"base_url": url, "api": "openai", "key": "k", "models": ["gpt-4o"]})
    };
    let providers = json!({"a": provider(&first), "b": provider(&second)});
    let mut settings = json!({
        "retries": {"attempts": 0},
        "timeouts": {"first_byte_seconds": 60, "answer_seconds": 60, "idle_seconds": 60},
        "routing": {"aliases": {"x": ["a/gpt-4o", "b/gpt-4o"]}, "hedge": hedge},
    });
    for (key, value) in further.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    (first, second, Gateway::start(providers, settings))
}

fn ask(gateway: &Gateway, stream: bool) -> Answer {
    let answer = gateway.post(
        "/v1/chat/completions",
        &json!({"model": "x", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn said(word: &str, stream: bool) -> Act {
    if stream {
        Act::Stream("text/event-stream", chat_events(&[word]), End::Good)
    } else {
        chat(word)
    }
}

fn in_order(gateway: &Gateway, number: usize) -> Vec<LlmRequestCompleted> {
    let mut reports = gateway.reports(number);
    reports.sort_by_key(|report| report.attempt);
    reports
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_one_that_begins_first_answers_and_the_other_is_cancelled() {
    for stream in [false, true] {
        let (slow, _, mut gateway) = start(
            || Act::Hang,
            move || said("second", stream),
            json!({"after_ms": 20}),
            &json!({}),
        );
        let answer = ask(&gateway, stream);
        assert!(answer.body.contains("second"), "{answer:?}");
        let route = answer.header("x-lodestar-route").expect("a route");
        assert!(route.starts_with("b/gpt-4o;") && route.ends_with("; hedged=a/gpt-4o"), "{route}");
        wait("the slow one is left", || slow.left() == 1);

        let reports = in_order(&gateway, 2);
        let (lost, won) = (&reports[0], &reports[1]);
        assert_eq!(lost.status, Some(RequestStatus::ClientAbort));
        assert_eq!(lost.error_type.as_deref(), Some("hedge_lost"));
        assert_eq!((lost.cost_nano_usd, lost.usage_source), (None, Some(UsageSource::None)));
        assert_eq!(won.status, Some(RequestStatus::Ok));
        assert_eq!(won.retry_of.as_ref(), Some(&lost.dedupe_key));
        assert_eq!(won.fallback_from, None, "the first one has not failed");
        assert!(won.cost_nano_usd > Some(0));

        let targets = gateway.bench.command("targets", json!({})).expect("targets").data;
        assert_eq!(targets[0]["breaker"], "closed", "{targets:#}");
        let id = answer.header("x-lodestar-request-id").expect("an id");
        let story = gateway.bench.command("explain", json!({"id": id})).expect("a story");
        let shown = &story.data;
        assert_eq!(shown["outcome"], "paid", "{shown:#}");
        assert_eq!(shown["cost_usd"], Value::Null, "what the other one cost nobody knows");
        assert_eq!(shown["attempts"][0]["error"], "hedge_lost");
        assert_eq!(shown["attempts"][1]["hedge"], true);
    }
}

#[test]
fn the_first_one_may_still_win() {
    for stream in [false, true] {
        let gate = Gate::default();
        let slow = gate.clone();
        let (_, hedge, gateway) = start(
            move || Act::Gated(slow.clone(), Box::new(said("first", stream))),
            move || {
                gate.open();
                Act::Hang
            },
            json!({"after_ms": 20}),
            &json!({}),
        );
        let answer = ask(&gateway, stream);
        assert!(answer.body.contains("first"), "{answer:?}");
        let route = answer.header("x-lodestar-route").expect("a route");
        assert!(route.starts_with("a/gpt-4o;") && route.ends_with("; hedged=b/gpt-4o"), "{route}");
        wait("the second one is left", || hedge.left() == 1);
        let reports = in_order(&gateway, 2);
        assert_eq!(reports[0].status, Some(RequestStatus::Ok));
        assert_eq!(reports[1].error_type.as_deref(), Some("hedge_lost"));
    }
}

#[test]
fn a_hedge_that_fails_changes_nothing() {
    for status in [400, 500] {
        let gate = Gate::default();
        let slow = gate.clone();
        let (_, _, gateway) = start(
            move || Act::Gated(slow.clone(), Box::new(chat("first"))),
            move || Act::Answer(status, vec![], "{}".to_owned()),
            json!({"after_ms": 20}),
            &json!({}),
        );
        let mut reader =
            gateway.open("/v1/chat/completions", &json!({"model": "x", "messages": []}));
        assert_eq!(gateway.reports(1)[0].http_status, Some(status));
        gate.open();
        let answer = read(&mut reader);
        assert!(answer.status == 200 && answer.body.contains("first"), "{status}: {answer:?}");
        assert_eq!(in_order(&gateway, 2)[0].status, Some(RequestStatus::Ok));
    }
}

#[test]
fn a_budget_without_room_for_two_allows_no_hedge() {
    // What one answer reserves is a little more than a cent.
    let limits = |usd: f64| json!({"all": {"usd_per_day": usd}});
    let times = json!({"first_byte_seconds": 1, "answer_seconds": 1, "idle_seconds": 1});
    let check = |usd: f64, of_first: &[(RequestStatus, &str)]| {
        let further = json!({"quotas": limits(usd), "timeouts": times});
        let (_, _, gateway) =
            start(|| Act::Hang, || chat("second"), json!({"after_ms": 20}), &further);
        for number in 0..of_first.len() {
            assert!(ask(&gateway, false).body.contains("second"));
            gateway.reports(2 * (number + 1));
        }
        let reports = gateway.reports(2 * of_first.len());
        let firsts = reports.iter().filter(|report| report.attempt == Some(1));
        let found: Vec<(RequestStatus, &str)> = firsts
            .map(|it| (it.status.expect("a status"), it.error_type.as_deref().unwrap_or("")))
            .collect();
        assert_eq!(found, of_first, "{usd}");
    };
    let (hedged, waited) =
        ((RequestStatus::ClientAbort, "hedge_lost"), (RequestStatus::Timeout, "timeout"));
    check(0.015, &[waited]);
    // Of the first request the lost one stays reserved, since nobody knows what it cost.
    check(0.025, &[hedged, waited]);
    check(0.5, &[hedged, hedged, hedged]);
}

#[test]
fn what_is_usual_for_a_model_may_be_the_delay() {
    let asked = AtomicUsize::new(0);
    let (_, second, gateway) = start(
        move || if asked.fetch_add(1, Ordering::SeqCst) < 20 { chat("first") } else { Act::Hang },
        || chat("second"),
        json!({"after": "p95"}),
        &json!({}),
    );
    for _ in 0..20 {
        assert!(ask(&gateway, false).body.contains("first"));
    }
    assert_eq!(second.asked("/chat/completions").len(), 0, "nothing was known before");
    assert!(ask(&gateway, false).body.contains("second"));
    let reports = in_order(&gateway, 22);
    assert_eq!(reports[21].attempt, Some(2));
}

#[test]
fn a_decision_tells_who_would_be_asked_too() {
    let (first, second, gateway) =
        start(|| chat("first"), || chat("second"), json!({"after_ms": 50}), &json!({}));
    let hedge = |model: &str| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
        gateway.post("/v1/decision", &body).json()["hedge"].clone()
    };
    let expected = json!({"after_ms": 50, "after": null, "most": 1, "models": ["b/gpt-4o"]});
    assert_eq!(hedge("x"), expected);
    // Where there is no other one, nobody is asked too.
    assert_eq!(hedge("a/gpt-4o"), Value::Null);
    assert!(first.asked("/chat/completions").is_empty());
    assert!(second.asked("/chat/completions").is_empty());
}

#[test]
fn a_rule_has_a_say() {
    let times = json!({"first_byte_seconds": 1, "answer_seconds": 1, "idle_seconds": 1});
    let (_, _, gateway) = start(
        || Act::Hang,
        || chat("second"),
        json!({"after_ms": 20}),
        &json!({"timeouts": times, "routing": {
            "aliases": {"x": ["a/gpt-4o", "b/gpt-4o"]},
            "hedge": {"after_ms": 20},
            "rules": [{"when": {"model": "*", "header": {"x-calm": "1"}}, "hedge": {}}],
        }}),
    );
    let body = json!({"model": "x", "messages": []}).to_string();
    let answer = gateway.post_with("/v1/chat/completions", &[("x-calm", "1")], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(in_order(&gateway, 2)[0].status, Some(RequestStatus::Timeout));
}

#[test]
fn a_client_that_goes_ends_all_of_them() {
    let (first, second, gateway) =
        start(|| Act::Hang, || Act::Hang, json!({"after_ms": 20}), &json!({}));
    let body = json!({"model": "x", "messages": []});
    let reader = gateway.open("/v1/chat/completions", &body);
    wait("both are asked", || second.asked("/chat/completions").len() == 1);
    drop(reader);
    wait("both are left", || first.left() + second.left() == 2);
    for report in gateway.reports(2) {
        assert_eq!(report.error_type.as_deref(), Some("client_abort"));
    }
}
