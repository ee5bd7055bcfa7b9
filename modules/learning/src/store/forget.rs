//! Forgetting: the text goes, and an id stays so that it does not come back.

use module_sdk::Result;
use module_sqlite::rusqlite::{self, Connection, params};

use super::{AT_ONCE, Store};

/// Text that somebody wants forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All text of a session.
    Session(String),
    /// All text of a project.
    Project(String),
    /// All text of answers before a time.
    Before(i64),
}

/// Result of forgetting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Number of examples whose text is gone.
    pub examples: u64,
    /// Datasets that hold some of them.
    pub datasets: Vec<String>,
}

impl Store {
    /// Returns what forgetting would find.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub fn would_forget(&self, target: &Target) -> Result<Forgotten> {
        self.read(|connection| {
            let ids = found(connection, target)?;
            Ok(Forgotten { datasets: datasets_with(connection, &ids)?, examples: ids.len() as u64 })
        })
    }

    /// Deletes the text of examples and the feedback on them, and makes the datasets stale that
    /// hold some of them, some hundred at a time; `progress` is told how many are done.
    ///
    /// # Errors
    ///
    /// When the database cannot be written, or `progress` ends it: what was forgotten by then stays
    /// forgotten.
    pub fn forget(
        &self,
        target: &Target,
        now: i64,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        loop {
            let (count, datasets) = self.write(|transaction| {
                let ids = some_of(transaction, target)?;
                let datasets = datasets_with(transaction, &ids)?;
                ids.iter().try_for_each(|id| forget_one(transaction, id, now))?;
                let sql = "UPDATE dataset SET stale = 'text of it was forgotten', stale_at = ?2 \
                           WHERE id = ?1 AND stale IS NULL";
                for dataset in &datasets {
                    transaction.prepare_cached(sql)?.execute(params![dataset, now])?;
                }
                Ok((ids.len(), datasets))
            })?;
            forgotten.examples += count as u64;
            forgotten.datasets.extend(datasets);
            if count < AT_ONCE {
                break;
            }
            progress(forgotten.examples)?;
        }
        if let Target::Session(session) = target {
            let sql = "DELETE FROM feedback WHERE session = ?1";
            self.write(|transaction| transaction.prepare_cached(sql)?.execute([session]))?;
        }
        forgotten.datasets.sort_unstable();
        forgotten.datasets.dedup();
        Ok(forgotten)
    }
}

fn forget_one(connection: &Connection, id: &str, now: i64) -> rusqlite::Result<()> {
    let feedback = "DELETE FROM feedback WHERE about IN (SELECT ?1 UNION \
                    SELECT dedupe_key FROM example WHERE id = ?1 UNION \
                    SELECT request_id FROM example WHERE id = ?1)";
    connection.prepare_cached(feedback)?.execute([id])?;
    let scores = "DELETE FROM judge_score WHERE example = ?1";
    connection.prepare_cached(scores)?.execute([id])?;
    let text = "UPDATE example SET project = '', conversation = '', dedupe_key = NULL, \
                request_id = NULL, model = NULL, messages = '', tools = NULL, \
                question = x'', finish_reason = NULL, forgotten_at = ?2 WHERE id = ?1";
    connection.prepare_cached(text)?.execute(params![id, now])?;
    Ok(())
}

/// Returns some of the examples that are meant.
fn some_of(connection: &Connection, target: &Target) -> rusqlite::Result<Vec<String>> {
    select(connection, target, &format!(" LIMIT {AT_ONCE}"))
}

fn found(connection: &Connection, target: &Target) -> rusqlite::Result<Vec<String>> {
    select(connection, target, "")
}

fn select(connection: &Connection, target: &Target, limit: &str) -> rusqlite::Result<Vec<String>> {
    let ids = |condition: &str, value: &dyn rusqlite::ToSql| {
        let sql =
            format!("SELECT id FROM example WHERE forgotten_at IS NULL AND {condition}{limit}");
        connection.prepare_cached(&sql)?.query_map([value], |row| row.get(0))?.collect()
    };
    match target {
        Target::Session(session) => ids("conversation = ?1", session),
        Target::Project(project) => ids("project = ?1", project),
        Target::Before(time) => ids("at < ?1", time),
    }
}

fn datasets_with(connection: &Connection, examples: &[String]) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT dataset FROM dataset_example WHERE example = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut datasets = Vec::new();
    for example in examples {
        let found = statement.query_map([example], |row| row.get(0))?;
        datasets.extend(found.collect::<rusqlite::Result<Vec<String>>>()?);
    }
    datasets.sort_unstable();
    datasets.dedup();
    Ok(datasets)
}
