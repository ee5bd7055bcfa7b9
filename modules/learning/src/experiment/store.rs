//! Experiments in the database. A unit is kept as a hash, and counted once.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Arm, Experiment, Summary, Verdict, arm};

/// The tables of the experiments.
pub const MIGRATION: &str = include_str!("../../migrations/0012_experiments.sql");

/// An experiment that is kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stored {
    /// Id of the experiment, and the seed of its allocation.
    pub id: String,
    /// Id of the version that is tried.
    pub challenger: String,
    /// Id of the version that served at its beginning.
    pub champion: Option<String>,
    /// Time of its beginning, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// Time of its end, in milliseconds since the Unix epoch.
    pub ended_at: Option<i64>,
    /// The experiment.
    #[serde(skip)]
    pub experiment: Experiment,
    /// Its summary.
    pub summary: Summary,
}

/// Outcome of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It was counted; the finding after it.
    Counted(Verdict),
    /// It was counted before.
    Again,
    /// The unit was never assigned, or the experiment is over.
    Unknown,
}

/// Keeps a new experiment; returns `false` while another one goes on.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn begin(
    connection: &Connection,
    id: &str,
    (champion, challenger): (Option<&str>, &str),
    experiment: &Experiment,
    at: i64,
) -> rusqlite::Result<bool> {
    let sql = "INSERT INTO experiment (id, champion, challenger, state, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let state = json(experiment)?;
    match connection.execute(sql, params![id, champion, challenger, state, at]) {
        Ok(_) => Ok(true),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Assigns a unit to its arm, and notes that once; returns none when the experiment is over.
///
/// # Errors
///
/// Returns an error when the database cannot be read or written.
pub fn assign(
    connection: &Connection,
    id: &str,
    unit: &str,
    at: i64,
) -> rusqlite::Result<Option<(Arm, Verdict)>> {
    let Some(mut stored) = going_on(connection, id)? else { return Ok(None) };
    let arm = arm(id, unit, stored.experiment.plan().challenger_percent);
    let sql = "INSERT INTO experiment_unit (experiment, unit, arm, assigned_at)
               VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let row = params![id, hashed(id, unit), i64::from(arm == Arm::Challenger), at];
    if connection.prepare_cached(sql)?.execute(row)? == 1 {
        stored.experiment.assigned(arm);
        keep(connection, id, &stored.experiment, at)?;
    }
    Ok(Some((arm, stored.experiment.verdict())))
}

/// Notes the outcome of a unit and its measures for the guardrails, in the arm that it was assigned
/// to; once per unit.
///
/// # Errors
///
/// Returns an error when the database cannot be read or written.
pub fn note(
    connection: &Connection,
    id: &str,
    unit: &str,
    is_good: bool,
    measures: &[(&str, f64)],
    at: i64,
) -> rusqlite::Result<Noted> {
    let Some(mut stored) = going_on(connection, id)? else { return Ok(Noted::Unknown) };
    let unit = hashed(id, unit);
    let sql = "SELECT arm, counted_at FROM experiment_unit WHERE experiment = ?1 AND unit = ?2";
    let found = connection.prepare_cached(sql)?.query_row(params![id, unit], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    });
    let arm = match found.optional()? {
        None => return Ok(Noted::Unknown),
        Some((_, Some(_))) => return Ok(Noted::Again),
        Some((0, None)) => Arm::Champion,
        Some((_, None)) => Arm::Challenger,
    };
    let sql = "UPDATE experiment_unit SET counted_at = ?3 WHERE experiment = ?1 AND unit = ?2";
    connection.prepare_cached(sql)?.execute(params![id, unit, at])?;
    for (name, value) in measures {
        stored.experiment.measure(arm, name, *value);
    }
    stored.experiment.outcome(arm, is_good);
    keep(connection, id, &stored.experiment, at)?;
    Ok(Noted::Counted(stored.experiment.verdict()))
}

/// Ends an experiment that goes on.
///
/// # Errors
///
/// Returns an error when the database cannot be written.
pub fn finish(connection: &Connection, id: &str, at: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE experiment SET ended_at = ?2 WHERE id = ?1 AND ended_at IS NULL";
    Ok(connection.execute(sql, params![id, at])? == 1)
}

const SELECT: &str = "SELECT id, champion, challenger, state, created_at, ended_at FROM experiment";

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

fn going_on(connection: &Connection, id: &str) -> rusqlite::Result<Option<Stored>> {
    Ok(load(connection, id)?.filter(|stored| stored.ended_at.is_none()))
}

/// Keeps the state; a finding ends the experiment.
fn keep(
    connection: &Connection,
    id: &str,
    experiment: &Experiment,
    at: i64,
) -> rusqlite::Result<()> {
    let ended_at = (experiment.verdict() != Verdict::Running).then_some(at);
    let sql = "UPDATE experiment SET state = ?2, ended_at = ?3 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute(params![id, json(experiment)?, ended_at])?;
    Ok(())
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stored> {
    let state: String = row.get(3)?;
    let experiment: Experiment = serde_json::from_str(&state).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error))
    })?;
    let summary = experiment.summary();
    Ok(Stored {
        id: row.get(0)?,
        champion: row.get(1)?,
        challenger: row.get(2)?,
        created_at: row.get(4)?,
        ended_at: row.get(5)?,
        experiment,
        summary,
    })
}

