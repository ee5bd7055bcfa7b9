//! OTLP/HTTP: encodings, answers, partial success.

use std::io::{Read as _, Write as _};

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;
use serde_json::json;

use crate::{
    bodies::*,
    http::{Answer, Site, chunked, gzip},
};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn every_way_of_sending_tells_the_same() {
    let message = claude_logs(vec![claude_request(now_ns(), "req_1")]);
    let protobuf = message.encode_to_vec();
    let json = serde_json::to_vec(&message).expect("it serialises");
    let check = |headers: &[(&str, &str)], body: &[u8]| {
        let site = Site::plain();
        let answer = site.post("/v1/logs", headers, body);
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some(headers[0].1));
        let requests = site.requests();
        assert_eq!(requests.len(), 1, "{headers:?}");
        assert_eq!(requests[0].dedupe_key, "anthropic:req_1");
        assert_eq!(requests[0].input_tokens, Some(1200));
        assert_eq!(requests[0].cost_nano_usd, Some(3_435_000));
        assert!(site.bench.host().emitted()[0].ledger);
    };
    check(&[PROTOBUF], &protobuf);
    check(&[JSON], &json);
    check(&[PROTOBUF, ("content-encoding", "gzip")], &gzip(&protobuf));
    check(&[JSON, ("content-encoding", "gzip")], &gzip(&json));
    check(&[JSON, ("content-encoding", "identity")], &json);
    check(&[JSON, ("transfer-encoding", "chunked")], &chunked(&json));
    let both = [PROTOBUF, ("transfer-encoding", "chunked"), ("content-encoding", "gzip")];
    check(&both, &chunked(&gzip(&protobuf)));
}

#[test]
fn answers_are_those_of_the_specification() {
    let site = Site::plain();
    let answer = site.post_protobuf("/v1/logs", &claude_logs(vec![]));
    let whole = ExportLogsServiceResponse::decode(answer.body.as_slice()).expect("a response");
    assert_eq!((answer.status, whole.partial_success), (200, None));
    let message = serde_json::to_vec(&claude_logs(vec![])).expect("it serialises");
    assert!(site.post("/v1/logs", &[JSON], &message).json().is_object());
    // An empty protobuf message has no bytes.
    assert_eq!(site.post("/v1/traces", &[PROTOBUF], b"").status, 200);
    assert_eq!(site.post("/v1/traces", &[JSON], b"").status, 400);
    assert_eq!(site.post_protobuf("/v1/metrics", &claude_metrics()).status, 200);
}

#[test]
fn what_is_refused_is_said_and_the_rest_is_taken() {
    let mut absurd = claude_request(now_ns(), "req_bad");
    absurd.attributes.retain(|attribute| attribute.key != "input_tokens");
    absurd.attributes.push(attr("input_tokens", -5));
    let message = claude_logs(vec![absurd, claude_request(now_ns(), "req_good")]);
    let check = |answer: Answer, site: &Site| {
        assert_eq!(answer.status, 200);
        assert_eq!(site.requests().len(), 1);
        assert_eq!(site.requests()[0].upstream_request_id.as_deref(), Some("req_good"));
    };
    let told = "one record was refused: api_request of claude-code: input_tokens is negative";
    let site = Site::plain();
    let answer = site.post_protobuf("/v1/logs", &message);
    let response = ExportLogsServiceResponse::decode(answer.body.as_slice()).expect("a response");
    let partial = response.partial_success.expect("a part was refused");
    assert_eq!((partial.rejected_log_records, partial.error_message.as_str()), (1, told));
    check(answer, &site);
    let site = Site::plain();
    let answer = site.post("/v1/logs", &[JSON], &serde_json::to_vec(&message).expect("JSON"));
    let partial = &answer.json()["partialSuccess"];
    assert_eq!(partial["errorMessage"], told);
    assert_eq!(partial["rejectedLogRecords"], "1");
    check(answer, &site);
    let span = chat_span((1, 1, 0), now_ns(), "msg_1", vec![]);
    let mut bad = span.clone();
    bad.attributes.retain(|attribute| attribute.key != "gen_ai.usage.output_tokens");
    bad.attributes.push(attr("gen_ai.usage.output_tokens", f64::NAN));
    let answer = site.post_protobuf("/v1/traces", &traces("p", vec![("s", vec![bad, span])]));
    let response = ExportTraceServiceResponse::decode(answer.body.as_slice()).expect("a response");
    assert_eq!(response.partial_success.map(|part| part.rejected_spans), Some(1));
}

