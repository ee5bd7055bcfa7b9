//! The metrics of `health_monitor`, and the files for Prometheus and Grafana that ask for them.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::{Daemon, Sandbox, http, tool_or_skip, wait_until};
use serde_json::Value;

use crate::reload_faults::ISOLATIONS;

fn config(isolation: &str, ignored: &str) -> String {
    let disk = format!("    checks: {{disk: {{ignore: [{ignored}]}}}}\n");
    format!(
        "modules:\n  health_monitor:\n    isolation: {isolation}\n    interval_ms: 100\n{disk}\
         metrics:\n  listen: 127.0.0.1:0\n"
    )
}

fn scraped(daemon: &Daemon<'_>) -> String {
    let answer = http::get(&daemon.address("", "metrics"), "/metrics").expect("it answers");
    assert_eq!(answer.status, 200);
    answer.text()
}

fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(file)
}

/// Runs promtool, with this on its standard input; panics with its words where it is not content.
fn content(promtool: &Path, words: &[&str], input: &str) {
    let mut check = Command::new(promtool);
    check.args(words).current_dir(shipped("prometheus")).stdin(Stdio::piped());
    let mut check =
        check.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it was found");
    let mut to = check.stdin.take().expect("it is piped");
    // It need not read what it is given.
    let _ = to.write_all(input.as_bytes());
    drop(to);
    let output = check.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn a_series_that_is_gone_is_not_shown() {
    for isolation in ISOLATIONS {
        let sandbox = Sandbox::new(&["health_monitor"], &config(isolation, ""));
        let daemon = sandbox.start();
        let has = |name: &str| scraped(&daemon).lines().any(|line| line.starts_with(name));
        let (disk, memory) = ("system_filesystem_utilization_ratio{", "system_memory_utilization");
        wait_until("disks and memory are shown", || (has(disk) && has(memory)).then_some(()));
        sandbox.configure(&config(isolation, "\"*\""));
        wait_until("only memory is shown", || (!has(disk) && has(memory)).then_some(()));
        assert!(daemon.stop().success(), "{isolation}");
    }
}

#[test]
fn the_metrics_of_health_pass_promtool() {
    let sandbox = Sandbox::new(&["health_monitor"], &config("in_process", ""));
    let daemon = sandbox.start();
    let text = wait_until("its metrics are shown", || {
        let text = scraped(&daemon);
        let names = ["system_filesystem_usage_bytes{", "lodestar_oom_kills_total "];
        names.iter().all(|name| text.contains(&format!("\n{name}"))).then_some(text)
    });
    for severity in ["critical", "info", "warning"] {
        let line = format!("lodestar_alerts_firing{{severity=\"{severity}\"}} ");
        assert!(text.contains(&line), "{text}");
    }
    let Some(promtool) = tool_or_skip("promtool", "the_metrics_of_health_pass_promtool") else {
        return;
    };
    content(&promtool, &["check", "metrics"], &text);
    assert!(daemon.stop().success());
}

#[test]
fn the_rules_and_their_tests_pass_promtool() {
    let Some(promtool) = tool_or_skip("promtool", "the_rules_and_their_tests_pass_promtool") else {
        return;
    };
    content(&promtool, &["check", "rules", "--lint-fatal", "lodestar.rules.yml"], "");
    content(&promtool, &["test", "rules", "lodestar.rules.test.yml"], "");
}

#[test]
fn the_queries_of_the_dashboard_pass_promtool() {
    let Some(promtool) = tool_or_skip("promtool", "the_queries_of_the_dashboard_pass_promtool")
    else {
        return;
    };
    let text = fs::read_to_string(shipped("grafana/lodestar.json")).expect("it is there");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    // As Grafana fills them in.
    let queries = targets.map(|target| {
        let query = target["expr"].as_str().expect("it has a query");
        query.replace("$__rate_interval", "5m").replace("$model", ".*")
    });
    let rules: Vec<Value> = queries
        .enumerate()
        .map(|(at, query)| serde_json::json!({"record": format!("q:{at}"), "expr": query}))
        .collect();
    assert!(rules.len() > 30, "{}", rules.len());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let rules = serde_json::json!({"groups": [{"name": "queries", "rules": rules}]});
    fs::write(file.path(), rules.to_string()).expect("it is writable");
    content(&promtool, &["check", "rules", &file.path().to_string_lossy()], "");
}
