//! Errors of a database.

use std::{fmt, path::Path};

use rusqlite::ErrorCode;

use crate::Spec;

/// Error of a database, a sentence with the remedy.
///
/// Like [`module_sdk::Error`] it is no [`std::error::Error`]: `?` then uses the conversion below,
/// which keeps the kind.
#[derive(Debug)]
pub struct DatabaseError {
    kind: DatabaseErrorKind,
    message: String,
}

/// Kind of a [`DatabaseError`], which says what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseErrorKind {
    /// Temporary failure: locked, full, not writable at the moment.
    Unavailable,
    /// Damaged file. It is left unchanged.
    Damaged,
    /// File that was deleted or replaced by another one.
    Gone,
    /// File of a newer version. It is left unchanged.
    Newer,
    /// File of another program. It is left unchanged.
    Foreign,
    /// Failed migration of the schema. The file is left unchanged.
    Migration,
    /// Backup that was stopped.
    Cancelled,
    /// Defect of the module.
    Defect,
}

impl DatabaseErrorKind {
    /// Returns whether the module can go on and try again with the next piece of work.
    pub(crate) const fn may_pass(self) -> bool {
        matches!(self, Self::Unavailable | Self::Gone)
    }
}

impl DatabaseError {
    /// Returns the kind of the error.
    #[must_use]
    pub const fn kind(&self) -> DatabaseErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: DatabaseErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(DatabaseErrorKind::Unavailable, message)
    }

    /// Creates the error for an error of SQLite about the database at `path`.
    pub(crate) fn of(spec: &Spec, path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.display();
        let what = format!("the {} {path}", spec.name);
        let (kind, text) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                DatabaseErrorKind::Unavailable,
                format!("{what} is locked by another program; close it there"),
            ),
            Some(ErrorCode::DiskFull) => (
                DatabaseErrorKind::Unavailable,
                format!("no space is left for {what}; free some on its disk"),
            ),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => (
                DatabaseErrorKind::Unavailable,
                format!(
                    "{what} cannot be opened for writing; check that its directory exists and \
                     belongs to the daemon's user"
                ),
            ),
            Some(ErrorCode::OutOfMemory) => (
                DatabaseErrorKind::Unavailable,
                format!(
                    "no memory is left to write {what}; raise the module's `limits.memory_bytes`, \
                     or free some on the machine"
                ),
            ),
            Some(ErrorCode::SystemIoFailure) => (
                DatabaseErrorKind::Unavailable,
                format!("reading or writing {what} failed: {error}"),
            ),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                DatabaseErrorKind::Damaged,
                format!(
                    "{what} is damaged ({error}); it was left as it is: restore it from a backup, \
                     or {}",
                    spec.begin_anew()
                ),
            ),
            _ => (DatabaseErrorKind::Defect, format!("{what} failed: {error}")),
        };
        Self::new(kind, text)
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<DatabaseError> for module_sdk::Error {
    /// Converts all but the module's own defects and stopped backups to `Unavailable`: the events
    /// wait in the ledger until the file is repaired, and none is dead-lettered.
    fn from(error: DatabaseError) -> Self {
        match error.kind {
            DatabaseErrorKind::Defect => Self::new(error.message),
            DatabaseErrorKind::Cancelled => {
                Self::of(module_sdk::ErrorKind::Cancelled, error.message)
            }
            _ => Self::unavailable(error.message),
        }
    }
}

/// Conversion that adds the name and the path of the database to an error of SQLite.
pub(crate) trait At<T> {
    fn at(self, spec: &Spec, path: &Path) -> Result<T, DatabaseError>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, spec: &Spec, path: &Path) -> Result<T, DatabaseError> {
        self.map_err(|error| DatabaseError::of(spec, path, &error))
    }
}
