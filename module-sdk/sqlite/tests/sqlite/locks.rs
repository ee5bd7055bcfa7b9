//! Files locked by another process.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use module_sdk::HealthStatus;
use module_sqlite::{DatabaseErrorKind, rusqlite::Connection};

use crate::{NOTES, add, count, open};

const FILE: &str = "LODESTAR_TEST_LOCKED_FILE";

/// A process that holds a lock for as long as its standard input is open.
struct Holder {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Holder {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("it runs"))
            .args(["--exact", "locks::in_another_process", "--ignored", "--nocapture"])
            .env(FILE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut says = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("it is locked") {
            line.clear();
            let read = says.read_line(&mut line).expect("it is text");
            assert!(read > 0, "the other process has ended");
        }
        Self { process, says }
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        self.says.read_to_end(&mut Vec::new()).expect("it is a pipe");
        assert!(self.process.wait().expect("it is ours").success());
    }
}

#[test]
#[ignore = "started by the tests below"]
fn in_another_process() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let connection = Connection::open(path).expect("it opens");
    connection.execute_batch("BEGIN IMMEDIATE").expect("it is free");
    println!("\nit is locked");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("it is a pipe");
}

#[test]
fn a_lock_of_another_process_is_told_and_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    add(&mut database, 1).expect("it is written");
    let holder = Holder::start(database.path());
    let error = add(&mut database, 2).expect_err("it is locked");
    assert_eq!(error.kind(), DatabaseErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("is locked by another program"), "{error}");
    let health = database.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.message.ends_with("; events wait in the ledger until then"), "{health:?}");
    // Reading goes on, and says nothing about writing.
    assert_eq!(count(&mut database), 1);
    assert_eq!(database.health().status, HealthStatus::Degraded);
    holder.end();
    add(&mut database, 2).expect("it is free");
    assert_eq!(database.health().status, HealthStatus::Ok);
    assert_eq!(count(&mut database), 2);
}

#[test]
fn a_module_starts_without_a_database_that_is_locked() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(open(directory.path(), NOTES).expect("it opens"));
    let holder = Holder::start(&directory.path().join(NOTES.file));
    let mut database = open(directory.path(), NOTES).expect("it starts");
    assert_eq!(database.health().status, HealthStatus::Degraded);
    holder.end();
    add(&mut database, 1).expect("it is free");
    assert_eq!(database.health().status, HealthStatus::Ok);
}
