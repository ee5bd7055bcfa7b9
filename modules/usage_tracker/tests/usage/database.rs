//! The database file in all its states.

use crate::common::{NOW, bench, ms, request, summary};
use module_sdk::{ErrorKind, HealthStatus, events::LlmRequestCompleted, testing::Bench};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use usage_tracker::UsageTracker;

const MODEL: &str = "claude-haiku-4-5";

fn start(directory: &Path) -> module_sdk::Result<Bench<UsageTracker>> {
    let bench = Bench::<UsageTracker>::start_in(directory, json!({"timezone": "UTC"}))?;
    bench.host().set_now(NOW.parse().expect("a time"));
    Ok(bench)
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    for number in 0..3 {
        let mut bench = start(directory.path()).expect("it starts");
        bench.send(&request(&number.to_string(), NOW, MODEL)).expect("it is handled");
        bench.send(&request("always", NOW, MODEL)).expect("it is handled");
        assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], number + 2);
        bench.stop().expect("it stops");
        let left = std::fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(left, 2, "everything is in one file, beside the note that there is one");
    }
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_kept() {
    let check = |prepare: &dyn Fn(&Path), part: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("usage.db");
        prepare(&path);
        let before = std::fs::read(&path).expect("it is readable");
        let error = start(directory.path()).expect_err("it is refused").to_string();
        assert!(error.contains(part) && error.contains("usage.db"), "{error}");
        assert_eq!(std::fs::read(&path).expect("it is readable"), before);
    };
    let newer = |path: &Path| {
        drop(start(path.parent().expect("a directory")).expect("it starts").stop());
        let connection = Connection::open(path).expect("it opens");
        let sql = "PRAGMA user_version = 4711;
                   UPDATE meta SET value = 4711 WHERE key = 'readable_from_version'";
        connection.execute_batch(sql).expect("it is written");
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).expect("it is set");
    };
    check(&newer, "schema version 4711");
    let foreign = |path: &Path| {
        let connection = Connection::open(path).expect("it opens");
        connection.execute_batch("CREATE TABLE theirs (a)").expect("it is written");
    };
    check(&foreign, "another program");
    let damaged = |path: &Path| std::fs::write(path, vec![0x55; 20_000]).expect("it is written");
    check(&damaged, "move it away, and remove known_database");
}

#[test]
fn a_locked_database_keeps_the_events_waiting() {
    let mut bench = bench(json!({}));
    bench.send(&request("a", NOW, MODEL)).expect("it is handled");
    let other = Connection::open(bench.data_dir().join("usage.db")).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("it is locked");
    let (handled, result) = bench.send_all(&[request("b", NOW, MODEL)]);
    let error = result.expect_err("it is locked");
    assert_eq!((handled, error.kind()), (0, ErrorKind::Unavailable));
    assert!(error.to_string().contains("locked by another program"), "{error}");
    assert_eq!(bench.health().status, HealthStatus::Degraded);
    // Reading goes on.
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 1);
    other.execute_batch("ROLLBACK").expect("it is free");
    bench.send(&request("b", NOW, MODEL)).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
}

#[test]
fn a_database_out_of_reach_comes_back_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("gone/usage.db");
    std::fs::write(directory.path().join("gone"), "in the way").expect("it is written");
    let config = json!({"database": path, "timezone": "UTC"});
    let mut bench = Bench::<UsageTracker>::start_in(directory.path(), config).expect("it starts");
    let health = bench.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.message.contains("gone/usage.db"), "{}", health.message);
    let error = bench.send(&request("a", NOW, MODEL)).expect_err("there is no database");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    std::fs::remove_file(directory.path().join("gone")).expect("it is removed");
    let gone = directory.path().join("gone");
    let message = |bench: &mut Bench<UsageTracker>| {
        bench.send(&request("a", NOW, MODEL)).expect_err("there is no database").to_string()
    };
    let expected = format!("there is no directory {}; make it, or correct", gone.display());
    assert!(message(&mut bench).contains(&expected), "{}", message(&mut bench));
    assert!(!gone.exists(), "what may be misspelt is not made");
    std::fs::create_dir(&gone).expect("it is made");
    bench.send(&request("a", NOW, MODEL)).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let check = |config: Value, part: &str| {
        let error = Bench::<UsageTracker>::start(config).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(part), "{error}");
    };
    check(json!({"retention_day": 3}), "retention_days");
    check(json!({"baseline_model": "nobody"}), "baseline_model: has no price");
    check(json!({"privacy": {"anonymise": "yes"}}), "privacy.anonymise");
}

