//! The largest bodies that are accepted: the memory that one of them takes, and how much is freed.

use std::{process::Command, sync::PoisonError};

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::KeyValue,
    metrics::v1::Metric,
    trace::v1::Span,
};
use prost::Message;
use serde::Serialize;

use super::{
    ALLOWED, ALONE, GZIP, JSON, PROTOBUF, Resident,
    bodies::{attr, claude_logs, claude_metrics, claude_request, logs, now_ns, record, traces},
    http::gzip,
    site_at_rest,
};

/// Largest amount of memory for a remembered request, to which later reports are correlated, in
/// bytes.
const REMEMBERED: usize = 1024;

/// Memory that the allocator may keep besides, in bytes.
const KEPT: usize = 8 << 20;

/// More records than any body has.
const MANY: usize = 1 << 19;

/// A kind of body with any number of records.
struct Shape {
    name: &'static str,
    path: &'static str,
    kind: (&'static str, &'static str),
    body: Box<dyn Fn(usize) -> Vec<u8>>,
}

/// Returns a kind of body in protobuf and in JSON.
fn both<M: Message + Serialize + 'static>(
    name: &'static str,
    path: &'static str,
    request: fn(usize) -> M,
) -> [Shape; 2] {
    let protobuf = Box::new(move |records| request(records).encode_to_vec());
    let json =
        Box::new(move |records| serde_json::to_vec(&request(records)).expect("it serialises"));
    [
        Shape { name, path, kind: PROTOBUF, body: protobuf },
        Shape { name, path, kind: JSON, body: json },
    ]
}

fn shapes() -> Vec<Shape> {
    let small_logs = |records| {
        let names = [("event.name", "api_request"), ("model", "m"), ("input_tokens", "1")];
        let attributes = names.map(|(name, value)| attr(name, value)).to_vec();
        let now = now_ns();
        let record = |index| record(now + index as u64, attributes.clone());
        logs("claude-code", "s", (0..records).map(record).collect())
    };
    let claude = |records| {
        let now = now_ns();
        claude_logs((0..records).map(|n| claude_request(now, &format!("req_{n}"))).collect())
    };
    let unknown = |records| {
        let named = |n| record(now_ns(), vec![attr("event.name", &*format!("event.number.{n}"))]);
        logs("program", "s", (0..records).map(named).collect())
    };
    let shapes = [
        both("logs of three attributes", "/v1/logs", small_logs),
        both("logs of Claude Code", "/v1/logs", claude),
        both("logs that nobody knows", "/v1/logs", unknown),
        both("spans of three attributes", "/v1/traces", |records| spans(records, small_span)),
        both("spans of a program", "/v1/traces", |records| spans(records, ordinary_span)),
        both("metrics", "/v1/metrics", sums),
    ];
    shapes.into_iter().flatten().collect()
}

/// Returns metrics that all have names of their own.
fn sums(records: usize) -> ExportMetricsServiceRequest {
    let mut request = claude_metrics();
    let metrics = &mut request.resource_metrics[0].scope_metrics[0].metrics;
    let only = metrics.remove(0);
    let named = |n| Metric { name: format!("metric.{n}"), ..only.clone() };
    metrics.extend((0..records).map(named));
    request
}

/// Returns spans of one trace, of which each hundred are nested in one of them.
fn spans(records: usize, attributes: fn(usize) -> Vec<KeyValue>) -> ExportTraceServiceRequest {
    let now = now_ns();
    let id = |index: usize| (index as u64 + 1).to_be_bytes().to_vec();
    let span = |index: usize| Span {
        name: "chat".to_owned(),
        trace_id: vec![7; 16],
        span_id: id(index),
        parent_span_id: if index.is_multiple_of(100) { Vec::new() } else { id(index / 100 * 100) },
        kind: 3,
        start_time_unix_nano: now - 400_000_000,
        end_time_unix_nano: now + index as u64,
        attributes: attributes(index),
        ..Span::default()
    };
    traces("program", vec![("scope", (0..records).map(span).collect())])
}

fn small_span(index: usize) -> Vec<KeyValue> {
    vec![
        attr("gen_ai.operation.name", "chat"),
        attr("gen_ai.request.model", "m"),
        attr("gen_ai.usage.input_tokens", i64::try_from(index).expect("a small number")),
    ]
}

