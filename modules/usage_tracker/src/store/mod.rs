//! The database of usage: one writer, on the module's thread.
//!
//! A batch is one transaction: requests, sessions and rollups change together or not at all. Every
//! request is counted once, however often it is delivered or reported: its dedupe key is unique,
//! and a second report is merged into the first, in the rollups as well.
//!
//! ```
//! use module_sdk::events::LlmRequestCompleted;
//! use usage_tracker::{intake::Report, store::{Options, Store}};
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

mod checkpoint;
mod error;
mod measures;
mod names;
mod open;
mod rollups;
mod row;
mod sessions;
mod withdraw;
mod write;

use std::path::{Path, PathBuf};

use module_sdk::events::LlmSessionEnded;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

pub use error::{StoreError, StoreErrorKind};
pub use measures::Measures;
pub use open::Durability;
pub use row::{Stored, failed};
pub use sessions::SessionNews;
pub use withdraw::Withdrawn;
pub use write::Written;

pub(crate) use error::At;
pub(crate) use measures::{SUMS, integer};
pub(crate) use names::Texts;
pub(crate) use open::reader;
pub(crate) use rollups::{DAY_HOURS, HOUR_MS};
pub(crate) use row::{READ, read};

use crate::{
    known::{identity, present},
    prices::{PriceTable, Pricer},
};

/// How a [`Store`] works.
#[derive(Debug)]
pub struct Options {
    /// When a write is safe.
    pub durability: Durability,
    /// Computes costs.
    pub pricer: Pricer,
    /// A session that was silent for as long has ended, milliseconds.
    pub session_idle_ms: i64,
}

impl Default for Options {
    /// Safe against a killed process, the shipped prices without a baseline, half an hour.
    fn default() -> Self {
        let pricer = Pricer::new(PriceTable::built_in(), None).expect("no baseline can be missing");
        Self { durability: Durability::default(), pricer, session_idle_ms: 30 * 60_000 }
    }
}

/// The database, open for writing.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
    /// Ends when the connection is closed, so it stands below it.
    _checkpointer: checkpoint::Checkpointer,
    path: PathBuf,
    /// The file that was opened, and its write-ahead log: device and number.
    file: Option<(u64, u64)>,
    log: Option<(u64, u64)>,
    /// What changes when anybody else writes into it.
    data_version: i64,
    id: i64,
    options: Options,
    names: names::Names,
    sessions: sessions::Sessions,
    /// The number of the last row; numbers are never used twice, since keys outlive rows.
    last_request: i64,
}

/// The key of `meta` under which the number of the last row is kept.
const LAST_REQUEST: &str = "last_request";
/// The key of `meta` under which the time is kept before which requests have been deleted.
pub(crate) const KEPT_FROM: &str = "kept_from_ms";
/// How many requests one transaction deletes: a few milliseconds of work.
const PURGED_AT_ONCE: i64 = 1_000;
/// How many sessions end in one transaction.
const ENDED_AT_ONCE: i64 = 500;

impl Store {
    /// Opens the database, makes it where there is none, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, is damaged, is another program's, or was written by a newer
    /// version. It is then left as it is.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let mut connection = open::writer(path, options.durability)?;
        let checkpointer = checkpoint::Checkpointer::start(&mut connection, path).at(path)?;
        let last_request = meta(&connection, LAST_REQUEST).at(path)?.unwrap_or(0);
        let id = open::id(&connection).at(path)?;
        Ok(Self {
            _checkpointer: checkpointer,
            path: path.to_owned(),
            file: present(path),
            log: identity(&error::wal(path)),
            data_version: data_version(&connection).at(path)?,
            id,
            connection,
            options,
            names: names::Names::default(),
            sessions: sessions::Sessions::default(),
            last_request,
        })
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What tells this database from any other; a copy has the same.
    #[must_use]
    pub const fn id(&self) -> i64 {
        self.id
    }

    /// The number of the last request, which only grows.
    #[must_use]
    pub const fn last_request(&self) -> i64 {
        self.last_request
    }

