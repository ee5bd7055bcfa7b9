use std::io::Read as _;

use serde_json::{Value, json};

use super::*;

const OPENCODE: &str = "CREATE TABLE message (
    id TEXT PRIMARY KEY, session_id TEXT NOT NULL, time_created INTEGER NOT NULL,
    time_updated INTEGER NOT NULL, data TEXT NOT NULL)";

fn message(id: &str) -> Value {
    json!({
        "parentID": "msg_0", "role": "assistant", "mode": "build", "text": "a secret",
        "path": {"cwd": "/home/ada/shop", "root": "/home/ada"}, "cost": 0.000548,
        "tokens": {"total": 1234, "input": 400, "output": 24, "reasoning": 10,
                   "cache": {"write": 3, "read": 800}},
        "modelID": "claude-haiku-4-5", "providerID": "anthropic",
        "time": {"created": 1_795_218_755_919_i64, "completed": 1_795_218_761_733_i64},
        "finish": "stop", "id": id,
    })
}

fn add(connection: &Connection, id: &str, data: &str) {
    let sql = "INSERT INTO message VALUES (?1, 'ses_1', 1, 2, ?2)";
    connection.execute(sql, [id, data]).expect("it is written");
}

/// Returns the database of opencode in a folder, with one answer.
fn opencode(folder: &Path, name: &str) -> Connection {
    let connection = Connection::open(folder.join(name)).expect("a database");
    connection.execute_batch(OPENCODE).expect("a table");
    add(&connection, "msg_0", "{\"role\":\"user\",\"summary\":{\"title\":\"a secret\"}}");
    add(&connection, "msg_1", &message("msg_1").to_string());
    connection
}

fn lines(path: &Path) -> Result<Vec<Value>, String> {
    let mut rows = Rows::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    rows.read_to_string(&mut text).map_err(|error| error.to_string())?;
    Ok(text.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect())
}

/// Returns the names of all files in a folder.
fn listing(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("it is read").file_name()).collect();
    names.sort_unstable();
    names
}

#[test]
fn answers_of_opencode_are_lines_without_text() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("open code#1%.db");
    drop(opencode(folder.path(), "open code#1%.db"));
    let expected = json!({
        "id": "msg_1", "sessionID": "ses_1", "role": "assistant",
        "modelID": "claude-haiku-4-5", "providerID": "anthropic", "cost": 0.000548,
        "tokens": {"input": 400, "output": 24, "reasoning": 10, "total": 1234,
                   "cache": {"read": 800, "write": 3}},
        "time": {"created": 1_795_218_755_919_i64, "completed": 1_795_218_761_733_i64},
        "path": {"cwd": "/home/ada/shop"}, "finish": "stop", "error": null,
    });
    assert_eq!(lines(&path).expect("it is read"), [expected]);
    assert_eq!(Rows::open(&path).expect("it is read").tool(), Tool::Opencode);
    // Nothing is left beside it.
    assert_eq!(listing(folder.path()), ["open code#1%.db"]);
}

#[test]
fn a_row_that_is_no_json_is_left_out() {
    let folder = tempfile::tempdir().expect("a directory");
    let connection = opencode(folder.path(), "opencode.db");
    connection.execute_batch("BEGIN").expect("it begins");
    add(&connection, "msg_2", "{\"role\":\"assistant\"");
    for number in 3..(2 * PAGE + 10) {
        add(&connection, &format!("msg_{number}"), &message("x").to_string());
    }
    connection.execute_batch("COMMIT").expect("it is written");
    drop(connection);
    let lines = lines(&folder.path().join("opencode.db")).expect("it is read");
    assert_eq!(lines.len(), 2 * PAGE + 8);
    assert_eq!(lines[2 * PAGE]["id"], format!("msg_{}", 2 * PAGE + 2));
}

#[test]
fn the_log_of_an_open_database_is_read_too() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("kilo.db");
    let connection = opencode(folder.path(), "kilo.db");
    connection.pragma_update(None, "journal_mode", "wal").expect("it is set");
    let before = mark(&path).expect("it is there");
    add(&connection, "msg_2", &message("msg_2").to_string());
    assert_ne!(mark(&path).expect("it is there"), before);
    assert!(beside(&path, "-wal").is_some_and(|log| log.bytes > 0));
    assert_eq!(lines(&path).expect("it is read").len(), 2);
    assert_eq!(Rows::open(&path).expect("it is read").tool(), Tool::Kilo);
    // Its program goes on undisturbed, and finds all there.
    add(&connection, "msg_3", &message("msg_3").to_string());
    assert_eq!(lines(&path).expect("it is read").len(), 3);
    drop(connection);
    assert_eq!(listing(folder.path()), ["kilo.db"]);
    assert_eq!(lines(&path).expect("it is read").len(), 3);
    assert_eq!(listing(folder.path()), ["kilo.db"]);
}

