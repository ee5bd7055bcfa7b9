//! Tracking from events to figures: requests are counted once, merged, priced and grouped into
//! sessions.

use crate::common::{NOW, bench, ms, request, row, summary};
use module_sdk::events::{
    CostSource, LlmModelSwitched, LlmRequestCompleted, LlmRequestWithdrawn, LlmSessionEnded,
    LlmSessionStarted, RequestSource, RequestStatus,
};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

const SONNET: &str = "claude-sonnet-4-5-20250929";
const HAIKU: &str = "claude-haiku-4-5";

fn in_session(key: &str, at: &str, model: &str, session: &str) -> LlmRequestCompleted {
    LlmRequestCompleted { session_id: Some(session.to_owned()), ..request(key, at, model) }
}

#[test]
fn a_redelivered_batch_counts_once() {
    let mut bench = bench(json!({}));
    let events = [request("a", NOW, SONNET), request("b", NOW, SONNET)];
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for _ in 0..3 {
        let (handled, result) = bench.send_with_ids(&events, &ids);
        assert_eq!(handled, 2);
        result.expect("it is handled");
    }
    // The same request under another event id is the same request.
    bench.send(&events[0]).expect("it is handled");
    let summary = summary(&mut bench, json!({}));
    assert_eq!(summary["total"]["requests"], 2);
    assert_eq!(summary["total"]["input_tokens"], 2_000);
    let metrics = bench.host().metrics();
    let labels = format!(r#"{{"gen_ai_request_model":"{SONNET}","outcome":"ok"}}"#);
    assert_eq!(metrics[&format!("lodestar_requests_total{labels}")], 2.0);
    assert!(metrics[r#"lodestar_storage_size_bytes{"file":"main"}"#] > 0.0, "{metrics:?}");
}

#[test]
fn the_agreed_request_costs_what_was_agreed() {
    let mut bench = bench(json!({"baseline_model": "claude-opus-4-5"}));
    let request = LlmRequestCompleted {
        input_tokens: Some(1_200),
        cache_write_5m_tokens: Some(100),
        cache_write_1h_tokens: Some(200),
        cache_read_tokens: Some(500),
        output_tokens: Some(34),
        ..request("a", NOW, SONNET)
    };
    bench.send(&request).expect("it is handled");
    let total = summary(&mut bench, json!({}))["total"].clone();
    assert_eq!(total["cost_usd"].to_string(), "0.003435");
    assert_eq!(total["baseline_cost_usd"].to_string(), "0.005725");
    assert_eq!(total["savings_usd"].to_string(), "0.00229");
    assert_eq!(total["cached_input_tokens"], 500);
    assert_eq!(total["cache_write_input_tokens"], 300);
    assert_eq!(total["unpriced_requests"], 0);
}

#[test]
fn the_json_has_the_agreed_form() {
    let mut bench = bench(json!({}));
    let unknown = LlmRequestCompleted {
        session_id: Some("s".to_owned()),
        project: Some("site".to_owned()),
        client: Some("codex".to_owned()),
        ttft_ms: Some(300),
        ..request("a", NOW, "house-model")
    };
    bench.send(&unknown).expect("it is handled");
    let figures = json!({
        "requests": 1, "errors": 0, "input_tokens": 1000, "output_tokens": 100,
        "cached_input_tokens": 0, "cache_write_input_tokens": 0, "reasoning_tokens": 0,
        "unpriced_requests": 1, "cost_usd": null, "baseline_cost_usd": null, "savings_usd": null,
        "latency_ms": {"p50": 1488, "p95": 1488, "p99": 1488},
        "ttft_ms": {"p50": 300, "p95": 300, "p99": 300},
    });
    let mut first = figures.clone();
    first["key"] = json!("house-model");
    let expected = json!({
        "from": "2026-10-22T12:00:00Z", "to": "2026-11-21T12:00:00Z", "by": "model",
        "rows": [first], "total": figures,
    });
    assert_eq!(summary(&mut bench, json!({})), expected);
    let sessions = bench.command("sessions", json!({})).expect("it answers").data;
    let session = sessions[0].as_object().expect("an object");
    let agreed = [
        "session_id",
        "project",
        "client",
        "started_at",
        "ended_at",
        "duration_s",
        "requests",
        "models",
        "model_switches",
        "cost_usd",
    ];
    for field in agreed {
        assert!(session.contains_key(field), "{field}");
    }
    assert_eq!(session["started_at"], "2026-11-21T11:59:58.5Z");
    assert_eq!(session["duration_s"], 1.5);
    assert_eq!(session["cost_usd"], Value::Null);
}

#[test]
fn two_reports_of_one_request_are_one() {
    let log = LlmRequestCompleted {
        cost_nano_usd: Some(77),
        cost_source: Some(CostSource::Client),
        session_id: Some("s".to_owned()),
        ..request("anthropic:req_1", "2026-11-21T10:59:59Z", SONNET)
    };
    let span = LlmRequestCompleted {
        source: Some(RequestSource::OtlpSpan),
        output_tokens: Some(101),
        ttft_ms: Some(250),
        project: Some("site".to_owned()),
        session_id: None,
        ..request("anthropic:req_1", "2026-11-21T11:00:01Z", SONNET)
    };
    for order in [[&log, &span], [&span, &log]] {
        let mut bench = bench(json!({}));
        for report in order {
            bench.send(report).expect("it is handled");
        }
        let by_project = summary(&mut bench, json!({"by": "project"}));
        assert_eq!(by_project["rows"].as_array().map(Vec::len), Some(1), "{by_project:#}");
        let site = row(&by_project, "site");
        assert_eq!((&site["requests"], &site["output_tokens"]), (&json!(1), &json!(100)));
        assert_eq!(site["ttft_ms"]["p50"], 250);
        assert_eq!(site["cost_usd"].to_string(), "0.0045", "the table wins over the client");
        let hour = row(&summary(&mut bench, json!({"by": "hour"})), "2026-11-21T10:00:00+00:00");
        assert_eq!((&hour["requests"], &hour["latency_ms"]["p50"]), (&json!(1), &json!(1488)));
        let session = bench.command("sessions", json!({})).expect("it answers").data[0].clone();
        assert_eq!((&session["requests"], &session["project"]), (&json!(1), &json!("site")));
        let labels = format!(r#"{{"gen_ai_request_model":"{SONNET}","outcome":"ok"}}"#);
        assert_eq!(bench.host().metrics()[&format!("lodestar_requests_total{labels}")], 1.0);
    }
}

#[test]
fn switches_do_not_depend_on_the_order_of_arrival() {
    let at = |minute: u32| format!("2026-11-21T11:{minute:02}:00Z");
    // sonnet sonnet haiku sonnet sonnet haiku: three switches.
    let models = [SONNET, SONNET, HAIKU, SONNET, SONNET, HAIKU];
    let all: Vec<LlmRequestCompleted> = (0_u32..)
        .zip(models)
        .map(|(minute, model)| in_session(&format!("k{minute}"), &at(minute), model, "s"))
        .collect();
    let orders: [[usize; 6]; 4] =
        [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 5, 0, 3, 1, 4], [0, 5, 2, 1, 4, 3]];
    for order in orders {
        for at_once in [true, false] {
            let mut bench = bench(json!({}));
            let events: Vec<LlmRequestCompleted> =
                order.iter().map(|index| all[*index].clone()).collect();
            if at_once {
                bench.send_all(&events).1.expect("it is handled");
            } else {
                events.iter().for_each(|event| bench.send(event).expect("it is handled"));
            }
            let session = bench.command("sessions", json!({})).expect("it answers").data;
            assert_eq!(session[0]["model_switches"], 3, "{order:?}");
            assert_eq!(session[0]["models"], json!([SONNET, HAIKU]));
            assert_eq!(session[0]["started_at"], "2026-11-21T10:59:58.5Z");
            assert_eq!(session[0]["duration_s"], 301.5);
            assert_eq!(session.as_array().map(Vec::len), Some(1));
        }
    }
}

#[test]
fn another_spelling_of_a_model_is_no_switch() {
    let mut bench = bench(json!({}));
    let spellings =
        [SONNET, "claude-sonnet-4.5", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET];
    // Forwards, and one that comes late.
    for (number, minute) in [(0, 1), (3, 9), (1, 2), (2, 5)] {
        let at = format!("2026-11-21T11:0{minute}:00Z");
        let event = in_session(&format!("k{number}"), &at, spellings[number], "s");
        bench.send(&event).expect("it is handled");
    }
    bench.send(&in_session("h", "2026-11-21T11:07:00Z", HAIKU, "s")).expect("it is handled");
    let session = bench.command("sessions", json!({})).expect("it answers").data[0].clone();
    assert_eq!(session["model_switches"], 2);
    // Names that are alike may be those of two models.
    for (key, minute, model) in
        [("p", 1, "o1-preview"), ("q", 2, "o1"), ("r", 3, "o1-preview-2024-09-12")]
    {
        let at = format!("2026-11-21T11:1{minute}:00Z");
        bench.send(&in_session(key, &at, model, "alike")).expect("it is handled");
    }
    let session = bench.command("sessions", json!({})).expect("it answers").data[0].clone();
    assert_eq!(session["model_switches"], 2);
}

#[test]
fn a_merge_that_changes_the_model_corrects_the_switches() {
    let mut bench = bench(json!({}));
    for (key, minute) in [("a", 1), ("b", 2), ("c", 3)] {
        let at = format!("2026-11-21T11:0{minute}:00Z");
        bench.send(&in_session(key, &at, SONNET, "s")).expect("it is handled");
    }
    let trusted = LlmRequestCompleted {
        source: Some(RequestSource::Gateway),
        response_model: Some(HAIKU.to_owned()),
        ..in_session("b", "2026-11-21T11:02:00Z", SONNET, "s")
    };
    bench.send(&trusted).expect("it is handled");
    let session = bench.command("sessions", json!({})).expect("it answers").data[0].clone();
    assert_eq!(session["model_switches"], 2);
    assert_eq!(session["models"], json!([SONNET, HAIKU]));
    let by_model = summary(&mut bench, json!({}));
    assert_eq!(row(&by_model, SONNET)["requests"], 2);
    assert_eq!(row(&by_model, HAIKU)["requests"], 1);
}

#[test]
fn a_withdrawal_after_retention_is_counted() {
    let mut bench = bench(json!({"retention_days": 1}));
    bench.send(&request("new", NOW, SONNET)).expect("it is handled");
    bench.send(&in_session("old", "2026-11-18T12:00:00Z", SONNET, "s")).expect("it is handled");
    bench.advance(Duration::from_secs(60)).expect("the timers run");
    let withdrawn = |key: &str| LlmRequestWithdrawn { dedupe_key: key.to_owned(), at: ms(NOW) };
    for key in ["old", "old", "new", "nobody"] {
        bench.send(&withdrawn(key)).expect("it is handled");
    }
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 1);
    assert_eq!(bench.host().metrics()["lodestar_usage_late_withdrawals_total"], 1.0);
    let told = format!("{:?}", bench.host().logged());
    assert!(told.contains("stay in the totals"), "{told}");
}

#[test]
fn sessions_are_told_about_while_they_are_under_way() {
    let mut bench = bench(json!({"session_idle_minutes": 10, "privacy": {"anonymise": false}}));
    bench.send(&in_session("old", "2026-11-20T12:00:00Z", SONNET, "old")).expect("it is handled");
    bench.send(&in_session("a", "2026-11-21T11:58:00Z", SONNET, "s")).expect("it is handled");
    bench.send(&in_session("b", "2026-11-21T11:59:00Z", HAIKU, "s")).expect("it is handled");
    let host = bench.host().clone();
    let started = host.emitted_as::<LlmSessionStarted>().expect("the form is right");
    let ids: Vec<&str> = started.iter().map(|event| event.session_id.as_str()).collect();
    assert_eq!(ids, ["s"], "what is over is not told about");
    let switched = host.emitted_as::<LlmModelSwitched>().expect("the form is right");
    let expected = LlmModelSwitched {
        session_id: "s".to_owned(),
        from: SONNET.to_owned(),
        to: HAIKU.to_owned(),
        at: ms("2026-11-21T11:59:00Z"),
    };
    assert_eq!(switched, [expected]);
    bench.advance(Duration::from_secs(15 * 60)).expect("the timers run");
    let ended = host.emitted_as::<LlmSessionEnded>().expect("the form is right");
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].requests, ended[0].ended_at), (2, ms("2026-11-21T11:59:00Z")));
    bench.advance(Duration::from_secs(3600)).expect("the timers run");
    assert_eq!(host.emitted_as::<LlmSessionEnded>().expect("the form is right").len(), 1);
}

