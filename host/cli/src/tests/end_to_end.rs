//! Tests of the fixed verbs.

use std::path::Path;

use lodestar_api::{Problem, ProblemCode};
use serde_json::{Value, json};

use super::{assert_outcome, daemon::Daemon, lodestar, sample};

fn operation(state: &str, message: &str) -> Value {
    json!({
        "id": "019aa3c1", "kind": "enable", "module": "usage_tracker", "state": state,
        "message": message, "started_at": "2026-11-21T01:50:17.000Z",
        "config_line": "config/modules.yaml:17 enabled: false -> true",
    })
}

#[tokio::test]
async fn status_for_people_and_for_programs() {
    let daemon = Daemon::start();
    daemon.answer("GET /v1/status", &sample::status());
    let outcome = lodestar(&daemon.socket, &["status"]).await;
    assert_eq!(outcome.code, 0);
    assert!(outcome.stdout.starts_with("lodestard 0.1.0   pid 4711"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("usage_tracker  failed"), "{}", outcome.stdout);
    daemon.answer("GET /v1/status", &sample::status());
    let outcome = lodestar(&daemon.socket, &["--json", "status"]).await;
    let status: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(status["modules"][1]["events"]["handled"], 1204);
    assert_eq!(status["modules"][0]["reason"], Value::Null);
}

#[tokio::test]
async fn without_the_daemon() {
    let check = async |words: &[&str], part: &str| {
        let outcome = lodestar(Path::new("/nonexistent/control.sock"), words).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (3, ""), "{words:?}");
        assert!(outcome.stderr.contains(part), "{words:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("systemctl start lodestard"), "{}", outcome.stderr);
    };
    check(&["status"], "nobody answers at /nonexistent/control.sock").await;
    check(&["usage", "summary"], "cannot look up the command `usage`").await;
    check(&["staus"], "did you mean `lodestar status`?").await;
    check(&["events", "tail"], "lodestard is not running").await;
    check(&["modules", "enable", "usage_tracker"], "lodestard is not running").await;
    check(&["--json", "status"], "\"code\":\"not_reachable\"").await;
}

#[tokio::test]
async fn problems_have_exit_codes() {
    let check = async |code: ProblemCode, expected: u8| {
        let daemon = Daemon::start();
        let problem = Problem::new(code, "usage_tracker cannot").help("do this");
        daemon.problem("GET /v1/modules/usage_tracker", &problem);
        let outcome = lodestar(&daemon.socket, &["modules", "info", "usage_tracker"]).await;
        let stderr = "error: usage_tracker cannot\nhelp: do this\n";
        assert_outcome(&outcome, expected, "", stderr);
    };
    check(ProblemCode::NotFound, 1).await;
    check(ProblemCode::Refused, 4).await;
    check(ProblemCode::Invalid, 4).await;
    check(ProblemCode::Busy, 1).await;
    check(ProblemCode::Failed, 1).await;
    check(ProblemCode::Timeout, 5).await;
    check(ProblemCode::Unavailable, 1).await;
}

#[tokio::test]
async fn enable_waits_for_the_outcome() {
    let daemon = Daemon::start();
    daemon
        .answer("POST /v1/modules/usage_tracker/enable?wait_ms=20000", &operation("pending", ""))
        .answer("GET /v1/operations/019aa3c1?wait_ms=20000", &operation("done", "it runs"));
    let outcome = lodestar(&daemon.socket, &["modules", "enable", "usage_tracker"]).await;
    let stdout = "config/modules.yaml:17 enabled: false -> true\nit runs\n";
    assert_outcome(&outcome, 0, stdout, "");
}

#[tokio::test]
async fn enable_does_not_wait_when_told_so() {
    let daemon = Daemon::start();
    let request = "POST /v1/modules/usage_tracker/enable?wait_ms=0";
    daemon.answer(request, &operation("pending", ""));
    let words = ["modules", "enable", "usage_tracker", "--no-wait"];
    let outcome = lodestar(&daemon.socket, &words).await;
    assert!(outcome.stdout.ends_with("operation 019aa3c1\n"), "{}", outcome.stdout);
    assert_eq!(outcome.code, 0);
}

#[tokio::test]
async fn a_failed_change_is_an_error() {
    let daemon = Daemon::start();
    let mut failed = operation("failed", "usage_tracker was built for ABI epoch 2");
    failed["code"] = json!("refused");
    failed["help"] = json!("rebuild it");
    daemon.answer("POST /v1/modules/usage_tracker/enable?wait_ms=20000", &failed);
    let outcome = lodestar(&daemon.socket, &["modules", "enable", "usage_tracker"]).await;
    let stderr = "error: usage_tracker was built for ABI epoch 2\nhelp: rebuild it\n";
    let stdout = "config/modules.yaml:17 enabled: false -> true\n";
    assert_outcome(&outcome, 4, stdout, stderr);
}

#[tokio::test]
async fn a_change_that_takes_too_long() {
    let daemon = Daemon::start();
    let pending = operation("pending", "");
    daemon.answer("POST /v1/modules/usage_tracker/disable?wait_ms=1", &pending);
    for _ in 0..1_000 {
        daemon.answer("GET /v1/operations/019aa3c1?wait_ms=1", &pending);
    }
    let words = ["--timeout", "0.001", "modules", "disable", "usage_tracker"];
    let outcome = lodestar(&daemon.socket, &words).await;
    assert_eq!(outcome.code, 5, "{}", outcome.stderr);
}

#[tokio::test]
async fn a_daemon_that_does_not_answer() {
    let daemon = Daemon::start();
    let open = daemon.stream("GET /v1/status", 200);
    let outcome = lodestar(&daemon.socket, &["--timeout", "0.05", "status"]).await;
    assert_eq!(outcome.code, 5);
    assert!(outcome.stderr.contains("did not answer within 0.05 s"), "{}", outcome.stderr);
    drop(open);
}

#[tokio::test]
async fn a_module_that_does_not_answer() {
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &json!([sample::module_commands()]));
    let request = "POST /v1/modules/usage_tracker/commands/summary";
    let open = daemon.stream(request, 200);
    let words = ["--timeout", "0.05", "usage", "summary"];
    let outcome = lodestar(&daemon.socket, &words).await;
    let stderr = "error: usage_tracker did not answer `lodestar usage summary` within 0.05 s\n\
                  help: see with `lodestar modules why usage_tracker` how it is, or try again with \
                  a longer --timeout\n";
    assert_outcome(&outcome, 5, "", stderr);
    drop(open);
}

