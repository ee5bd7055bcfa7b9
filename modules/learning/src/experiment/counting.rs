//! Counting: what requests and feedback tell of a unit, and its one outcome, in the database.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Arm, ERROR, Observation, Paired, Side, Sign, Verdict,
    store::{Stored, Trial, hashed, json, read},
};

/// Time within which the same request once more says that the answer was not good.
const RETRY_MS: i64 = 60_000;
/// Time for which an answer waits for the one that is asked beside it.
const PAIRING_MS: i64 = 3_600_000;
/// Rating from which on an answer was good.
const GOOD: f64 = 0.5;

/// Feedback on the answer of a unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Feedback<'a> {
    /// Id of the feedback.
    pub id: &'a str,
    /// Id of the request.
    pub request: Option<&'a str>,
    /// The session.
    pub session: Option<&'a str>,
    /// Rating from 0 to 1.
    pub rating: Option<f64>,
    /// Its weight.
    pub weight: f64,
    /// `true` when the answer was changed, or asked for again.
    pub redone: bool,
}

/// Notes an observation: the unit is assigned once, and what comes after its outcome was counted
/// changes nothing.
///
/// # Errors
///
/// Returns an error when the database cannot be read or written.
pub fn observe(
    connection: &Connection,
    stored: &mut Stored,
    seen: &Observation<'_>,
) -> rusqlite::Result<()> {
    let (id, window_ms) = (stored.id.clone(), stored.route.window_ms());
    match (&mut stored.trial, seen.side) {
        (Trial::Split(experiment), Side::Arm(arm)) => {
            let Some(unit) = seen.unit(stored.route.unit).map(|unit| hashed(&id, unit)) else {
                return Ok(());
            };
            let sql = "INSERT INTO experiment_unit (experiment, unit, arm, assigned_at)
                       VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
            let row = params![id, unit, i64::from(arm == Arm::Challenger), seen.ended_at];
            let is_new = connection.prepare_cached(sql)?.execute(row)? == 1;
            let arm = if is_new {
                experiment.assigned(arm);
                arm
            } else {
                match open_unit(connection, &id, &unit, seen.ended_at - window_ms)? {
                    // The arm that it was assigned to counts, whatever it got later.
                    Some(arm) => arm,
                    None => return Ok(()),
                }
            };
            request(connection, &id, &unit, seen)?;
            if is_new && seen.attempt <= 1 {
                // Where the champion stands in, the challenger did not answer: its breaker is open,
                // or it cannot do what is asked.
                let stood_in = arm == Arm::Challenger && seen.is_of_another(&stored.route.model);
                let measures = if stood_in { vec![(ERROR, 1.0)] } else { seen.measures() };
                for (name, value) in measures {
                    experiment.measure(arm, name, value);
                }
            }
            retried(connection, &id, seen)
        }
        (Trial::Shadow(paired), side) => pair(connection, &id, paired, side, seen),
        (Trial::Split(_), Side::Beside) => Ok(()),
    }
}

/// Returns the arm of a unit whose outcome is not counted and whose time has not passed.
fn open_unit(
    connection: &Connection,
    id: &str,
    unit: &[u8],
    since: i64,
) -> rusqlite::Result<Option<Arm>> {
    let sql = "SELECT arm FROM experiment_unit WHERE experiment = ?1 AND unit = ?2
                   AND counted_at IS NULL AND assigned_at >= ?3";
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![id, unit, since], |row| row.get::<_, i64>(0))
        .optional()?;
    Ok(found.map(|arm| if arm == 0 { Arm::Champion } else { Arm::Challenger }))
}

