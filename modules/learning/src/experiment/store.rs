//! Experiments in the database. Units, requests and feedback are kept as hashes, another one in
//! each experiment, and only until it ends.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Experiment, Paired, Plan, Unit, Verdict};

/// The tables of the experiments.
pub const MIGRATION: &str = include_str!("../../migrations/0012_experiments.sql");

/// Description of an experiment for the router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Patterns of the models that are asked for.
    pub models: Vec<String>,
    /// Model that answers with the challenger.
    pub model: String,
    /// Provider that leads to its server; none in an experiment of before that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Share of the units, in percent.
    pub percent: u32,
    /// Unit that stays in its arm.
    pub unit: Unit,
    /// Time from the first answer of a unit to its outcome, in seconds.
    pub outcome_seconds: u32,
}

impl Route {
    /// Returns the model as the router is told of it: at that provider, and at no other one that
    /// has a model of the same name.
    #[must_use]
    pub fn target(&self) -> String {
        match &self.provider {
            Some(provider) => format!("{provider}/{}", self.model),
            None => self.model.clone(),
        }
    }

    /// Returns the time from the first answer of a unit to its outcome, in milliseconds.
    #[must_use]
    pub fn window_ms(&self) -> i64 {
        i64::from(self.outcome_seconds) * 1_000
    }
}

/// The statistics of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "state", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "one at a time is in memory")]
pub enum Trial {
    /// Units get the one or the other.
    Split(Experiment),
    /// The challenger is asked beside the answers.
    Shadow(Paired),
}

impl Trial {
    /// Returns the finding.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self {
            Self::Split(experiment) => experiment.verdict(),
            Self::Shadow(paired) => paired.verdict(),
        }
    }

    /// Returns the plan.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        match self {
            Self::Split(experiment) => experiment.plan(),
            Self::Shadow(paired) => paired.plan(),
        }
    }

    /// Returns the measure of the guardrail that was exceeded.
    #[must_use]
    pub fn exceeded(&self) -> Option<&str> {
        match self {
            Self::Split(experiment) => experiment.exceeded(),
            Self::Shadow(paired) => paired.exceeded(),
        }
    }
}

/// An experiment that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// Id of the experiment, and the seed of its allocation.
    pub id: String,
    /// Id of the version that served at its beginning.
    pub champion: Option<String>,
    /// Id of the version that is tried.
    pub challenger: String,
    /// Description for the router.
    pub route: Route,
    /// The statistics.
    pub trial: Trial,
    /// Name of the person who started it.
    pub started_by: String,
    /// Their reason.
    pub reason: String,
    /// Time of its beginning, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Time of its end, in milliseconds since the Unix epoch.
    pub ended_at: Option<i64>,
    /// Reason of its end.
    pub end_reason: Option<String>,
}

/// Keeps a new experiment; returns `false` while another one goes on.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn begin(connection: &Connection, new: &Stored) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO experiment (id, champion, challenger, route, state, started_by, reason,
                   created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let row = params![
        new.id,
        new.champion,
        new.challenger,
        json(&new.route)?,
        json(&new.trial)?,
        new.started_by,
        new.reason,
        new.created_at,
    ];
    match connection.execute(sql, row) {
        Ok(_) => Ok(true),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Keeps the statistics of an experiment that goes on.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn keep(connection: &Connection, stored: &Stored) -> rusqlite::Result<()> {
    let sql = "UPDATE experiment SET state = ?2 WHERE id = ?1 AND ended_at IS NULL";
    connection.prepare_cached(sql)?.execute(params![stored.id, json(&stored.trial)?]).map(drop)
}

/// Ends an experiment that goes on, and forgets its units.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn finish(connection: &Connection, id: &str, reason: &str, at: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE experiment SET ended_at = ?2, end_reason = ?3
               WHERE id = ?1 AND ended_at IS NULL";
    let is_ended = connection.execute(sql, params![id, at, reason])? == 1;
    for table in ["experiment_unit", "experiment_request", "experiment_feedback"] {
        connection.execute(&format!("DELETE FROM {table} WHERE experiment = ?1"), [id])?;
    }
    Ok(is_ended)
}

/// Notes that the router knows of the end of an experiment.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn settle(connection: &Connection, id: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE experiment SET settled = 1 WHERE id = ?1 AND ended_at IS NOT NULL";
    connection.execute(sql, [id]).map(drop)
}

/// Returns the ids of the experiments whose end the router does not know.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn unsettled(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT id FROM experiment WHERE ended_at IS NOT NULL AND settled = 0";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

const SELECT: &str = "SELECT id, champion, challenger, route, state, started_by, reason, \
                      created_at, ended_at, end_reason FROM experiment";

/// Returns the experiment that goes on.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn going_on(connection: &Connection) -> rusqlite::Result<Option<Stored>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE ended_at IS NULL"))?;
    statement.query_row([], row).optional()
}

/// Returns an experiment.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn load(connection: &Connection, id: &str) -> rusqlite::Result<Option<Stored>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    statement.query_row([id], row).optional()
}

/// Returns all experiments, the newest first.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn list(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Stored>> {
    let sql = format!("{SELECT} ORDER BY created_at DESC, id LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map([limit], row)?.collect()
}

/// Returns the number of units that wait for their outcome.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn waiting(connection: &Connection, id: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT COUNT(*) FROM experiment_unit WHERE experiment = ?1 AND counted_at IS NULL";
    let waiting: i64 = connection.query_row(sql, [id], |row| row.get(0))?;
    Ok(waiting.unsigned_abs())
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        id: row.get(0)?,
        champion: row.get(1)?,
        challenger: row.get(2)?,
        route: read(3, &row.get::<_, String>(3)?)?,
        trial: read(4, &row.get::<_, String>(4)?)?,
        started_by: row.get(5)?,
        reason: row.get(6)?,
        created_at: row.get(7)?,
        ended_at: row.get(8)?,
        end_reason: row.get(9)?,
    })
}

/// Returns a hash of a unit, another one in each experiment.
pub(super) fn hashed(id: &str, unit: &str) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update((id.len() as u64).to_be_bytes());
    hasher.update(id);
    hasher.update(unit);
    hasher.finalize()[..16].to_vec()
}

pub(super) fn read<T: serde::de::DeserializeOwned>(
    column: usize,
    text: &str,
) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let kind = rusqlite::types::Type::Text;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}

pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    let text = serde_json::to_string(value);
    text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
