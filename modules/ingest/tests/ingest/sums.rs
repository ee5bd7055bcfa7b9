//! Spans that hold the sum of those within them, in every order of arrival.

use std::collections::BTreeMap;

use module_sdk::events::LlmRequestWithdrawn;
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    trace::v1::{Span, Status},
};
use serde_json::json;

use crate::{bodies::*, http::Site};

/// A span and the instrumentation that reports it.
type Told = (&'static str, Span);

/// Number of requests, their input and their output.
type Totals = (usize, u64, u64);

fn told(reporter: &'static str, ids: (u8, u8), name: &str, attributes: Vec<KeyValue>) -> Told {
    (reporter, span(name, (1, ids.0, ids.1), now_ns(), attributes))
}

fn counts(input: i64, output: i64) -> Vec<KeyValue> {
    vec![attr("gen_ai.usage.input_tokens", input), attr("gen_ai.usage.output_tokens", output)]
}

/// Returns a chat of a reporter: span and parent, response id, input and output.
fn chat(reporter: &'static str, ids: (u8, u8), id: &str, input: i64, output: i64) -> Told {
    let mut attributes = counts(input, output);
    attributes.extend([
        attr("gen_ai.operation.name", "chat"),
        attr("gen_ai.provider.name", "openai"),
        attr("gen_ai.request.model", "gpt-4o"),
    ]);
    if !id.is_empty() {
        attributes.push(attr("gen_ai.response.id", id));
    }
    told(reporter, ids, "chat gpt-4o", attributes)
}

fn embedding(reporter: &'static str, ids: (u8, u8), input: i64) -> Told {
    let attributes = vec![
        attr("gen_ai.operation.name", "embeddings"),
        attr("gen_ai.provider.name", "openai"),
        attr("gen_ai.request.model", "text-embedding-3-large"),
        attr("gen_ai.usage.input_tokens", input),
    ];
    told(reporter, ids, "embeddings text-embedding-3-large", attributes)
}

/// Returns a run of an agent, which states only its token counts.
fn run(reporter: &'static str, ids: (u8, u8), input: i64, output: i64) -> Told {
    told(reporter, ids, "agent run", counts(input, output))
}

fn with_model(mut told: Told, model: &str) -> Told {
    told.1.attributes.retain(|known| known.key != "gen_ai.request.model");
    told.1.attributes.push(attr("gen_ai.request.model", model));
    told
}

/// Returns a call by OpenInference, which has no id.
fn open_inference(ids: (u8, u8), model: &'static str, input: i64, output: i64) -> Told {
    let attributes = vec![
        attr("openinference.span.kind", "LLM"),
        attr("llm.model_name", model),
        attr("llm.token_count.prompt", input),
        attr("llm.token_count.completion", output),
    ];
    told("openinference.instrumentation.x", ids, "ChatCompletion", attributes)
}

/// Returns a chat without token counts.
fn bare(reporter: &'static str, ids: (u8, u8), model: &'static str, failed: bool) -> Told {
    let attributes =
        vec![attr("gen_ai.operation.name", "chat"), attr("gen_ai.request.model", model)];
    let mut told = told(reporter, ids, "chat", attributes);
    told.1.status = failed.then(|| Status { code: 2, ..Status::default() });
    told
}

/// Returns a span that is no request at all.
fn step(reporter: &'static str, ids: (u8, u8)) -> Told {
    told(reporter, ids, "step", vec![])
}

/// Returns the totals of a subscriber that counts by key, takes the larger counts and handles
/// withdrawals.
fn totals(site: &Site) -> Totals {
    let mut by_key: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for request in site.requests() {
        let known = by_key.entry(request.dedupe_key).or_default();
        known.0 = known.0.max(request.input_tokens.unwrap_or(0));
        known.1 = known.1.max(request.output_tokens.unwrap_or(0));
    }
    let withdrawn = site.bench.host().emitted_as::<LlmRequestWithdrawn>().expect("withdrawals");
    for event in withdrawn {
        by_key.remove(&event.dedupe_key);
    }
    let sum = |of: fn(&(u64, u64)) -> u64| by_key.values().map(of).sum();
    (by_key.len(), sum(|counts| counts.0), sum(|counts| counts.1))
}

fn orders(length: usize) -> Vec<Vec<usize>> {
    let Some(last) = length.checked_sub(1) else { return vec![Vec::new()] };
    let shorter = orders(last);
    let places = shorter.into_iter().flat_map(|order| {
        (0..=order.len()).map(move |place| {
            let mut order = order.clone();
            order.insert(place, last);
            order
        })
    });
    places.collect()
}

/// Sends the spans in every order, in one body and in bodies of their own, and twice; checks the
/// totals.
fn check(spans: &[Told], expected: Totals) {
    check_each(spans, expected, |totals| totals == expected);
}

fn check_each(spans: &[Told], expected: Totals, one_by_one: impl Fn(Totals) -> bool) {
    for order in orders(spans.len()) {
        let ordered: Vec<Told> = order.iter().map(|index| spans[*index].clone()).collect();
        let body = |spans: &[Told]| {
            let scopes = spans.iter().map(|(scope, span)| (*scope, vec![span.clone()]));
            traces("program", scopes.collect())
        };
        let site = Site::plain();
        for _ in 0..2 {
            site.post_protobuf("/v1/traces", &body(&ordered));
            assert_eq!(totals(&site), expected, "{order:?} in one body");
        }
        let site = Site::plain();
        for _ in 0..2 {
            for one in &ordered {
                site.post_protobuf("/v1/traces", &body(std::slice::from_ref(one)));
            }
            let totals = totals(&site);
            assert!(one_by_one(totals), "{order:?} one by one: {totals:?}, not {expected:?}");
        }
    }
}

#[test]
fn a_run_of_an_agent_is_no_request() {
    let calls = [chat("a", (2, 1), "r-1", 560, 50), chat("a", (3, 1), "r-2", 570, 60)];
    check(&[run("a", (1, 0), 1130, 110), calls[0].clone(), calls[1].clone()], (2, 1130, 110));
    // Of another reporter, and with calls that nobody has told of.
    check(&[run("b", (1, 0), 1130, 110), calls[0].clone(), calls[1].clone()], (2, 1130, 110));
    check(&[run("a", (1, 0), 1500, 150), calls[0].clone(), calls[1].clone()], (2, 1130, 110));
    check(&[run("a", (1, 0), 560, 50), calls[0].clone()], (1, 560, 50));
}

#[test]
fn a_sum_is_known_at_any_depth() {
    let spans = [
        run("a", (1, 0), 1130, 110),
        step("other", (2, 1)),
        chat("a", (3, 2), "r-1", 560, 50),
        chat("a", (4, 2), "", 570, 60),
    ];
    check(&spans, (2, 1130, 110));
    let spans = [
        run("a", (1, 0), 1830, 180),
        run("a", (2, 1), 1130, 110),
        chat("a", (3, 2), "r-1", 560, 50),
        chat("a", (4, 2), "r-2", 570, 60),
        chat("a", (5, 1), "r-3", 700, 70),
    ];
    let (first, second) = (spans[..4].to_vec(), &spans[4]);
    check(&first, (2, 1130, 110));
    check(&[spans[0].clone(), spans[1].clone(), spans[2].clone(), second.clone()], (2, 1260, 120));
}

#[test]
fn outer_spans_of_one_name_are_no_requests() {
    check(&[embedding("ai", (1, 0), 28), embedding("ai", (2, 1), 28)], (1, 28, 0));
    let many =
        [embedding("ai", (1, 0), 56), embedding("ai", (2, 1), 28), embedding("ai", (3, 1), 28)];
    check(&many, (2, 56, 0));
    // The outer one may have the id of the last, and leave the cache out.
    let steps = [
        chat("ai", (1, 0), "r-2", 1130, 110),
        chat("ai", (2, 1), "r-1", 560, 50),
        chat("ai", (3, 1), "r-2", 570, 60),
    ];
    check(&steps, (2, 1130, 110));
    let mut cached = chat("ai", (2, 1), "r-1", 560, 50);
    cached.1.attributes.push(attr("gen_ai.usage.cache_read.input_tokens", 500));
    check(&[chat("ai", (1, 0), "", 60, 50), cached], (1, 560, 50));
    let bare = told("ai", (1, 0), "chat", vec![attr("gen_ai.operation.name", "chat")]);
    check(&[bare, chat("ai", (2, 1), "r-1", 560, 50)], (1, 560, 50));
}

#[test]
fn two_instrumentations_tell_one_call() {
    let outer = |input, output| chat("outer", (1, 0), "", input, output);
    let inner = |input, output| chat("inner", (2, 1), "r-1", input, output);
    check(&[outer(1200, 34), inner(1200, 35)], (1, 1200, 35));
    check(&[outer(1200, 34), inner(1200, 1)], (1, 1200, 34));
    check(&[outer(1200, 1), inner(1200, 34)], (1, 1200, 34));
    check(&[outer(8, 1), inner(1200, 34)], (1, 1200, 34));
    check(&[outer(1200, 34), inner(8, 1)], (1, 1200, 34));
    check(&[outer(400, 34), inner(1200, 34)], (1, 1200, 34));
    let cached = |mut told: Told, read: i64| {
        told.1.attributes.push(attr("gen_ai.usage.cache_read.input_tokens", read));
        told
    };
    check(&[cached(outer(1200, 34), 0), cached(inner(1200, 34), 800)], (1, 1200, 34));
    check(&[cached(outer(400, 34), 0), cached(inner(1200, 34), 800)], (1, 1200, 34));
    check(&[cached(outer(1200, 40), 800), inner(400, 34)], (1, 1200, 40));
    let mut named = inner(1200, 34);
    named.1.attributes.retain(|known| known.key != "gen_ai.request.model");
    named.1.attributes.push(attr("gen_ai.request.model", "openai/gpt-4o-2024-08-06"));
    check(&[outer(1200, 35), named], (1, 1200, 35));
}

#[test]
fn a_program_and_a_proxy_below_it_tell_one_call() {
    let program = |id| chat("program", (1, 0), id, 1000, 100);
    let proxy = |id| chat("proxy", (3, 2), id, 1000, 100);
    for id in ["r-1", ""] {
        check(&[program(id), step("http", (2, 1)), proxy(id)], (1, 1000, 100));
    }
    // The proxy calls the provider otherwise, and counts a little otherwise.
    let mut renamed = with_model(chat("proxy", (3, 2), "r-1", 1010, 101), "my-deployment");
    renamed.1.attributes.retain(|known| known.key != "gen_ai.provider.name");
    renamed.1.attributes.push(attr("gen_ai.provider.name", "litellm"));
    let site = Site::plain();
    for told in [program("r-1"), step("http", (2, 1)), renamed] {
        site.post_protobuf("/v1/traces", &traces("program", vec![(told.0, vec![told.1])]));
    }
    assert_eq!(totals(&site), (1, 1010, 101));
    let withdrawn = site.bench.host().emitted_as::<LlmRequestWithdrawn>().expect("withdrawals");
    assert!(withdrawn.is_empty(), "{withdrawn:?}");
}

#[test]
fn a_request_that_a_log_tells_is_never_withdrawn() {
    let site = Site::plain();
    let mut log = claude_request(now_ns(), "req_1");
    (log.trace_id, log.span_id) = (vec![1; 16], vec![1; 8]);
    site.post_protobuf("/v1/logs", &claude_logs(vec![log]));
    let key = site.requests()[0].dedupe_key.clone();
    let told = site.requests()[0].clone();
    let counts = |told: &module_sdk::events::LlmRequestCompleted| {
        let count = |count: Option<u64>| i64::try_from(count.unwrap_or(0)).expect("it is small");
        (count(told.input_tokens), count(told.output_tokens))
    };
    let (input, output) = counts(&told);
    let call = |reporter, ids| {
        let mut call = chat(reporter, ids, "", input, output);
        call.1.attributes.retain(|known| {
            !["gen_ai.request.model", "gen_ai.provider.name"].contains(&known.key.as_str())
        });
        call.1.attributes.push(attr("gen_ai.provider.name", "anthropic"));
        call.1.attributes.push(attr("anthropic.request.id", "req_1"));
        call
    };
    for told in [call("program", (1, 0)), step("http", (2, 1)), call("litellm", (3, 2))] {
        site.post_protobuf("/v1/traces", &traces("program", vec![(told.0, vec![told.1])]));
    }
    assert!(site.requests().iter().all(|request| request.dedupe_key == key));
    let withdrawn = site.bench.host().emitted_as::<LlmRequestWithdrawn>().expect("withdrawals");
    assert!(withdrawn.is_empty(), "{withdrawn:?}");
}

#[test]
fn a_call_around_other_work_is_a_request_whatever_it_counts() {
    let other =
        [open_inference((1, 0), "gpt-5", 5000, 500), open_inference((2, 1), "gpt-5-mini", 70, 7)];
    check(&other, (2, 5070, 507));
    let other =
        [chat("a", (1, 0), "", 5000, 500), with_model(chat("a", (2, 1), "", 70, 7), "gpt-5-mini")];
    check(&other, (2, 5070, 507));
    // The same model tells a sum, and so does an exact one.
    let same = [open_inference((1, 0), "gpt-5", 5000, 500), open_inference((2, 1), "gpt-5", 70, 7)];
    check(&same, (1, 70, 7));
    let exact =
        [open_inference((1, 0), "gpt-5", 70, 7), open_inference((2, 1), "gpt-5-mini", 70, 7)];
    check(&exact, (1, 70, 7));
    // Nor has what was streamed, or failed, any counts of its own.
    check(&[bare("a", (1, 0), "gpt-5", false), embedding("a", (2, 1), 28)], (2, 28, 0));
    check(&[bare("a", (1, 0), "gpt-5", true), embedding("a", (2, 1), 28)], (2, 28, 0));
    let inner = || chat("a", (2, 1), "r-1", 560, 50);
    check(&[bare("a", (1, 0), "gpt-4o", true), inner()], (2, 560, 50));
    check(&[bare("a", (1, 0), "gpt-4o", false), inner()], (1, 560, 50));
}

#[test]
fn a_withdrawal_that_the_ledger_refuses_is_told_later() {
    let site = Site::plain();
    let post = |told: &[Told]| {
        let scopes = told.iter().map(|(scope, span)| (*scope, vec![span.clone()])).collect();
        site.post_protobuf("/v1/traces", &traces("program", scopes)).status
    };
    let parts = [chat("a", (3, 2), "r-1", 560, 50), chat("a", (4, 2), "r-2", 570, 60)];
    assert_eq!((post(&[run("a", (1, 0), 1130, 110)]), post(&parts)), (200, 200));
    assert_eq!(totals(&site).0, 3);
    site.bench.host().refuse_events(Some("the disk is full"));
    for _ in 0..2 {
        assert_eq!(post(&[step("other", (2, 1))]), 503);
    }
    site.bench.host().refuse_events(None);
    assert_eq!(post(&[step("other", (2, 1))]), 200);
    assert_eq!(totals(&site), (2, 1130, 110));
    let told = site.bench.host().emitted().len();
    assert_eq!(post(&[step("other", (2, 1))]), 200);
    assert_eq!(site.bench.host().emitted().len(), told, "it has been told");
}

#[test]
fn calls_of_their_own_stay_apart() {
    // A wrapper that tried twice, told by another reporter: it is one of the two.
    let twice = [
        chat("outer", (1, 0), "", 570, 60),
        chat("inner", (2, 1), "r-1", 560, 50),
        chat("inner", (3, 1), "r-2", 570, 60),
    ];
    // Where the wrapper is told before the second call, it is taken for the first.
    check_each(&twice, (2, 1130, 110), |totals| {
        totals.0 == 2 && (1130..=1140).contains(&totals.1) && (110..=120).contains(&totals.2)
    });
    // A chat that looks something up is a request, and so is what it asks.
    let lookup = [chat("a", (1, 0), "r-1", 5000, 500), embedding("a", (2, 1), 28)];
    check(&lookup, (2, 5028, 500));
    let with_id = [chat("a", (1, 0), "r-1", 5000, 500), chat("a", (2, 1), "r-2", 70, 7)];
    check(&with_id, (2, 5070, 507));
    // One that used less than what is within it holds no sum.
    check(&[chat("a", (1, 0), "", 10, 1), chat("a", (2, 1), "", 5000, 500)], (2, 5010, 501));
    // Other models are other calls.
    let mut other = chat("inner", (2, 1), "", 560, 50);
    other.1.attributes.retain(|known| known.key != "gen_ai.request.model");
    other.1.attributes.push(attr("gen_ai.request.model", "gpt-4o-mini"));
    check(&[chat("outer", (1, 0), "", 100, 60), other], (2, 660, 110));
    // Neither encloses the other.
    let siblings = [chat("a", (2, 1), "", 560, 50), chat("b", (3, 1), "", 570, 60)];
    check(&siblings, (2, 1130, 110));
}

#[test]
fn sources_tell_a_sum_as_a_repeat() {
    let mut site = Site::plain();
    let spans = vec![
        chat("a", (2, 1), "r-1", 560, 50).1,
        chat("a", (3, 1), "r-2", 570, 60).1,
        run("a", (1, 0), 1130, 110).1,
    ];
    site.post_protobuf("/v1/traces", &traces("program", vec![("a", spans)]));
    let reply = site.bench.command("sources", json!({"all": true})).expect("it answers");
    let rows = reply.data["rows"].as_array().expect("rows");
    let found: Vec<_> = rows
        .iter()
        .map(|row| format!("{} {} {}", row["record"], row["outcome"], row["count"]))
        .collect();
    assert_eq!(found, ["\"chat\" \"request\" 2", "\"(unnamed)\" \"repeats\" 1"]);
}

#[test]
fn a_body_of_many_parts_is_resolved_from_the_inside_out_as_well() {
    const RUNS: u64 = 600;
    let site = Site::plain();
    let place = |(_, mut span): Told, id: u64, parent: u64| {
        span.span_id = id.to_be_bytes().to_vec();
        span.parent_span_id = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
        span
    };
    let run_of = |n| 3 * n + 1;
    let runs = (0..RUNS).map(|n| place(run("agents", (1, 0), 30, 12), run_of(n), 0));
    let calls = (1..=2).flat_map(|call: u64| {
        (0..RUNS).map(move |n| {
            let (input, output) = if call == 1 { (10, 4) } else { (20, 8) };
            let id = format!("chatcmpl-{call}{n:07x}");
            let (at, around) = (run_of(n) + call, run_of(n));
            place(chat("agents", (2, 1), &id, input, output), at, around)
        })
    });
    // All runs come before the calls that they hold the sum of.
    let message = traces("program", vec![("agents", runs.chain(calls).collect())]);
    assert_eq!(site.post_protobuf("/v1/traces", &message).status, 200);
    assert_eq!(totals(&site), (1200, RUNS * 30, RUNS * 12));
    let withdrawn = site.bench.host().emitted_as::<LlmRequestWithdrawn>().expect("withdrawals");
    assert!(withdrawn.is_empty(), "{} were published and taken off", withdrawn.len());
}
