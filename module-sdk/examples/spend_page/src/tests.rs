//! Tests of the module without a daemon, over a real socket.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use module_sdk::{Reply, events::LlmRequestCompleted, testing::Bench};
use serde_json::{Value, json};

use super::SpendPage;

/// Sends a request and returns the status line and the body of the answer.
fn ask(bench: &Bench<SpendPage>, method: &str, path: &str, host: &str) -> (String, Value) {
    let address = bench.host().listener_address("http").expect("it listens");
    let mut client = TcpStream::connect(address).expect("it accepts");
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.lines().next().unwrap_or_default().to_owned();
    (status, serde_json::from_str(body).unwrap_or_default())
}

#[test]
fn it_answers_with_what_was_spent() {
    let mut bench = Bench::<SpendPage>::start(json!({})).expect("it starts");
    for cost_nano_usd in [Some(3_435_000), None, Some(65_000)] {
        let request = LlmRequestCompleted { cost_nano_usd, ..Default::default() };
        bench.send(&request).expect("it is handled");
    }
    let expected = json!({"requests": 3, "unpriced_requests": 1, "cost_nano_usd": 3_500_000});
    let page = |bench: &Bench<SpendPage>| ask(bench, "GET", "/spend", "localhost");
    let (status, spend) = page(&bench);
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(spend, json!({"all": expected, "week_cost_usd": null}), "nobody keeps the usage");
    bench.host().answer("usage_tracker", "summary", |args, _| {
        assert_eq!(args, json!({"since": "7d"}));
        Reply::json(&json!({"total": {"cost_usd": 0.0035}}))
    });
    assert_eq!(page(&bench).1["week_cost_usd"], 0.0035);
    let told = bench.command("status", json!({})).expect("it answers");
    assert_eq!(told.data, expected);
    bench.stop().expect("it stops");
}

#[test]
fn what_it_does_not_answer_is_said() {
    let bench = Bench::<SpendPage>::start(json!({})).expect("it starts");
    let check = |method: &str, path: &str, host: &str, expected: (&str, &str)| {
        let (status, problem) = ask(&bench, method, path, host);
        assert!(status.contains(expected.0), "{method} {path} of {host}: {status}");
        assert_eq!(problem["code"], expected.1, "{problem:#}");
    };
    check("GET", "/other", "localhost", ("404", "not_found"));
    check("POST", "/spend", "localhost", ("405", "method_not_allowed"));
    check("GET", "/spend", "evil.example", ("403", "host_not_allowed"));
}
