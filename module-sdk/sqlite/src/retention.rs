//! Deleting what is old, in pieces that hold up nobody.

use rusqlite::Transaction;

use crate::{Database, DatabaseError};

/// How many rows one transaction changes: a few milliseconds of work.
const ROWS: u32 = 1_000;
/// How many transactions are made before events come through again.
const AT_ONCE: usize = 10;

/// What was done in chunks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunks {
    /// How many rows were changed.
    pub rows: usize,
    /// Whether nothing is left; otherwise the next call goes on.
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
    /// When the database cannot be written. Chunks that were deleted before stay deleted.
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

    /// Does a long piece of work in transactions of at most as many rows as `chunk` is told, and
    /// returns after ten of them. `chunk` returns how many rows it changed; fewer than it might
    /// says that nothing is left.
    ///
    /// # Errors
    ///
    /// When the database cannot be written. Chunks that were written before stay written.
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
