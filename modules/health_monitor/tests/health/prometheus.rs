//! The files for Prometheus and Grafana: they speak of what there is, and as the module's own rules
//! do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use health_monitor::{
    export::DERIVED,
    metric::{self, Kind, Metric},
    quantity::Span,
    rule::{Rule, RuleSet},
};
use serde_json::Value;

/// Names of the queries themselves, which stand where a metric does.
const WORDS: [&str; 8] =
    ["and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf"];

/// Words after which labels stand in parentheses.
const GROUPS: [&str; 4] = ["by", "without", "on", "ignoring"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    let path = root().join("config").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the rules of the file, alerts and records.
fn rules() -> Vec<Value> {
    let text = read("prometheus/lodestar.rules.yml");
    let file: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    let groups = file["groups"].as_array().expect("it has groups").iter();
    groups.flat_map(|group| group["rules"].as_array().expect("it has rules").clone()).collect()
}

/// Returns the alerts of the file by the names of the module's rules: `LodestarDiskLow` is
/// `disk_low`.
fn alerts() -> BTreeMap<String, Value> {
    let snake = |name: &str| {
        let mut snake = String::new();
        for letter in name.strip_prefix("Lodestar").expect("all have the prefix").chars() {
            if letter.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        snake
    };
    let all = rules().into_iter();
    all.filter_map(|rule| Some((snake(rule["alert"].as_str()?), rule))).collect()
}

/// Returns the queries of all panels of the dashboard.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana/lodestar.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

/// A metric in a query, with the labels that it is selected by.
#[derive(Debug, PartialEq, Eq)]
struct Selected {
    name: String,
    labels: Vec<String>,
}

/// Returns what a query selects. It reads as much of PromQL as stands in our files.
fn selected(query: &str) -> Vec<Selected> {
    let mut all = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let end = |of: &str| {
            of.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .unwrap_or(of.len())
        };
        let until = |of: &str, close: char| of.find(close).map_or(of.len(), |at| at + 1);
        if first == '[' {
            rest = &rest[until(rest, ']')..];
        } else if first.is_ascii_digit() {
            rest = &rest[end(rest)..];
        } else if first.is_ascii_alphabetic() {
            let (name, after) = rest.split_at(end(rest));
            rest = after.trim_start();
            let is_aggregation = ["by ", "without "].iter().any(|word| rest.starts_with(word));
            if GROUPS.contains(&name) {
                rest = &rest[until(rest, ')')..];
            } else if !is_aggregation && !rest.starts_with('(') && !WORDS.contains(&name) {
                let matchers = if rest.starts_with('{') { until(rest, '}') } else { 0 };
                let labels = rest[..matchers].trim_matches(['{', '}']).split(',');
                let labels = labels.filter_map(|label| label.split(['=', '!']).next());
                let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned).collect();
                all.push(Selected { name: name.to_owned(), labels });
                rest = &rest[matchers..];
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    all
}

/// Returns the metrics that this module exports.
fn exported() -> impl Iterator<Item = &'static Metric> {
    metric::ALL.iter().chain(&DERIVED).copied().filter(|metric| metric.exported)
}

/// Returns the sources of the host and of the other modules, in which the names of their metrics
/// stand.
fn sources() -> String {
    let mut text = String::new();
    let mut directories = vec![root().join("host/daemon/src")];
    for module in ["ingest", "usage_tracker"] {
        directories.push(root().join("modules").join(module).join("src"));
    }
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("it can be listed") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                text.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    text
}

#[test]
fn queries_are_read_as_they_are_written() {
    let of = |name: &str, labels: &[&str]| Selected {
        name: name.to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
    };
    let check = |query: &str, expected: &[Selected]| assert_eq!(selected(query), expected);
    check("up{job=\"x\"} == 0", &[of("up", &["job"])]);
    check(
        "sum by (le) (rate(a_total{x!=\"1\",y=~\"b|c\"}[5m])) > 4 * 3600 and on (z) b < 1e9",
        &[of("a_total", &["x", "y"]), of("b", &[])],
    );
    check("l:ratio:5m or max(c)", &[of("l:ratio:5m", &[]), of("c", &[])]);
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_there_are() {
    let rules = rules();
    let records: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let of_rules = rules.iter().map(|rule| rule["expr"].as_str().expect("a query").to_owned());
    let sources = sources();
    let (mut missing, mut asked) = (BTreeSet::new(), BTreeSet::new());
    for query in of_rules.chain(queries()) {
        for Selected { name, labels } in selected(&query) {
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_there = |name: &str| sources.contains(&format!("\"{name}\""));
            let is_asked = |metric: &&Metric| match metric.kind {
                Kind::Histogram => base == Some(metric.name),
                _ => name == metric.name,
            };
            if let Some(metric) = exported().find(is_asked) {
                for label in labels {
                    assert!(metric.labels.contains(&label.as_str()), "{name} has no {label}");
                }
            } else if name.contains(':') {
                assert!(records.contains(name.as_str()), "nobody records {name}");
            } else if name != "up" && !is_there(&name) && !base.is_some_and(is_there) {
                missing.insert(name.clone());
            }
            asked.insert(name);
        }
    }
    assert!(missing.is_empty(), "there are no such metrics: {missing:#?}");
    let measured = exported().filter(|metric| asked.contains(metric.name)).count();
    assert!(measured >= 25, "only {measured} of this module's metrics are asked for");
}

#[test]
fn the_host_takes_every_exported_metric() {
    // What begins so belongs to the host.
    let reserved = ["build_info", "config_", "module_", "bus_", "http_", "ledger_"]
        .map(|it| format!("lodestar_{it}"));
    for Metric { name, .. } in exported() {
        let is_reserved = reserved.iter().any(|prefix| name.starts_with(prefix));
        assert!(!is_reserved && !name.starts_with("process_"), "{name} is the host's");
        assert!(!sources().contains(&format!("\"{name}\"")), "{name} is another module's");
    }
}

#[test]
fn an_alert_is_as_its_rule_is() {
    let shipped = RuleSet::new(&BTreeMap::new()).expect("the shipped rules are valid");
    let alerts = alerts();
    let span = |alert: &Value, key: &str| {
        alert[key].as_str().map_or(0, |text| text.parse::<Span>().expect("a time").ms())
    };
    let mut compared = 0;
    for (name, alert) in &alerts {
        let labels = &alert["labels"];
        assert!(labels["component"].is_string(), "{name} has no component");
        for key in ["summary", "description"] {
            assert!(alert["annotations"][key].is_string(), "{name} has no {key}");
        }
        let Some(rule) = shipped.get(name) else { continue };
        let Rule { for_ms, keep_ms, severity, .. } = &**rule;
        let found = (span(alert, "for"), span(alert, "keep_firing_for"), &labels["severity"]);
        assert_eq!(found, (*for_ms, *keep_ms, &severity.as_str().into()), "{name}");
        compared += 1;
    }
    assert!(compared >= 35, "only {compared} alerts have the names of rules");
}

#[test]
fn a_dashboard_has_a_panel_for_everything_in_its_place() {
    let dashboard: Value = serde_json::from_str(&read("grafana/lodestar.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let ids: BTreeSet<i64> = panels.iter().filter_map(|panel| panel["id"].as_i64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    let mut cells = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(place("x") + place("w") <= 24, "{panel:#}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(cells.insert((x, y)), "two panels overlap: {}", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            assert!(panel["description"].is_string() && panel["targets"].is_array());
        }
    }
}