#[test]
fn absurd_reports_are_counted_and_poison_nothing() {
    let mut bench = bench(json!({}));
    let absurd = LlmRequestCompleted {
        started_at: i64::MIN,
        ended_at: i64::MAX,
        input_tokens: Some(u64::MAX),
        output_tokens: Some(u64::MAX),
        cost_nano_usd: Some(i64::MAX),
        duration_ms: Some(u32::MAX),
        project: Some("p".repeat(100_000)),
        ..request("a", NOW, SONNET)
    };
    let in_1970 = LlmRequestCompleted { started_at: 5, ended_at: 6, ..request("b", NOW, SONNET) };
    let in_2099 = LlmRequestCompleted { ..request("c", "2099-01-01T00:00:00Z", SONNET) };
    let nothing = LlmRequestCompleted::default();
    let good = request("good", NOW, SONNET);
    let (handled, result) = bench.send_all(&[absurd, in_1970, in_2099, nothing.clone(), good]);
    result.expect("it is handled");
    assert_eq!(handled, 5);
    // Two reports without a key are two requests.
    bench.send(&nothing).expect("it is handled");
    let today = summary(&mut bench, json!({"since": "today", "until": "today"}));
    assert_eq!(today["total"]["requests"], 6);
    assert_eq!(today["total"]["input_tokens"], 3_000);
}