    /// Whether the path still leads to the file that was opened. SQLite would go on writing into a
    /// file that nobody finds any more.
    ///
    /// # Errors
    ///
    /// When it was deleted, or another file stands in its place.
    pub fn in_place(&self) -> Result<(), StoreError> {
        let found = present(&self.path);
        if found == self.file {
            return Ok(());
        }
        let what = match found {
            None => "was deleted, emptied or moved away while it was in use: put it back",
            Some(_) => "was replaced by another file while it was in use",
        };
        let message = format!("the usage database {} {what}", self.path.display());
        Err(StoreError::new(StoreErrorKind::Gone, message))
    }

    /// Closes a database whose file was replaced. What its write-ahead log holds is copied into the
    /// file first, which may lie elsewhere now. The log would otherwise be read as that of the file
    /// that is there now, and spoil it.
    pub(crate) fn abandon(self) {
        let log = error::wal(&self.path);
        let ours = self.log.is_some() && identity(&log) == self.log;
        if let Err(error) = self.complete() {
            tracing::warn!(
                %error,
                "the usage database that was moved away may lack its last requests"
            );
        }
        drop(self);
        if ours && let Err(error) = std::fs::remove_file(&log) {
            tracing::warn!(%error, path = %log.display(), "cannot remove an outdated log");
        }
    }

    /// Copies the write-ahead log into the file that was opened, wherever both lie now: SQLite
    /// holds them open. Whoever opened the file that is there now has written into our log, if at
    /// all, and nothing of that may reach ours.
    fn complete(&self) -> Result<(), Incomplete> {
        if data_version(&self.connection)? != self.data_version {
            return Err(Incomplete::OtherWriter);
        }
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let (pages, copied): (i64, i64) =
            self.connection.query_row(sql, [], |row| Ok((row.get(1)?, row.get(2)?)))?;
        let rest = pages - copied;
        if rest > 0 { Err(Incomplete::InUse(rest)) } else { Ok(()) }
    }

    /// Computes costs.
    #[must_use]
    pub const fn pricer(&self) -> &Pricer {
        &self.options.pricer
    }

    /// Deletes requests that ended before a time (Unix milliseconds), at most a thousand; the
    /// rollups and keys stay. Answers how many were deleted: call again until it is none.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; nothing is deleted then.
    pub fn purge(&mut self, before_ms: i64) -> Result<usize, StoreError> {
        let purge = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let deleted = transaction
                .prepare_cached(
                    "DELETE FROM request WHERE id IN (SELECT id FROM request \
                     WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2)",
                )?
                .execute((before_ms, PURGED_AT_ONCE))?;
            if deleted > 0 {
                raise_meta(&transaction, KEPT_FROM, before_ms)?;
            }
            transaction.commit()?;
            Ok(deleted)
        };
        purge(&mut self.connection).at(&self.path)
    }

    /// When the latest request ended, Unix milliseconds; `None` where there is none.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn newest_ms(&self) -> Result<Option<i64>, StoreError> {
        let newest = || {
            self.connection
                .prepare_cached("SELECT max(ended_at) FROM request")?
                .query_row([], |row| row.get(0))
        };
        newest().at(&self.path)
    }

    /// Marks the sessions that have been silent for too long as ended, and answers them.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; none is marked then.
    pub fn end_idle_sessions(&mut self, now_ms: i64) -> Result<Vec<LlmSessionEnded>, StoreError> {
        let before = now_ms.saturating_sub(self.options.session_idle_ms);
        let end = |connection: &mut Connection| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let ended = sessions::end_idle(&transaction, before, ENDED_AT_ONCE)?;
            transaction.commit()?;
            Ok(ended)
        };
        let ended = end(&mut self.connection).at(&self.path)?;
        if !ended.is_empty() {
            self.sessions.forget();
        }
        Ok(ended)
    }

    /// Sizes of the database file and of its write-ahead log, bytes.
    #[must_use]
    pub fn sizes(&self) -> (u64, u64) {
        let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        (size(&self.path), size(&error::wal(&self.path)))
    }

    /// Folds the write-ahead log into the database, so that one file holds everything.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; the log then stays, and nothing is lost.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).at(&self.path)
    }
}

/// Why a database that was moved away may lack its last requests.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("another program has written into its log")]
    OtherWriter,
    #[error("{0} pages of its log are in use")]
    InUse(i64),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// A number that changes when another connection has written.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// A number of `meta`.
pub(crate) fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Sets a number of `meta` that only grows.
fn raise_meta(connection: &Connection, key: &str, value: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) \
             ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
        )?
        .execute((key, value))
        .map(drop)
}
