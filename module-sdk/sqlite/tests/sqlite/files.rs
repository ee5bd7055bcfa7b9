//! Files that belong to other programs, are damaged or are missing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use module_sdk::{Error, ErrorKind, HealthStatus};
use module_sqlite::{Counted, DatabaseErrorKind, Options, Spec, raise, rusqlite::Connection};

use crate::{NOTES, add, count, open};

/// Checks that the file is refused with an error message, and left unchanged.
#[track_caller]
fn refused(prepare: impl FnOnce(&Path), kind: DatabaseErrorKind, parts: &[&str]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(NOTES.file);
    prepare(&path);
    let before = fs::read(&path).expect("it is readable");
    let error = open(directory.path(), NOTES).expect_err("it is refused");
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts.iter().chain(&[
        "notes.db",
        "left as it is",
        "remove known_database",
        "begin a new one",
    ]) {
        assert!(error.to_string().contains(part), "it must say {part}: {error}");
    }
    assert_eq!(fs::read(&path).expect("it is readable"), before, "{error}");
    // Events wait for somebody to see to it.
    assert_eq!(Error::from(error).kind(), ErrorKind::Unavailable);
}

fn sql(sql: &str) -> impl Fn(&Path) {
    move |path| {
        let connection = Connection::open(path).expect("it opens");
        connection.execute_batch(sql).expect("it is written");
    }
}

#[test]
fn a_file_of_another_program_is_refused_and_kept() {
    for theirs in [
        "CREATE TABLE theirs (a)",
        "PRAGMA application_id = 7; CREATE TABLE theirs (a)",
        // Nothing in it yet, and theirs all the same.
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 1",
    ] {
        refused(sql(theirs), DatabaseErrorKind::Foreign, &["another program"]);
    }
}

#[test]
fn a_newer_file_is_refused_and_kept() {
    let id = u32::from_be_bytes(NOTES.application_id);
    let head = format!("PRAGMA application_id = {id}; PRAGMA user_version = 99;");
    let told = ["schema version 99", "knows up to 1", "update the module"];
    refused(sql(&format!("{head} CREATE TABLE a (b)")), DatabaseErrorKind::Newer, &told);
    let narrower = format!(
        "{head} CREATE TABLE meta (key PRIMARY KEY, value);
         INSERT INTO meta VALUES ('readable_from_version', 98)"
    );
    refused(sql(&narrower), DatabaseErrorKind::Newer, &told);
}

#[test]
fn a_damaged_file_is_refused_and_kept() {
    let garbage = |path: &Path| fs::write(path, [7; 9_000]).expect("it is written");
    refused(garbage, DatabaseErrorKind::Damaged, &["is damaged"]);
}

#[test]
fn damage_that_is_found_later_is_told_and_keeps_the_events_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    for at in 0..5_000 {
        add(&mut database, at).expect("it is written");
    }
    database.close().expect("it closes");
    let path = database.path().to_owned();
    let mut bytes = fs::read(&path).expect("it is readable");
    // Everything but the schema is torn.
    bytes[20_480..].fill(0xa5);
    fs::write(&path, bytes).expect("it is written");
    let error = database.delete_older("note", "at", 4_000).expect_err("it cannot be read");
    assert_eq!(error.kind(), DatabaseErrorKind::Damaged, "{error}");
    assert_eq!(database.health().status, HealthStatus::Failed);
    assert!(database.health().message.contains("is damaged"), "{:?}", database.health());
    assert_eq!(Error::from(error).kind(), ErrorKind::Unavailable);
}

#[test]
fn only_the_owner_may_read_the_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    add(&mut database, 1).expect("it is written");
    let copy = directory.path().join("copy.db");
    database.reader().expect("it opens").backup(&copy, || false).expect("it is copied");
    let wal = directory.path().join("notes.db-wal");
    for file in [database.path(), wal.as_path(), copy.as_path()] {
        let mode = file.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

#[test]
fn a_directory_that_is_not_there_is_not_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().join("mount");
    let options = || Options::new(place.join("notes.db"));
    let told = |spec: Spec| {
        let database = module_sqlite::Database::open_with(options(), spec).expect("it waits");
        assert_eq!(database.health().status, HealthStatus::Degraded);
        database.health().message
    };
    let message = told(NOTES);
    assert!(message.contains("mount; make it; events wait in the ledger"), "{message}");
    let message = told(Spec { setting: Some("file"), meanwhile: "", ..NOTES });
    assert!(message.ends_with("make it, or correct `file` in the configuration"), "{message}");
    assert!(!place.exists(), "what may be misspelt is not made");
    let mut database = module_sqlite::Database::open_with(options(), NOTES).expect("it waits");
    let error = add(&mut database, 1).expect_err("there is no directory");
    assert_eq!(error.kind(), DatabaseErrorKind::Unavailable);
    fs::create_dir(&place).expect("it is made");
    add(&mut database, 1).expect("it is written");
    assert_eq!(database.health().status, HealthStatus::Ok);
}

/// A spec that counts its rows.
const COUNTED: Spec = Spec {
    counted: Some(Counted { key: "notes", words: |number| format!("{number} notes") }),
    ..NOTES
};

fn add_counted(
    database: &mut module_sqlite::Database,
    number: i64,
) -> Result<(), module_sqlite::DatabaseError> {
    database.write(|transaction| {
        transaction.execute("INSERT INTO note (at) VALUES (?1)", [number])?;
        raise(transaction, "notes", number)
    })
}

#[test]
fn a_file_that_is_gone_is_waited_for_and_an_older_copy_is_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), COUNTED).expect("it opens");
    let path = database.path().to_owned();
    add_counted(&mut database, 1).expect("it is written");
    database.close().expect("it closes");
    let backup: PathBuf = directory.path().join("backup");
    fs::copy(&path, &backup).expect("it is copied");
    for number in 2..=3 {
        add_counted(&mut database, number).expect("it is written");
    }
    // Moved away while it is open: nothing is written into what nobody finds.
    fs::rename(&path, directory.path().join("aside")).expect("it is moved");
    let error = add_counted(&mut database, 4).expect_err("it is gone");
    assert_eq!(error.kind(), DatabaseErrorKind::Gone, "{error}");
    assert!(error.to_string().contains("was deleted, emptied or moved away"), "{error}");
    assert_eq!(database.health().status, HealthStatus::Failed);
    drop(database);
    // And none is begun anew in its place by the next start.
    let mut database = open(directory.path(), COUNTED).expect("it waits");
    let error = add_counted(&mut database, 4).expect_err("it is gone");
    assert!(error.to_string().contains("is gone or empty"), "{error}");
    assert!(!path.exists());
    fs::rename(directory.path().join("aside"), &path).expect("it is moved");
    add_counted(&mut database, 4).expect("it is back");
    assert_eq!(database.health().status, HealthStatus::Ok);
    assert_eq!(count(&mut database), 4);
    // A backup in its place is taken up, and what it lacks is told.
    fs::remove_file(&path).expect("it is removed");
    fs::copy(&backup, &path).expect("it is copied");
    add_counted(&mut database, 5).expect("it is written");
    let health = database.health();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert!(health.message.contains("without 3 notes that it held before"), "{health:?}");
    assert_eq!(count(&mut database), 2);
}
