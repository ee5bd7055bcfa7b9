//! Runs in the database.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use serde::Serialize;

use super::{Identity, Job, Outcome, Report, Told};
use crate::registry::named;

/// The table of the runs.
pub const MIGRATION: &str = include_str!("../../migrations/0011_runs.sql");

named! {
    /// State of a run.
    RunState {
        /// Waits for its turn.
        Queued = "queued",
        /// Is done at the moment; one run at a time is.
        Training = "training",
        /// Stopped, and can be resumed if it has a checkpoint.
        Stopped = "stopped",
        /// Failed.
        Failed = "failed",
        /// Done.
        Done = "done",
    }
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Id of the run.
    pub id: String,
    /// State of the run.
    pub state: RunState,
    /// Name of the trainer.
    pub trainer: String,
    /// The job.
    pub job: Job,
    /// Number of the attempt, from 1 once it began.
    pub attempt: u32,
    /// Identity of its process.
    pub identity: Option<Identity>,
    /// All that the trainer told.
    pub told: Told,
    /// Outcome, once it ended.
    pub outcome: Option<Outcome>,
    /// A sentence about the outcome.
    pub message: Option<String>,
    /// Sizes that were made smaller after the memory was not enough.
    pub smaller: Option<String>,
    /// Time of its creation, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Time of the last change, in milliseconds since the Unix epoch.
    pub updated_at: i64,
}

/// Keeps a run that waits for its turn.
///
/// # Errors
///
/// Returns an error when the database cannot be written, or has a run of this id.
pub fn create(connection: &Connection, job: &Job, trainer: &str, at: i64) -> rusqlite::Result<()> {
    let sql = "INSERT INTO run (id, state, trainer, job, attempt, told, created_at, updated_at)
               VALUES (?1, 'queued', ?2, ?3, 0, '{}', ?4, ?4)";
    connection.execute(sql, params![job.job_id, trainer, json(job)?, at])?;
    Ok(())
}

impl Run {
    /// Returns the job that goes on from the last checkpoint, with the sizes that the memory was
    /// enough for; none where there is no checkpoint.
    #[must_use]
    pub fn resumed(&self) -> Option<Job> {
        let checkpoint = self.told.checkpoint.as_ref().filter(|it| it.path.exists())?;
        let smaller = self.job.smaller().filter(|_| self.attempt > 1).map(|(job, _)| job);
        let job = smaller.unwrap_or_else(|| self.job.clone());
        Some(Job { resume_from: Some(checkpoint.path.clone()), ..job })
    }
}

/// Gives a run its turn, with its job as it is or [resumed](Run::resumed); returns `false` while
/// another one has it, or where it has no turn to get.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn begin(connection: &Connection, job: &Job, at: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE run SET state = 'training', attempt = 1, pid = NULL, started = NULL,
                   boot = NULL, outcome = NULL, message = NULL, job = ?3, updated_at = ?2
               WHERE id = ?1 AND state IN ('queued', 'stopped')";
    match connection.execute(sql, params![job.job_id, at, json(job)?]) {
        Ok(rows) => Ok(rows == 1),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Keeps the identity of the process of a run.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn spawned(
    connection: &Connection,
    id: &str,
    attempt: u32,
    identity: &Identity,
) -> rusqlite::Result<()> {
    let sql = "UPDATE run SET attempt = ?2, pid = ?3, started = ?4, boot = ?5 WHERE id = ?1";
    let started = i64::try_from(identity.started).unwrap_or(i64::MAX);
    connection.execute(sql, params![id, attempt, identity.pid, started, identity.boot])?;
    Ok(())
}

/// Keeps the end of a run, and returns its state.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn ended(
    connection: &Connection,
    id: &str,
    report: &Report,
    at: i64,
) -> rusqlite::Result<RunState> {
    let ending = &report.ending;
    let state = match ending.outcome {
        Outcome::Done => RunState::Done,
        Outcome::Stopped => RunState::Stopped,
        _ if ending.resumable().is_some() => RunState::Stopped,
        _ => RunState::Failed,
    };
    let sql = "UPDATE run SET state = ?2, attempt = ?3, outcome = ?4, message = ?5, smaller = ?6,
                   told = ?7, updated_at = ?8, pid = NULL, started = NULL, boot = NULL
               WHERE id = ?1";
    connection.execute(
        sql,
        params![
            id,
            state.as_str(),
            report.attempt,
            ending.outcome.as_str(),
            ending.message,
            report.smaller,
            json(&ending.told)?,
            at
        ],
    )?;
    Ok(state)
}

const SELECT: &str = "SELECT id, state, trainer, job, attempt, pid, started, boot, told, outcome,
                          message, smaller, created_at, updated_at
                      FROM run";

/// Returns a run.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn load(connection: &Connection, id: &str) -> rusqlite::Result<Option<Run>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?;
    statement.query_row([id], row).optional()
}

/// Returns all runs, the newest first.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn runs(connection: &Connection, limit: u32) -> rusqlite::Result<Vec<Run>> {
    let sql = format!("{SELECT} ORDER BY created_at DESC, id LIMIT ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    statement.query_map([limit], row)?.collect()
}

/// Returns the run that was going on when the daemon ended.
///
/// # Errors
///
/// Returns an error when the database cannot be read.
pub fn unfinished(connection: &Connection) -> rusqlite::Result<Option<Run>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE state = 'training'"))?;
    statement.query_row([], row).optional()
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Run> {
    let wrong = |column: usize| {
        rusqlite::Error::InvalidColumnType(column, "run".to_owned(), rusqlite::types::Type::Text)
    };
    let state: String = row.get(1)?;
    let (job, told): (String, String) = (row.get(3)?, row.get(8)?);
    let identity = match (row.get(5)?, row.get::<_, Option<i64>>(6)?, row.get(7)?) {
        (Some(pid), Some(started), Some(boot)) => {
            Some(Identity { pid, started: u64::try_from(started).unwrap_or_default(), boot })
        }
        _ => None,
    };
    let outcome: Option<String> = row.get(9)?;
    Ok(Run {
        id: row.get(0)?,
        state: RunState::named(&state).ok_or_else(|| wrong(1))?,
        trainer: row.get(2)?,
        job: serde_json::from_str(&job).map_err(|_| wrong(3))?,
        attempt: row.get(4)?,
        identity,
        told: serde_json::from_str(&told).map_err(|_| wrong(8))?,
        outcome: outcome.and_then(|name| Outcome::named(&name)),
        message: row.get(10)?,
        smaller: row.get(11)?,
        created_at: row.get(12)?,
        updated_at: row.get(13)?,
    })
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    let text = serde_json::to_string(value);
    text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
