//! The router.

use module_sdk::Reply;
use serde_json::{Value, json};

use crate::{
    fake_provider::{FakeProvider, json as answer},
    watching::Watching,
};

fn checks() -> Value {
    json!({"router": {"deadline_ms": 1_000}})
}

#[test]
fn a_router_that_nobody_configured_is_absent() {
    let status = json!({"modules": [{"name": "ingest", "desired": "enabled"}]});
    let answer = move |_, _: &mut _| Reply::json(&status);
    let mut watching = Watching::start_on(|host| host.answer("host", "status", answer), checks());
    assert_eq!(watching.message("router", "absent"), "no router is configured");
}

#[test]
fn a_router_follows_from_the_daemons_status() {
    let server = FakeProvider::start(answer(200, "{}"));
    let address = server.url().replace("http://localhost", "127.0.0.1");
    let status = json!({"modules": [{
        "name": "router", "desired": "enabled", "state": "running",
        "listeners": [{"name": "http", "address": address}],
    }]});
    let reply = move |_, _: &mut _| Reply::json(&status);
    let mut watching = Watching::start_on(|host| host.answer("host", "status", reply), checks());
    watching.once("router", |check| check["status"] == "ok");
    assert!(server.requests()[0].starts_with("GET /healthz "));
    server.answer(answer(500, ""));
    let message = watching.message("router", "critical");
    assert!(message.starts_with("The router does not answer"), "{message}");
}

#[test]
fn the_last_probe_is_told_before_anything_is_down() {
    let server = FakeProvider::start(answer(404, "{}"));
    let mut checks = checks();
    checks["router"]["url"] = json!(server.url());
    let mut watching = Watching::start(json!({}), checks);
    // It answers: what it says to a stranger does not matter.
    watching.once("router", |check| check["status"] == "ok");
    server.answer(answer(502, ""));
    watching.once("router", |check| check["status"] == "critical");
    server.answer(answer(200, ""));
    watching.once("router", |check| check["status"] == "ok" && check["message"] == "");
    watching.pass(121);
    assert_eq!(watching.alerts(), Vec::<String>::new());
}
