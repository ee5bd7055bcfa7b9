//! A judge: a model that rates answers. It drops nothing before people's own words show that it
//! agrees with them.

mod agreement;
mod question;

use module_sdk::Result;
use module_sqlite::rusqlite::{OptionalExtension as _, params};

pub use agreement::{Agreement, Pair, agreement, may_drop};
pub use question::{question, rating};

use crate::{quality::JudgeConfig, store::Store};

/// The table of scores.
pub const MIGRATION: &str = include_str!("../../migrations/0014_judge.sql");

/// The table of questions that were asked.
pub const ASKED: &str = include_str!("../../migrations/0016_judge_asked.sql");

/// Words of people on one example, beside the score of a judge.
const JUDGED: &str = "SELECT j.score, \
    (SELECT avg(coalesce(f.rating, f.good)) FROM feedback f WHERE f.origin = 'person' \
        AND (f.about = e.id OR f.about = e.dedupe_key OR f.about = e.request_id)), \
    EXISTS (SELECT 1 FROM feedback f WHERE f.origin = 'person' AND (f.edited OR f.retried) \
        AND (f.about = e.id OR f.about = e.dedupe_key OR f.about = e.request_id)) \
    FROM judge_score j JOIN example e ON e.id = j.example \
    WHERE j.model = ?1 AND e.forgotten_at IS NULL ORDER BY e.id";

/// Keeps the scores of a judge.
///
/// # Errors
///
/// When the database cannot be written.
pub fn keep(store: &Store, model: &str, scores: &[(String, f64)], at: i64) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO judge_score (example, model, score, at) \
               SELECT id, ?2, ?3, ?4 FROM example WHERE id = ?1 AND forgotten_at IS NULL";
    store.write(|transaction| {
        let mut statement = transaction.prepare_cached(sql)?;
        for (example, score) in scores {
            statement.execute(params![example, model, score, at])?;
        }
        Ok(())
    })
}

/// Returns whether the text of an example is there.
///
/// # Errors
///
/// When the database cannot be read.
pub fn is_there(store: &Store, example: &str) -> Result<bool> {
    let sql = "SELECT 1 FROM example WHERE id = ?1 AND forgotten_at IS NULL";
    store.read(|connection| connection.prepare_cached(sql)?.exists([example]))
}

/// Returns the score that a judge gave an example.
///
/// # Errors
///
/// When the database cannot be read.
pub fn score(store: &Store, model: &str, example: &str) -> Result<Option<f64>> {
    let sql = "SELECT score FROM judge_score WHERE example = ?1 AND model = ?2";
    store.read(|connection| {
        connection.query_row(sql, params![example, model], |row| row.get(0)).optional()
    })
}

/// Notes that a judge is asked, whatever comes of it, and forgets those of before a time.
///
/// # Errors
///
/// When the database cannot be written.
pub fn asks(store: &Store, at: i64, forget_before: i64) -> Result<()> {
    store.write(|transaction| {
        transaction.execute("DELETE FROM judge_asked WHERE at < ?1", [forget_before])?;
        transaction.execute("INSERT INTO judge_asked VALUES (?1)", [at])
    })?;
    Ok(())
}

/// Returns the number of questions that a judge was asked since a time.
///
/// # Errors
///
/// When the database cannot be read.
pub fn asked_since(store: &Store, since: i64) -> Result<u64> {
    let sql = "SELECT count(*) FROM judge_asked WHERE at >= ?1";
    let count: i64 =
        store.read(|connection| connection.query_row(sql, [since], |row| row.get(0)))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Returns the scores of a judge beside the words of people, where there are both.
///
/// # Errors
///
/// When the database cannot be read.
pub fn pairs(store: &Store, model: &str) -> Result<Vec<Pair>> {
    let found: Vec<(f64, Option<f64>, bool)> = store.read(|connection| {
        let mut statement = connection.prepare_cached(JUDGED)?;
        let rows =
            statement.query_map([model], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    })?;
    let pair = |(score, mean, was_changed): (f64, Option<f64>, bool)| {
        // Whoever changes an answer, or asks again, says that it was not good.
        let is_good = if was_changed { Some(false) } else { mean.map(|mean| mean >= 0.5) };
        Some(Pair { score, is_good: is_good? })
    };
    Ok(found.into_iter().filter_map(pair).collect())
}

/// Gives examples the scores of a judge, if it may drop some. Returns its agreement.
///
/// # Errors
///
/// When the database cannot be read.
pub fn apply(
    store: &Store,
    config: &JudgeConfig,
    examples: &mut [crate::example::Example],
) -> Result<Agreement> {
    let found = agreement(&pairs(store, &config.model)?, config.min_score);
    if may_drop(&found, config) {
        for example in examples {
            example.outcome.judged = score(store, &config.model, &example.id)?;
        }
    }
    Ok(found)
}
