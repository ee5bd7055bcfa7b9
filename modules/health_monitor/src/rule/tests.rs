use serde_json::{Value, json};

use super::*;

fn set(rules: Value) -> Result<RuleSet, RuleError> {
    RuleSet::new(&serde_json::from_value(rules).expect("it has the form of rules"))
}

#[test]
fn the_shipped_rules_are_in_force_and_changed_key_by_key() {
    let shipped = set(json!({})).expect("they are valid");
    let low = shipped.get("disk_low").expect("it is shipped");
    assert!(low.for_ms > 0 && !low.next_step.is_empty());
    let changed = set(json!({"disk_low": {"above": "80%"}})).expect("it is valid");
    let changed = changed.get("disk_low").expect("it is there");
    assert_eq!((changed.for_ms, &changed.next_step), (low.for_ms, &low.next_step));
    let Subject::Metric { test, .. } = &changed.condition.subject else {
        panic!("it judges a metric")
    };
    assert!((test.threshold - 0.8).abs() < 1e-9 && test.clear == test.threshold);
    let off = set(json!({"disk_low": {"enabled": false}})).expect("it is valid");
    assert!(off.get("disk_low").is_none());
    assert_eq!(off.iter().count() + 1, shipped.iter().count());
}

#[test]
fn what_is_wrong_with_a_rule_is_said_where_it_stands() {
    let check = |rule: Value, key: &str, part: &str| {
        let error = set(json!({"mine": rule})).expect_err("it is wrong");
        assert_eq!(error.key(), key, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    let memory = "system_memory_utilization_ratio";
    check(json!({}), "rules.mine", "`metric`, `event` or `check`");
    check(json!({"metric": "system_memory"}), "rules.mine.metric", "is system_memory");
    check(json!({"metric": memory}), "rules.mine", "`above`, `below` or `is`");
    check(
        json!({"metric": memory, "above": 1, "below": 0}),
        "rules.mine.below",
        "contradict each other",
    );
    check(json!({"metric": memory, "above": "2GB"}), "rules.mine.above", "in ratio, not in bytes");
    check(
        json!({"metric": memory, "above": 0.8, "clear": 0.9}),
        "rules.mine.clear",
        "must not be above",
    );
    check(
        json!({"metric": "lodestar_oom_kills_total", "above": 0}),
        "rules.mine.function",
        "only grows",
    );
    check(
        json!({"metric": memory, "above": 0, "function": "rate", "over": "5m"}),
        "rules.mine.function",
        "avg, max, min",
    );
    check(json!({"metric": memory, "above": 0, "over": "5m"}), "rules.mine.function", "needs a");
    check(
        json!({"metric": memory, "above": 0, "match": {"x": "y"}}),
        "rules.mine.match",
        "it has none",
    );
    check(
        json!({"metric": memory, "above": 0, "and": [{"metric": "x", "above": 1}]}),
        "rules.mine.and",
        "`metric`: there is no metric",
    );
    let first_token = "gen_ai_server_time_to_first_token_seconds";
    check(json!({"metric": first_token, "above": 5}), "rules.mine.function", "`function: p95`");
    check(
        json!({"metric": first_token, "function": "sum", "over": "5m", "above": 5}),
        "rules.mine.function",
        "p95, p50, p99, avg, max, count",
    );
    check(
        json!({"metric": first_token, "function": "p95", "over": "2h", "above": 5}),
        "rules.mine.over",
        "at most 1h 10m",
    );
    check(json!({"check": "warning"}), "rules.mine.check", "`unknown` or `absent`");
    check(
        json!({"metric": memory, "above": 0, "hidden_by": ["disk_lo"]}),
        "rules.mine.hidden_by",
        "is disk_low meant?",
    );
}

#[test]
fn patterns_fit_names() {
    let check = |pattern: &str, name: &str, fits: bool| {
        assert_eq!(Pattern::new(pattern).fits(name), fits, "{pattern} {name}");
    };
    check("*", "", true);
    check("disk.*", "disk./", true);
    check("disk.*", "memory", false);
    check("*.0", "gpu.0", true);
    check("gpu|memory", "memory", true);
    check("a*b*c", "axxbyyc", true);
    check("a*b*c", "axxbyy", false);
    check(&"*a".repeat(40), &"a".repeat(60), true);
    check(&format!("{}b", "*a".repeat(40)), &"a".repeat(2_000), false);
}