/// A database with one request, and a copy of it.
struct Written {
    directory: TempDir,
    path: PathBuf,
    backup: PathBuf,
}

impl Written {
    /// Creates the database, and stops the module.
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, backup) = ["usage.db", "backup"].map(|name| directory.path().join(name)).into();
        let written = Self { directory, path, backup };
        let mut bench = written.start();
        bench.send(&request("before", NOW, MODEL)).expect("it is handled");
        bench.stop().expect("it stops");
        std::fs::copy(&written.path, &written.backup).expect("it is copied");
        written
    }

    /// Starts the module on the database.
    fn start(&self) -> Bench<UsageTracker> {
        start(self.directory.path()).expect("it starts")
    }

    /// Starts the module on the database, with a second request, which the copy does not have.
    fn start_and_go_on(&self) -> Bench<UsageTracker> {
        let mut bench = self.start();
        bench.send(&request("after the backup", NOW, MODEL)).expect("it is handled");
        bench
    }

    /// Returns the path to which the database is moved.
    fn aside(&self) -> PathBuf {
        self.directory.path().join("aside")
    }

    /// Returns the path of the note that says which database was written last.
    fn note(&self) -> PathBuf {
        self.directory.path().join("known_database")
    }
}

/// Checks that the module refuses events with the reason, and that nothing is created at the path
/// of the database.
#[track_caller]
fn waits(bench: &mut Bench<UsageTracker>, parts: &[&str]) {
    let error = bench.send(&request("meanwhile", NOW, MODEL)).expect_err("it waits");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let health = bench.health();
    assert_eq!(health.status, HealthStatus::Failed, "{}", health.message);
    for part in parts.iter().chain(&["wait in the ledger"]) {
        assert!(health.message.contains(part), "it must say {part}: {}", health.message);
    }
}

#[test]
fn a_database_that_is_gone_is_not_begun_anew_in_silence() {
    let written = Written::new();
    let path = &written.path;
    let aside = written.aside();
    std::fs::rename(path, &aside).expect("it is moved");
    let mut bench = written.start();
    waits(&mut bench, &["is gone or empty", "known_database"]);
    assert!(!path.exists(), "none is made");
    std::fs::write(path, "").expect("it is written");
    waits(&mut bench, &["is gone or empty"]);
    // Put back, it goes on.
    std::fs::rename(&aside, path).expect("it is moved");
    bench.send(&request("meanwhile", NOW, MODEL)).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
    bench.stop().expect("it stops");
    // Who wants a new one says so.
    std::fs::remove_file(path).expect("it is removed");
    std::fs::remove_file(written.note()).expect("it is there");
    let mut bench = written.start();
    assert_eq!(bench.health().status, HealthStatus::Ok);
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 0);
}

#[test]
fn an_older_copy_is_taken_up_and_told() {
    let written = Written::new();
    let (path, backup) = (&written.path, &written.backup);
    let bench = written.start_and_go_on();
    bench.stop().expect("it stops");
    std::fs::copy(backup, path).expect("it is copied");
    let mut bench = written.start();
    let health = bench.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    let told = "is an older copy, without 1 request that it held before";
    assert!(health.message.contains(told), "{}", health.message);
    bench.send(&request("afterwards", NOW, MODEL)).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
    bench.stop().expect("it stops");
    let mut bench = written.start();
    assert_eq!(bench.health().status, HealthStatus::Ok, "told once");
}

#[test]
fn another_database_in_its_place_is_not_taken_for_it() {
    let written = Written::new();
    let path = &written.path;
    let other = Written::new();
    std::fs::copy(&other.path, path).expect("it is copied");
    let mut bench = written.start();
    waits(&mut bench, &["is another one than was written last", "known_database"]);
    std::fs::remove_file(written.note()).expect("it is there");
    bench.send(&request("meanwhile", NOW, MODEL)).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
}

