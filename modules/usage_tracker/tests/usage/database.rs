//! The database file in all its states.

use crate::common::{NOW, bench, request, summary};
use module_sdk::{ErrorKind, HealthStatus, testing::Bench};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::Path;
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
        assert_eq!(left, 1, "everything is in one file");
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
        connection.pragma_update(None, "user_version", 4711).expect("it is written");
        connection.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).expect("it is set");
    };
    check(&newer, "schema version 4711");
    let foreign = |path: &Path| {
        let connection = Connection::open(path).expect("it opens");
        connection.execute_batch("CREATE TABLE theirs (a)").expect("it is written");
    };
    check(&foreign, "another program");
    let damaged = |path: &Path| std::fs::write(path, vec![0x55; 20_000]).expect("it is written");
    check(&damaged, "damaged");
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