#[test]
fn errors_are_counted_and_cost_nothing() {
    let mut bench = bench(json!({}));
    let failed = LlmRequestCompleted {
        status: Some(RequestStatus::Error),
        http_status: Some(529),
        error_type: Some("overloaded_error".to_owned()),
        input_tokens: None,
        output_tokens: None,
        ..request("a", NOW, SONNET)
    };
    bench.send_all(&[failed, request("b", NOW, SONNET)]).1.expect("it is handled");
    let total = summary(&mut bench, json!({}))["total"].clone();
    assert_eq!((&total["requests"], &total["errors"]), (&json!(2), &json!(1)));
    assert_eq!((&total["unpriced_requests"], &total["cost_usd"]), (&json!(0), &json!(0.0045)));
    let errors = bench.command("requests", json!({"errors": true})).expect("it answers").data;
    assert_eq!(errors.as_array().map(Vec::len), Some(1));
    assert_eq!(errors[0]["http_status"], 529);
}

#[test]
fn no_identifier_of_a_person_reaches_the_file() {
    let mut bench = bench(json!({}));
    let request = LlmRequestCompleted {
        source: Some(RequestSource::Transcript),
        source_ref: Some("/home/canary-file/x.jsonl:1".to_owned()),
        session_id: Some("canary-session".to_owned()),
        turn_id: Some("canary-turn".to_owned()),
        user: Some("canary-user".to_owned()),
        content_ref: Some("canary-content".to_owned()),
        ..request("a", NOW, SONNET)
    };
    bench.send(&request).expect("it is handled");
    let session = bench.command("sessions", json!({})).expect("it answers").data[0].clone();
    let id = session["session_id"].as_str().expect("a text").to_owned();
    assert!(id.starts_with("session_"), "{id}");
    // Asked for by its pseudonym, the session is found.
    let found = bench.command("requests", json!({"session": id})).expect("it answers").data;
    assert_eq!(found.as_array().map(Vec::len), Some(1));
    let (export, _) = bench.stream("export", json!({})).expect("it answers");
    assert!(!export.contains("canary"), "{export}");
    for file in std::fs::read_dir(bench.data_dir()).expect("a directory") {
        let path = file.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("it is readable");
        let found = bytes.windows(6).any(|window| window == b"canary");
        assert!(!found, "{}", path.display());
    }
    let told = format!("{:?} {:?}", bench.host().emitted(), bench.host().logged());
    assert!(!told.contains("canary"), "{told}");
}

