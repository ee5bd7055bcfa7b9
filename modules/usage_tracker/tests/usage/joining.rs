//! One request that several sources report: it counts once, by the one that is trusted most.

use module_sdk::{
    events::{LlmRequestCompleted, LlmRequestWithdrawn, RequestSource},
    testing::Bench,
};
use serde_json::{Value, json};
use usage_tracker::UsageTracker;

use crate::{
    common::{bench, ms, request, summary},
    samples::{claude, codex, file, import, lines},
};

const AT: &str = "2026-11-20T23:48:30.500Z";

/// Returns what another source says of the answer of Claude Code.
fn told(source: RequestSource, key: &str, at: &str) -> LlmRequestCompleted {
    LlmRequestCompleted {
        source: Some(source),
        client: Some("claude-code".to_owned()),
        upstream_request_id: Some("req_1".to_owned()),
        input_tokens: Some(1_200),
        cache_read_tokens: Some(500),
        cache_write_5m_tokens: Some(300),
        output_tokens: Some(34),
        ..request(key, at, "claude-sonnet-4-5")
    }
}

/// Returns what telemetry of Codex says, which has no id.
fn logged(session: String, at: &str, output: u64) -> LlmRequestCompleted {
    LlmRequestCompleted {
        client: Some("codex".to_owned()),
        provider: Some("openai".to_owned()),
        session_id: Some(session),
        input_tokens: Some(1_200),
        cache_read_tokens: Some(800),
        output_tokens: Some(output),
        ttft_ms: Some(40),
        ..request("hash:0123", at, "gpt-5.1-codex")
    }
}

fn total(bench: &mut Bench<UsageTracker>) -> Value {
    summary(bench, json!({"since": "2026-01-01"}))["total"].clone()
}

fn source(bench: &mut Bench<UsageTracker>) -> Value {
    let sources = bench.command("sources", json!({"since": "2026-01-01"})).expect("it answers");
    sources.data[0].clone()
}

#[test]
fn gateway_log_span_and_transcript_of_one_call_are_one_request() {
    use RequestSource::{Gateway, OtlpLog, OtlpSpan};
    let others = [
        LlmRequestCompleted {
            response_id: Some("msg_1".to_owned()),
            ..told(Gateway, "anthropic:req_1", AT)
        },
        told(OtlpLog, "anthropic:req_1", AT),
        told(OtlpSpan, "anthropic:req_1", AT),
    ];
    let transcript =
        [file("claude-code", "/p/a.jsonl", lines(&[claude("msg_1", "req_1", 34, AT)]))];
    for transcript_first in [true, false] {
        let mut bench = bench(json!({}));
        if transcript_first {
            import(&mut bench, &transcript);
        }
        for other in &others {
            bench.send(other).expect("it is handled");
        }
        if !transcript_first {
            let answer = import(&mut bench, &transcript);
            assert_eq!((&answer["imported"], &answer["merged"]), (&json!(0), &json!(1)));
        }
        let total = total(&mut bench);
        assert_eq!((&total["requests"], &total["output_tokens"]), (&json!(1), &json!(34)));
        // The transcript knows how long cache writes were for.
        assert_eq!(total["cost_usd"].to_string(), "0.003435");
        let source = source(&mut bench);
        assert_eq!(source["source"], "gateway");
        assert_eq!(
            source["also_reported_by"],
            json!({"transcript": 1, "otlp_log": 1, "otlp_span": 1})
        );
        assert_eq!(
            (&source["merged_requests"], &source["disagreeing_requests"]),
            (&json!(1), &json!(0))
        );
    }
}

#[test]
fn a_better_record_corrects_the_cost_and_the_disagreement_is_told() {
    let mut bench = bench(json!({}));
    let poor = LlmRequestCompleted {
        output_tokens: Some(1),
        ..told(RequestSource::OtlpLog, "anthropic:req_1", AT)
    };
    bench.send(&poor).expect("it is handled");
    let before = total(&mut bench)["cost_usd"].clone();
    let answer = import(
        &mut bench,
        &[file("claude-code", "/p/a.jsonl", lines(&[claude("msg_1", "req_1", 34, AT)]))],
    );
    assert_eq!(answer["tokens"]["output_tokens"], 33, "what it added");
    let after = total(&mut bench);
    assert_eq!(after["cost_usd"].to_string(), "0.003435");
    assert_ne!(before, after["cost_usd"]);
    let answer = bench.command("sources", json!({"since": "2026-01-01"})).expect("it answers");
    assert_eq!(answer.data[0]["source"], "transcript");
    assert_eq!(answer.data[0]["disagreeing_requests"], 1);
    let notes = answer.table.expect("a table").notes.join("\n");
    assert!(notes.contains("transcript and otlp_log 1; of 1 they say different"), "{notes}");
}