#[test]
fn failures_carry_a_status_in_the_encoding_of_the_request() {
    let site = Site::plain();
    let answer = site.post("/v1/logs", &[JSON], b"{\"resourceLogs\":");
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["code"], 3);
    assert!(answer.json()["message"].as_str().expect("a text").contains("ends too early"));
    let answer = site.post("/v1/logs", &[PROTOBUF], &[0x0a, 0x20, 0x01]);
    assert_eq!((answer.status, answer.header("content-type")), (400, Some(PROTOBUF.1)));
    // code: 3, then the message.
    assert_eq!(answer.body[..3], [0x08, 0x03, 0x12]);
    assert!(!answer.has_header("retry-after"));
}

#[test]
fn what_the_host_does_not_take_may_come_again() {
    let mut site = Site::plain();
    let message = claude_logs(vec![claude_request(now_ns(), "req_1")]);
    site.bench.host().refuse_events(Some("the disk is full"));
    let answer = site.post_protobuf("/v1/logs", &message);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(site.get("/healthz").status, 503);
    let health = site.bench.health();
    assert_eq!(health.status, module_sdk::HealthStatus::Degraded);
    site.bench.host().refuse_events(None);
    assert_eq!(site.post_protobuf("/v1/logs", &message).status, 200);
    assert_eq!(site.get("/healthz").status, 200);
    assert_eq!(site.requests().len(), 1);
}

#[test]
fn what_makes_no_request_is_counted_and_shown() {
    let mut site = Site::plain();
    let records = vec![
        claude_request(now_ns(), "req_1"),
        record(now_ns(), vec![attr("event.name", "user_prompt")]),
    ];
    site.post_protobuf("/v1/logs", &claude_logs(records));
    let strange = vec![record(now_ns(), vec![attr("event.name", "my.own.event")])];
    site.post_protobuf("/v1/logs", &logs("my-program", "scope", strange));
    site.post_protobuf("/v1/metrics", &claude_metrics());
    let reply = site.bench.command("sources", json!({})).expect("it answers");
    let found: Vec<String> = reply.data["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().expect("a text");
            format!("{} {} {} {}", text("source"), text("record"), text("outcome"), row["count"])
        })
        .collect();
    assert_eq!(
        found,
        [
            "claude-code api_request request 1",
            "claude-code (2 kinds) ignored 3",
            "my-program my.own.event unknown 1",
        ]
    );
    let table = reply.table.expect("a table");
    let shown: Vec<&str> = table.rows.iter().map(|cells| cells[2].as_str()).collect();
    assert_eq!(shown, ["api_request", "(2 kinds)", "my.own.event"]);
    let reply = site.bench.command("sources", json!({"outcome": "unknown"})).expect("it answers");
    assert_eq!(reply.data["rows"][0]["reason"], "no mapper understands it");
    let metrics = site.bench.host().metrics();
    let series = r#"lodestar_ingest_records_total{"outcome":"unknown","source":"none"}"#;
    assert_eq!(metrics.get(series), Some(&1.0), "{metrics:?}");
    let series = r#"lodestar_ingest_requests_total{"code":"200","endpoint":"/v1/logs"}"#;
    assert_eq!(metrics.get(series), Some(&2.0), "{metrics:?}");
}