#[test]
fn a_database_deleted_while_it_is_open_loses_no_further_event() {
    let written = Written::new();
    let (path, backup) = (&written.path, &written.backup);
    let mut bench = written.start_and_go_on();
    let aside = written.aside();
    std::fs::rename(path, &aside).expect("it is moved");
    waits(&mut bench, &["was deleted, emptied or moved away while it was in use"]);
    assert!(bench.command("summary", json!({})).is_err(), "what is gone has no sums");
    // Moved back it goes on where it was.
    std::fs::rename(&aside, path).expect("it is moved");
    bench.send(&request("meanwhile", NOW, MODEL)).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 3);
    // A backup is taken up as it is, without the log of the file that it replaces.
    std::fs::remove_file(path).expect("it is removed");
    std::fs::write(path, "").expect("it is written");
    waits(&mut bench, &["was deleted, emptied or moved away"]);
    std::fs::copy(backup, path).expect("it is copied");
    bench.send(&request("afterwards", NOW, MODEL)).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
    let health = bench.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    let told = "is an older copy, without 2 requests that it held before";
    assert!(health.message.contains(told), "{}", health.message);
    let connection = Connection::open(path).expect("it opens");
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it answers");
    assert_eq!(check, "ok");
    // Another one, or something that is none, is not.
    drop(connection);
    let other = Written::new();
    std::fs::rename(&other.path, path).expect("it is moved");
    waits(&mut bench, &["is another one than was written last"]);
    std::fs::remove_file(path).expect("it is removed");
    std::fs::write(path, vec![0x55; 20_000]).expect("it is written");
    let error = bench.send(&request("meanwhile", NOW, MODEL)).expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(bench.health().message.contains("is damaged"), "{}", bench.health().message);
}

/// Creates the schema as builds create it that know two steps and none of the later columns.
fn version_2(connection: &Connection) {
    for migration in [
        include_str!("../../migrations/0001_usage.sql"),
        include_str!("../../migrations/0002_readable_views.sql"),
        "PRAGMA user_version = 2",
    ] {
        connection.execute_batch(migration).expect("it runs");
    }
}

#[test]
fn a_database_moved_aside_while_it_is_open_holds_all_that_was_written() {
    let written = Written::new();
    let (path, backup) = (&written.path, &written.backup);
    let mut bench = written.start_and_go_on();
    // Somebody who reads holds nothing up.
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
    let aside = written.aside();
    std::fs::rename(path, &aside).expect("it is moved");
    std::fs::copy(backup, path).expect("it is copied");
    bench.send(&request("afterwards", NOW, MODEL)).expect("it is handled");
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 2);
    let moved = Connection::open(&aside).expect("it opens");
    let ask = |sql: &str| moved.query_row(sql, [], |row| row.get::<_, String>(0));
    let keys = "SELECT group_concat(dedupe_key, ', ' ORDER BY id) FROM request";
    assert_eq!(ask(keys).expect("it answers"), "before, after the backup");
    assert_eq!(ask("PRAGMA integrity_check").expect("it answers"), "ok");
}

#[test]
fn a_database_of_the_version_before_is_taken_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("usage.db");
    let old = Connection::open(&path).expect("it opens");
    version_2(&old);
    let at = ms("2026-11-21T11:00:00Z");
    old.execute_batch(&format!(
        "INSERT INTO name VALUES (1, 'word', 'client'), (2, 'word', 'price_table'),
             (3, 'model', 'house-model'), (4, 'model', 'gpt-5');
         INSERT INTO request (id, event_id, dedupe_key, ended_at, elapsed_ms, flags, request_model,
             cost_nano_usd, cost_source, unpriced, schema)
         VALUES (1, zeroblob(16), 'told', {at}, 0, 0, 3, 5, 1, 0, 1),
             (2, zeroblob(16), 'ours', {at}, 0, 0, 4, 7, 2, 0, 1);
         INSERT INTO meta VALUES ('last_request', 2)"
    ))
    .expect("it is written");
    drop(old);
    let mut bench = start(directory.path()).expect("it starts");
    bench.send(&request("new", NOW, MODEL)).expect("it is handled");
    let rows = bench.command("requests", json!({})).expect("it answers").data;
    let stated: Vec<Value> = ["told", "ours", "new"]
        .iter()
        .map(|key| {
            let rows = rows.as_array().expect("rows");
            let row = rows.iter().find(|row| row["dedupe_key"] == *key).expect("it is there");
            row["stated_cost_nano_usd"].clone()
        })
        .collect();
    assert_eq!(stated, [json!(5), Value::Null, Value::Null]);
}

