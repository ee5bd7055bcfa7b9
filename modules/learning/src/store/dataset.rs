//! Datasets: what is known of them beside their files.

use module_sdk::{Error, ErrorKind, Result};
use module_sqlite::rusqlite::{self, Connection, Row, params};
use serde_json::Value;

use super::{AT_ONCE, Store, consent::all_hold};

/// Part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// Examples to train on.
    Train,
    /// Examples that are held out.
    Eval,
    /// Bad answers, beside which a good one to the same question stands.
    Rejected,
}

impl Split {
    /// Returns the word in the database and in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Rejected => "rejected",
        }
    }
}

/// An example of a dataset, and the consent by which it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Id of the example.
    pub example: String,
    /// Id of the consent.
    pub consent: String,
    /// The part that it lies in.
    pub split: Split,
}

/// A dataset that was built.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDataset {
    /// Its id: the hash of its lines.
    pub id: String,
    /// The projects.
    pub projects: Vec<String>,
    /// Time of the first build.
    pub created_at: i64,
    /// Examples to train on.
    pub train: u64,
    /// Examples that are held out.
    pub eval: u64,
    /// All that the card says.
    pub summary: Value,
    /// The reason for which it must not be trained on.
    pub stale: Option<String>,
    /// Time at which its text was deleted.
    pub erased_at: Option<i64>,
}

impl StoredDataset {
    /// Returns the word for how it stands.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match (&self.erased_at, &self.stale) {
            (Some(_), _) => "erased",
            (None, Some(_)) => "stale",
            (None, None) => "ready",
        }
    }
}

/// Shortest beginning of an id that a person may write.
const SHORTEST: usize = 4;

