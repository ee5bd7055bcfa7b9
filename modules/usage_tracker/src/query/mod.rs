//! Queries of the database, over read-only connections.

mod models;
mod near;
mod requests;
mod segments;
mod sessions;
mod sources;
mod summary;

use std::path::Path;

use jiff::Timestamp;
use rusqlite::Connection;

pub use models::{ModelPrice, ModelUse, models};
pub(crate) use near::{models_named, near};
pub use requests::{RequestFilter, requests};
pub(crate) use requests::{object, page};
pub(crate) use sessions::session_sums;
pub(crate) use sessions::{PSEUDONYM, sessions_like};
pub use sessions::{SessionUse, sessions};
pub(crate) use sources::differ;
pub use sources::{SourceUse, sources};
pub use summary::{By, Figures, Percentiles, Row, Summary, summary};

use crate::store::{SPEC, StoreError, Texts};

/// A read-only connection.
#[derive(Debug)]
pub struct Reader {
    database: module_sqlite::Reader,
    texts: Texts,
}

impl Reader {
    /// Opens a database for reading.
    ///
    /// # Errors
    ///
    /// When the file is not there, is locked or is damaged.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(module_sqlite::Reader::open(path, &SPEC)?.into())
    }

    /// Runs a query; an error names the file.
    pub(crate) fn ask<T>(
        &mut self,
        question: impl FnOnce(&Connection, &mut Texts) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.database.read(|connection| question(connection, &mut self.texts))
    }
}

impl From<module_sqlite::Reader> for Reader {
    fn from(database: module_sqlite::Reader) -> Self {
        Self { database, texts: Texts::default() }
    }
}

/// Formats milliseconds since the Unix epoch as RFC 3339 in UTC.
pub(crate) fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}
