//! Providers that fail.

use std::io::{BufRead as _, Read as _};

use module_sdk::events::{LlmRequestCompleted, RequestStatus, UsageSource};
use serde_json::{Value, json};

use crate::{
    gateway::{Gateway, read},
    upstream::{Act, End, Upstream, chat, chat_events, models},
};

/// Starts a router with two providers of one model; the first fails as told.
pub(crate) fn two(
    first: impl Fn(usize) -> Act + Send + Sync + 'static,
    config: Value,
) -> (Upstream, Upstream, Gateway) {
    let number = std::sync::atomic::AtomicUsize::new(0);
    let bad = Upstream::start(move |asked| match asked.path.as_str() {
        "/v1/models" => models(&["m"]),
        _ => first(number.fetch_add(1, std::sync::atomic::Ordering::SeqCst)),
    });
    let good = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["m"]),
        _ if asked.body.contains("\"stream\":true") => {
            Act::Stream("text/event-stream", chat_events(&["good"]), End::Good)
        }
        _ => chat("good"),
    });
    let provider = |upstream: &Upstream| {
        let url = upstream.url();
        json!({"base_url": url, "api": "openai", "key": "k", "models": ["m"]})
    };
    let providers = json!({"a": provider(&bad), "b": provider(&good)});
    let mut settings = json!({
        "retries": {"attempts": 1, "backoff_ms": 1},
        "timeouts": {"first_byte_seconds": 1, "answer_seconds": 1, "idle_seconds": 1},
        "routing": {"aliases": {"x": ["a/m", "b/m"]}},
    });
    for (key, value) in config.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    (bad, good, Gateway::start(providers, settings))
}

pub(crate) fn ask(gateway: &Gateway, stream: bool) -> crate::gateway::Answer {
    let body = json!({"model": "x", "stream": stream,
        "messages": [{"role": "user", "content": "hello"}]});
    gateway.post("/v1/chat/completions", &body)
}

fn statuses(reports: &[LlmRequestCompleted]) -> Vec<(RequestStatus, &str)> {
    let status = |it: &LlmRequestCompleted| it.status.expect("a status");
    reports.iter().map(|it| (status(it), it.error_type.as_deref().unwrap_or_default())).collect()
}