/// Notes what became of a request: what its last attempt became.
fn request(
    connection: &Connection,
    id: &str,
    unit: &[u8],
    seen: &Observation<'_>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO experiment_request
                   (experiment, request, unit, session, attempt, sign, ended_at, bytes)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
               ON CONFLICT DO UPDATE SET attempt = ?5, sign = ?6, ended_at = ?7
               WHERE attempt < ?5";
    let session = seen.session.map(|session| hashed(id, session));
    let bytes = seen.bytes.and_then(|bytes| i64::try_from(bytes).ok());
    let row = params![
        id,
        hashed(id, seen.request),
        unit,
        session,
        seen.attempt,
        seen.sign.number(),
        seen.ended_at,
        bytes,
    ];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

/// Notes that a request is an earlier one of its session once more: of the same size, within a
/// minute of its answer. Agents that go on send more each time.
fn retried(connection: &Connection, id: &str, seen: &Observation<'_>) -> rusqlite::Result<()> {
    let (Some(session), Some(bytes)) = (seen.session, seen.bytes) else { return Ok(()) };
    let sql = "UPDATE experiment_request SET retried = 1
               WHERE experiment = ?1 AND session = ?2 AND bytes = ?3 AND request <> ?4
                   AND sign = 0 AND ended_at BETWEEN ?5 AND ?6";
    let row = params![
        id,
        hashed(id, session),
        i64::try_from(bytes).unwrap_or(i64::MAX),
        hashed(id, seen.request),
        seen.started_at - RETRY_MS,
        seen.started_at,
    ];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

/// Notes the measures of a request that was served, or of the one beside it, and counts the pair
/// once both are there.
fn pair(
    connection: &Connection,
    id: &str,
    paired: &mut Paired,
    side: Side,
    seen: &Observation<'_>,
) -> rusqlite::Result<()> {
    let request_id = hashed(id, seen.request);
    let (kept, other) =
        if side == Side::Beside { ("beside", "served") } else { ("served", "beside") };
    let measures: BTreeMap<String, f64> =
        seen.measures().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let attempt = if side == Side::Beside { 1 } else { seen.attempt };
    let sql = format!(
        "INSERT INTO experiment_request
             (experiment, request, unit, attempt, sign, ended_at, {kept})
         VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET {kept} = ?6, attempt = max(attempt, ?3)
         WHERE paired = 0 AND ({kept} IS NULL OR attempt < ?3)"
    );
    let row =
        params![id, request_id, attempt, seen.sign.number(), seen.ended_at, json(&measures)?,];
    connection.prepare_cached(&sql)?.execute(row)?;
    // The one beside is asked when the served one is over, so that all its attempts are known.
    let sql = format!(
        "UPDATE experiment_request SET paired = 1
         WHERE experiment = ?1 AND request = ?2 AND paired = 0
             AND {kept} IS NOT NULL AND {other} IS NOT NULL
         RETURNING served, beside"
    );
    let pair = connection
        .prepare_cached(&sql)?
        .query_row(params![id, request_id], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    if let Some((served, beside)) = pair {
        paired.note(&read(0, &served)?, &read(1, &beside)?);
    }
    Ok(())
}

/// Notes feedback on an answer of a unit whose outcome is not counted, once.
///
/// # Errors
///
/// Returns an error when the database cannot be read or written.
pub fn feedback(
    connection: &Connection,
    stored: &Stored,
    given: &Feedback<'_>,
) -> rusqlite::Result<()> {
    if !matches!(stored.trial, Trial::Split(_)) {
        return Ok(());
    }
    let id = &stored.id;
    let hash = |text: Option<&str>| text.map(|text| hashed(id, text));
    // Feedback on a request is about that one alone, where it is known.
    let sql = "INSERT INTO experiment_feedback (experiment, id, unit, rating, weight, redone)
               SELECT ?1, ?2, r.unit, ?5, ?6, ?7 FROM experiment_request r
               JOIN experiment_unit u ON u.experiment = r.experiment AND u.unit = r.unit
               WHERE r.experiment = ?1 AND u.counted_at IS NULL
                   AND (r.request = ?3 OR r.session = ?4)
               ORDER BY r.request = ?3 DESC, r.ended_at DESC LIMIT 1
               ON CONFLICT DO NOTHING";
    let row = params![
        id,
        hashed(id, given.id),
        hash(given.request),
        hash(given.session),
        given.rating,
        given.weight,
        given.redone,
    ];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

/// Counts the outcomes of units whose time has passed, in the order in which they were assigned;
/// at most so many. Returns how many were counted.
///
/// The order does not depend on the outcomes: only so is the evidence what it says.
///
/// # Errors
///
/// Returns an error when the database cannot be read or written.
pub fn close_due(
    connection: &Connection,
    stored: &mut Stored,
    now: i64,
    most: u32,
) -> rusqlite::Result<usize> {
    let window_ms = stored.route.window_ms();
    let id = &stored.id;
    let Trial::Split(experiment) = &mut stored.trial else {
        forget_unpaired(connection, id, now - PAIRING_MS)?;
        return Ok(0);
    };
    let sql = "SELECT number, unit, arm, assigned_at FROM experiment_unit
               WHERE experiment = ?1 AND counted_at IS NULL ORDER BY number LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![id, most], |row| {
        let arm = if row.get::<_, i64>(2)? == 0 { Arm::Champion } else { Arm::Challenger };
        Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, arm, row.get::<_, i64>(3)?))
    })?;
    let open = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut counted = 0;
    for (number, unit, arm, assigned_at) in open {
        // A clock that was set back delays those behind it, and lets none pass before.
        if assigned_at + window_ms > now || experiment.verdict() != Verdict::Running {
            break;
        }
        experiment.outcome(arm, is_good(connection, id, &unit)?);
        let sql = "UPDATE experiment_unit SET counted_at = ?2 WHERE number = ?1";
        connection.prepare_cached(sql)?.execute(params![number, now])?;
        for table in ["experiment_request", "experiment_feedback"] {
            let sql = format!("DELETE FROM {table} WHERE experiment = ?1 AND unit = ?2");
            connection.prepare_cached(&sql)?.execute(params![id, unit])?;
        }
        counted += 1;
    }
    Ok(counted)
}

/// Forgets answers beside which nobody was asked: the router leaves out what would be in the way.
fn forget_unpaired(connection: &Connection, id: &str, before: i64) -> rusqlite::Result<()> {
    let sql = "DELETE FROM experiment_request
               WHERE experiment = ?1 AND paired = 0 AND ended_at < ?2";
    connection.prepare_cached(sql)?.execute(params![id, before]).map(drop)
}

/// Returns whether the answers of a unit were good: what was said of them, else that there were
/// some, and none failed, was refused or asked for once more.
fn is_good(connection: &Connection, id: &str, unit: &[u8]) -> rusqlite::Result<bool> {
    let sql = "SELECT SUM(rating * weight), SUM(weight) FILTER (WHERE rating IS NOT NULL),
                   COALESCE(MAX(redone), 0)
               FROM experiment_feedback WHERE experiment = ?1 AND unit = ?2";
    let (sum, weight, redone) =
        connection.prepare_cached(sql)?.query_row(params![id, unit], |row| {
            Ok((
                row.get::<_, Option<f64>>(0)?,
                row.get::<_, Option<f64>>(1)?,
                row.get::<_, bool>(2)?,
            ))
        })?;
    if redone {
        return Ok(false);
    }
    if let (Some(sum), Some(weight)) = (sum, weight)
        && weight > 0.0
    {
        return Ok(sum / weight >= GOOD);
    }
    let sql = "SELECT COUNT(*) FILTER (WHERE sign = ?3),
                   COUNT(*) FILTER (WHERE sign IN (?4, ?5) OR retried = 1)
               FROM experiment_request WHERE experiment = ?1 AND unit = ?2";
    let [answered, failed, refused] =
        [Sign::Answered, Sign::Failed, Sign::Refused].map(Sign::number);
    let row = params![id, unit, answered, failed, refused];
    let (good, bad) = connection
        .prepare_cached(sql)?
        .query_row(row, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    Ok(good > 0 && bad == 0)
}

#[cfg(test)]
mod tests;