#[tokio::test]
async fn events_are_shown_line_by_line() {
    let daemon = Daemon::start();
    let items = [json!({"skipped": 3}), serde_json::to_value(sample::envelope()).expect("JSON")];
    let request = "GET /v1/events/tail?filter=llm.%3E";
    daemon.lines(request, &items).lines(request, &items).lines(request, &items);
    let words = ["events", "tail", "llm.>", "--count", "1"];
    let outcome = lodestar(&daemon.socket, &words).await;
    assert_eq!(outcome.code, 0);
    assert!(outcome.stdout.starts_with("... 3 left out"), "{}", outcome.stdout);
    let outcome = lodestar(&daemon.socket, &[&words[..], &["--json"]].concat()).await;
    let lines: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        (&lines[0]["skipped"], &lines[1]["type"]),
        (&json!(3), &json!("llm.request.completed"))
    );
    let outcome = lodestar(&daemon.socket, &words[..3]).await;
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("ended the stream"), "{}", outcome.stderr);
}

#[tokio::test]
async fn dead_events_are_replayed() {
    let daemon = Daemon::start();
    daemon.answer("POST /v1/events/replay", &json!({"replayed": 1}));
    let outcome = lodestar(&daemon.socket, &["events", "replay", "usage_tracker", "019a"]).await;
    assert_outcome(&outcome, 0, "1 event waits for usage_tracker again\n", "");
    let (_, body) = daemon.asked().pop().expect("a request");
    assert_eq!(body, json!({"module": "usage_tracker", "ids": ["019a"]}));
    daemon.answer("POST /v1/events/replay", &json!({"replayed": 2}));
    lodestar(&daemon.socket, &["events", "replay", "usage_tracker", "--all"]).await;
    let (_, body) = daemon.asked().pop().expect("a request");
    assert_eq!(body, json!({"module": "usage_tracker"}));
    daemon.answer("GET /v1/events/dead?module=usage_tracker", &json!([]));
    let outcome = lodestar(&daemon.socket, &["events", "dead", "usage_tracker"]).await;
    assert_outcome(&outcome, 0, "No event is dead.\n", "");
}

#[tokio::test]
async fn books_that_do_not_balance_are_a_failure() {
    let check = async |balanced: bool, code: u8| {
        let daemon = Daemon::start();
        daemon.answer(
            "GET /v1/events/audit",
            &json!([{"module": "m", "accepted": 1, "handled": 1, "dead": 0, "dropped": 0,
                     "pending": 0, "recounted_pending": 0, "balanced": balanced}]),
        );
        assert_eq!(lodestar(&daemon.socket, &["events", "audit"]).await.code, code);
    };
    check(true, 0).await;
    check(false, 1).await;
}

