//! Numbers about the database itself, in its table `meta`.

use rusqlite::{Connection, OptionalExtension as _};

/// The key under which the file says how many steps a build must know to work with it.
pub(crate) const READABLE_FROM: &str = "readable_from_version";
/// The key of what tells the database from any other; a copy has the same.
const ID: &str = "database_id";

/// Makes the table where there is none.
pub(crate) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) \
         WITHOUT ROWID",
    )
}

/// Returns a number of `meta`, if it is there.
///
/// # Errors
///
/// Those of SQLite.
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
/// Those of SQLite.
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

/// Gives the database what tells it from any other, if it has none yet.
pub(crate) fn set_id(connection: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO meta (key, value) VALUES (?1, random())";
    connection.execute(sql, [ID]).map(drop)
}

/// Returns what tells the database from any other.
pub(crate) fn id(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    connection.query_row(sql, [ID], |row| row.get(0))
}
