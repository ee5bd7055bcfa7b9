//! A database that is open for writing: one connection, and the file that it was opened as.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::{
    DatabaseError, DatabaseErrorKind, Durability, Spec, checkpoint::Checkpointer, error::At as _,
    meta, open,
};

/// The connection that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    /// Ends when the connection is closed, so it stands below it.
    _checkpointer: Checkpointer,
    spec: Spec,
    path: PathBuf,
    /// The file that was opened, and its write-ahead log: device and number.
    file: Option<(u64, u64)>,
    log: Option<(u64, u64)>,
    /// What changes when anybody else writes into it.
    data_version: i64,
    id: i64,
    /// What [`Spec::counted`] counts, as far as it is committed.
    position: i64,
}

impl Writer {
    pub(crate) fn open(
        spec: Spec,
        path: &Path,
        durability: Durability,
    ) -> Result<Self, DatabaseError> {
        let mut connection = open::writer(&spec, path, durability)?;
        let checkpointer = Checkpointer::start(&mut connection, path).at(&spec, path)?;
        Ok(Self {
            _checkpointer: checkpointer,
            path: path.to_owned(),
            file: present(path),
            log: identity(&beside(path, "-wal")),
            data_version: data_version(&connection).at(&spec, path)?,
            id: meta::id(&connection).at(&spec, path)?,
            position: position(&connection, &spec).at(&spec, path)?,
            connection,
            spec,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what tells this database from any other; a copy has the same.
    pub(crate) const fn id(&self) -> i64 {
        self.id
    }

    pub(crate) const fn position(&self) -> i64 {
        self.position
    }

    /// Does a piece of work in one transaction.
    pub(crate) fn write<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let write = || -> rusqlite::Result<(T, i64)> {
            let transaction =
                self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction)?;
            let position = position(&transaction, &self.spec)?;
            transaction.commit()?;
            Ok((done, position))
        };
        let (done, position) = write().at(&self.spec, &self.path)?;
        self.position = position;
        Ok(done)
    }

    /// Checks that the path still leads to the file that was opened. SQLite would go on writing
    /// into a file that nobody finds any more.
    pub(crate) fn in_place(&self) -> Result<(), DatabaseError> {
        let found = present(&self.path);
        if found == self.file {
            return Ok(());
        }
        let what = match found {
            None => "was deleted, emptied or moved away while it was in use: put it back",
            Some(_) => "was replaced by another file while it was in use",
        };
        let message = format!("the {} {} {what}", self.spec.name, self.path.display());
        Err(DatabaseError::new(DatabaseErrorKind::Gone, message))
    }

    /// Closes a database whose file was replaced. What its write-ahead log holds is copied into the
    /// file first, which may lie elsewhere now. The log would otherwise be read as that of the file
    /// that is there now, and spoil it.
    pub(crate) fn abandon(self) {
        let log = beside(&self.path, "-wal");
        let ours = self.log.is_some() && identity(&log) == self.log;
        if let Err(error) = self.complete() {
            let name = self.spec.name;
            tracing::warn!(%error, "the {name} that was moved away may lack what came last");
        }
        drop(self);
        if ours && let Err(error) = fs::remove_file(&log) {
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

    /// Folds the write-ahead log into the database, so that one file holds everything.
    pub(crate) fn checkpoint(&self) -> Result<(), DatabaseError> {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection.query_row(sql, [], |_| Ok(())).at(&self.spec, &self.path)
    }
}

/// Why a database that was moved away may lack what came last.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("another program has written into its log")]
    OtherWriter,
    #[error("{0} pages of its log are in use")]
    InUse(i64),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Returns a number that changes when another connection has written.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Returns what is counted; 0 where nothing is.
fn position(connection: &Connection, spec: &Spec) -> rusqlite::Result<i64> {
    match &spec.counted {
        Some(counted) => Ok(meta::number(connection, counted.key)?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// Returns the path of a file that lies beside another and is called like it.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Returns which file a path leads to: its device and number.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Returns which database a path leads to; an empty file is none.
pub(crate) fn present(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().filter(|it| it.len() > 0).map(|found| (found.dev(), found.ino()))
}