#[test]
fn a_locked_database_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let connection = opencode(folder.path(), "opencode.db");
    connection.pragma_update(None, "journal_mode", "wal").expect("it is set");
    connection.pragma_update(None, "locking_mode", "exclusive").expect("it is set");
    add(&connection, "msg_2", &message("msg_2").to_string());
    let error = lines(&folder.path().join("opencode.db")).expect_err("it is locked");
    assert!(error.starts_with("it is locked; try again"), "{error}");
}

#[test]
fn what_changes_while_it_is_read_is_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("opencode.db");
    let connection = opencode(folder.path(), "opencode.db");
    let mut rows = Rows::open(&path).expect("it is read");
    add(&connection, "msg_2", &"x".repeat(20_000));
    let error = rows.read_to_end(&mut Vec::new()).expect_err("it changed");
    assert!(error.to_string().starts_with("it changed while it was read"), "{error}");
}

#[test]
fn other_databases_are_told() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("opencode.db");
    let connection = Connection::open(&path).expect("a database");
    connection.execute_batch("CREATE TABLE message (id TEXT, body BLOB)").expect("a table");
    let error = lines(&path).expect_err("it is newer");
    assert!(error.starts_with("its tables are of no form that is known here"), "{error}");
    assert!(is_one(&path));
    let text = folder.path().join("text.db");
    fs::write(&text, "no database, but long enough to be one at first sight").expect("a file");
    assert!(!is_one(&text) && !is_one(&folder.path().join("absent")));
    let error = lines(&text).expect_err("it is text");
    assert!(error.starts_with("it cannot be read as a database"), "{error}");
    let error = lines(&folder.path().join("absent")).expect_err("it is absent");
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn sessions_of_goose_are_lines() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("sessions.db");
    let connection = Connection::open(&path).expect("a database");
    let sql = "CREATE TABLE sessions (id TEXT PRIMARY KEY, description TEXT, working_dir TEXT,
            created_at TIMESTAMP, total_tokens INTEGER, input_tokens INTEGER,
            output_tokens INTEGER, accumulated_total_tokens INTEGER,
            accumulated_input_tokens INTEGER, accumulated_output_tokens INTEGER,
            provider_name TEXT, model_config_json TEXT);
        INSERT INTO sessions VALUES ('s', 'a secret', '/home/ada', '2026-05-01 01:02:03', 30, 20,
            10, 180, 100, NULL, 'anthropic', '{\"model_name\":\"claude-haiku-4-5\"}');";
    connection.execute_batch(sql).expect("a table");
    drop(connection);
    let expected = json!({
        "id": "s", "model": "claude-haiku-4-5", "provider": "anthropic",
        "created_at": "2026-05-01 01:02:03", "updated_at": null, "cwd": "/home/ada",
        "input_tokens": 100, "output_tokens": 10, "total_tokens": 180, "cost": null,
    });
    assert_eq!(lines(&path).expect("it is read"), [expected]);
    assert_eq!(Rows::open(&path).expect("it is read").tool(), Tool::Goose);
}

#[test]
fn sessions_of_hermes_are_lines() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("state.db");
    let connection = Connection::open(&path).expect("a database");
    let sql = "CREATE TABLE sessions (id TEXT PRIMARY KEY, model TEXT, started_at REAL,
            input_tokens INTEGER, output_tokens INTEGER, actual_cost_usd REAL, title TEXT);
        INSERT INTO sessions VALUES ('s', 'gpt-5', 1750000000.25, 7, 3, 0.34, 'a secret');";
    connection.execute_batch(sql).expect("a table");
    drop(connection);
    let expected = json!({
        "id": "s", "model": "gpt-5", "provider": null, "started_at": 1_750_000_000.25,
        "messages": null, "input_tokens": 7, "output_tokens": 3, "cache_read_tokens": null,
        "cache_write_tokens": null, "reasoning_tokens": null, "estimated_cost_usd": null,
        "actual_cost_usd": 0.34,
    });
    assert_eq!(lines(&path).expect("it is read"), [expected]);
    assert_eq!(Rows::open(&path).expect("it is read").tool(), Tool::Hermes);
}