#[test]
fn side_chains_repeat_their_parent_under_other_ids() {
    let side_chain = |request: &str| {
        let mut line = claude("msg_1", request, 34, AT);
        line["isSidechain"] = true.into();
        line
    };
    let parent = claude("msg_1", "req_1", 34, AT);
    for order in [[parent.clone(), side_chain("req_7")], [side_chain("req_7"), parent.clone()]] {
        let mut bench = bench(json!({}));
        let files: Vec<_> = order
            .iter()
            .enumerate()
            .map(|(n, line)| {
                file("claude-code", &format!("/p/{n}.jsonl"), lines(std::slice::from_ref(line)))
            })
            .collect();
        let answer = import(&mut bench, &files);
        assert_eq!(answer["imported"], 1, "{answer:#}");
        assert_eq!(total(&mut bench)["input_tokens"], 1_200);
    }
    // Two answers that are no side chains are two, whatever their ids.
    let mut bench = bench(json!({}));
    let other = claude("msg_1", "req_2", 34, AT);
    let answer = import(&mut bench, &[file("claude-code", "/p/a.jsonl", lines(&[parent, other]))]);
    assert_eq!(answer["imported"], 2);
}

#[test]
fn codex_is_joined_by_the_id_of_the_answer() {
    let gateway = LlmRequestCompleted {
        source: Some(RequestSource::Gateway),
        provider: Some("openai".to_owned()),
        upstream_request_id: Some("req_openai".to_owned()),
        response_id: Some("resp_1".to_owned()),
        input_tokens: Some(1_200),
        output_tokens: Some(34),
        ..request("openai:req_openai", AT, "gpt-5.1-codex")
    };
    let rollout = [file("codex", "/c/r.jsonl", codex("c1", Some("resp_1"), AT))];
    for transcript_first in [true, false] {
        let mut bench = bench(json!({}));
        if transcript_first {
            import(&mut bench, &rollout);
        }
        bench.send(&gateway).expect("it is handled");
        import(&mut bench, &rollout);
        let total = total(&mut bench);
        assert_eq!((&total["requests"], &total["cached_input_tokens"]), (&json!(1), &json!(800)));
        assert_eq!(source(&mut bench)["source"], "gateway");
        // What is withdrawn is so under all its names.
        let dedupe_key = "openai:req_openai".to_owned();
        bench.send(&LlmRequestWithdrawn { dedupe_key, at: ms(AT) }).expect("it is handled");
        import(&mut bench, &[file("codex", "/c/copy.jsonl", codex("c1", Some("resp_1"), AT))]);
        assert_eq!(self::total(&mut bench)["requests"], 0);
    }
}

#[test]
fn telemetry_of_codex_without_an_id_is_joined_by_session_counts_and_time() {
    let near = "2026-11-20T23:48:31.900Z";
    for transcript_first in [true, false] {
        let mut bench = bench(json!({}));
        let session = bench.host().host().expect("a host").pseudonym("session", "c1");
        let rollout = [file("codex", "/c/r.jsonl", codex("c1", Some("resp_1"), AT))];
        if transcript_first {
            import(&mut bench, &rollout);
        }
        bench.send(&logged(session.clone(), near, 34)).expect("it is handled");
        import(&mut bench, &rollout);
        assert_eq!(total(&mut bench)["requests"], 1, "{transcript_first}");
        assert_eq!(source(&mut bench)["also_reported_by"], json!({"otlp_log": 1}));
        // Other counts, another time, another session.
        let others = [
            logged(session.clone(), near, 35),
            logged(session.clone(), "2026-11-20T23:48:33.000Z", 34),
            logged("session_another".to_owned(), near, 34),
        ];
        for (number, mut other) in others.into_iter().enumerate() {
            other.dedupe_key = format!("hash:{number}");
            bench.send(&other).expect("it is handled");
        }
        assert_eq!(total(&mut bench)["requests"], 4);
    }
}

#[test]
fn two_calls_with_the_same_counts_at_one_time_are_two() {
    let mut bench = bench(json!({}));
    let session = bench.host().host().expect("a host").pseudonym("session", "c1");
    for number in 0..2 {
        let mut log = logged(session.clone(), AT, 34);
        log.dedupe_key = format!("hash:{number}");
        log.ended_at = ms(AT) + number;
        bench.send(&log).expect("it is handled");
    }
    let mut both = codex("c1", Some("resp_1"), AT);
    both.extend(codex("c1", Some("resp_2"), AT));
    let answer = import(&mut bench, &[file("codex", "/c/r.jsonl", both)]);
    assert_eq!((&answer["merged"], &answer["imported"]), (&json!(2), &json!(0)), "{answer:#}");
    assert_eq!(total(&mut bench)["requests"], 2);
}
