//! Small bodies that would fill the memory: one of every list that OTLP has, and of JSON's own.
//!
//! The module runs in this process, whose peak of resident memory is measured.

mod accepted;
#[path = "../ingest/bodies.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod bodies;
mod fields;
#[path = "../ingest/http.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod http;
mod memory;

use std::sync::{Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use serde_json::json;

use bodies::{attr, claude_logs, claude_request, logs, now_ns, record};
use fields::{Bomb, bombs};
use http::{Site, gzip};
use memory::{Resident, processor_time};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// Size of a bomb once it is inflated, in bytes.
const INFLATED: usize = 40 << 20;

/// Memory that one request may take above what the module takes at rest, in bytes.
const ALLOWED: usize = 80 << 20;

/// Lock that runs one test at a time, as the peak is that of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// Returns `before`, then `unit` until the body is large, then `after`, as gzip of many members.
fn inflating(before: impl FnOnce(usize) -> Vec<u8>, unit: &[u8], after: &[u8]) -> Vec<u8> {
    let piece = unit.repeat((1 << 20) / unit.len());
    let times = INFLATED / piece.len();
    let pieces = gzip(&piece).repeat(times);
    [gzip(&before(times * piece.len() / unit.len())), pieces, gzip(after)].concat()
}

/// Sends a body, and returns the status and the memory that it took. The processor time is only
/// printed.
fn send(site: &Site, path: &str, kind: (&str, &str), body: &[u8]) -> (u16, usize) {
    let (rest, before) = (Resident::reset(), processor_time());
    let answer = site.post(path, &[kind, GZIP], body);
    if answer.status == 413 {
        assert!(answer.text().contains("max_decoded_bytes"), "{}", answer.text());
    }
    let took = processor_time().saturating_sub(before);
    print!("{:6.1} ms: ", took.as_secs_f64() * 1000.0);
    (answer.status, rest.peak_above())
}

fn check(site: &Site, name: &str, path: &str, kind: (&str, &str), body: &[u8]) {
    let (status, taken) = send(site, path, kind, body);
    println!("{name}: {status}, {} KiB for {} bytes", taken >> 10, body.len());
    assert!(matches!(status, 200 | 413), "{name}: {status}");
    assert!(taken < ALLOWED, "{name}: {taken} bytes");
}

fn site_at_rest() -> Site {
    let site = Site::start(json!({}));
    assert_eq!(site.post("/v1/logs", &[JSON], b"{}").status, 200);
    site
}

#[test]
fn no_list_fills_the_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site_at_rest();
    let rest = Resident::now();
    let bombs = bombs();
    // Of each signal its own lists, and those of resources, scopes and values.
    assert!(bombs.len() > 100, "{}", bombs.len());
    for Bomb { name, path, is_json, before, unit, after } in bombs {
        let body = inflating(before, &unit, &after);
        check(&site, &name, path, if is_json { JSON } else { PROTOBUF }, &body);
    }
    let kept = Resident::now().above(rest);
    assert!(kept < ALLOWED / 2, "{kept} bytes have not come back");
}

#[test]
fn no_json_fills_the_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site_at_rest();
    let check = |path: &str, before: &str, unit: &str, after: &str| {
        let name = format!("{path} {before}{unit}");
        let before = |_| before.as_bytes().to_vec();
        let body = inflating(before, unit.as_bytes(), after.as_bytes());
        let (status, taken) = send(&site, path, JSON, &body);
        println!("{name}: {status}, {} KiB", taken >> 10);
        assert!(matches!(status, 200 | 400 | 413), "{name}: {status}");
        assert!(taken < ALLOWED, "{name}: {taken} bytes");
    };
    for path in ["/api/v1/event", "/api/v1/events/batch"] {
        check(path, "[", "0,", "0]");
        check(path, "[", "[0],", "0]");
        check(path, "[", "{\"a\":0},", "0]");
        check(path, "[", "\"\",", "0]");
        check(path, "[", "\"\u{fc}\\ud83d\",", "0]");
        check(path, "", "[", "");
        check(path, "{\"events\":[{\"body\":", "{\"a\":", "");
        check(path, "\"", "\\ud83d", "\"");
    }
    for path in ["/v1/logs", "/v1/metrics"] {
        check(path, "{\"unknown\":[", "0,", "0]}");
        check(path, "{\"unknown\":", "[", "");
        check(path, "{\"", "\\ud83d", "\":1}");
        check(path, "", " ", "{}");
    }
    check("/v1/logs", "{\"", "a", "\":1}");
    check("/v1/logs", "", "{}", "");
    check("/v1/logs", "{\"unknown\":\"", "a", "");
    let body = "{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[";
    check("/v1/logs", &format!("{body}{{"), "\"flags\":1,", "\"flags\":1}]}]}]}");
    check("/v1/logs", &format!("{body}{{\"eventName\":\""), "a", "\"}]}]}]}");
    check("/v1/logs", body, "5,", "5]}]}]}");
    check("/v1/logs", body, "{\"flags\":\"x\"},", "5]}]}]}");
    check("/v1/logs", &format!("{body}{{\"eventName\":\""), "\\ud83d", "\"}]}]}]}");
    check("/v1/logs", &format!("{body}{{\"eventName\":\""), "\\u00fc", "\"}]}]}]}");
    check("/v1/logs", &format!("{body}{{\"body\":"), "{\"arrayValue\":{\"values\":[", "");
}

