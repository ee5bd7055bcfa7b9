//! The example module for authors: it is built, loaded and works.

use std::{fs, path::Path};

use harness::{Sandbox, far_from_midnight, http, telemetry};

use crate::reload_faults::ISOLATIONS;

const CONFIG: &str = "\
modules:
  ingest:
    listen: 127.0.0.1:0
  budget_guard:
    limit_usd: 0.000001
    timezone: ZONE
metrics:
  listen: 127.0.0.1:0
";

#[test]
fn the_example_is_loaded_and_warns() {
    let sandbox =
        Sandbox::new(&["ingest", "budget_guard"], &CONFIG.replace("ZONE", far_from_midnight()));
    let daemon = sandbox.start();
    let address = daemon.address("ingest", "http");
    let body = telemetry::claude_code("s", "example").to_string();
    let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
    assert_eq!(answer.expect("ingest answers").status, 200);
    let status = sandbox.json(&["budget_guard", "status"]);
    assert_eq!(status["spent_nano_usd"], 3_435_000, "{status:#}");
    let logs = sandbox.lodestar(&["modules", "logs", "budget_guard"]);
    assert!(logs.stdout.contains("today costs more than it may"), "{logs:#?}");
    let info = sandbox.lodestar(&["modules", "info", "budget_guard"]);
    assert!(info.stdout.contains("begin_day daily at 00:00"), "{info:#?}");
    // A restart of the daemon forgets nothing.
    assert!(daemon.stop().success());
    let daemon = sandbox.start();
    let status = sandbox.json(&["budget_guard", "status"]);
    assert_eq!(status["spent_nano_usd"], 3_435_000, "{status:#}");
    assert!(daemon.stop().success());
}

#[test]
fn the_example_with_a_page_a_table_and_a_question_answers() {
    for isolation in ISOLATIONS {
        let config = format!(
            "modules:\n  ingest:\n    listen: 127.0.0.1:0\n  usage_tracker:\n    enabled: true\n  \
             spend_page:\n    listen: 127.0.0.1:0\n    isolation: {isolation}\nmetrics:\n  listen: \
             127.0.0.1:0\n"
        );
        let sandbox = Sandbox::new(&["ingest", "usage_tracker", "spend_page"], &config);
        let daemon = sandbox.start();
        let body = telemetry::claude_code("s", "example").to_string();
        let address = daemon.address("ingest", "http");
        let answer = http::post(&address, "/v1/logs", &[telemetry::JSON], body.as_bytes());
        assert_eq!(answer.expect("ingest answers").status, 200);
        // Its answer includes all that was accepted before it was asked for.
        assert_eq!(sandbox.json(&["spend_page", "status"])["requests"], 1);
        let address = daemon.address("spend_page", "http");
        let spend = http::get(&address, "/spend").expect("it answers").json();
        assert_eq!(spend["all"]["cost_nano_usd"], 3_435_000, "{isolation}: {spend:#}");
        assert_eq!(spend["week_cost_usd"], 0.003_435, "what the tracker says: {spend:#}");
        assert_eq!(http::get(&address, "/other").expect("it answers").status, 404);
        assert!(daemon.stop().success());
    }
}

#[test]
fn the_page_for_authors_shows_the_example_as_it_is() {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../module-sdk");
    let page = fs::read_to_string(sdk.join("README.md")).expect("the page is there");
    for file in ["src/lib.rs", "module.toml", "config.yaml"] {
        let path = sdk.join("examples/budget_guard").join(file);
        let text = fs::read_to_string(path).expect("the example is there");
        // The page does without the tests.
        let shown = text.split("\n#[cfg(test)]").next().unwrap_or_default();
        assert!(page.contains(shown.trim()), "README.md shows another {file}");
    }
}
