//! Tests of the commands that modules declare and of their answers.

use std::path::Path;

use lodestar_api::{Problem, ProblemCode};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use super::{assert_outcome, daemon::Daemon, lodestar, sample};

/// Lock for the tests with signals: one reaches every test of the process that watches for them.
static SIGNALS: RwLock<()> = RwLock::const_new(());

fn with_module_commands(items: &[Value]) -> Daemon {
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
    for command in ["summary", "export"] {
        let request = format!("POST /v1/modules/usage_tracker/commands/{command}");
        daemon.lines(&request, items);
    }
    daemon
}

fn reply(exit_code: u8) -> Value {
    json!({"reply": {
        "data": {"rows": [{"key": "gpt-5", "requests": 7}]},
        "table": {"title": "", "columns": [{"title": "MODEL", "numeric": false},
                                           {"title": "REQUESTS", "numeric": true}],
                  "rows": [["gpt-5", "7"]], "total": [], "notes": ["7 days"]},
        "exit_code": exit_code,
    }})
}

#[tokio::test]
async fn a_noun_answers_with_a_table_and_its_own_exit_code() {
    let daemon =
        with_module_commands(&[json!({"progress": {"done": 1, "unit": "rows"}}), reply(2)]);
    let outcome = lodestar(&daemon.socket, &["usage", "--since", "7d", "--by=day"]).await;
    assert_outcome(&outcome, 2, "MODEL  REQUESTS\ngpt-5         7\n\n7 days\n", "");
    let (request, args) = daemon.asked().pop().expect("a request");
    assert_eq!(request, "POST /v1/modules/usage_tracker/commands/summary");
    assert_eq!(args, json!({"since": "7d", "by": "day"}));
}

#[tokio::test]
async fn a_noun_answers_in_json() {
    let daemon = with_module_commands(&[reply(0)]);
    let outcome = lodestar(&daemon.socket, &["usage_tracker", "summary", "--json"]).await;
    let data: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(data, json!({"rows": [{"key": "gpt-5", "requests": 7}]}));
}

#[tokio::test]
async fn a_stream_goes_to_standard_output_and_its_answer_beside_it() {
    let items = [json!({"chunk": "a,b\n1,"}), json!({"chunk": "2\n"}), reply(0)];
    let outcome = lodestar(&with_module_commands(&items).socket, &["usage", "export"]).await;
    let stderr = "MODEL  REQUESTS\ngpt-5         7\n\n7 days\n";
    assert_outcome(&outcome, 0, "a,b\n1,2\n", stderr);
}

#[tokio::test]
async fn a_script_reads_a_stream_and_its_answer_in_one_place() {
    for chunks in [&["{\"a\":1}\n", "{\"a\":2}\n"][..], &["{\"a\":1}\n{\"a\"", ":2}"], &[]] {
        let mut items: Vec<Value> = chunks.iter().map(|text| json!({"chunk": text})).collect();
        items.push(reply(0));
        let outcome =
            lodestar(&with_module_commands(&items).socket, &["usage", "export", "--json"]).await;
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
        let lines = outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let lines: Vec<Value> = lines.collect();
        let (answer, rows) = lines.split_last().expect("an answer");
        assert_eq!(*answer, json!({"rows": [{"key": "gpt-5", "requests": 7}]}));
        assert_eq!(rows.len(), if chunks.is_empty() { 0 } else { 2 }, "{rows:?}");
    }
}

#[tokio::test]
async fn a_command_that_streams_nothing_shows_its_table_where_one_is_read() {
    let outcome = lodestar(&with_module_commands(&[reply(0)]).socket, &["usage", "export"]).await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(outcome.stdout.contains("gpt-5"), "{}", outcome.stdout);
}

#[tokio::test]
async fn the_answer_of_long_work_is_the_last_line() {
    let progress = json!({"progress": {"done": 3, "total": 7, "unit": "steps"}});
    let daemon = with_module_commands(&[progress, reply(0)]);
    let outcome = lodestar(&daemon.socket, &["usage", "summary", "--json"]).await;
    let last = outcome.stdout.lines().last().expect("it answers");
    let data: Value = serde_json::from_str(last).expect("it is one line of JSON");
    assert_eq!(data["rows"][0]["requests"], 7);
    // What takes no time is laid out for people.
    let daemon = with_module_commands(&[reply(0)]);
    let outcome = lodestar(&daemon.socket, &["usage", "summary", "--json"]).await;
    assert!(outcome.stdout.lines().count() > 1, "{}", outcome.stdout);
}