#[test]
fn no_text_fills_the_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site_at_rest();
    let check = |name: &str, tag: u8, content: &[u8]| {
        let mut unit = vec![tag];
        prost::encode_length_delimiter(content.len(), &mut unit).expect("into memory");
        unit.extend_from_slice(content);
        let size = unit.len();
        // One record of one scope of one resource.
        let before = |times: usize| {
            let mut heads = Vec::new();
            for tag in [0x12, 0x12, 0x0a] {
                let mut head = vec![tag];
                let length = times * size + heads.len();
                prost::encode_length_delimiter(length, &mut head).expect("into memory");
                heads = [head, heads].concat();
            }
            heads
        };
        check(&site, name, "/v1/logs", PROTOBUF, &inflating(before, &unit, b""));
    };
    check("texts", 0x1a, &[b'a'; 1000]);
    check("long texts", 0x1a, &[b'a'; 1 << 19]);
    check("short texts", 0x1a, b"a");
    check("no characters", 0x1a, &[0xff; 1000]);
    check("unknown fields", 0x7a, b"");
}

#[test]
fn a_record_weighs_what_becomes_of_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let site = site_at_rest();
    let names = [("event.name", "api_request"), ("model", "m"), ("input_tokens", "1")];
    let attributes = names.map(|(name, value)| attr(name, value)).to_vec();
    let record = record(now_ns(), attributes).encode_to_vec();
    let mut unit = vec![0x12];
    prost::encode_length_delimiter(record.len(), &mut unit).expect("into memory");
    unit.extend_from_slice(&record);
    let length = unit.len();
    let resource = logs("claude-code", "s", Vec::new()).resource_logs.remove(0).resource;
    let resource = resource.expect("it has one").encode_to_vec();
    let before = move |times: usize| {
        let mut scopes = vec![0x12];
        prost::encode_length_delimiter(times * length, &mut scopes).expect("into memory");
        let mut head = vec![0x0a];
        let within = 2 + resource.len() + scopes.len() + times * length;
        prost::encode_length_delimiter(within, &mut head).expect("into memory");
        head.push(0x0a);
        prost::encode_length_delimiter(resource.len(), &mut head).expect("into memory");
        [head, resource, scopes].concat()
    };
    let (status, taken) = send(&site, "/v1/logs", PROTOBUF, &inflating(before, &unit, b""));
    assert_eq!(status, 413);
    assert!(taken < ALLOWED, "{taken} bytes");
}

#[test]
fn ordinary_records_pass_by_the_thousand() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let check = |kind: (&str, &str), encode: fn(&ExportLogsServiceRequest) -> Vec<u8>| {
        let site = site_at_rest();
        let mut records = Vec::new();
        let mut body = Vec::new();
        while body.len() < 8 << 20 {
            let more = records.len()..records.len() + 1000;
            records.extend(more.map(|n| claude_request(now_ns(), &format!("req_{n}"))));
            body = encode(&claude_logs(records.clone()));
        }
        for headers in [&[kind][..], &[kind, GZIP]] {
            let body = if headers.len() == 1 { body.clone() } else { gzip(&body) };
            let answer = site.post("/v1/logs", headers, &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(site.distinct_requests(), records.len());
    };
    check(PROTOBUF, |message| message.encode_to_vec());
    check(JSON, |message| serde_json::to_vec(message).expect("it serialises"));
}