#[test]
fn models_show_their_prices_and_who_has_none() {
    let mut bench = bench(json!({"prices": {"house": {"input": 0.5, "output": 2}}}));
    for (key, model) in [("a", SONNET), ("b", "house"), ("c", "nobody-knows")] {
        bench.send(&request(key, NOW, model)).expect("it is handled");
    }
    let reply = bench.command("models", json!({})).expect("it answers");
    let price = |model: &str| {
        let models = reply.data.as_array().expect("a list");
        let found = models.iter().find(|found| found["model"] == model).expect("it is there");
        found["price"].clone()
    };
    assert_eq!(price(SONNET)["cache_write_1h"], 6.0);
    assert_eq!(
        (&price("house")["input"], &price("house")["version"]),
        (&json!(0.5), &json!("config"))
    );
    assert_eq!(price("nobody-knows"), Value::Null);
    let notes = reply.table.expect("a table").notes.join("\n");
    assert!(notes.contains("1 request without a known price"), "{notes}");
}

#[test]
fn a_session_is_found_by_the_beginning_of_its_id() {
    for anonymise in [true, false] {
        let mut bench = bench(json!({"privacy": {"anonymise": anonymise}}));
        for (key, session) in [("a", "alpha-1"), ("b", "alpha-2"), ("c", "alpha-2"), ("d", "beta")]
        {
            bench.send(&in_session(key, NOW, SONNET, session)).expect("it is handled");
        }
        let reply = bench.command("sessions", json!({})).expect("it answers");
        let whole: Vec<&str> = reply.data.as_array().expect("a list").iter().map(id_of).collect();
        let shown: Vec<String> =
            reply.table.expect("a table").rows.iter().map(|row| row[0].clone()).collect();
        for (whole, shown) in whole.iter().zip(&shown) {
            assert!(whole.trim_start_matches("session_").starts_with(shown.as_str()), "{shown}");
            for given in [*whole, shown] {
                let args = json!({"session": given});
                let found = bench.command("requests", args).expect("it answers").data;
                let found = found.as_array().expect("a list");
                assert!(!found.is_empty());
                assert!(found.iter().all(|request| id_of(request) == *whole), "{found:?}");
            }
        }
        let mut refused = |given: &str| {
            let args = json!({"session": given});
            bench.command("requests", args).expect_err("it is refused").to_string()
        };
        let common = if anonymise { "session_" } else { "alpha-" };
        let error = refused(common);
        let expected: Vec<&&str> = whole.iter().filter(|id| id.starts_with(common)).collect();
        assert!(expected.len() > 1 && expected.iter().all(|id| error.contains(**id)), "{error}");
        assert!(error.contains("write more of the id"), "{error}");
        assert!(refused("zzz").contains("there is no session"));
        assert!(refused(" ").contains("usage sessions"));
    }
}

fn id_of(object: &Value) -> &str {
    object["session_id"].as_str().expect("a text")
}

#[test]
fn arguments_that_make_no_sense_are_refused_with_a_remedy() {
    let mut bench = bench(json!({}));
    let mut check = |command: &str, args: Value, part: &str| {
        let error = bench.command(command, args).expect_err("it is refused");
        assert_eq!(error.kind(), module_sdk::ErrorKind::Usage, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    check("summary", json!({"since": "last week"}), "yesterday");
    check("summary", json!({"by": "colour"}), "branch");
    check("summary", json!({"sinse": "7d"}), "since");
    check("sessions", json!({"limit": 0}), "1 to 10000");
    check("requests", json!({"limit": 99999}), "1 to 10000");
    check("summary", json!({"limit": 0}), "limit must be a whole number of 1 or more, but is 0");
    check("summary", json!({"since": "today", "until": "yesterday"}), "exchange them");
    for command in ["summary", "sessions", "requests", "models"] {
        check(command, json!({"since": "2026-11-22"}), "in the future");
    }
}
