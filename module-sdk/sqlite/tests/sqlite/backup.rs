//! Copies of a database that is in use.

use std::{
    fs,
    path::Path,
    sync::mpsc::{channel, sync_channel},
};

use module_sqlite::{Database, DatabaseErrorKind, Options, Reader};

use crate::{NOTES, add, count, open};

/// Creates a database with so many rows that a copy checks several times whether to stop.
fn filled(directory: &Path) -> Database {
    let mut database = open(directory, NOTES).expect("it opens");
    let fill = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number \
                LIMIT 5000) INSERT INTO note (at, text) SELECT n, hex(zeroblob(100)) FROM number";
    database.write(|transaction| transaction.execute(fill, [])).expect("it is written");
    database
}

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("it is readable").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the number of rows of a copy.
fn rows_of(copy: &Path) -> i64 {
    let reader = Reader::open(copy, &NOTES).expect("it opens");
    let rows = reader.read(|it| it.query_row("SELECT count(*) FROM note", [], |row| row.get(0)));
    rows.expect("it answers")
}

#[test]
fn a_copy_is_whole_while_the_database_is_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = filled(directory.path());
    let before = count(&mut database);
    let copy = directory.path().join("copy.db");
    let reader = database.reader().expect("it opens");
    // Whenever the copy asks whether to stop it waits for another write.
    let (ask, asked) = sync_channel::<()>(0);
    let (written, wait) = channel::<()>();
    let to = copy.clone();
    let thread = std::thread::spawn(move || {
        reader.backup(&to, move || {
            ask.send(()).expect("the writer is there");
            wait.recv().expect("the writer is there");
            false
        })
    });
    let mut meanwhile = 0;
    for () in asked {
        // Two rows that belong together.
        database
            .write(|transaction| {
                let sql = "INSERT INTO note (at) VALUES (-1), (-2)";
                transaction.execute(sql, [])
            })
            .expect("the copy holds nobody up");
        meanwhile += 1;
        written.send(()).expect("the copy waits");
    }
    thread.join().expect("no panic").expect("it is copied");
    assert!(meanwhile > 1, "it was written in the midst of it");
    assert_eq!(count(&mut database), before + 2 * meanwhile);
    assert!(!files(directory.path()).iter().any(|name| name.contains(".new")));
    let reader = Reader::open(&copy, &NOTES).expect("it opens");
    let number = |sql: &str| -> i64 {
        reader.read(|it| it.query_row(sql, [], |row| row.get(0))).expect("it answers")
    };
    let whole = "SELECT integrity_check = 'ok' FROM pragma_integrity_check";
    assert_eq!(number(whole), 1);
    assert_eq!(number("SELECT count(*) FROM note WHERE at > 0"), before);
    let halves = "SELECT sum(iif(at = -1, 1, -1)) FROM note WHERE at < 0";
    assert_eq!(number(&format!("SELECT coalesce(({halves}), 0)")), 0);
    // It is a database of ours like the first.
    let mut restored = Database::open_with(Options::new(&copy), NOTES).expect("it opens");
    add(&mut restored, 1).expect("it is written");
}

#[test]
fn a_copy_that_is_stopped_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = filled(directory.path());
    let before = files(directory.path());
    let copy = directory.path().join("copy.db");
    let reader = database.reader().expect("it opens");
    let error = reader.backup(&copy, || true).expect_err("it is stopped");
    assert_eq!(error.kind(), DatabaseErrorKind::Cancelled, "{error}");
    assert_eq!(files(directory.path()), before);
    // What a killed process left is in nobody's way.
    fs::write(directory.path().join("copy.db.new"), "half").expect("it is written");
    database.reader().expect("it opens").backup(&copy, || false).expect("it is copied");
    assert!(copy.exists());
}

