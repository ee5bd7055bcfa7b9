//! Migrations from one schema to the next, and back.

use std::fs;

use module_sqlite::{AddedColumn, DatabaseErrorKind, Spec};

use crate::{NOTES, add, count, number, open};

/// Spec whose second migration succeeds and whose third fails in the middle.
const BROKEN: Spec = Spec {
    migrations: &[
        NOTES.migrations[0],
        "ALTER TABLE note ADD COLUMN author TEXT",
        "DELETE FROM note; CREATE TABLE author (name); INSERT INTO nowhere VALUES (1)",
    ],
    ..NOTES
};

const MENDED: Spec = Spec {
    migrations: &[NOTES.migrations[0], BROKEN.migrations[1], "CREATE TABLE author (name)"],
    ..NOTES
};

#[test]
fn a_step_that_fails_half_way_leaves_the_file_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut database = open(directory.path(), NOTES).expect("it opens");
    add(&mut database, 7).expect("it is written");
    database.close().expect("it closes");
    let path = database.path().to_owned();
    let before = fs::read(&path).expect("it is readable");
    let error = open(directory.path(), BROKEN).expect_err("it cannot be done");
    assert_eq!(error.kind(), DatabaseErrorKind::Migration, "{error}");
    let said = error.to_string();
    assert!(said.contains("from version 1 to 3") && said.contains("nowhere"), "{said}");
    assert_eq!(fs::read(&path).expect("it is readable"), before, "not even its second step");
    // The build before goes on with it, and so does one that is mended.
    let mut old = open(directory.path(), NOTES).expect("it opens");
    add(&mut old, 8).expect("it is written");
    drop(old);
    let mut mended = open(directory.path(), MENDED).expect("it opens");
    assert_eq!(count(&mut mended), 2);
    drop(mended);
    let error = open(directory.path(), NOTES).expect_err("its steps are more");
    assert_eq!(error.kind(), DatabaseErrorKind::Newer, "{error}");
}

#[test]
fn what_only_adds_leaves_the_way_back_open() {
    let wide = Spec {
        migrations: MENDED.migrations,
        added_columns: &[AddedColumn { table: "note", column: "stars", form: "INTEGER" }],
        readable_from: Some(1),
        ..NOTES
    };
    let directory = tempfile::tempdir().expect("a directory");
    for at in 0..3 {
        let mut database = open(directory.path(), wide).expect("it opens");
        let sql = "INSERT INTO note (at, author, stars) VALUES (?1, 'me', 5)";
        database.write(|transaction| transaction.execute(sql, [at])).expect("it is written");
        drop(database);
        let mut old = open(directory.path(), NOTES).expect("it goes back");
        add(&mut old, at).expect("it is written");
        assert_eq!(number(&mut old, "PRAGMA user_version"), 3, "the newer one's");
    }
    let mut database = open(directory.path(), wide).expect("it opens");
    assert_eq!(count(&mut database), 6);
}