/// Returns the attributes that an instrumentation of GenAI sends for a call.
fn ordinary_span(index: usize) -> Vec<KeyValue> {
    let mut attributes = small_span(index);
    attributes.extend([
        attr("gen_ai.system", "openai"),
        attr("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
        attr("gen_ai.response.id", &*format!("chatcmpl-{index:024x}")),
        attr("gen_ai.usage.output_tokens", 34),
        attr("gen_ai.usage.cache_read_input_tokens", 0),
        attr("gen_ai.request.temperature", 0.2),
        attr("gen_ai.request.max_tokens", 1024),
        attr("gen_ai.response.finish_reasons", "stop"),
        attr("gen_ai.openai.response.system_fingerprint", "fp_0123456789"),
        attr("server.address", "api.openai.com"),
        attr("server.port", 443),
        attr("session.id", "bd74aaac-a27e-4b75-bc12-8512c8e7b4b7"),
    ]);
    attributes
}

/// Returns the number of records of the largest body of a shape that is accepted, or a little less.
fn largest(shape: &Shape) -> usize {
    let site = site_at_rest();
    // What would be accepted is then refused as soon as its first records are to be published.
    site.bench.host().refuse_events(Some("it is only asked"));
    let fits = |records: usize| {
        let answer = site.post(shape.path, &[shape.kind, GZIP], &gzip(&(shape.body)(records)));
        assert!(matches!(answer.status, 200 | 413 | 503), "{}", answer.text());
        answer.status != 413
    };
    let (mut fit, mut too_many) = (0, 1024);
    while too_many < MANY && fits(too_many) {
        (fit, too_many) = (too_many, too_many * 2);
    }
    while too_many - fit > too_many / 32 {
        let middle = usize::midpoint(fit, too_many);
        *(if fits(middle) { &mut fit } else { &mut too_many }) = middle;
    }
    fit
}

/// Sends a body in a process of its own, and returns its peak of memory above rest and what remains
/// of it.
fn measured(shape: &Shape, records: usize) -> [usize; 2] {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), gzip(&(shape.body)(records))).expect("it is written");
    let output = Command::new(std::env::current_exe().expect("the kernel tells"))
        .args(["--exact", "accepted::one_body_alone", "--ignored", "--nocapture"])
        .env(BODY, file.path())
        .env(PATH, shape.path)
        .env(KIND, shape.kind.1)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let told = text.lines().find_map(|line| line.strip_prefix(MEASURED));
    let told = told.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let numbers: Vec<usize> = told.split(' ').filter_map(|number| number.parse().ok()).collect();
    numbers.try_into().expect("two numbers")
}

const BODY: &str = "LODESTAR_TEST_BODY";
const PATH: &str = "LODESTAR_TEST_PATH";
const KIND: &str = "LODESTAR_TEST_KIND";
const MEASURED: &str = "peak and rest: ";

#[test]
#[ignore = "the test below starts it, in a process of its own"]
fn one_body_alone() {
    let [file, path, kind] = [BODY, PATH, KIND].map(|name| std::env::var(name).expect("it is set"));
    let body = std::fs::read(file).expect("it is there");
    let site = site_at_rest();
    site.bench.host().discard_events();
    let rest = Resident::reset();
    let answer = site.post(&path, &[("content-type", &kind), GZIP], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (peak, kept) = (rest.peak_above(), Resident::now().above(rest));
    println!("\n{MEASURED}{peak} {kept}");
}

#[test]
fn the_largest_bodies_take_no_more_and_it_comes_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for shape in shapes() {
        let records = largest(&shape);
        let [peak, kept] = measured(&shape, records);
        let (name, kind) = (shape.name, shape.kind.1);
        println!("{name} ({kind}): {records} records, {} KiB, {} stay", peak >> 10, kept >> 10);
        assert!(records >= 8192, "{name} ({kind}): {records}");
        assert!(peak < ALLOWED, "{name} ({kind}): {peak} bytes");
        assert!(kept < records * REMEMBERED + KEPT, "{name} ({kind}): {kept} bytes stay");
    }
}
