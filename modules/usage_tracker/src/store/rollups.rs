//! Rollups: the sums that a batch adds to every hour, day and session, written once per row and
//! batch.

use std::sync::LazyLock;

use foldhash::HashMap;
use rusqlite::{Connection, Statement};

use super::{
    measures::{Measures, SUMS},
    row::{Dimensions, Placed},
};

/// Number of milliseconds in an hour.
pub(crate) const HOUR_MS: i64 = 3_600_000;
/// Number of hours in a day, in UTC.
pub(crate) const DAY_HOURS: i64 = 24;

/// The sums that a batch has added so far.
#[derive(Debug, Default)]
pub(super) struct Rollups {
    hours: HashMap<(i64, Dimensions), Measures>,
    sessions: HashMap<(i64, i64, i64), Measures>,
}

impl Rollups {
    /// Adds a request, or the difference that a correction makes.
    pub(super) fn add(&mut self, placed: &Placed, measures: &Measures) {
        let hour = placed.ended_at.div_euclid(HOUR_MS);
        *self.hours.entry((hour, placed.dimensions)).or_default() += measures;
        if let Some(session) = placed.session {
            let key = (session, hour, placed.dimensions.model);
            *self.sessions.entry(key).or_default() += measures;
        }
    }

    /// Writes what was added.
    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut days: HashMap<(i64, Dimensions), Measures> = HashMap::default();
        let mut statement = connection.prepare_cached(&HOURS)?;
        for ((hour, dimensions), measures) in self.hours {
            upsert(&mut statement, &place(hour, dimensions), &measures)?;
            *days.entry((hour.div_euclid(DAY_HOURS), dimensions)).or_default() += &measures;
        }
        let mut statement = connection.prepare_cached(&DAYS)?;
        for ((day, dimensions), measures) in days {
            upsert(&mut statement, &place(day, dimensions), &measures)?;
        }
        let mut statement = connection.prepare_cached(&SESSIONS)?;
        for ((session, hour, model), measures) in self.sessions {
            upsert(&mut statement, &[session, hour, model], &measures)?;
        }
        Ok(())
    }
}

static HOURS: LazyLock<String> =
    LazyLock::new(|| upsert_sql("usage_hour", "hour, provider, model, project, client, branch"));
static DAYS: LazyLock<String> =
    LazyLock::new(|| upsert_sql("usage_day", "day, provider, model, project, client, branch"));
static SESSIONS: LazyLock<String> =
    LazyLock::new(|| upsert_sql("usage_session", "session, hour, model"));

const fn place(bucket: i64, dimensions: Dimensions) -> [i64; 6] {
    let Dimensions { provider, model, project, client, branch } = dimensions;
    [bucket, provider, model, project, client, branch]
}

fn upsert_sql(table: &str, key: &str) -> String {
    let columns = SUMS.join(", ");
    let places = vec!["?"; key.split(',').count() + SUMS.len() + 2].join(",");
    let sums: Vec<String> =
        SUMS.iter().map(|sum| format!("{sum} = {sum} + excluded.{sum}")).collect();
    format!(
        "INSERT INTO {table} ({key}, {columns}, duration, ttft) VALUES ({places}) \
         ON CONFLICT ({key}) DO UPDATE SET {}, \
         duration = histogram_add(duration, excluded.duration), \
         ttft = histogram_add(ttft, excluded.ttft)",
        sums.join(", ")
    )
}

fn upsert(statement: &mut Statement<'_>, key: &[i64], measures: &Measures) -> rusqlite::Result<()> {
    let mut at = 0;
    for number in key.iter().copied().chain(measures.sums()) {
        at += 1;
        statement.raw_bind_parameter(at, number)?;
    }
    statement.raw_bind_parameter(at + 1, measures.duration.encode())?;
    statement.raw_bind_parameter(at + 2, measures.ttft.encode())?;
    statement.raw_execute().map(drop)
}