#[tokio::test]
async fn the_configuration_is_checked_and_shown() {
    let daemon = Daemon::start();
    let file = daemon.directory().join("mine.yaml");
    std::fs::write(&file, "modules: {}\n").expect("a file");
    let name = file.display().to_string();
    let error = json!({"file": "modules.yaml", "line": 7, "column": 5, "key": "modules.x",
                       "message": "unknown key", "hint": "did you mean `y`?"});
    daemon.answer("POST /v1/config/check", &json!({"errors": [error]}));
    let outcome = lodestar(&daemon.socket, &["config", "check", &name]).await;
    let stdout = format!(
        "{name}:7:5: modules.x: unknown key; did you mean `y`?\nconfiguration {name}: 1 error\n"
    );
    assert_outcome(&outcome, 4, &stdout, "");
    assert_eq!(daemon.asked()[0].1, json!({"text": "modules: {}\n", "changed": false}));
    daemon.answer("POST /v1/config/check", &json!({"errors": []}));
    let outcome = lodestar(&daemon.socket, &["config", "check"]).await;
    assert_outcome(&outcome, 0, "configuration: valid\n", "");
    daemon.answer("GET /v1/config", &sample::config());
    let outcome = lodestar(&daemon.socket, &["config", "show"]).await;
    assert_eq!(outcome.stdout, sample::config().text);
    let settings = json!([{"key": "api_key", "value": "${INGEST_KEY}", "origin": "m.yaml:3"}]);
    daemon.answer("GET /v1/config/modules/ingest", &settings);
    let outcome = lodestar(&daemon.socket, &["config", "show", "ingest"]).await;
    assert_outcome(&outcome, 0, "api_key: ${INGEST_KEY}    # m.yaml:3\n", "");
    daemon.answer("GET /v1/config/diff", &json!([]));
    daemon.answer("POST /v1/config/check", &json!({"errors": []}));
    let outcome = lodestar(&daemon.socket, &["config", "diff"]).await;
    assert_outcome(&outcome, 0, "The configuration file is what runs.\n", "");
}

#[tokio::test]
async fn what_would_change_is_shown_with_what_holds_it_back() {
    let daemon = Daemon::start();
    let change = json!({"path": "modules.x.y", "before": null, "after": 3});
    let error = json!({"file": "m.yaml", "line": 7, "column": 5, "key": "modules.x.z",
                       "message": "unknown key", "hint": null});
    daemon.answer("GET /v1/config/diff", &json!([change]));
    daemon.answer("POST /v1/config/check", &json!({"errors": [error]}));
    let outcome = lodestar(&daemon.socket, &["config", "diff"]).await;
    let stderr = "error: nothing of this is taken: m.yaml:7:5: modules.x.z: unknown key\nhelp: \
                  correct the file and save it; what runs goes on until then\n";
    assert_outcome(&outcome, 4, "modules.x.y: (absent) -> 3\n", stderr);
}

#[tokio::test]
async fn warnings_are_shown_and_are_no_errors() {
    let daemon = Daemon::start();
    let warning = json!({"file": "m.yaml", "line": 2, "column": 3, "key": "modules.usage_traker",
                         "message": "there is no such module", "hint": "did you mean `u`?"});
    let report = json!({"errors": [], "warnings": [warning]});
    let line = "warning: m.yaml:2:3: modules.usage_traker: there is no such module; did you mean \
                `u`?\n";
    daemon.answer("POST /v1/config/check", &report);
    let outcome = lodestar(&daemon.socket, &["config", "check"]).await;
    assert_outcome(&outcome, 0, &format!("{line}configuration: valid, 1 warning\n"), "");
    daemon.answer("GET /v1/config/diff", &json!([])).answer("POST /v1/config/check", &report);
    let outcome = lodestar(&daemon.socket, &["config", "diff"]).await;
    assert_outcome(&outcome, 0, "The configuration file is what runs.\n", line);
    daemon.answer("GET /v1/status", &sample::status());
    daemon.answer("POST /v1/config/check", &report);
    let outcome = lodestar(&daemon.socket, &["doctor"]).await;
    let expected = "warning configuration: m.yaml:2:3: modules.usage_traker";
    assert!(outcome.stdout.contains(expected), "{}", outcome.stdout);
}

