//! Events that another daemon has published: each is accepted once, under its id, and only from
//! permitted modules.

use harness::{Sandbox, breakage, http, library, wait_until};
use serde_json::{Value, json};

use crate::reload_faults::ISOLATIONS;

fn config(isolation: &str) -> String {
    format!("modules:\n  witness:\n    isolation: {isolation}\nmetrics:\n  listen: 127.0.0.1:0\n")
}

fn id(number: u8) -> String {
    format!("019aa3c1-7b5e-7000-8000-0000000000{number:02x}")
}

/// Returns the events that the module has seen, once there are `count`.
fn seen(sandbox: &Sandbox, count: usize) -> Value {
    wait_until(&format!("{count} were seen"), || {
        let seen = sandbox.json(&["witness", "seen"]);
        (seen.as_array()?.len() >= count).then_some(seen)
    })
}

#[test]
fn an_event_is_relayed_once_over_restarts() {
    for isolation in ISOLATIONS {
        let sandbox = Sandbox::new(&["witness"], &config(isolation));
        let daemon = sandbox.start();
        let relay = |number: u8, more: &[&str]| {
            let id = id(number);
            let given = sandbox.lodestar(&[&["witness", "relay", "--id", &id], more].concat());
            assert_eq!(given.code, 0, "{isolation}: {given:#?}");
        };
        relay(1, &["--times", "3"]);
        relay(1, &[]);
        relay(2, &["--live", "--times", "2"]);
        relay(2, &["--live"]);
        let all = seen(&sandbox, 2);
        assert_eq!(all.as_array().map(Vec::len), Some(2), "{all:#}");
        let first = all.as_array().and_then(|all| all.iter().find(|it| it["id"] == id(1).as_str()));
        let first = first.expect("the first one");
        assert_eq!(first["time"], "2026-11-20T10:00:00Z", "{first:#}");
        assert_eq!(first["source"], "//laptop-1/lodestar/ingest", "{first:#}");
        assert_eq!((&first["subject"], &first["data"]), (&json!("s"), &json!({"relayed": true})));
        assert!(daemon.stop().success());
        let daemon = sandbox.start();
        relay(1, &[]);
        relay(3, &[]);
        let all = seen(&sandbox, 1);
        assert_eq!(all[0]["id"], id(3).as_str(), "{isolation}: {all:#}");
        let audit = sandbox.json(&["events", "audit"]);
        assert!(audit.as_array().is_some_and(|all| all.iter().all(|it| it["balanced"] == true)));
        assert!(daemon.stop().success());
    }
}

#[test]
fn what_may_not_be_relayed_is_refused_and_counted() {
    for isolation in ISOLATIONS {
        let sandbox = Sandbox::new(&["witness"], &config(isolation));
        let daemon = sandbox.start();
        let check = |more: &[&str], expected: &str| {
            let id = id(1);
            let given = sandbox.lodestar(&[&["witness", "relay", "--id", &id], more].concat());
            assert_eq!(given.code, 1, "{given:#?}");
            assert!(given.stderr.contains(expected), "{isolation} {more:?}: {given:#?}");
        };
        check(&["--origin", "/lodestar/ingest"], "two slashes");
        check(&["--origin", "//laptop-1"], "two slashes");
        check(&["--topic", "llm.request.completed"], "bus.publishes");
        check(&["--time", "1970-01-01T00:00:00Z"], "the time that it has");
        let v4 = "9a3c17b5-e700-4000-8000-000000000001";
        let given = sandbox.lodestar(&["witness", "relay", "--id", v4]);
        assert!(given.stderr.contains("UUIDv7"), "{given:#?}");
        let metrics = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers");
        let metrics = metrics.text();
        for (reason, count) in [("bad_origin", 2), ("no_id_or_time", 2)] {
            let line = format!(
                "lodestar_module_refused_events_total{{module=\"witness\",reason=\"{reason}\"}} \
                 {count}"
            );
            assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
        }
        assert_eq!(sandbox.json(&["witness", "seen"]), json!([]));
        assert!(daemon.stop().success());
    }
}

#[test]
fn only_a_module_with_the_capability_relays() {
    let sandbox = Sandbox::new(&[], &config("in_process"));
    let without = breakage::with_text(library("witness"), b"relays = true", b"relays=false ");
    sandbox.install_bytes("witness", &without);
    let manifest = sandbox.path("modules/witness/module.toml");
    let text = std::fs::read_to_string(&manifest).expect("it was installed");
    let text = text.replace("relays = true", "relays=false ");
    std::fs::write(&manifest, text).expect("the sandbox is writable");
    let daemon = sandbox.start();
    let given = sandbox.lodestar(&["witness", "relay", "--id", &id(1)]);
    assert_eq!(given.code, 1, "{given:#?}");
    assert!(given.stderr.contains("`relays = true`"), "{given:#?}");
    assert_eq!(sandbox.json(&["witness", "seen"]), json!([]));
    assert!(daemon.stop().success());
}
