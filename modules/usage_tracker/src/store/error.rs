//! What can go wrong with the database.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rusqlite::ErrorCode;

/// Why the database could not do its work.
///
/// Like [`module_sdk::Error`] it is no [`std::error::Error`]: `?` then goes through the conversion
/// below, which keeps the kind.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
}

/// What follows from a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// It may work later: locked, full, not writable just now.
    Unavailable,
    /// The file is damaged. It is left as it is.
    Damaged,
    /// The file was deleted, or another one stands in its place.
    Gone,
    /// The file was written by a newer version. It is left as it is.
    Newer,
    /// The file belongs to somebody else. It is left as it is.
    Foreign,
    /// A defect of ours.
    Defect,
}

impl StoreError {
    /// What follows from it.
    #[must_use]
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    pub(crate) fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What SQLite said about the file at `path`, in words that help.
    pub(crate) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.display();
        let (kind, text) = match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
                StoreErrorKind::Unavailable,
                format!("the usage database {path} is locked by another program; close it there"),
            ),
            Some(ErrorCode::DiskFull) => (
                StoreErrorKind::Unavailable,
                format!("no space is left for the usage database {path}; free some on its disk"),
            ),
            Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => (
                StoreErrorKind::Unavailable,
                format!(
                    "the usage database {path} cannot be opened for writing; check that its \
                     directory exists and belongs to the daemon's user"
                ),
            ),
            Some(ErrorCode::OutOfMemory) => (
                StoreErrorKind::Unavailable,
                format!(
                    "no memory is left to write the usage database {path}; raise the module's \
                     `limits.memory_bytes`, or free some on the machine"
                ),
            ),
            Some(ErrorCode::SystemIoFailure) => (
                StoreErrorKind::Unavailable,
                format!("reading or writing the usage database {path} failed: {error}"),
            ),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (
                StoreErrorKind::Damaged,
                format!(
                    "the usage database {path} is damaged ({error}); it was left as it is: restore \
                     it from a backup, or move it away, and remove {} from the module's data \
                     directory, to begin a new one",
                    crate::known::FILE
                ),
            ),
            _ => (StoreErrorKind::Defect, format!("the usage database {path} failed: {error}")),
        };
        Self::new(kind, text)
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<StoreError> for module_sdk::Error {
    /// All but our own defects are `Unavailable`: the events wait in the ledger until the file has
    /// been seen to, and none is set aside as dead.
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::Defect => Self::new(error.message),
            _ => Self::unavailable(error.message),
        }
    }
}

/// Adds the path to what SQLite says.
pub(crate) trait At<T> {
    fn at(self, path: &Path) -> Result<T, StoreError>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, path: &Path) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::of(path, &error))
    }
}

/// Where the write-ahead log of a database lies.
pub(crate) fn wal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
