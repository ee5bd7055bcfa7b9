//! Deletion of old rows, in chunks that are short enough not to delay events.

use rusqlite::Transaction;

use crate::{Database, DatabaseError};

/// Number of rows that one transaction changes: a few milliseconds of work.
const ROWS: u32 = 1_000;
/// Number of transactions before events are handled again.
const AT_ONCE: usize = 10;

/// Result of work in chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunks {
    /// Number of rows changed.
    pub rows: usize,
    /// `true` if nothing is left; otherwise the next call goes on.
    pub finished: bool,
}

impl Database {
    /// Deletes rows of a table whose `column` is below a number, such as a time, in transactions of
    /// 1,000 rows and at most ten of them: call it from a timer. The table must have row numbers
    /// and should have an index over the column.
    ///
    /// ```
    /// # use module_sqlite::{Database, Options, Spec};
    /// # let directory = tempfile::tempdir()?;
    /// # let options = Options::new(directory.path().join("a.db"));
    /// const STEPS: &[&str] = &["
    ///     CREATE TABLE alert (id INTEGER PRIMARY KEY, at INTEGER NOT NULL);
    ///     CREATE INDEX alert_by_time ON alert (at);
    /// "];
    /// # let spec = Spec::new("database", "a.db", *b"DEMO", STEPS);
    /// # let mut database = Database::open_with(options, spec)?;
    /// database.write(|all| all.execute("INSERT INTO alert (at) VALUES (1), (2), (3)", []))?;
    /// let chunks = database.delete_older("alert", "at", 3)?;
    /// assert_eq!((chunks.rows, chunks.finished), (2, true));
    /// # Ok::<(), module_sdk::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be written. Chunks that were deleted before stay
    /// deleted.
    pub fn delete_older(
        &mut self,
        table: &'static str,
        column: &'static str,
        before: i64,
    ) -> Result<Chunks, DatabaseError> {
        let sql = format!(
            "DELETE FROM \"{table}\" WHERE rowid IN (SELECT rowid FROM \"{table}\" \
             WHERE \"{column}\" < ?1 ORDER BY \"{column}\" LIMIT ?2)"
        );
        self.in_chunks(|transaction, limit| {
            transaction.prepare_cached(&sql)?.execute((before, limit))
        })
    }

    /// Runs a long piece of work in transactions of at most as many rows as `chunk` gets as its
    /// argument, and returns after ten of them. `chunk` returns the number of rows that it changed;
    /// fewer than the maximum means that nothing is left.
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be written. Chunks that were written before stay
    /// written.
    pub fn in_chunks(
        &mut self,
        mut chunk: impl FnMut(&Transaction<'_>, u32) -> rusqlite::Result<usize>,
    ) -> Result<Chunks, DatabaseError> {
        let mut rows = 0;
        for _ in 0..AT_ONCE {
            let changed = self.write(|transaction| chunk(transaction, ROWS))?;
            rows += changed;
            if changed < ROWS as usize {
                return Ok(Chunks { rows, finished: true });
            }
        }
        Ok(Chunks { rows, finished: false })
    }
}