/// Name, what the provider does, attempts at it, and the status that the first one has.
type Case = (&'static str, Box<dyn Fn(usize) -> Act + Send + Sync>, usize, RequestStatus);

#[test]
fn another_provider_answers_where_one_fails() {
    let html = || Act::Answer(502, vec![("content-type", "text/html".into())], "<html>".into());
    let cases: Vec<Case> = vec![
        ("500", Box::new(|_| Act::Answer(500, vec![], "{}".into())), 2, RequestStatus::Error),
        ("html", Box::new(move |_| html()), 2, RequestStatus::Error),
        ("closed", Box::new(|_| Act::Close), 2, RequestStatus::Error),
        ("hangs", Box::new(|_| Act::Hang), 1, RequestStatus::Timeout),
        (
            "no answer",
            Box::new(|_| Act::Answer(200, vec![], "<html>".into())),
            2,
            RequestStatus::Error,
        ),
        (
            "error in 200",
            Box::new(|_| Act::Answer(200, vec![], r#"{"error":{"message":"x"}}"#.into())),
            2,
            RequestStatus::Error,
        ),
        ("wrong key", Box::new(|_| Act::Answer(401, vec![], "{}".into())), 1, RequestStatus::Error),
        ("no model", Box::new(|_| Act::Answer(404, vec![], "{}".into())), 1, RequestStatus::Error),
        (
            "redirect",
            Box::new(|_| {
                Act::Answer(
                    302,
                    vec![("location", "http://169.254.169.254/".into())],
                    String::new(),
                )
            }),
            1,
            RequestStatus::Error,
        ),
        (
            "busy",
            Box::new(|_| Act::Answer(429, vec![("retry-after", "30".into())], "{}".into())),
            1,
            RequestStatus::Error,
        ),
    ];
    for (name, act, attempts, status) in cases {
        let (bad, _, gateway) = two(act, json!({}));
        let answer = ask(&gateway, false);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "good", "{name}");
        assert!(
            answer.header("x-lodestar-route").is_some_and(|it| it.starts_with("b/m")),
            "{name}"
        );
        let reports = gateway.reports(attempts + 1);
        assert_eq!(bad.asked("/chat/completions").len(), attempts, "{name}");
        assert_eq!(reports[0].status, Some(status), "{name}: {:?}", statuses(&reports));
        let last = reports.last().expect("a report");
        assert_eq!(last.fallback_from.as_deref(), Some("a/m"), "{name}");
        assert_eq!(last.attempt, Some(u16::try_from(attempts).expect("few") + 1), "{name}");
        assert!(last.retry_of.is_some(), "{name}");
        let charged = reports.iter().filter(|it| it.cost_nano_usd.is_some_and(|cost| cost > 0));
        assert!(charged.count() <= 1, "{name}");
    }
}

#[test]
fn a_bad_request_is_not_tried_elsewhere() {
    let body = r#"{"error":{"message":"max_tokens is too large","type":"invalid_request_error"}}"#;
    let (_, good, gateway) = two(move |_| Act::Answer(400, vec![], body.into()), json!({}));
    let answer = ask(&gateway, false);
    assert_eq!((answer.status, answer.body.as_str()), (400, body));
    assert_eq!(good.asked("/chat/completions").len(), 0);
    let long = r#"{"error":{"code":"context_length_exceeded"}}"#;
    let (_, good, gateway) = two(move |_| Act::Answer(400, vec![], long.into()), json!({}));
    assert_eq!(ask(&gateway, false).status, 200);
    assert_eq!(good.asked("/chat/completions").len(), 1);
}

#[test]
fn a_stream_falls_back_before_its_first_content_and_never_after() {
    let events = chat_events(&["one", "two", "three"]);
    let head = events[..1].to_vec();
    let (_, _, gateway) =
        two(move |_| Act::Stream("text/event-stream", head.clone(), End::Cut), json!({}));
    let answer = ask(&gateway, true);
    assert!(answer.body.contains("good") && answer.body.ends_with("data: [DONE]\n\n"));
    assert_eq!(gateway.reports(3)[0].status, Some(RequestStatus::UpstreamCut));

    let part = events[..3].to_vec();
    let (_, good, gateway) =
        two(move |_| Act::Stream("text/event-stream", part.clone(), End::Cut), json!({}));
    let answer = ask(&gateway, true);
    assert!(answer.body.contains("two") && !answer.body.contains("good"), "{}", answer.body);
    assert!(answer.body.contains("\"error\"") && !answer.body.contains("[DONE]"));
    assert!(!answer.body.contains("\"finish_reason\":\"stop\""), "{}", answer.body);
    assert_eq!(good.asked("/chat/completions").len(), 0);
    let report = &gateway.reports(1)[0];
    assert_eq!(report.status, Some(RequestStatus::UpstreamCut));
    assert_eq!(report.usage_source, Some(UsageSource::Estimated));
}

#[test]
fn an_error_in_a_stream_falls_back_before_content() {
    let start = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"error\":{\"message\":\"overloaded\"}}\n\n",
    );
    let act = move |_| Act::Stream("text/event-stream", vec![start.to_owned()], End::Good);
    let (_, _, gateway) = two(act, json!({}));
    assert!(ask(&gateway, true).body.contains("good"));
}

#[test]
fn a_silent_stream_ends_with_an_error() {
    let part = chat_events(&["one", "two"])[..2].to_vec();
    let (_, _, gateway) =
        two(move |_| Act::Stream("text/event-stream", part.clone(), End::Hang), json!({}));
    let answer = ask(&gateway, true);
    assert!(answer.body.contains("one") && answer.body.contains("fell silent"), "{}", answer.body);
    assert_eq!(gateway.reports(1)[0].status, Some(RequestStatus::Timeout));
}

#[test]
fn signs_of_life_do_not_hide_that_a_provider_is_dead() {
    let part = chat_events(&["one", "two"])[..2].to_vec();
    let (_, _, gateway) = two(
        move |_| Act::Stream("text/event-stream", part.clone(), End::Hang),
        json!({"timeouts": {"idle_seconds": 3, "silence_seconds": 1}}),
    );
    let answer = ask(&gateway, true);
    assert!(answer.body.contains(": waiting\n\n"), "{}", answer.body);
    assert!(answer.body.contains("fell silent"), "{}", answer.body);
    assert_eq!(gateway.reports(1)[0].status, Some(RequestStatus::Timeout));
}

#[test]
fn a_provider_that_is_slow_to_begin_is_waited_for_with_signs_of_life() {
    let (_, _, gateway) = two(
        |number| if number == 0 { Act::Hang } else { chat("x") },
        json!({"retries": {"attempts": 0},
            "timeouts": {"first_byte_seconds": 3, "silence_seconds": 1}}),
    );
    let answer = ask(&gateway, true);
    assert!(answer.body.starts_with(": waiting\n\n"), "{}", answer.body);
    assert!(answer.body.contains("good") && answer.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn a_client_that_goes_ends_the_request_at_the_provider() {
    let part = chat_events(&["one", "two"])[..2].to_vec();
    let (_, _, gateway) = two(
        move |_| Act::Stream("text/event-stream", part.clone(), End::Hang),
        json!({"timeouts": {"idle_seconds": 600}}),
    );
    let body = json!({"model": "x", "stream": true, "messages": []});
    let mut reader = gateway.open("/v1/chat/completions", &body);
    let mut line = String::new();
    while !line.contains("one") {
        line.clear();
        reader.read_line(&mut line).expect("the first content");
    }
    drop(reader);
    let report = &gateway.reports(1)[0];
    assert_eq!(report.status, Some(RequestStatus::ClientAbort));
    assert_eq!(report.usage_source, Some(UsageSource::Estimated));

    let (_, _, gateway) = two(|_| Act::Hang, json!({"timeouts": {"answer_seconds": 600}}));
    let reader = gateway.open("/v1/chat/completions", &json!({"model": "x", "messages": []}));
    while gateway.get("/healthz").status != 200 {}
    drop(reader);
    let report = &gateway.reports(1)[0];
    assert_eq!(report.status, Some(RequestStatus::ClientAbort));
    assert_eq!(report.usage_source, Some(UsageSource::None));
}

#[test]
fn a_target_that_fails_is_left_alone() {
    let config = json!({"retries": {"attempts": 0}, "breaker": {"failures": 2, "open_seconds": 600,
        "max_open_seconds": 600}});
    let (bad, _, mut gateway) = two(|_| Act::Answer(500, vec![], "{}".into()), config);
    for _ in 0..5 {
        assert_eq!(ask(&gateway, false).status, 200);
    }
    assert_eq!(bad.asked("/chat/completions").len(), 2);
    let targets = gateway.bench.command("targets", json!({})).expect("targets").data;
    assert_eq!(targets[0]["breaker"], "open");
    assert_eq!(targets[1]["breaker"], "closed");
}

#[test]
fn the_last_error_reaches_the_client_in_its_dialect() {
    let bad = Upstream::start(|asked| match asked.path.as_str() {
        "/v1/models" => models(&["m"]),
        _ => Act::Answer(429, vec![("retry-after", "77".into())], "<html>canary".into()),
    });
    let providers = json!({"a": {"base_url": bad.url(), "api": "openai", "models": ["m"]}});
    let gateway = Gateway::start(providers, json!({}));
    let request = json!({"model": "m", "max_tokens": 5,
        "messages": [{"role": "user", "content": "hello"}]});
    let answer = gateway.post("/v1/messages", &request);
    assert_eq!(answer.status, 429);
    assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
    assert_eq!(answer.header("retry-after"), Some("77"));
    assert!(!answer.body.contains("canary"), "{answer:?}");
}

#[test]
fn bad_requests_are_refused_and_ask_nobody() {
    let (bad, good, gateway) = two(|_| chat("x"), json!({"max_body_bytes": 100_000}));
    let check = |body: &str, status: u16| {
        let answer = gateway.post_with("/v1/chat/completions", &[], body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
    };
    check("{\"model\": \"x\", \"mess", 400);
    check("{\"model\": \"x\", \"model\": \"x\"}", 400);
    check("[1]", 400);
    check("", 400);
    check(&format!("{{\"x\": {}", "[".repeat(50_000)), 400);
    check(&format!("{{\"x\": \"{}\"}}", "x".repeat(200_000)), 413);
    assert_eq!(gateway.get("/v1/nowhere").status, 404);
    assert_eq!(gateway.get("/v1/chat/completions").status, 405);
    let upgrade = "GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\n\
                   upgrade: websocket\r\n\r\n";
    let mut stream = std::net::TcpStream::connect(gateway.address).expect("it accepts");
    std::io::Write::write_all(&mut stream, upgrade.as_bytes()).expect("it takes it");
    let mut status = [0; 12];
    stream.read_exact(&mut status).expect("an answer");
    assert_eq!(&status, b"HTTP/1.1 426");
    let _ = read;
    assert_eq!(bad.asked("/chat").len() + good.asked("/chat").len(), 0);
}
