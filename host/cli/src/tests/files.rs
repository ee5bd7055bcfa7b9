//! Tests of commands that read files.

use lodestar_api::ModuleCommands;
use serde_json::{Value, json};

use super::{assert_outcome, daemon::Daemon, lodestar, sample};

/// Returns a module with a command that reads the transcripts of tools.
fn importer() -> ModuleCommands {
    let files = json!({"endings": ["jsonl"], "tools": "tool", "known": "import-known"});
    let import = json!({
        "name": "import", "about": "Reads transcripts.", "streams": false, "reads_files": true,
        "args": {"type": "object", "properties": {
            "tool": {"type": ["string", "null"], "x-positional": 1, "description": "The tool"},
            "path": {"type": ["string", "null"], "x-positional": 2, "x-files": files,
                     "description": "A file or folder"},
        }},
    });
    let known = json!({
        "name": "import-known", "about": "Says what is known.", "streams": false,
        "args": {"type": "object", "properties": {}},
    });
    let mut entry = sample::module_commands();
    for command in [import, known] {
        entry.commands.push(serde_json::from_value(command).expect("it has the form"));
    }
    entry
}

const KNOWN: &str = "POST /v1/modules/usage_tracker/commands/import-known";
const FILES: &str = "POST /v1/modules/usage_tracker/commands/import/files";

fn reply(data: &Value) -> Value {
    json!({"reply": {"data": data, "exit_code": 0}})
}

#[tokio::test]
async fn only_what_is_new_in_a_file_is_sent() {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in [("a.jsonl", "old\n"), ("b.jsonl", "new\n"), ("c.txt", "no\n")] {
        std::fs::write(directory.path().join(name), text).expect("a file");
    }
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[importer()]);
    let known = json!({"files": [null, {"from": 0, "head": null, "head_bytes": 0}]});
    daemon.lines(KNOWN, &[reply(&known)]);
    daemon.lines(FILES, &[reply(&json!({"files": 1}))]);
    let path = directory.path().display().to_string();
    let words = ["usage", "import", "codex", &path, "--json"];
    let outcome = lodestar(&daemon.socket, &words).await;
    assert_outcome(&outcome, 0, "{\n  \"files\": 1\n}\n", "");
    let asked = daemon.asked();
    let question = &asked.iter().find(|(request, _)| request == KNOWN).expect("a question").1;
    let file = &question["files"][0];
    assert_eq!(file["name"], format!("{path}/a.jsonl"));
    assert_eq!((&file["tool"], &file["mark"]["bytes"]), (&json!("codex"), &json!(4)));
    let body = String::from_utf8_lossy(&daemon.last_body()).into_owned();
    assert!(body.contains("\"unchanged\":1") && body.contains("new\n"), "{body}");
    assert!(!body.contains("a.jsonl") && !body.contains("old"), "{body}");
}

#[tokio::test]
async fn a_run_without_news_is_told_all_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.jsonl");
    std::fs::write(&path, "old\n").expect("a file");
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[importer()]);
    daemon.lines(KNOWN, &[reply(&json!({"files": [null]}))]);
    daemon.lines(FILES, &[reply(&json!("nothing new"))]);
    let path = path.display().to_string();
    let outcome = lodestar(&daemon.socket, &["usage", "import", "all", &path]).await;
    assert_outcome(&outcome, 0, "nothing new\n", "");
}

#[tokio::test]
async fn a_word_that_is_no_tool_is_a_mistake() {
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[importer()]);
    let outcome = lodestar(&daemon.socket, &["usage", "import", "vim"]).await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""));
    let expected = "`vim` is no tool whose files have a place of their own";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("claude-code, codex, gemini"), "{}", outcome.stderr);
    assert_eq!(daemon.asked().len(), 1);
}

#[tokio::test]
async fn what_the_command_line_asks_is_no_command_to_type() {
    let daemon = Daemon::start();
    daemon.answer("GET /v1/module-commands", &[importer()]);
    let outcome = lodestar(&daemon.socket, &["usage", "--help"]).await;
    assert!(outcome.stdout.contains("import "), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("import-known"), "{}", outcome.stdout);
}