#[test]
fn two_copies_to_one_file_do_not_mix() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = filled(directory.path());
    let rows = count(&mut database);
    let before = files(directory.path());
    let copy = directory.path().join("copy.db");
    // What a killed process left is in nobody's way.
    fs::write(directory.path().join("copy.db.new.lock"), "").expect("it is written");
    let reader = database.reader().expect("it opens");
    let (ask, asked) = channel::<()>();
    let (release, wait) = channel::<()>();
    let to = copy.clone();
    let first = std::thread::spawn(move || {
        reader.backup(&to, move || {
            // Errors mean that it has been released.
            let _ = ask.send(());
            let _ = wait.recv();
            false
        })
    });
    asked.recv().expect("it is under way");
    for replaces in [false, true] {
        let reader = database.reader().expect("it opens");
        let second = match replaces {
            true => reader.replace_backup(&copy, || false),
            false => reader.backup(&copy, || false),
        };
        let error = second.expect_err("the first one is being written");
        assert_eq!(error.kind(), DatabaseErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("another backup to"), "{error}");
    }
    drop(release);
    first.join().expect("no panic").expect("it is copied");
    assert_eq!(rows_of(&copy), rows);
    assert_eq!(files(directory.path()), [&["copy.db".to_owned()], &before[..]].concat());
    // A link in the place of the lock leads nowhere.
    let lock = directory.path().join("other.db.new.lock");
    std::os::unix::fs::symlink(directory.path().join("away"), &lock).expect("it is new");
    let reader = database.reader().expect("it opens");
    let error = reader.backup(&directory.path().join("other.db"), || false).expect_err("a link");
    assert!(error.to_string().contains("is no plain file"), "{error}");
    assert!(!directory.path().join("away").exists());
}

#[test]
fn a_copy_replaces_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = filled(directory.path());
    let other = directory.path().join("other");
    fs::write(&other, "theirs").expect("it is written");
    for taken in [&other, &database.path().to_owned()] {
        let before = fs::read(taken).expect("it is readable");
        let reader = database.reader().expect("it opens");
        let error = reader.backup(taken, || false).expect_err("it is taken");
        assert!(error.to_string().contains("is there already"), "{error}");
        assert_eq!(fs::read(taken).expect("it is readable"), before);
    }
    let nowhere = directory.path().join("nowhere/copy.db");
    let reader = database.reader().expect("it opens");
    let error = reader.backup(&nowhere, || false).expect_err("there is no directory");
    assert_eq!(error.kind(), DatabaseErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("the backup"), "{error}");
}

#[test]
fn a_copy_replaces_an_older_one_and_nothing_that_is_in_use() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = filled(directory.path());
    let rows = count(&mut database);
    let copy = directory.path().join("copy.db");
    fs::write(&copy, "an older one").expect("it is written");
    let error = database.reader().expect("it opens").replace_backup(&copy, || true);
    assert_eq!(error.expect_err("it is stopped").kind(), DatabaseErrorKind::Cancelled);
    assert_eq!(fs::read(&copy).expect("it is there"), b"an older one");
    database.reader().expect("it opens").replace_backup(&copy, || false).expect("it is copied");
    assert_eq!(rows_of(&copy), rows);

    let path = database.path().to_owned();
    let (link, twin) = (directory.path().join("link"), directory.path().join("twin"));
    std::os::unix::fs::symlink(&copy, &link).expect("it is new");
    fs::hard_link(&path, &twin).expect("it is new");
    let wal = path.with_file_name(format!(
        "{}-wal",
        path.file_name().expect("it has a name").to_string_lossy()
    ));
    let refused = |taken: &Path, why: &str, database: &mut Database| {
        let reader = database.reader().expect("it opens");
        let error = reader.replace_backup(taken, || false).expect_err(why).to_string();
        assert!(error.contains(why) && error.contains("name another file"), "{error}");
    };
    for own in [&path, &twin, &wal] {
        refused(own, "belongs to the database itself", &mut database);
    }
    refused(&link, "no plain file", &mut database);
    refused(directory.path(), "no plain file", &mut database);
    fs::write(directory.path().join("copy.db-wal"), "frames").expect("it is new");
    refused(&copy, "is open", &mut database);
    assert_eq!(count(&mut database), rows);
}
