//! The database of learning: consents, examples, feedback and datasets.
//!
//! There is one writer. The module's thread and its jobs take turns with it, each for one short
//! transaction; once the module stops nobody gets it any more, since the next generation opens the
//! same file.

mod consent;
mod dataset;
mod example;
mod feedback;
mod forget;
mod lineage;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use module_sdk::{Error, ErrorKind, Health, Result};
use module_sqlite::{
    Chunks, Database, Options, Reader, Spec,
    rusqlite::{self, Connection, Transaction},
};
use sha2::{Digest as _, Sha256};

pub use consent::{Attestation, Consent, NewConsent, Scope};
pub use dataset::{Membership, Split, StoredDataset};
pub use example::{Kept, NewExample, Origin, load, question};
pub use feedback::{Sign, Signal, Weights};
pub use forget::{Forgotten, Target};
pub use lineage::TrainedOn;

/// The database.
pub const SPEC: Spec = Spec {
    setting: Some("database"),
    product: "Lodestar",
    // What is deleted is overwritten, since it may be text that somebody wants forgotten.
    setup: |connection| connection.pragma_update(None, "secure_delete", true),
    ..Spec::new(
        "database of learning",
        "learning.db",
        *b"LSLN",
        &[
            include_str!("../../migrations/0001_learning.sql"),
            crate::registry::MIGRATION,
            crate::run::MIGRATION,
            crate::experiment::MIGRATION,
            crate::labels::MIGRATION,
            crate::judge::MIGRATION,
            consent::UNATTRIBUTED,
            crate::judge::ASKED,
        ],
    )
};

/// Rows that one transaction changes, so that events wait for no job.
const AT_ONCE: usize = 500;

/// The database, shared by the module's thread and its jobs.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    /// Health when it was asked for last.
    health: Arc<Mutex<Health>>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    /// `true` once the module stops.
    closed: bool,
}

impl Store {
    /// Opens the database, or begins without it where a later attempt may succeed.
    ///
    /// # Errors
    ///
    /// When the file must not be written: damaged, newer, or of another program.
    pub fn open(options: Options) -> Result<Self> {
        let database =
            Database::open_with(options, SPEC).map_err(|error| Error::new(error.to_string()))?;
        Ok(Self {
            health: Arc::new(Mutex::new(database.health())),
            inner: Arc::new(Mutex::new(Inner { database, closed: false })),
        })
    }

    /// Returns the options for the file that the operator named, or that in the data directory.
    #[must_use]
    pub fn options(data_dir: &Path, named: Option<&Path>) -> Options {
        let usual = Options::in_directory(data_dir, &SPEC);
        match named {
            Some(path) => Options { path: data_dir.join(path), ..usual },
            None => usual,
        }
    }

    /// Runs a piece of work in one transaction, which is rolled back if it fails.
    ///
    /// # Errors
    ///
    /// When the database cannot be written, or the module stops.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        Ok(self.open_for_work()?.database.write(work)?)
    }

    /// Runs a question over a read-only connection.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or the module stops.
    pub fn read<T>(&self, question: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        Ok(self.reader()?.read(question)?)
    }

    /// Opens a read-only connection, for a job that asks much.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or the module stops.
    pub fn reader(&self) -> Result<Reader> {
        Ok(self.open_for_work()?.database.reader()?)
    }

    /// Deletes text that was kept before `kept_before_ms`, with the feedback and the endings of
    /// that time, in small pieces. Of an example that a dataset still holds the marks stay, without
    /// its text, by which it is found when somebody wants it forgotten.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn delete_older(&self, kept_before_ms: i64) -> Result<Chunks> {
        let mut inner = self.open_for_work()?;
        let chunks = inner.database.in_chunks(|transaction, limit| {
            let sql = "DELETE FROM example WHERE number IN (SELECT number FROM example e \
                       WHERE forgotten_at IS NULL AND kept_at < ?1 AND NOT EXISTS ( \
                           SELECT 1 FROM dataset_example d JOIN dataset s ON s.id = d.dataset \
                           WHERE d.example = e.id AND s.erased_at IS NULL) LIMIT ?2)";
            transaction.prepare_cached(sql)?.execute((kept_before_ms, limit))
        })?;
        inner.database.in_chunks(|transaction, limit| {
            let sql = "UPDATE example SET messages = '', tools = NULL, question = x'' \
                       WHERE number IN (SELECT number FROM example WHERE forgotten_at IS NULL \
                           AND kept_at < ?1 AND messages <> '' LIMIT ?2)";
            transaction.prepare_cached(sql)?.execute((kept_before_ms, limit))
        })?;
        inner.database.write(|transaction| {
            let sql = "DELETE FROM feedback WHERE at < ?1";
            transaction.prepare_cached(sql)?.execute([kept_before_ms])?;
            let sql = "DELETE FROM judge_score WHERE at < ?1";
            transaction.prepare_cached(sql)?.execute([kept_before_ms])?;
            let sql = "DELETE FROM ending WHERE at < ?1";
            transaction.prepare_cached(sql)?.execute([kept_before_ms])
        })?;
        Ok(chunks)
    }

    /// Returns the health of the database; while a job writes, that of before.
    #[must_use]
    pub fn health(&self) -> Health {
        let mut known = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(inner) = self.inner.try_lock() {
            *known = inner.database.health();
        }
        known.clone()
    }

    /// Closes the database for good.
    ///
    /// # Errors
    ///
    /// When it cannot be closed.
    pub fn close(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.closed = true;
        Ok(inner.database.close()?)
    }

    fn open_for_work(&self) -> Result<MutexGuard<'_, Inner>> {
        let inner = self.lock();
        if inner.closed {
            return Err(Error::of(ErrorKind::Cancelled, "learning is stopping; try again later"));
        }
        Ok(inner)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic rolls its transaction back, so that what it leaves behind is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the hash of some parts, which no other parts have, in hexadecimal digits.
#[must_use]
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Returns bytes in hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
    }
    text
}

/// Returns a new id that sorts by time.
fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_join_to_the_same_text_have_other_digests() {
        assert_eq!(digest(&[b"ab", b"c"]).len(), 64);
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
    }

    #[test]
    fn nobody_gets_a_database_that_was_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(Store::options(directory.path(), None)).expect("it opens");
        let other = store.clone();
        store.close().expect("it closes");
        let error = other.read(|_| Ok(())).expect_err("it is closed");
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