#[test]
fn what_goes_to_the_wrong_place_is_counted_and_told_what_to_set() {
    let mut site = Site::plain();
    let body = claude_logs(vec![claude_request(now_ns(), "req_1")]).encode_to_vec();
    let check = |path: &str, kind: &str, status: u16, advice: &str| {
        let answer = site.post(path, &[("content-type", kind)], &body);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().contains(advice), "{path}: {}", answer.text());
    };
    let endpoint = "set that to scheme, host and port only";
    check("/v1/logs/v1/logs", PROTOBUF.1, 404, endpoint);
    check("/v1/logs/v1/logs", PROTOBUF.1, 404, endpoint);
    check("/secret-path/v1/traces", PROTOBUF.1, 404, endpoint);
    check("/", PROTOBUF.1, 404, "end it in /v1/logs");
    check("/secret-path", PROTOBUF.1, 404, "OTLP goes to /v1/logs");
    let service = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    check(service, "application/grpc", 415, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf");
    assert_eq!(site.get("/favicon.ico").status, 404);
    let reply = site.bench.command("sources", json!({})).expect("it answers");
    let rows = reply.data["rows"].as_array().expect("rows").iter();
    let found: Vec<String> = rows
        .map(|row| {
            let text = |field: &str| row[field].as_str().expect("a text");
            format!("{} {} {} {}", text("signal"), text("record"), text("outcome"), row["count"])
        })
        .collect();
    assert_eq!(
        found,
        [
            "logs (path …/v1/logs) refused 2",
            "http (gRPC) refused 1",
            "http (other path) refused 1",
            "http (path /) refused 1",
            "traces (path …/v1/traces) refused 1",
        ]
    );
    assert!(!site.everything_told().contains("secret"));
}

#[test]
fn http2_is_answered_in_its_own_words() {
    let mut site = Site::plain();
    // The preface, an empty SETTINGS frame, and the beginning of a HEADERS frame.
    let begun = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x20\x01\x04\0\0\0\x01";
    for pieces in [vec![&begun[..]], begun.chunks(1).collect()] {
        let mut stream = site.connect();
        for piece in pieces {
            // It may have heard enough.
            let _ = stream.write_all(piece);
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers and ends");
        // An empty SETTINGS frame, then GOAWAY with HTTP_1_1_REQUIRED and the reason.
        assert_eq!(answer[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!((answer[12], answer[18..26].to_vec()), (7, vec![0, 0, 0, 0, 0, 0, 0, 13]));
        assert_eq!(answer.len() - 18, usize::from(answer[10]) * 256 + usize::from(answer[11]));
        let reason = String::from_utf8_lossy(&answer[26..]).into_owned();
        assert!(reason.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"), "{reason}");
    }
    let reply = site.bench.command("sources", json!({})).expect("it answers");
    assert_eq!(reply.data["rows"][0]["record"], "(HTTP/2)");
    assert_eq!(reply.data["rows"][0]["count"], 2);
}

#[test]
fn a_request_in_single_bytes_is_no_preface() {
    let site = Site::plain();
    let mut stream = site.connect();
    for byte in b"PROPFIND /v1/logs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).expect("it reads");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[test]
fn a_body_that_cannot_be_read_shows_in_the_sources() {
    let mut site = Site::plain();
    let json = [("content-type", "application/json")];
    assert_eq!(site.post("/v1/logs", &json, b"{").status, 400);
    assert_eq!(site.post("/v1/logs", &json, b"{ \n").status, 400);
    assert_eq!(site.post("/v1/traces", &json, b"\xff").status, 400);
    assert_eq!(site.post("/v1/metrics", &[("content-type", "text/plain")], b"").status, 415);
    let reply = site.bench.command("sources", json!({"outcome": "refused"})).expect("it answers");
    let rows = reply.data["rows"].as_array().expect("rows").iter();
    let found: Vec<String> = rows
        .map(|row| {
            let text = |field: &str| row[field].as_str().expect("a text");
            let reason = text("reason").split([':', ';']).next().unwrap_or_default();
            format!("{} {} {} {reason}", text("signal"), text("record"), row["count"])
        })
        .collect();
    assert_eq!(
        found,
        [
            "logs (body) 2 the body is not valid OTLP JSON",
            "metrics (body) 1 this Content-Type is not understood",
            "traces (body) 1 the body is not valid OTLP JSON",
        ]
    );
}

#[test]
fn a_project_may_be_named_by_a_header() {
    let site = Site::plain();
    let body = claude_logs(vec![claude_request(now_ns(), "req_1")]).encode_to_vec();
    let answer = site.post("/v1/logs", &[PROTOBUF, ("x-lodestar-project", "shop")], &body);
    assert_eq!(answer.status, 200);
    assert_eq!(site.requests()[0].project.as_deref(), Some("shop"));
}