#[tokio::test]
async fn kept_events_are_replayed_by_time() {
    let daemon = Daemon::start();
    let answer = json!({"replayed": 12, "kept_since": "2026-11-02T00:00:00.000Z"});
    daemon.answer("POST /v1/events/replay", &answer);
    let words = ["events", "replay", "budget", "--since", "2026-11-01T00:00:00Z"];
    let outcome = lodestar(&daemon.socket, &words).await;
    let stderr = "The oldest event that the ledger still keeps was accepted at \
                  2026-11-02T00:00:00.000Z.\n";
    assert_outcome(&outcome, 0, "12 events wait for budget again\n", stderr);
    let (_, body) = daemon.asked().pop().expect("a request");
    assert_eq!(body, json!({"module": "budget", "since": "2026-11-01T00:00:00Z"}));
    let check = async |words: &[&str], part: &str| {
        let words = [&["events", "replay", "budget"], words].concat();
        let outcome = lodestar(&daemon.socket, &words).await;
        assert_eq!(outcome.code, 2, "{words:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(part), "{words:?}: {}", outcome.stderr);
    };
    check(&["--since", "-3d"], "write --since 3d").await;
    check(&["--until", "3d"], "--since").await;
    check(&["--since", "1d", "--all"], "cannot be used with").await;
    check(&["--since", "today", "--until", "yesterday"], "--since today begins at").await;
}

#[tokio::test]
async fn the_doctor_finds_what_is_wrong() {
    let daemon = Daemon::start();
    daemon
        .answer("GET /v1/status", &sample::status())
        .answer("POST /v1/config/check", &json!({"errors": []}))
        .answer("GET /v1/events/lag", &json!([]));
    let outcome = lodestar(&daemon.socket, &["doctor", "--json"]).await;
    assert_eq!(outcome.code, 1);
    let report: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(report["status"], "problem");
    let checks = report["checks"].as_array().expect("checks");
    let find = |name: &str| checks.iter().find(|check| check["name"] == name).expect(name);
    assert_eq!(find("module usage_tracker")["status"], "problem");
    assert_eq!(find("module usage_tracker")["message"], "failed: the database is locked; 2 dead");
    assert_eq!(find("configuration")["status"], "ok");
    assert_eq!(find("event ledger")["status"], "ok");
    let outcome = lodestar(Path::new("/nonexistent/control.sock"), &["doctor"]).await;
    assert_eq!(outcome.code, 3);
    assert!(outcome.stdout.starts_with("problem daemon: lodestard is not"), "{}", outcome.stdout);
}

#[tokio::test]
async fn logs_and_lists() {
    let daemon = Daemon::start();
    let line = json!({"time": "t", "level": "info", "module": "ingest", "message": "up"});
    daemon.lines("GET /v1/modules/ingest/logs?lines=5&follow=false", &[line]);
    let outcome = lodestar(&daemon.socket, &["modules", "logs", "ingest", "-n", "5"]).await;
    assert_outcome(&outcome, 0, "t INFO  up\n", "");
    daemon.answer("GET /v1/modules", &sample::status().modules);
    let outcome = lodestar(&daemon.socket, &["modules", "list", "--json"]).await;
    let modules: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(modules[1]["name"], "usage_tracker");
    daemon.answer("GET /v1/modules/usage_tracker", &sample::info());
    let outcome = lodestar(&daemon.socket, &["modules", "info", "usage_tracker"]).await;
    assert!(outcome.stdout.contains("generation  42 (2 resident)"), "{}", outcome.stdout);
    daemon.answer("GET /v1/events/lag", &json!([]));
    let outcome = lodestar(&daemon.socket, &["events", "lag"]).await;
    assert!(outcome.stdout.contains("No module listens"), "{}", outcome.stdout);
}

#[tokio::test]
async fn the_manual_and_the_completions_need_no_daemon() {
    let nowhere = Path::new("/nonexistent/control.sock");
    let outcome = lodestar(nowhere, &["man"]).await;
    assert!(outcome.stdout.contains(".TH LODESTAR"), "{}", outcome.stdout);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().display().to_string();
    let outcome = lodestar(nowhere, &["man", "--out", &path]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(directory.path().join("lodestar-modules-enable.1").is_file());
    for shell in ["bash", "zsh", "fish"] {
        let outcome = lodestar(nowhere, &["completions", shell]).await;
        assert!(outcome.stdout.contains("modules"), "{shell}: {}", outcome.stdout);
    }
}

#[tokio::test]
async fn completions_know_the_modules_and_their_nouns() {
    for shell in ["bash", "zsh", "fish"] {
        let daemon = Daemon::start();
        daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
        daemon.answer("GET /v1/modules", &sample::status().modules);
        let outcome = lodestar(&daemon.socket, &["completions", shell]).await;
        let enable = outcome.stdout.lines().filter(|line| line.contains("ingest"));
        assert!(enable.count() > 0, "{shell}: {}", outcome.stdout);
        assert!(outcome.stdout.contains("only-errors"), "{shell}: {}", outcome.stdout);
    }
}

#[tokio::test]
async fn a_reader_that_went_away_is_no_error() {
    struct Gone;
    impl std::io::Write for Gone {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let daemon = Daemon::start();
    daemon.answer("GET /v1/status", &sample::status());
    let stderr = super::Captured::default();
    let mut terminal = crate::terminal::Terminal::on(Box::new(Gone), Box::new(stderr.clone()));
    let socket = format!("--socket={}", daemon.socket.display());
    let argv = ["lodestar", &socket, "status"].map(std::ffi::OsString::from).to_vec();
    assert_eq!(crate::run(argv, &mut terminal).await, 0);
    assert_eq!(stderr.text(), "");
}
