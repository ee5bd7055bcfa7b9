//! Numbers about the database itself, in its table `meta`.

use rusqlite::{Connection, OptionalExtension as _};

/// Key of the number of migrations that a build must know to work with the file.
pub(crate) const READABLE_FROM: &str = "readable_from_version";
/// Key of the id of the database; a copy has the same id.
const ID: &str = "database_id";

/// Creates the table if it is missing.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) \
         WITHOUT ROWID",
    )
}

/// Returns a number of `meta`, if it exists.
///
/// # Errors
///
/// Returns the errors of SQLite.
pub fn number(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Sets a number of `meta` that only grows.
///
/// # Errors
///
/// Returns the errors of SQLite.
pub fn raise(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) \
             ON CONFLICT (key) DO UPDATE SET value = excluded.value \
             WHERE excluded.value > meta.value",
        )?
        .execute((key, value))
        .map(drop)
}

/// Gives the database an id, if it has none yet.
pub(crate) fn set_id(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO meta (key, value) VALUES (?1, random())";
    connection.execute(sql, [ID]).map(drop)
}

/// Returns the id of the database.
pub(crate) fn id(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    connection.query_row(sql, [ID], |row| row.get(0))
}
