//! The daemon and its modules, as the daemon tells of them.

use std::sync::{Arc, Mutex};

use module_sdk::{Error, Reply};
use serde_json::{Value, json};

use crate::watching::Watching;

/// Starts the module beside a daemon whose state a test changes; `null` for one that fails.
fn beside(status: Value) -> (Watching, Arc<Mutex<Value>>) {
    let told = Arc::new(Mutex::new(status));
    let answered = told.clone();
    let answer = move |_, _: &mut _| {
        let status = answered.lock().expect("nobody panicked").clone();
        if status.is_null() { Err(Error::new("it does not answer")) } else { Reply::json(&status) }
    };
    let prepare = |host: &module_sdk::testing::FakeHost| host.answer("host", "status", answer);
    (Watching::start_on(prepare, json!({"modules": {}})), told)
}

fn module(state: &str, restarts: u64, overflow: u64) -> Value {
    json!({"memory_bytes": 9_000_000, "modules": [{
        "name": "ingest", "desired": "enabled", "state": state, "restarts": restarts,
        "dropped_by": if overflow > 0 { json!({"overflow": overflow}) } else { json!({}) },
        "reason": if state == "running" { Value::Null } else { json!("it panicked") },
    }]})
}

#[test]
fn a_module_that_fails_is_told_and_comes_back() {
    let (mut watching, told) = beside(module("running", 0, 0));
    watching.once("module.ingest", |check| check["status"] == "ok");
    watching.once("daemon", |check| check["value"] == 9_000_000.0);
    *told.lock().expect("nobody panicked") = module("quarantined", 0, 0);
    let message = watching.message("module.ingest", "critical");
    assert!(message.starts_with("The module ingest is quarantined: it panicked. "), "{message}");
    assert!(message.contains("lodestar modules why ingest"), "{message}");
    assert_eq!(watching.alerts(), ["module_down"]);
    *told.lock().expect("nobody panicked") = module("running", 0, 0);
    watching.once("module.ingest", |check| check["status"] == "ok");
    watching.pass(61);
    assert_eq!(watching.alerts(), Vec::<String>::new());
}

#[test]
fn restarts_and_dropped_events_are_told_as_they_grow() {
    let (mut watching, told) = beside(module("running", 7, 0));
    watching.once("module.ingest", |check| check["status"] == "ok");
    assert_eq!(watching.alerts(), Vec::<String>::new(), "what was before is no news");
    *told.lock().expect("nobody panicked") = module("running", 7, 3);
    let message = watching.message("module.ingest", "warning");
    assert!(message.starts_with("3 events of the module ingest were dropped (overflow)"));
    *told.lock().expect("nobody panicked") = module("running", 10, 3);
    let message = watching.message("module.ingest", "critical");
    assert!(message.starts_with("The module ingest was restarted 3 times"), "{message}");
}

#[test]
fn a_daemon_that_does_not_tell_is_unknown() {
    let (mut watching, told) = beside(Value::Null);
    let message = watching.message("daemon", "unknown");
    assert!(message.contains("does not tell its state"), "{message}");
    *told.lock().expect("nobody panicked") = module("running", 0, 0);
    watching.once("daemon", |check| check["status"] == "ok");
    *told.lock().expect("nobody panicked") = Value::Null;
    watching.once("module.ingest", |check| check["status"] == "unknown");
}
