//! Connections that only read.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::{DatabaseError, Spec, error::At as _, open};

/// A connection that only reads, for questions on any thread. Each statement sees the database as
/// it is when it begins, and holds nobody up.
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
    /// When the file is not there, is locked or is damaged.
    pub fn open(path: &Path, spec: &Spec) -> Result<Self, DatabaseError> {
        let connection = open::reader(spec, path)?;
        Ok(Self { connection, spec: *spec, path: path.to_owned() })
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// When the database cannot be read; the error says of which file it speaks.
    pub fn read<T>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        question(&self.connection).at(&self.spec, &self.path)
    }
}
