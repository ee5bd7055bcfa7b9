//! `lodestar health`: the state of the system, alerts that are told once, and exit codes as
//! monitoring plugins have them.

use harness::{Sandbox, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// Returns the configuration of a monitor that looks often, with further keys of its section.
pub(crate) fn monitor(keys: &str) -> String {
    format!("modules:\n  health_monitor:\n    enabled: true\n    interval_ms: 100\n{keys}")
}

/// Returns a rule that finds every disk too full, at once.
fn every_disk_is_full(severity: &str) -> String {
    format!(
        "    rules:\n      disk_low: {{above: -1, and: [], for: 0s, keep_firing_for: 0s, severity: \
         {severity}}}\n      disk_almost_full: {{enabled: false}}\n"
    )
}

/// Asks for the health until it is so, and returns it.
pub(crate) fn wait_for(sandbox: &Sandbox, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, || {
        let output = sandbox.lodestar(&["health", "--json"]);
        let health: Value = serde_json::from_str(&output.stdout).ok()?;
        is_so(&health).then_some(health)
    })
}

pub(crate) fn check<'a>(health: &'a Value, name: &str) -> &'a Value {
    let checks = health["checks"].as_array().expect("there are checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or(&Value::Null)
}

pub(crate) fn is_known(health: &Value) -> bool {
    check(health, "memory")["status"] == "ok"
}

#[test]
fn it_is_useful_without_any_configuration() {
    let sandbox = Sandbox::new(&["health_monitor"], &monitor(""));
    let daemon = sandbox.start();
    let health = wait_for(&sandbox, "memory is read", is_known);
    let disks = health["checks"].as_array().expect("there are checks").iter();
    let disks: Vec<&Value> =
        disks.filter(|it| it["name"].as_str().unwrap_or_default().starts_with("disk.")).collect();
    assert!(!disks.is_empty(), "{health:#}");
    for disk in disks {
        assert_eq!((&disk["unit"], &disk["threshold"]), (&"ratio".into(), &0.9.into()), "{disk}");
    }
    // For people: a table with every column, and nothing that a terminal would obey.
    let shown = sandbox.lodestar(&["health"]);
    for head in ["COMPONENT", "STATE", "SINCE", "VALUE", "LIMIT", "WHAT TO DO"] {
        assert!(shown.stdout.contains(head), "{}", shown.stdout);
    }
    assert!(daemon.stop().success());
}

#[test]
fn exit_codes_are_those_of_monitoring_plugins() {
    let sandbox = Sandbox::new(&["health_monitor"], &monitor(""));
    assert_eq!(sandbox.lodestar(&["health"]).code, 3, "no daemon");
    let daemon = sandbox.start();
    wait_for(&sandbox, "memory is read", is_known);
    let codes = |args: &[&str]| sandbox.lodestar(args).code;
    assert_eq!(codes(&["health", "--nonsense"]), 3, "a wrong option is no state");
    assert_eq!(codes(&["health", "history", "--since", "never"]), 2, "other commands as usual");
    for (severity, status, code) in [("warning", "degraded", 1), ("critical", "down", 2)] {
        sandbox.configure(&monitor(&every_disk_is_full(severity)));
        wait_for(&sandbox, status, |health| health["status"] == status);
        assert_eq!(codes(&["health"]), code);
    }
    assert_eq!(sandbox.lodestar(&["modules", "disable", "health_monitor"]).code, 0);
    let output = sandbox.lodestar(&["health"]);
    assert_eq!(output.code, 3, "{output:#?}");
    assert!(output.stderr.contains("lodestar modules enable health_monitor"), "{output:#?}");
    assert!(daemon.stop().success());
}

/// Returns the alerts that fire, as their rules and ids.
pub(crate) fn firing(health: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = health["alerts"].as_array().expect("there are alerts").iter();
    alerts.map(|alert| (text(&alert["name"]), text(&alert["id"]))).collect()
}

#[test]
fn an_alert_outlasts_a_kill_and_a_reload_and_ends_once() {
    let sandbox = Sandbox::new(&["health_monitor"], &monitor(&every_disk_is_full("warning")));
    let daemon = sandbox.start();
    let begun = wait_for(&sandbox, "an alert fires", |health| !firing(health).is_empty());
    let ids = firing(&begun);
    assert!(ids.iter().all(|(name, _)| name == "disk_low"), "{ids:?}");
    daemon.kill();
    let daemon = sandbox.start();
    let is_read = |health: &Value| check(health, "memory")["status"] == "ok";
    assert_eq!(firing(&wait_for(&sandbox, "it is read again", is_read)), ids, "after a kill");
    assert_eq!(sandbox.lodestar(&["modules", "reload", "health_monitor"]).code, 0);
    assert_eq!(firing(&wait_for(&sandbox, "it is read again", is_read)), ids, "after a reload");
    // The rule goes, and with it the alerts.
    sandbox.configure(&monitor("    rules:\n      disk_low: {enabled: false}\n"));
    wait_for(&sandbox, "the alerts end", |health| firing(health).is_empty());
    let history = sandbox.json(&["health", "history", "--json"]);
    let history = history.as_array().expect("it is a list");
    assert_eq!(history.len(), ids.len(), "each was raised once: {history:#?}");
    assert!(history.iter().all(|alert| alert["resolved_at"].is_string()), "{history:#?}");
    assert!(daemon.stop().success());
}

#[test]
fn a_wrong_rule_is_named_and_changes_nothing() {
    let sandbox = Sandbox::new(&["health_monitor"], &monitor(""));
    let daemon = sandbox.start();
    wait_for(&sandbox, "memory is read", is_known);
    let wrong = [
        ("disk_low: {above: 90%, below: 1}", "contradict each other"),
        ("mine: {metric: system_memory_utilisation_ratio, above: 1}", "is system_memory_util"),
        ("disk_low: {for: 5 minutes}", "no length of time"),
        ("disk_low: {clear: 99%}", "must not be above"),
        ("disk_low: {abov: 1}", "above"),
    ];
    for (rule, part) in wrong {
        sandbox.configure(&monitor(&format!("    rules:\n      {rule}\n")));
        let output = sandbox.lodestar(&["config", "check"]);
        assert_eq!(output.code, 4, "{rule}: {output:#?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(said.contains(part) && said.contains("modules.yaml:"), "{rule}: {said}");
    }
    assert_eq!(daemon.module("health_monitor")["state"], "running");
    assert!(daemon.stop().success());
}

/// The module ends in time although a check hangs, and the daemon with it.
#[test]
fn a_termination_does_not_wait_for_checks() {
    let sandbox = Sandbox::new(&["health_monitor"], &monitor(""));
    let daemon = sandbox.start();
    wait_for(&sandbox, "memory is read", is_known);
    daemon.signal(Signal::TERM);
    assert!(daemon.wait().success());
}
