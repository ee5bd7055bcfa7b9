//! A database that is open for writing: one connection, and the identity of its file.

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

/// The writing connection.
#[derive(Debug)]
pub(crate) struct Writer {
    connection: Connection,
    /// Thread for checkpoints, which ends when the connection is closed and so must be dropped
    /// after it.
    _checkpointer: Checkpointer,
    spec: Spec,
    path: PathBuf,
    /// Device and inode of the opened file, and of its write-ahead log.
    file: Option<(u64, u64)>,
    log: Option<(u64, u64)>,
    /// Number that changes when another connection writes to the database.
    data_version: i64,
    id: i64,
    /// Committed value of [`Spec::counted`].
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

    /// Returns the id of this database; a copy has the same id.
    pub(crate) const fn id(&self) -> i64 {
        self.id
    }

    pub(crate) const fn position(&self) -> i64 {
        self.position
    }

    /// Runs a piece of work in one transaction.
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

    /// Checks that the path still leads to the opened file. SQLite would otherwise go on writing to
    /// a file that nobody can find any more.
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

    /// Closes a database whose file was replaced. Its write-ahead log is copied into the opened
    /// file first, which may have another path now. Otherwise the log would be applied to the file
    /// that is at the path now, and damage it.
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

    /// Copies the write-ahead log into the opened file, wherever both are now: SQLite holds them
    /// open. A program that opened the new file at the path has written to our log, if at all, and
    /// nothing of that may get into our file.
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

    /// Copies the write-ahead log into the database, so that one file holds everything.
    pub(crate) fn checkpoint(&self) -> Result<(), DatabaseError> {
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        self.connection.query_row(sql, [], |_| Ok(())).at(&self.spec, &self.path)
    }
}

/// Reason for a moved database possibly missing the last writes.
#[derive(Debug, thiserror::Error)]
enum Incomplete {
    #[error("another program has written into its log")]
    OtherWriter,
    #[error("{0} pages of its log are in use")]
    InUse(i64),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Returns a number that changes when another connection writes.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Returns the value of [`Spec::counted`], 0 if it counts nothing.
fn position(connection: &Connection, spec: &Spec) -> rusqlite::Result<i64> {
    match &spec.counted {
        Some(counted) => Ok(meta::number(connection, counted.key)?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// Returns the path of the file beside another one whose name has this suffix added.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Returns the identity of the file at a path: device and inode.
pub(crate) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Returns the identity of the database at a path; an empty file is none.
pub(crate) fn present(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().filter(|it| it.len() > 0).map(|found| (found.dev(), found.ino()))
}