/// Returns a hash of a unit, another one in each experiment.
fn hashed(id: &str, unit: &str) -> Vec<u8> {
    let mut hasher = Sha256::new();
    hasher.update((id.len() as u64).to_be_bytes());
    hasher.update(id);
    hasher.update(unit);
    hasher.finalize()[..16].to_vec()
}

fn json(experiment: &Experiment) -> rusqlite::Result<String> {
    let text = serde_json::to_string(experiment);
    text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::{super::Plan, *};

    #[test]
    fn units_are_counted_once_in_their_arm() {
        let connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch(MIGRATION).expect("the schema is valid");
        let experiment = Experiment::new(Plan::default()).expect("the plan is valid");
        let versions = (Some("v1"), "v2");
        assert!(begin(&connection, "one", versions, &experiment, 1).expect("it is written"));
        let other = begin(&connection, "two", versions, &experiment, 1);
        assert!(!other.expect("it is looked at"), "another one goes on");
        let noted = note(&connection, "one", "s-1", true, &[], 2).expect("it is looked at");
        assert_eq!(noted, Noted::Unknown);
        for _ in 0..2 {
            let assigned = assign(&connection, "one", "s-1", 2).expect("it is written");
            assert_eq!(assigned, Some((arm("one", "s-1", 50), Verdict::Running)));
        }
        let count = || note(&connection, "one", "s-1", true, &[("x", 1.0)], 3);
        assert_eq!(count().expect("it is written"), Noted::Counted(Verdict::Running));
        assert_eq!(count().expect("it is looked at"), Noted::Again);
        let mut units = 1;
        let verdict = loop {
            let unit = format!("s-{}", units + 1);
            let Some(_) = assign(&connection, "one", &unit, 4).expect("it is written") else {
                break load(&connection, "one").expect("it is read").expect("it is there");
            };
            note(&connection, "one", &unit, true, &[], 5).expect("it is written");
            units += 1;
            assert!(units < 4_000, "it finds nothing");
        };
        assert_eq!(verdict.summary.verdict, Verdict::Passed);
        assert_eq!((verdict.ended_at, verdict.summary.units), (Some(5), units));
        assert!(begin(&connection, "two", versions, &experiment, 6).expect("it is written"));
        assert!(finish(&connection, "two", 7).expect("it is written"));
        assert!(!finish(&connection, "two", 8).expect("it is looked at"));
        let all = list(&connection, 10).expect("they are read");
        assert_eq!(all.iter().map(|it| &*it.id).collect::<Vec<_>>(), ["two", "one"]);
        // No session can be read from the database.
        let sql = "SELECT COUNT(*) FROM experiment_unit WHERE CAST(unit AS TEXT) LIKE '%s-%'";
        let plain: i64 = connection.query_row(sql, [], |row| row.get(0)).expect("it is read");
        assert_eq!(plain, 0);
    }
}
