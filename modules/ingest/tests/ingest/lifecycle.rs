//! Start, connections, and stop.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

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

/// Waits until the module closes a connection; returns what it still sent.
fn until_closed(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("it is closed, and not reset");
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn an_idle_connection_has_a_time_of_its_own() {
    let site = Site::start(json!({"header_timeout_seconds": 1, "idle_timeout_seconds": 1000}));
    let mut kept = site.connect();
    for _ in 0..2 {
        let answer = request(&mut kept, "GET", "/healthz", &[], &[]);
        assert_eq!((answer.status, answer.header("keep-alive")), (200, Some("timeout=1000")));
        // Once this one is closed, the time for a head is over for the other one as well.
        assert_eq!(until_closed(&mut connect(site.address)), "");
    }
    assert_eq!(request(&mut kept, "GET", "/healthz", &[], &[]).status, 200);
    let site = Site::start(json!({"idle_timeout_seconds": 1}));
    let mut idle = site.connect();
    assert_eq!(request(&mut idle, "GET", "/healthz", &[], &[]).status, 200);
    assert_eq!(until_closed(&mut idle), "");
}

#[test]
fn a_client_that_never_reads_is_let_go_and_counted() {
    let mut site = Site::start(json!({"write_timeout_seconds": 1}));
    let mut deaf = site.connect();
    let requests = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
    // Until nothing more fits between the two, and the module has given up.
    while deaf.write_all(requests.as_bytes()).is_ok() {}
    // All connections have one thread, so that what is answered now comes after the count.
    assert_eq!(site.get("/healthz").status, 200);
    site.bench.advance(Duration::from_secs(10)).expect("it runs");
    let counted = site.bench.host().metrics();
    let closed = "lodestar_ingest_connections_closed_total{\"reason\":\"unread\"}";
    assert!((counted[closed] - 1.0).abs() < f64::EPSILON, "{counted:?}");
}

#[test]
fn silent_clients_do_not_keep_a_sender_out() {
    let site = Site::start(json!({"max_connections": 4, "header_timeout_seconds": 1000}));
    let _silent: Vec<_> = (0..40).map(|_| connect(site.address)).collect();
    let mut idle: Vec<_> = (0..40)
        .map(|_| {
            let mut stream = site.connect();
            assert_eq!(request(&mut stream, "GET", "/healthz", &[], &[]).status, 200);
            stream
        })
        .collect();
    let message = claude_logs(vec![claude_request(now_ns(), "req_1")]);
    assert_eq!(site.post_protobuf("/v1/logs", &message).status, 200);
    assert_eq!(until_closed(&mut idle[0]), "", "it has been idle for longest");
}

/// Sends a request while the only connection is busy; returns the status and the `Retry-After`.
fn ask_beside_another(site: &Site) -> (u16, Option<String>) {
    let mut busy = site.connect();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
                content-type: application/json\r\ncontent-length: 2000000\r\n\r\n";
    busy.write_all(head.as_bytes()).expect("it reads");
    let mut asked = [0; 25];
    busy.read_exact(&mut asked).expect("it asks for the body");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It goes on sending, and so there is no reason to end it.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) && busy.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let mut other = connect(site.address);
        other.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it fits");
        let answer = answer(&mut other);
        stop.store(true, Ordering::Relaxed);
        (answer.status, answer.header("retry-after").map(str::to_owned))
    })
}

#[test]
fn who_is_refused_is_told_in_the_health() {
    let mut site = Site::start(json!({"max_connections": 1}));
    // On a busy machine the one at work may seem to hesitate, and gives way.
    let answers = std::iter::repeat_with(|| ask_beside_another(&site));
    let refused = answers.take(20).find(|(status, _)| *status == 503);
    assert_eq!(refused, Some((503, Some("1".to_owned()))));
    let health = site.bench.health();
    assert!(health.message.contains("1 clients were refused so far"), "{health:?}");
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
