//! `lodestar health explain`: a rule or an alert, in words and with its page.

use module_sdk::ErrorKind;
use serde_json::json;

use crate::common::{start, until};

#[test]
fn a_shipped_rule_is_shown_as_it_is_in_force_with_its_page() {
    let mut bench = start(json!({"rules": {"disk_low": {"above": "80%", "for": "90s"}}}));
    let reply = bench.command("explain", json!({"name": "disk_low"})).expect("it answers");
    assert_eq!(reply.data["severity"], "warning");
    let condition = reply.data["condition"].as_str().expect("a text");
    assert!(condition.starts_with("system_filesystem_utilization_ratio above 80%"), "{condition}");
    assert_eq!(reply.data["for"], "1m 30s");
    assert_eq!(reply.data["firing"], json!([]));
    assert_eq!(reply.data["runbook"], json!(null));
    assert!(reply.data["page"].as_str().expect("a page").starts_with("# disk_low: "));
    let table = reply.table.expect("a table for people");
    assert!(table.rows.iter().any(|row| row[1] == "does not fire"), "{table:?}");
    assert!(table.notes.contains(&"## What to do".to_owned()), "{:?}", table.notes);
    bench.stop().expect("it ends");
}

#[test]
fn an_alert_is_explained_by_its_id() {
    let mine = json!({
        "metric": "system_memory_utilization_ratio", "above": -1, "severity": "critical",
        "message": "It is so.", "runbook": "https://wiki.example.org/mine",
    });
    let mut bench = start(json!({"interval_ms": 100, "rules": {"mine": mine}}));
    let id = until(&mut bench, "the alert fires", |bench| {
        let alerts = bench.command("alerts", json!({})).expect("it answers").data;
        Some(alerts.as_array()?.iter().find(|alert| alert["name"] == "mine")?["id"].clone())
    });
    let reply = bench.command("explain", json!({"name": id})).expect("it answers");
    assert_eq!(reply.data["name"], "mine");
    assert_eq!(reply.data["page"], json!(null), "the user wrote this rule");
    assert_eq!(reply.data["runbook"], "https://wiki.example.org/mine");
    assert_eq!(reply.data["firing"][0]["id"], id);
    let status = bench.command("status", json!({})).expect("it answers").table.expect("a table");
    let hint = status.notes.iter().find(|note| note.contains("lodestar health explain"));
    assert!(hint.is_some_and(|hint| hint.contains("mine")), "{:?}", status.notes);
    bench.stop().expect("it ends");
}

#[test]
fn without_a_name_all_rules_are_listed() {
    let mut bench = start(json!({"rules": {"oom_kill": {"enabled": false}}}));
    let reply = bench.command("explain", json!({})).expect("it answers");
    let rules = reply.data.as_array().expect("a list");
    assert_eq!(reply.table.expect("a table for people").rows.len(), rules.len());
    assert!(rules.iter().any(|rule| rule["name"] == "disk_low"));
    assert!(!rules.iter().any(|rule| rule["name"] == "oom_kill"), "it is switched off");
    let error = bench.command("explain", json!({"name": "oom_kill"})).expect_err("it is off");
    assert!(error.to_string().contains("the rule oom_kill is switched off"), "{error}");
    bench.stop().expect("it ends");
}

#[test]
fn an_unknown_name_leads_to_a_near_one() {
    let mut bench = start(json!({}));
    let mut refused = |name: &str| {
        let error = bench.command("explain", json!({"name": name})).expect_err("it is unknown");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        error.to_string()
    };
    assert!(refused("disk_lo").contains("did you mean `disk_low`?"));
    assert!(refused("disk_lo-1a2b3c4d").contains("did you mean `disk_low`?"));
    let error = refused("\u{1b}]0;x\u{7}");
    assert!(error.contains("lists the rules") && !error.contains('\u{1b}'), "{error}");
    bench.stop().expect("it ends");
}
