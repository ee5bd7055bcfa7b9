//! The usage database: one writer, on the module's thread.
//!
//! A batch is one transaction: requests, sessions and rollups change together or not at all. Every
//! request is counted once, however often it is delivered or reported: its dedupe key is unique,
//! and a second report is merged into the first, in the rollups as well.
//!
//! ```
//! use module_sdk::events::LlmRequestCompleted;
//! use usage_tracker::{sanitize::Report, store::{Options, Store}};
//!
//! let directory = std::env::temp_dir().join(format!("lodestar-doc-{}", std::process::id()));
//! std::fs::create_dir_all(&directory)?;
//! let mut store = Store::open(&directory.join("usage.db"), Options::default())?;
//! let request = LlmRequestCompleted {
//!     dedupe_key: "anthropic:req_1".to_owned(),
//!     ended_at: 1_790_000_000_000,
//!     ..Default::default()
//! };
//! let report = Report::new(uuid::Uuid::now_v7(), request, 1_790_000_000_000);
//! let written = store.write(vec![report.clone(), report], 1_790_000_000_000)?;
//! assert_eq!((written.counted.len(), written.duplicates), (1, 1));
//! # std::fs::remove_dir_all(directory)?;
//! # Ok::<(), module_sdk::Error>(())
//! ```

mod import;
mod measures;
mod names;
mod rollups;
mod row;
mod schema;
mod sessions;
mod twins;
mod withdraw;
mod write;

use std::path::Path;

use module_prices::PriceTable;
use module_sdk::{Health, events::LlmSessionEnded};
use module_sqlite::{Chunks, Database, Reader, raise};

pub use measures::Measures;
pub use module_sqlite::{
    DatabaseError as StoreError, DatabaseErrorKind as StoreErrorKind, Durability,
};
pub use row::{Stored, failed};
pub use sessions::SessionNews;
pub use withdraw::Withdrawn;
pub use write::Written;

pub(crate) use import::{FileKey, ImportedFile, ImportedFiles, Rehearsed};
pub(crate) use measures::{SUMS, integer};
pub(crate) use names::Texts;
pub(crate) use rollups::{DAY_HOURS, HOUR_MS};
pub(crate) use row::{READ, read};
pub(crate) use schema::SPEC;

use crate::prices::Pricer;

/// The options of a [`Store`].
#[derive(Debug)]
pub struct Options {
    /// Durability of a write.
    pub durability: Durability,
    /// Calculator of costs.
    pub pricer: Pricer,
    /// Time without requests after which a session has ended, in milliseconds.
    pub session_idle_ms: i64,
}

impl Default for Options {
    /// Returns the defaults: writes that survive a killed process, the shipped prices without a
    /// baseline, half an hour.
    fn default() -> Self {
        let pricer = Pricer::new(PriceTable::built_in(), None).expect("no baseline can be missing");
        Self { durability: Durability::default(), pricer, session_idle_ms: 30 * 60_000 }
    }
}

/// The database, and a cache of its rows.
#[derive(Debug)]
pub struct Store {
    database: Database,
    /// Number of the opening of the database for which the following fields are valid.
    opening: u64,
    options: Options,
    names: names::Names,
    sessions: sessions::Sessions,
    /// Number of the last row; numbers are never reused, since keys outlive rows.
    last_request: i64,
}

/// Key of `meta` with the number of the last row.
const LAST_REQUEST: &str = "last_request";
/// Key of `meta` with the time before which requests have been deleted.
pub(crate) const KEPT_FROM: &str = "kept_from_ms";
/// Key of `meta` that is there once transcripts were imported.
const IMPORTED: &str = "imported";
/// Largest number of sessions that end in one transaction.
const ENDED_AT_ONCE: i64 = 500;

impl Store {
    /// Opens the database, creates it where there is none, and brings its schema up to date. A
    /// database that is unavailable for now is opened with the first operation.
    ///
    /// # Errors
    ///
    /// When the file is damaged, is another program's, or was written by a newer version. It is
    /// then left as it is.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        Self::open_as(module_sqlite::Options::new(path), options)
    }

    /// Opens the database at `place`; `options` set how it is written.
    ///
    /// # Errors
    ///
    /// As those of [`open`](Self::open).
    pub(crate) fn open_as(
        place: module_sqlite::Options,
        options: Options,
    ) -> Result<Self, StoreError> {
        let place = module_sqlite::Options { durability: options.durability, ..place };
        Ok(Self {
            database: Database::open_with(place, SPEC)?,
            opening: 0,
            options,
            names: names::Names::default(),
            sessions: sessions::Sessions::default(),
            last_request: 0,
        })
    }

    /// Opens a read-only connection.
    ///
    /// # Errors
    ///
    /// When the database is unavailable.
    pub(crate) fn reader(&mut self) -> Result<Reader, StoreError> {
        self.database.reader()
    }

    /// Returns the health: whether the database can be written, and if not, why.
    pub(crate) fn health(&self) -> Health {
        self.database.health()
    }

    /// Returns the calculator of costs.
    #[must_use]
    pub const fn pricer(&self) -> &Pricer {
        &self.options.pricer
    }

    /// Deletes requests that ended before a time (Unix milliseconds), in pieces of a thousand and
    /// ten of them at most; the rollups and keys stay. Returns how many were deleted.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; the pieces that were deleted before stay deleted.
    pub fn purge(&mut self, before_ms: i64) -> Result<Chunks, StoreError> {
        self.database.in_chunks(|transaction, limit| {
            let deleted = transaction
                .prepare_cached(
                    "DELETE FROM request WHERE id IN (SELECT id FROM request \
                     WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)",
                )?
                .execute((before_ms, limit))?;
            if deleted > 0 {
                raise(transaction, KEPT_FROM, before_ms)?;
            }
            Ok(deleted)
        })
    }

    /// Returns the time when the latest request ended, in milliseconds since the Unix epoch; `None`
    /// where there is none.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn newest_ms(&mut self) -> Result<Option<i64>, StoreError> {
        self.database.read(|connection| {
            connection.query_row("SELECT max(ended_at) FROM request", [], |row| row.get(0))
        })
    }

    /// Marks the sessions that have been idle for too long as ended, and returns them.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; none is marked then.
    pub fn end_idle_sessions(&mut self, now_ms: i64) -> Result<Vec<LlmSessionEnded>, StoreError> {
        let before = now_ms.saturating_sub(self.options.session_idle_ms);
        let ended = self
            .database
            .write(|transaction| sessions::end_idle(transaction, before, ENDED_AT_ONCE))?;
        if !ended.is_empty() {
            self.sessions.forget();
        }
        Ok(ended)
    }

    /// Returns the sizes of the database file and of its write-ahead log, in bytes.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        self.database.sizes()
    }

    /// Folds the write-ahead log into the database, so that one file holds everything.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; the log then stays, and nothing is lost.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.database.checkpoint()
    }

    /// Closes the file, with everything written to it.
    ///
    /// # Errors
    ///
    /// When the write-ahead log could not be folded in; nothing is lost.
    pub(crate) fn close(&mut self) -> Result<(), StoreError> {
        self.database.close()
    }
}

#[cfg(test)]
impl Store {
    /// Runs a query for a test.
    fn ask<T>(&self, question: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T>) -> T {
        let reader = Reader::open(self.database.path(), &SPEC).expect("it is there");
        reader.read(question).expect("it answers")
    }
}