impl Store {
    /// Records a dataset, unless the consent of one of its examples has ended meanwhile or one of
    /// them was forgotten; then it returns `false` and records nothing. One that is here already
    /// stays as it is, but for what made it stale.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn record_dataset(
        &self,
        dataset: &StoredDataset,
        members: &[Membership],
        now: i64,
    ) -> Result<bool> {
        let recorded = self.record(dataset, members, now);
        if !matches!(recorded, Ok(true)) {
            // Members of a dataset that is not there, which the next build would overwrite.
            let sql = "DELETE FROM dataset_example WHERE dataset = ?1 \
                       AND NOT EXISTS (SELECT 1 FROM dataset WHERE id = ?1)";
            let deleted = self.write(|transaction| transaction.execute(sql, [&dataset.id]));
            deleted.inspect_err(|error| tracing::debug!(%error, "cannot tidy up")).ok();
        }
        recorded
    }

    fn record(&self, dataset: &StoredDataset, members: &[Membership], now: i64) -> Result<bool> {
        for some in members.chunks(AT_ONCE) {
            self.write(|transaction| {
                let sql = "INSERT OR REPLACE INTO dataset_example VALUES (?1, ?2, ?3, ?4)";
                let mut statement = transaction.prepare_cached(sql)?;
                for it in some {
                    let split = it.split.as_str();
                    statement.execute(params![dataset.id, it.example, it.consent, split])?;
                }
                Ok(())
            })?;
        }
        let mut consents: Vec<&str> = members.iter().map(|it| &*it.consent).collect();
        consents.sort_unstable();
        consents.dedup();
        self.write(|transaction| {
            if !all_hold(transaction, &consents, now)? || !all_here(transaction, &dataset.id)? {
                return Ok(false);
            }
            let sql = "INSERT INTO dataset (id, projects, created_at, train, eval, summary) \
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (id) DO UPDATE SET \
                       stale = NULL, stale_at = NULL, erased_at = NULL, \
                       created_at = excluded.created_at, summary = excluded.summary";
            transaction.prepare_cached(sql)?.execute(params![
                dataset.id,
                serde_json::json!(dataset.projects).to_string(),
                dataset.created_at,
                signed(dataset.train),
                signed(dataset.eval),
                dataset.summary.to_string(),
            ])?;
            Ok(true)
        })
    }

    /// Returns all datasets, the newest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn datasets(&self) -> Result<Vec<StoredDataset>> {
        let sql = format!("SELECT {COLUMNS} FROM dataset ORDER BY created_at DESC, id");
        self.read(|connection| connection.prepare_cached(&sql)?.query_map([], dataset)?.collect())
    }

    /// Returns the dataset whose id begins with some digits.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one, or the database cannot be read.
    pub fn dataset(&self, begin: &str) -> Result<StoredDataset> {
        let begin = begin.trim();
        let is_id = begin.chars().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase());
        if !is_id || begin.len() < SHORTEST {
            let error = Error::usage(format!(
                "the id of a dataset has at least {SHORTEST} digits of 0-9 and a-f"
            ));
            return Err(error.hint("`lodestar learning datasets` lists them"));
        }
        let sql =
            format!("SELECT {COLUMNS} FROM dataset WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2");
        let mut found: Vec<StoredDataset> = self.read(|connection| {
            connection.prepare_cached(&sql)?.query_map([begin], dataset)?.collect()
        })?;
        match found.len() {
            0 => Err(Error::of(ErrorKind::NotFound, format!("there is no dataset {begin}"))
                .hint("`lodestar learning datasets` lists them")),
            1 => Ok(found.remove(0)),
            _ => Err(Error::usage(format!("several datasets begin with {begin}"))
                .hint("write more of the id")),
        }
    }

    /// Returns the ids of the consents that the examples of a dataset were kept under.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn consents_of(&self, dataset: &str) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT consent FROM dataset_example WHERE dataset = ?1 ORDER BY 1";
        self.read(|connection| {
            connection.prepare_cached(sql)?.query_map([dataset], |row| row.get(0))?.collect()
        })
    }

    /// Returns whether a dataset holds something that was forgotten, or for which consent was taken
    /// back: what was learnt from it should not be used. A consent that ends by itself is no such
    /// reason.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn is_taken_back(&self, dataset: &str) -> Result<bool> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM dataset_example d JOIN example e ON e.id = d.example
                       WHERE d.dataset = ?1 AND e.forgotten_at IS NOT NULL)
                   OR EXISTS (SELECT 1 FROM dataset_example d JOIN consent c ON c.id = d.consent
                       WHERE d.dataset = ?1 AND c.revoked_at IS NOT NULL)";
        self.read(|connection| connection.query_row(sql, [dataset], |row| row.get(0)))
    }

    /// Returns the examples of a dataset that somebody wanted forgotten, and those whose consent
    /// holds no more.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn withdrawn(&self, dataset: &str, now: i64) -> Result<(u64, u64)> {
        let forgotten = "SELECT count(DISTINCT example) FROM dataset_example d JOIN example e \
                         ON e.id = d.example WHERE d.dataset = ?1 AND e.forgotten_at IS NOT NULL";
        let ended = "SELECT count(DISTINCT example) FROM dataset_example d JOIN consent c \
                     ON c.id = d.consent WHERE d.dataset = ?1 \
                     AND (c.revoked_at IS NOT NULL OR c.expires_at <= ?2)";
        self.read(|connection| {
            let forgotten = connection.query_row(forgotten, [dataset], |row| count(row, 0))?;
            let ended = connection.query_row(ended, params![dataset, now], |row| count(row, 0))?;
            Ok((forgotten, ended))
        })
    }

    /// Returns the datasets whose text is to be deleted: all that were built before a time, and
    /// those that hold something forgotten.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn to_erase(&self, built_before: i64) -> Result<Vec<String>> {
        let sql = "SELECT id FROM dataset WHERE erased_at IS NULL AND (created_at < ?1 \
                   OR id IN (SELECT d.dataset FROM dataset_example d JOIN example e \
                             ON e.id = d.example WHERE e.forgotten_at IS NOT NULL))";
        self.read(|connection| {
            connection.prepare_cached(sql)?.query_map([built_before], |row| row.get(0))?.collect()
        })
    }

    /// Notes that the text of a dataset is gone.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub fn erased(&self, dataset: &str, reason: &str, now: i64) -> Result<()> {
        let sql = "UPDATE dataset SET erased_at = ?2, stale = coalesce(stale, ?3), \
                   stale_at = coalesce(stale_at, ?2) WHERE id = ?1";
        self.write(|transaction| {
            transaction.prepare_cached(sql)?.execute(params![dataset, now, reason])
        })?;
        Ok(())
    }
}

/// Returns whether nothing of a dataset was forgotten or deleted while it was built.
fn all_here(connection: &Connection, dataset: &str) -> rusqlite::Result<bool> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM dataset_example d \
               LEFT JOIN example e ON e.id = d.example AND e.forgotten_at IS NULL \
               WHERE d.dataset = ?1 AND e.id IS NULL)";
    connection.prepare_cached(sql)?.query_row([dataset], |row| row.get(0))
}

const COLUMNS: &str = "id, projects, created_at, train, eval, summary, stale, erased_at";

fn dataset(row: &Row<'_>) -> rusqlite::Result<StoredDataset> {
    let (projects, summary): (String, String) = (row.get(1)?, row.get(5)?);
    Ok(StoredDataset {
        id: row.get(0)?,
        projects: serde_json::from_str(&projects).unwrap_or_default(),
        created_at: row.get(2)?,
        train: count(row, 3)?,
        eval: count(row, 4)?,
        summary: serde_json::from_str(&summary).unwrap_or_default(),
        stale: row.get(6)?,
        erased_at: row.get(7)?,
    })
}

/// Returns a number of examples for a column.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns the number of examples in a column.
fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get(column).map(|number: i64| u64::try_from(number).unwrap_or(0))
}