#[test]
fn a_database_of_a_build_between_two_releases_is_taken_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("usage.db");
    let between = Connection::open(&path).expect("it opens");
    version_2(&between);
    // What was its third step.
    between
        .execute_batch(
            "ALTER TABLE request ADD COLUMN service_tier INTEGER;
             ALTER TABLE request ADD COLUMN stated_nano_usd INTEGER;
             PRAGMA user_version = 3;
             INSERT INTO usage_day SELECT 20777, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                 0, NULL, NULL",
        )
        .expect("it is written");
    drop(between);
    for sent in 1..=2 {
        let mut bench = start(directory.path()).expect("it starts");
        bench.send(&request(&sent.to_string(), NOW, MODEL)).expect("it is handled");
        bench.stop().expect("it stops");
        let connection = Connection::open(&path).expect("it opens");
        let number = |sql: &str| -> i64 {
            connection.query_row(sql, [], |row| row.get(0)).expect("it answers")
        };
        assert_eq!(number("PRAGMA user_version"), 2, "so that the release before can go on");
        assert_eq!(number("SELECT sum(requests) FROM usage_day"), 5 + sent);
    }
}

#[test]
fn reading_says_nothing_about_writing() {
    let mut bench = bench(json!({}));
    bench.send(&request("a", NOW, MODEL)).expect("it is handled");
    let other = Connection::open(bench.data_dir().join("usage.db")).expect("it opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("it is locked");
    bench.send(&request("b", NOW, MODEL)).expect_err("it is locked");
    // The timer of retention looks for the newest request before it deletes.
    bench.advance(std::time::Duration::from_secs(11)).expect_err("it is locked");
    assert_eq!(bench.health().status, HealthStatus::Degraded);
    let logged = bench.host().logged();
    let well = logged.iter().find(|logged| logged.message.contains("can be written again"));
    assert_eq!(well, None);
    other.execute_batch("ROLLBACK").expect("it is free");
    bench.send(&request("b", NOW, MODEL)).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
}

#[test]
fn a_build_that_knows_two_steps_can_read_and_write_what_this_one_has_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let tiered = LlmRequestCompleted {
        service_tier: Some("batch".to_owned()),
        cost_nano_usd: Some(7),
        ..request("new", NOW, MODEL)
    };
    let mut bench = start(directory.path()).expect("it starts");
    bench.send(&tiered).expect("it is handled");
    bench.stop().expect("it stops");
    // What that build does: it looks at the version, and names all columns that it knows.
    let old = Connection::open(directory.path().join("usage.db")).expect("it opens");
    let version: i64 =
        old.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("it answers");
    assert!(version <= 2, "it refuses version {version}");
    let its = Connection::open_in_memory().expect("it opens");
    version_2(&its);
    let columns: Vec<String> = its
        .prepare("SELECT name FROM pragma_table_info('request') ORDER BY cid")
        .and_then(|mut names| names.query_map([], |row| row.get(0))?.collect())
        .expect("it answers");
    let (all, others) = (columns.join(","), columns[3..].join(","));
    assert_eq!(columns[..3], ["id", "event_id", "dedupe_key"]);
    old.execute_batch(&format!(
        "INSERT INTO request_key VALUES (x'00112233445566778899aabbccddeeff', 2);
         INSERT INTO request ({all}) SELECT 2, zeroblob(16), 'old', {others} FROM request;
         INSERT OR REPLACE INTO request ({all}) SELECT {all} FROM request WHERE id = 1;
         UPDATE usage_hour SET requests = requests + 1;
         UPDATE usage_day SET requests = requests + 1;
         UPDATE meta SET value = 2 WHERE key = 'last_request'"
    ))
    .expect("it writes");
    for table in ["requests", "daily"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = old.query_row(&sql, [], |row| row.get(0)).expect("it reads");
        assert_eq!(rows, if table == "requests" { 2 } else { 1 });
    }
    drop(old);
    // And forward again.
    let mut bench = start(directory.path()).expect("it starts");
    bench.send(&request("later", NOW, MODEL)).expect("it is handled");
    bench.send(&tiered).expect("it is handled");
    assert_eq!(bench.health().status, HealthStatus::Ok);
    assert_eq!(summary(&mut bench, json!({}))["total"]["requests"], 3);
    let rows = bench.command("requests", json!({})).expect("it answers").data;
    assert_eq!(rows.as_array().map(Vec::len), Some(3));
}
