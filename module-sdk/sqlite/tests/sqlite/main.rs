//! Tests of databases in all states that a module meets.

mod backup;
mod files;
mod full_disk;
mod locks;
mod migrations;
mod module;
mod retention;

use std::path::Path;

use module_sqlite::{Database, DatabaseError, Options, Spec};

/// A database with one table.
const NOTES: Spec = Spec::new(
    "database of notes",
    "notes.db",
    *b"NOTE",
    &["CREATE TABLE note (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, text TEXT);
       CREATE INDEX note_by_time ON note (at)"],
);

fn open(directory: &Path, spec: Spec) -> Result<Database, DatabaseError> {
    Database::open_with(Options::in_directory(directory, &spec), spec)
}

fn add(database: &mut Database, at: i64) -> Result<usize, DatabaseError> {
    database.write(|transaction| {
        transaction.execute("INSERT INTO note (at, text) VALUES (?1, 'text')", [at])
    })
}

fn number(database: &mut Database, sql: &str) -> i64 {
    database.read(|connection| connection.query_row(sql, [], |row| row.get(0))).expect("it answers")
}

fn count(database: &mut Database) -> i64 {
    number(database, "SELECT count(*) FROM note")
}
