//! Start, connections, and stop.

use std::io::{Read as _, Write as _};

use prost::Message as _;
use serde_json::json;

use ingest::Ingest;
use module_sdk::testing::Bench;

use crate::{
    bodies::*,
    http::{Site, answer, connect, request},
};

#[test]
fn the_configuration_is_checked() {
    let check = |config: serde_json::Value, part: &str| {
        let error = Bench::<Ingest>::start(config).expect_err("it is wrong").to_string();
        assert!(error.contains(part), "{error}");
    };
    check(json!({"lisen": "127.0.0.1:1"}), "unknown field `lisen`");
    check(json!({"max_connections": 0}), "max_connections");
    check(json!({"max_buffered_bytes": 1}), "max_buffered_bytes: is smaller");
}

#[test]
fn a_connection_serves_many_requests() {
    let site = Site::plain();
    let mut stream = site.connect();
    let body = claude_logs(vec![claude_request(now_ns(), "req_1")]).encode_to_vec();
    for _ in 0..3 {
        let headers = [("content-type", "application/x-protobuf")];
        assert_eq!(request(&mut stream, "POST", "/v1/logs", &headers, &body).status, 200);
    }
    assert_eq!(site.requests().len(), 3);
    assert_eq!(site.distinct_requests(), 1);
}

#[test]
fn what_is_under_way_is_answered_at_the_stop() {
    let site = Site::plain();
    let host = site.bench.host().clone();
    let body = claude_logs(vec![claude_request(now_ns(), "req_1")]).encode_to_vec();
    let mut stream = site.connect();
    let head = format!(
        "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
         content-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("it reads");
    // The server asks for the body, so the request is certainly under way.
    let mut asked = [0; 25];
    stream.read_exact(&mut asked).expect("it asks for the body");
    assert!(asked.starts_with(b"HTTP/1.1 100"));
    std::thread::scope(|scope| {
        let client = scope.spawn(move || {
            stream.write_all(&body).expect("it reads");
            answer(&mut stream)
        });
        site.bench.stop().expect("it stops");
        let answer = client.join().expect("no panic");
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    assert_eq!(host.emitted().len(), 1);
}

#[test]
fn idle_connections_do_not_hold_up_the_stop() {
    let site = Site::plain();
    let mut idle = site.connect();
    assert_eq!(request(&mut idle, "GET", "/healthz", &[], &[]).status, 200);
    site.bench.stop().expect("it stops");
    let mut rest = Vec::new();
    assert_eq!(idle.read_to_end(&mut rest).expect("it is closed"), 0);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let site = Site::start(json!({"max_connections": 1}));
    let mut first = site.connect();
    assert_eq!(request(&mut first, "GET", "/healthz", &[], &[]).status, 200);
    let mut second = connect(site.address);
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it is queued");
    drop(first);
    assert_eq!(answer(&mut second).status, 200);
}

#[test]
fn the_timer_tidies_and_shows_what_is_remembered() {
    let mut site = Site::plain();
    site.post_protobuf("/v1/logs", &claude_logs(vec![claude_request(now_ns(), "req_1")]));
    let minute = std::time::Duration::from_secs(60);
    site.bench.advance(minute).expect("it runs");
    let remembered =
        |site: &Site| site.bench.host().metrics()["lodestar_ingest_remembered_requests"];
    assert!((remembered(&site) - 1.0).abs() < f64::EPSILON);
    site.bench.advance(61 * minute).expect("it runs");
    assert!(remembered(&site).abs() < f64::EPSILON);
}