#[tokio::test]
async fn a_mistake_is_told_in_json_where_that_is_asked_for() {
    let daemon = Daemon::start();
    for (words, part) in [
        (&["usage", "--json", "summary", "--no-such-option"][..], "--no-such-option"),
        (&["--json", "usage", "summary", "--limit", "many"], "--limit"),
        (&["modules", "enable", "--json"], "required"),
        (&["--json", "modules"], "a command is missing"),
    ] {
        daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
        let outcome = lodestar(&daemon.socket, words).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{words:?}");
        let told: Value = serde_json::from_str(&outcome.stderr).expect("it is JSON");
        let error = &told["error"];
        assert_eq!((&error["code"], &error["exit_code"]), (&json!("usage"), &json!(2)));
        assert!(error["message"].as_str().is_some_and(|it| it.contains(part)), "{error}");
        assert!(error["help"].as_str().is_some_and(|it| !it.is_empty()), "{error}");
    }
    let outcome = lodestar(&daemon.socket, &["modules", "enable"]).await;
    assert!(outcome.stderr.starts_with("error: "), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_relative_path_is_meant_where_it_is_typed() {
    let args = json!({"type": "object", "required": ["path"], "properties": {
        "path": {"type": "string", "x-positional": true, "x-path": true},
    }});
    let mut entry = sample::module_commands();
    let args = serde_json::from_value(args).expect("it is a schema");
    (entry.commands[1].args, entry.commands[1].name) = (args, "import".to_owned());
    let daemon = Daemon::start();
    let here = std::env::current_dir().expect("a directory");
    for (typed, expected) in [
        ("chats.jsonl", here.join("chats.jsonl")),
        ("./a/b", here.join("a/b")),
        ("/x/y", "/x/y".into()),
    ] {
        daemon.answer("GET /v1/module-commands", &[&entry]);
        daemon.lines("POST /v1/modules/usage_tracker/commands/import", &[reply(0)]);
        let outcome = lodestar(&daemon.socket, &["usage", "import", typed]).await;
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        let (_, args) = daemon.asked().pop().expect("a request");
        assert_eq!(args, json!({"path": expected}));
    }
}

#[tokio::test]
async fn a_command_without_a_stream_may_have_the_options_of_one() {
    let args = json!({"type": "object", "required": ["file"], "properties": {
        "file": {"type": "string", "x-positional": true},
        "force": {"type": "boolean", "default": false},
    }});
    let mut entry = sample::module_commands();
    let args = serde_json::from_value(args).expect("it is a schema");
    (entry.commands[1].args, entry.commands[1].name) = (args, "backup".to_owned());
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[entry]);
    daemon.lines("POST /v1/modules/usage_tracker/commands/backup", &[reply(0)]);
    let outcome = lodestar(&daemon.socket, &["usage", "backup", "--force", "/b/u.db"]).await;
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let (_, args) = daemon.asked().pop().expect("a request");
    assert_eq!(args, json!({"file": "/b/u.db", "force": true}));
}

#[tokio::test]
async fn a_stream_goes_to_a_file() {
    let _unsignalled = SIGNALS.read().await;
    let daemon =
        with_module_commands(&[json!({"chunk": "a,b\n"}), json!({"chunk": "1,2\n"}), reply(0)]);
    let file = daemon.directory().join("export.csv");
    let out = format!("--out={}", file.display());
    let words = ["usage", "export", &out, "--json"];
    let outcome = lodestar(&daemon.socket, &words).await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(serde_json::from_str::<Value>(&outcome.stdout).is_ok());
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "a,b\n1,2\n");
    daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
    let outcome = lodestar(&daemon.socket, &words[..3]).await;
    assert_eq!(outcome.code, 4);
    assert!(outcome.stderr.contains("is there already"), "{}", outcome.stderr);
}

