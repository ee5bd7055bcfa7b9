//! Questions to the database, over connections that only read.

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
use serde::Serialize;

pub use models::{ModelPrice, ModelUse, models};
pub(crate) use near::{models_named, near};
pub use requests::{RequestFilter, requests};
pub(crate) use requests::{object, page};
pub(crate) use sessions::{PSEUDONYM, sessions_like};
pub use sessions::{SessionUse, sessions};
pub(crate) use sources::differ;
pub use sources::{SourceUse, sources};
pub use summary::{By, Figures, Percentiles, Row, Summary, summary};

use crate::store::{SPEC, StoreError, Texts};

/// A connection that only reads.
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

    /// Asks; an error says of which file it speaks.
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

/// Nano-USD as a decimal number of US dollars. It is exact up to a million dollars: 15 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Usd(pub i64);

impl Serialize for Usd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl Usd {
    /// The number nearest to it; written in decimal it is exact up to 15 digits.
    #[expect(clippy::cast_precision_loss, reason = "15 digits are promised, and kept")]
    pub(crate) fn as_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// Unix milliseconds as RFC 3339 in UTC.
pub(crate) fn rfc3339(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_exactly() {
        let check = |nano, text: &str| {
            assert_eq!(serde_json::to_string(&Usd(nano)).expect("it is written"), text);
        };
        check(0, "0.0");
        check(1, "1e-9");
        check(3_435_000, "0.003435");
        check(100_000_000, "0.1");
        check(-2_500_000_001, "-2.500000001");
        check(999_999_999_999_999, "999999.999999999");
    }
}
