//! Read-only connections.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::{DatabaseError, Spec, error::At as _, open};

/// A read-only connection, for queries on any thread. Each statement sees the database as it is
/// when the statement begins, and blocks no other connection.
#[derive(Debug)]
pub struct Reader {
    pub(crate) connection: Connection,
    pub(crate) spec: Spec,
    pub(crate) path: PathBuf,
}

impl Reader {
    /// Opens a database for reading.
    ///
    /// # Errors
    ///
    /// Returns an error if the file is missing, locked or damaged.
    pub fn open(path: &Path, spec: &Spec) -> Result<Self, DatabaseError> {
        let connection = open::reader(spec, path)?;
        Ok(Self { connection, spec: *spec, path: path.to_owned() })
    }

    /// Runs a query.
    ///
    /// # Errors
    ///
    /// Returns an error if the database cannot be read; it names the file.
    pub fn read<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        question(&self.connection).at(&self.spec, &self.path)
    }
}