#[tokio::test]
async fn a_broken_stream_leaves_no_file() {
    let _unsignalled = SIGNALS.read().await;
    let failed = Problem::new(ProblemCode::Unavailable, "the database is locked");
    let invalid = Problem::new(ProblemCode::Invalid, "format: unknown");
    let check = async |end: Vec<Value>, code: u8, part: &str| {
        let items = [vec![json!({"chunk": "half"})], end].concat();
        let daemon = with_module_commands(&items);
        let file = daemon.directory().join("export.csv");
        let out = format!("--out={}", file.display());
        let outcome = lodestar(&daemon.socket, &["usage", "export", &out]).await;
        assert_eq!(outcome.code, code);
        assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
        let left = std::fs::read_dir(daemon.directory()).expect("a directory").count();
        assert_eq!(left, 1, "only the socket is left");
    };
    check(vec![json!({"error": failed})], 1, "the database is locked").await;
    check(vec![json!({"error": invalid})], 2, "see `lodestar usage export --help`").await;
    check(vec![], 1, "`usage export` ended without an answer").await;
}

#[tokio::test]
async fn a_signal_cancels_and_removes_the_file() {
    let _alone = SIGNALS.write().await;
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
    let request = "POST /v1/modules/usage_tracker/commands/export";
    let pieces = daemon.stream(request, 200);
    pieces.send("{\"chunk\":\"half\"}\n".into()).expect("the body is open");
    let file = daemon.directory().join("export.csv");
    let out = format!("--out={}", file.display());
    let words = ["usage", "export", &out];
    let interrupt = async {
        // The handlers are installed before the request is sent, so from then on it is caught.
        while daemon.asked().iter().all(|(asked, _)| asked != request) {
            tokio::task::yield_now().await;
        }
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::HUP).expect("it is ours");
    };
    let (outcome, ()) = tokio::join!(lodestar(&daemon.socket, &words), interrupt);
    assert_eq!(outcome.code, 129);
    let left = std::fs::read_dir(daemon.directory()).expect("a directory").count();
    assert_eq!(left, 1, "only the socket is left");
    drop(pieces);
}

#[tokio::test]
async fn an_unknown_noun_is_explained() {
    let check = async |word: &str, part: &str| {
        let daemon = Daemon::start();
        let mut modules = sample::status().modules;
        modules[1].desired = "disabled".to_owned();
        modules[1].reason = None;
        daemon.answer("GET /v1/module-commands", &json!([]));
        daemon.answer("GET /v1/modules", &modules);
        daemon.answer("GET /v1/modules/usage_tracker", &sample::info());
        let outcome = lodestar(&daemon.socket, &[word, "summary"]).await;
        assert_eq!(outcome.code, 2);
        assert!(outcome.stderr.contains(part), "{word}: {}", outcome.stderr);
    };
    check("usage_tracker", "enable it with `lodestar modules enable usage_tracker`").await;
    check("usage", "enable it with `lodestar modules enable usage_tracker`").await;
    check("injest", "did you mean `ingest`?").await;
    check("zzz", "`lodestar --help` lists").await;
}

#[tokio::test]
async fn help_of_a_noun_and_of_everything() {
    let daemon = Daemon::start();
    let check = async |words: &[&str], part: &str| {
        daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
        let outcome = lodestar(&daemon.socket, words).await;
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{words:?}");
        assert!(outcome.stdout.contains(part), "{words:?}: {}", outcome.stdout);
    };
    check(&["usage", "--help"], "Writes every request").await;
    check(&["usage", "summary", "--help"], "--only-errors").await;
    check(&["help", "usage", "export"], "--out <FILE>").await;
    check(&["completions", "bash"], "only-errors").await;
    let socket = format!("--socket={}", daemon.socket.display());
    daemon.answer("GET /v1/module-commands", &[sample::module_commands()]);
    let outcome = lodestar(Path::new("/nonexistent"), &[&socket, "modules", "--help"]).await;
    assert!(outcome.stdout.contains("enable"), "{}", outcome.stdout);
}
