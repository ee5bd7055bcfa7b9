//! Silences and acknowledgements: what people said about alerts.

use std::collections::BTreeMap;

use module_sdk::jiff::Timestamp;
use module_sqlite::rusqlite::{self, Connection, Row, params};

use super::matcher::Matcher;

/// A time within which nobody is told of the alerts that fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Silence {
    /// Its number.
    pub id: i64,
    /// Alerts that are meant.
    pub matcher: Matcher,
    /// Words of the person.
    pub comment: String,
    /// Beginning.
    pub created_at: Timestamp,
    /// End.
    pub ends_at: Timestamp,
}

impl Silence {
    /// Reads the silences that have not ended.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<Self>> {
        let sql = "SELECT * FROM silence WHERE ends_at > ?1 ORDER BY id";
        let mut all = connection.prepare_cached(sql)?;
        let rows = all.query_map([now.as_millisecond()], Self::of)?;
        rows.filter_map(Result::transpose).collect()
    }

    fn of(row: &Row<'_>) -> rusqlite::Result<Option<Self>> {
        let time = |ms: i64| Timestamp::from_millisecond(ms).unwrap_or_default();
        let matcher: String = row.get("matcher")?;
        // One that is not understood silences nothing.
        let Ok(matcher) = matcher.parse() else { return Ok(None) };
        Ok(Some(Self {
            id: row.get("id")?,
            matcher,
            comment: row.get("comment")?,
            created_at: time(row.get("created_at")?),
            ends_at: time(row.get("ends_at")?),
        }))
    }

    /// Writes a silence, and returns it with its number.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn write(self, connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "INSERT INTO silence (matcher, comment, created_at, ends_at) \
                   VALUES (?1, ?2, ?3, ?4)";
        connection.prepare_cached(sql)?.execute(params![
            self.matcher.to_string(),
            self.comment,
            self.created_at.as_millisecond(),
            self.ends_at.as_millisecond(),
        ])?;
        Ok(Self { id: connection.last_insert_rowid(), ..self })
    }

    /// Ends a silence; returns `false` where there is none of that number that lasts.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn end(connection: &Connection, id: i64, now: Timestamp) -> rusqlite::Result<bool> {
        let sql = "UPDATE silence SET ends_at = ?1 WHERE id = ?2 AND ends_at > ?1";
        let ended = connection.prepare_cached(sql)?.execute([now.as_millisecond(), id])?;
        Ok(ended > 0)
    }

    /// Deletes silences that ended before a time.
    ///
    /// # Errors
    ///
    /// Those of SQLite.
    pub fn delete_before(connection: &Connection, before_ms: i64) -> rusqlite::Result<usize> {
        connection.prepare_cached("DELETE FROM silence WHERE ends_at < ?1")?.execute([before_ms])
    }
}

/// Reads who works on which of the alerts that fire.
///
/// # Errors
///
/// Those of SQLite.
pub fn acknowledged(connection: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    let sql = "SELECT id, acknowledged_by FROM alert \
               WHERE resolved_at IS NULL AND acknowledged_by IS NOT NULL";
    let mut all = connection.prepare_cached(sql)?;
    all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

/// Writes who works on an alert.
///
/// # Errors
///
/// Those of SQLite.
pub fn acknowledge(
    connection: &Connection,
    id: &str,
    by: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "UPDATE alert SET acknowledged_by = ?1, acknowledged_at = ?2 WHERE id = ?3";
    connection.prepare_cached(sql)?.execute(params![by, now.as_millisecond(), id]).map(drop)
}
