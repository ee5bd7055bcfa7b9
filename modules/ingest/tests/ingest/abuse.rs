//! Bad input: no input causes a panic or a 500, each gets a clear answer, and good input is still
//! accepted.

use std::io::{Read as _, Write as _};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use serde_json::json;

use crate::{
    bodies::*,
    http::{Site, connect, gzip, request},
};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

/// Checks that the module still accepts good input.
fn still_works(site: &Site) {
    let before = site.requests().len();
    let message = claude_logs(vec![claude_request(now_ns(), "req_good")]);
    assert_eq!(site.post_protobuf("/v1/logs", &message).status, 200);
    assert_eq!(site.requests().len(), before + 1);
}

#[test]
fn truncated_bodies_are_refused_wherever_they_end() {
    let site = Site::plain();
    let message = claude_logs(vec![claude_request(now_ns(), "req_1")]);
    let json = serde_json::to_vec(&message).expect("it serialises");
    let protobuf = message.encode_to_vec();
    for cut in (1..json.len()).step_by(97) {
        assert_eq!(site.post("/v1/logs", &[JSON], &json[..cut]).status, 400, "JSON at {cut}");
    }
    for cut in (1..protobuf.len()).step_by(53) {
        let status = site.post("/v1/logs", &[PROTOBUF], &protobuf[..cut]).status;
        assert_eq!(status, 400, "protobuf at {cut}");
    }
    let zipped = gzip(&protobuf);
    let status = site.post("/v1/logs", &[PROTOBUF, GZIP], &zipped[..zipped.len() - 12]).status;
    assert_eq!(status, 400);
    assert!(site.requests().is_empty());
    still_works(&site);
}

#[test]
fn what_is_not_understood_is_415() {
    let site = Site::plain();
    let check = |headers: &[(&str, &str)]| {
        assert_eq!(site.post("/v1/logs", headers, b"{}").status, 415, "{headers:?}");
    };
    check(&[]);
    check(&[("content-type", "text/plain")]);
    check(&[("content-type", "application/grpc")]);
    check(&[JSON, ("content-encoding", "zstd")]);
    check(&[JSON, ("content-encoding", "gzip, gzip")]);
}

#[test]
fn large_bodies_and_bombs_are_413() {
    let site = Site::start(json!({"max_body_bytes": 100_000, "max_inflated_bytes": 1_000_000}));
    let check = |headers: &[(&str, &str)], body: &[u8], part: &str| {
        let answer = site.post("/v1/logs", headers, body);
        assert_eq!(answer.status, 413, "{}", answer.text());
        assert!(answer.text().contains(part), "{}", answer.text());
    };
    check(&[JSON], &[b' '; 100_001], "max_body_bytes");
    let length = "9999999999999";
    check(&[JSON, ("content-length", length)], b"", "max_body_bytes");
    let mut chunks = Vec::new();
    for _ in 0..11 {
        chunks.extend_from_slice(b"2710\r\n");
        chunks.extend_from_slice(&[b' '; 10_000]);
        chunks.extend_from_slice(b"\r\n");
    }
    check(&[JSON, ("transfer-encoding", "chunked")], &chunks, "max_body_bytes");
    check(&[JSON, GZIP], &gzip(&vec![b' '; 10_000_000]), "max_inflated_bytes");
    still_works(&site);
}

#[test]
fn a_small_body_that_would_fill_the_memory_is_413() {
    let budget = 2_000_000;
    let site = Site::start(json!({
        "max_body_bytes": 500_000, "max_inflated_bytes": 500_000, "max_buffered_bytes": budget,
    }));
    // 200,000 empty records: 400 kB to send, some 50 MB decoded.
    let records = vec![Default::default(); 200_000];
    let body = logs("bomb", "scope", records).encode_to_vec();
    assert!(body.len() < 500_000);
    let answer = site.post("/v1/logs", &[PROTOBUF], &body);
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("max_buffered_bytes"), "{}", answer.text());
    let json = format!(
        "{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{}{{}}]}}]}}]}}",
        "{},".repeat(100_000)
    );
    assert_eq!(site.post("/v1/logs", &[JSON], json.as_bytes()).status, 413);
    still_works(&site);
}

#[test]
fn nesting_has_an_end() {
    let site = Site::plain();
    let deep = "[".repeat(1_000_000);
    assert_eq!(site.post("/v1/logs", &[JSON], deep.as_bytes()).status, 400);
    assert_eq!(site.post("/api/v1/event", &[JSON], deep.as_bytes()).status, 413);
    // kvlist in kvlist in kvlist, from the inside.
    let mut bytes = Vec::new();
    for index in 0..5000 {
        let tag = if index % 2 == 0 { 0x0a } else { 0x32 };
        let mut outer = vec![tag];
        prost::encode_length_delimiter(bytes.len(), &mut outer).expect("into memory");
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    let status = site.post("/v1/logs", &[PROTOBUF], &bytes).status;
    assert!(matches!(status, 200 | 400), "{status}");
    still_works(&site);
}

#[test]
fn absurd_times_give_way() {
    let site = Site::plain();
    let before = jiff::Timestamp::now().as_millisecond();
    for time in [0, 1, 1_000_000_000, 4_070_908_800_000_000_000, u64::MAX] {
        let mut record = claude_request(time, &format!("req_{time}"));
        record.observed_time_unix_nano = time;
        site.post_protobuf("/v1/logs", &claude_logs(vec![record]));
    }
    let after = jiff::Timestamp::now().as_millisecond();
    let requests = site.requests();
    assert_eq!(requests.len(), 5);
    for request in requests {
        assert!((before - 5000..=after + 5000).contains(&request.ended_at), "{request:?}");
        assert!(request.started_at <= request.ended_at);
    }
    let corrected = site.bench.host().metrics()["lodestar_ingest_clock_corrections_total"];
    assert!((corrected - 4.0).abs() < f64::EPSILON, "{corrected}");
}

#[test]
fn numbers_beyond_all_bounds_cost_one_record() {
    let site = Site::plain();
    let good = serde_json::to_value(claude_logs(vec![claude_request(now_ns(), "req_1")]));
    let mut body = good.expect("it serialises");
    let records = body.pointer_mut("/resourceLogs/0/scopeLogs/0/logRecords");
    let records = records.and_then(|records| records.as_array_mut()).expect("records");
    let attribute = |value: serde_json::Value| {
        json!({"attributes": [
            {"key": "event.name", "value": {"stringValue": "api_request"}},
            {"key": "input_tokens", "value": value},
        ]})
    };
    records.push(attribute(json!({"intValue": "170141183460469231731687303715884105728"})));
    records.push(attribute(json!({"intValue": 18_446_744_073_709_551_615_u64})));
    records.push(attribute(json!({"doubleValue": "NaN"})));
    records.push(attribute(json!({"intValue": "-1"})));
    let answer = site.post("/v1/logs", &[JSON], &serde_json::to_vec(&body).expect("JSON"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["partialSuccess"]["rejectedLogRecords"], "4");
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn text_that_is_not_utf8_costs_its_characters_only() {
    let site = Site::plain();
    let mut body = claude_logs(vec![claude_request(now_ns(), "req_1")]).encode_to_vec();
    let at = body.windows(5).position(|bytes| bytes == b"req_1").expect("it is there");
    body[at] = 0xff;
    assert!(ExportLogsServiceRequest::decode(body.as_slice()).is_err());
    assert_eq!(site.post("/v1/logs", &[PROTOBUF], &body).status, 200);
    assert_eq!(site.post("/v1/logs", &[JSON], b"{\"a\":\"\xff\"}").status, 200);
    assert_eq!(site.post("/v1/logs", &[JSON], b"\xff").status, 400);
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn unknown_paths_and_methods_are_said_to_be_so() {
    let site = Site::plain();
    let answer = site.post("/v1/profiles", &[JSON], b"{}");
    assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (404, Some("not_found")));
    let answer = site.get("/v1/logs");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    assert_eq!(site.post("/healthz", &[], b"").status, 405);
    assert_eq!(site.get("/healthz").status, 200);
}

#[test]
fn web_pages_do_not_reach_it() {
    let site = Site::plain();
    let check = |header: (&str, &str), code: &str| {
        let answer = site.post("/v1/logs", &[JSON, header], b"{}");
        assert_eq!(answer.status, 403, "{header:?}");
        assert_eq!(answer.json()["error"]["code"], code);
    };
    check(("host", "evil.example:4318"), "host_not_allowed");
    check(("host", "169.254.169.254"), "host_not_allowed");
    check(("origin", "https://evil.example"), "origin_not_allowed");
    check(("origin", "null"), "origin_not_allowed");
    check(("sec-fetch-site", "cross-site"), "origin_not_allowed");
    // In absolute form the target counts and not the header.
    let target = "http://evil.example/healthz";
    assert_eq!(request(&mut site.connect(), "GET", target, &[], b"").status, 403);
    let check = |headers: &[(&str, &str)], status: u16, code: &str| {
        let answer = site.post("/v1/logs", &[&[JSON], headers].concat(), b"{}");
        assert_eq!(answer.status, status, "{headers:?}");
        assert_eq!(answer.json()["error"]["code"], code);
    };
    check(&[("host", "localhost"), ("host", "localhost")], 400, "host_repeated");
    check(&[("host", "")], 400, "host_missing");
    check(&[("host", "evil.example@localhost")], 400, "host_invalid");
    let origin = ("origin", "https://app.example");
    check(&[origin, origin], 400, "origin_repeated");
    let target = "http://localhost:1/healthz";
    assert_eq!(request(&mut site.connect(), "GET", target, &[], b"").status, 400);
    let open = Site::start(json!({"allowed_hosts": ["collector.lan"]}));
    let answer = open.post("/v1/logs", &[JSON, ("host", "collector.lan:4318")], b"{}");
    assert_eq!(answer.status, 200);
}

#[test]
fn slow_clients_are_let_go() {
    let site = Site::start(json!({"header_timeout_seconds": 1, "body_timeout_seconds": 1}));
    let mut head = connect(site.address);
    head.write_all(b"POST /v1/logs HTTP/1.1\r\nhost: loc").expect("it reads");
    let mut rest = Vec::new();
    // It closes, or answers 408 and closes.
    head.read_to_end(&mut rest).expect("it closes");
    let headers = [JSON, ("content-length", "10")];
    let answer = request(&mut site.connect(), "POST", "/v1/logs", &headers, b"{");
    assert_eq!(answer.status, 408, "{}", answer.text());
}

#[test]
fn garbage_is_no_reason_to_stop() {
    let site = Site::plain();
    for garbage in [&b"\x16\x03\x01\x02\x00"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0"]
    {
        let mut stream = connect(site.address);
        stream.write_all(garbage).expect("it reads");
        drop(stream);
    }
    still_works(&site);
}
